"""Score (query, passage) pairs with a cross-encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunerank.models.batching import batch_threads, length_batches, map_batches
from tunerank.models.checkpoint import load_classifier
from tunerank.models.device import DTYPES, best_device, choose_precision, set_attention
from tunerank.models.first_token import first_token_only
from tunerank.models.readable import most_tokens, refuse_longer


class CrossEncoder:
    """A sequence classifier with one label: its logit is the relevance score of a pair.

    Raises:
        InputError: `folder` is not a reranker, or cannot read pairs of `max_length` tokens.
    """

    def __init__(
        self,
        folder: str | Path,
        max_length: int = 512,
        precision: str = "auto",
        batch_tokens: int = 2048,
    ):
        dtype = DTYPES[choose_precision(precision)]
        model, tokenizer = load_classifier(folder, dtype)
        self._set_model(model.to(best_device()), tokenizer, max_length, precision, batch_tokens)

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        precision: str,
        batch_tokens: int,
    ):
        """Wrap a model in memory; autocast multiplies float32 weights in `precision`."""
        encoder = cls.__new__(cls)
        encoder._set_model(model, tokenizer, max_length, precision, batch_tokens)
        return encoder

    def _set_model(self, model, tokenizer, max_length, precision, batch_tokens):
        name = model.name_or_path or "the model"
        refuse_longer(name, most_tokens(model.config), {"score.max_length": max_length})
        self.model, self.tokenizer = first_token_only(model.eval()), tokenizer
        self.max_length, self.batch_tokens = max_length, batch_tokens
        self.device, self.precision = model.device, choose_precision(precision)
        set_attention(model, self.precision, training=False)

    def score(self, pairs: Sequence[tuple[str, str]], what: str = "pairs") -> np.ndarray:
        """Return the logits of pairs, float32 of shape (len(pairs),), in the order given.

        Each distinct pair is scored once, in batches of at most `batch_tokens`, longest first.

        Args:
            what: what the pairs are, for the progress bar.
        """
        distinct = list(dict.fromkeys(pairs))
        ids = pair_ids(self.tokenizer, distinct, self.max_length)
        threads = batch_threads(self.device)
        batches = length_batches([len(one) for one in ids], self.batch_tokens, threads)
        scores: dict[tuple[str, str], float] = {}
        with tqdm(total=len(distinct), desc=f"score {what}", unit="pair", smoothing=0.05) as bar:
            results = map_batches(
                lambda batch: self.logits([ids[i] for i in batch]), batches, threads
            )
            for batch, logits in zip(batches, results):
                scores.update(zip((distinct[i] for i in batch), logits))
                bar.update(len(batch))
        return np.array([scores[pair] for pair in pairs], np.float32)

    @torch.inference_mode()
    def logits(self, ids: list[list[int]]) -> list[float]:
        """Return the logits of one batch of token ids."""
        inputs = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        dtype = DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=self.model.dtype != dtype):
            return self.model(**inputs).logits.view(-1).float().cpu().tolist()


def pair_ids(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], max_length: int
) -> list[list[int]]:
    """Return the token ids of <s> query </s></s> passage </s>, at most `max_length` a pair.

    A query is cut to 3/4 of `max_length`, as in FlagReranker, and then the passage to the rest.
    """
    limit = max_length * 3 // 4
    shortened = {}
    for query in {query for query, _ in pairs if len(query) > limit // 4}:
        encoded = tokenizer(query, add_special_tokens=False, return_offsets_mapping=True)
        if len(encoded["input_ids"]) > limit:
            shortened[query] = query[: encoded["offset_mapping"][limit - 1][1]]
    ids = []
    for start in range(0, len(pairs), 10_000):
        queries, passages = zip(*pairs[start : start + 10_000])
        queries = [shortened.get(query, query) for query in queries]
        ids += tokenizer(queries, list(passages), truncation="only_second", max_length=max_length)[
            "input_ids"
        ]
    return ids
