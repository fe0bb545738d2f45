"""Score (query, passage) pairs with a cross-encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reranker.batching import batch_threads, length_batches, map_batches
from reranker.device import DTYPES, choose_precision, set_attention
from reranker.first_token import first_token_only
from reranker.safe_checkpoint import refuse_unsafe


class CrossEncoder:
    """A sequence classifier with one label, read as a relevance score (a raw logit)."""

    def __init__(self, folder: str | Path, max_length: int = 512, precision: str = "auto", batch_tokens: int = 2048):
        dtype = DTYPES[choose_precision(precision)]
        refuse_unsafe(Path(folder), str(folder))
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._hold(model, AutoTokenizer.from_pretrained(folder), max_length, precision, batch_tokens)

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, precision: str, batch_tokens: int):
        """A model in memory, where it is; float32 weights are multiplied in `precision` by autocast."""
        encoder = cls.__new__(cls)
        encoder._hold(model, tokenizer, max_length, precision, batch_tokens)
        return encoder

    def _hold(self, model, tokenizer, max_length, precision, batch_tokens):
        self.model, self.tokenizer = first_token_only(model.eval()), tokenizer
        self.max_length, self.batch_tokens = max_length, batch_tokens
        self.device, self.precision = model.device, choose_precision(precision)
        set_attention(model, self.precision, training=False)

    def score(self, pairs: Sequence[tuple[str, str]], what: str = "pairs") -> np.ndarray:
        """Score each distinct pair once, longest first, in batches under a budget of tokens.

        Returns:
            float32 of shape (len(pairs),): logits, in the order given.
        """
        distinct = list(dict.fromkeys(pairs))
        ids = self._token_ids(distinct)
        threads = batch_threads(self.device)
        batches = length_batches([len(one) for one in ids], self.batch_tokens, threads)
        scores: dict[tuple[str, str], float] = {}
        with tqdm(total=len(distinct), desc=f"score {what}", unit="pair", smoothing=0.05) as bar:
            logits = map_batches(lambda batch: self._logits([ids[i] for i in batch]), batches, threads)
            for batch, found in zip(batches, logits):
                scores.update(zip((distinct[i] for i in batch), found))
                bar.update(len(batch))
        return np.array([scores[pair] for pair in pairs], np.float32)

    def _token_ids(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Ids of <s> query </s></s> passage </s>; a query has at most 3/4 of max_length (as in FlagReranker), the passage
        gives way to the rest."""
        limit = self.max_length * 3 // 4
        shortened = {}
        for query in {query for query, _ in pairs if len(query) > limit // 4}:
            encoded = self.tokenizer(query, add_special_tokens=False, return_offsets_mapping=True)
            if len(encoded["input_ids"]) > limit:
                shortened[query] = query[: encoded["offset_mapping"][limit - 1][1]]
        ids = []
        for start in range(0, len(pairs), 10_000):
            queries, passages = zip(*pairs[start : start + 10_000])
            queries = [shortened.get(query, query) for query in queries]
            ids += self.tokenizer(queries, list(passages), truncation="only_second", max_length=self.max_length)["input_ids"]
        return ids

    @torch.inference_mode()
    def _logits(self, ids: list[list[int]]) -> list[float]:
        inputs = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        dtype = DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=self.model.dtype != dtype):
            return self.model(**inputs).logits.view(-1).float().cpu().tolist()
