"""The first-stage retrievers: BM25 over jieba's words, and a bi-encoder."""

import logging
from collections.abc import Sequence
from pathlib import Path

import bm25s
import jieba
import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from tunerank.models.batching import batch_threads, length_batches, map_batches
from tunerank.models.checkpoint import load_whole
from tunerank.models.device import DTYPES, best_device, choose_precision, set_attention
from tunerank.models.readable import most_tokens, refuse_longer
from tunerank.models.safety import refuse_unsafe
from tunerank.params.base import Retriever

jieba.setLogLevel(logging.WARNING)


class Words(jieba.Tokenizer):
    """jieba with its installed dictionary, without its cache.

    jieba itself reads `jieba.cache` from the temporary folder by marshal. Another user of the
    machine, or another version of jieba, may have left other words there.
    """

    def initialize(self, dictionary=None):
        self.FREQ, self.total = self.gen_pfdict(self.get_dict_file())
        self.initialized = True


WORDS = Words()


class BM25:
    """BM25 (Lucene's variant) over the tokens of `texts`; `k1` and `b` as in the literature."""

    def __init__(self, texts: Sequence[str], k1: float, b: float):
        self.index, self.size = bm25s.BM25(k1=k1, b=b), len(texts)
        # Ids and not strings: a word that occurs in a million texts is one object in memory.
        vocabulary: dict[str, int] = {}
        # A text without words still needs one token to be a row of the index.
        ids = [
            [vocabulary.setdefault(token, len(vocabulary)) for token in self.tokens(text) or [""]]
            for text in tqdm(texts, desc="index passages", unit="passage")
        ]
        self.index.index((ids, vocabulary), show_progress=False)

    @staticmethod
    def tokens(text: str) -> list[str]:
        """Return the words that have a letter or a digit, in lower case."""
        return [token for token in WORDS.lcut(text.lower()) if any(c.isalnum() for c in token)]

    def scores(self, query: str) -> np.ndarray:
        """Return float32 (number of texts,): 0 for a text that shares no token with the query."""
        tokens = self.tokens(query)
        return self.index.get_scores(tokens) if tokens else np.zeros(self.size, np.float32)

    @staticmethod
    def top(scores: np.ndarray, depth: int) -> list[int]:
        """Return the indices of at most `depth` texts with a score above 0, best first.

        Equal scores are ordered by index.
        """
        indices = np.flatnonzero(scores > 0)
        if len(indices) > depth:  # do not sort all of a large corpus
            indices = indices[scores[indices] >= np.partition(scores[indices], -depth)[-depth]]
        return indices[np.argsort(-scores[indices], kind="stable")][:depth].tolist()


class DenseEncoder:
    """Encode texts as unit vectors: a transformer's token vectors, pooled by mean or first token.

    Args:
        folder: a checkpoint in Hugging Face's format.
        batch_tokens: tokens in one forward pass, padding included.

    Raises:
        InputError: the checkpoint holds more than data, lacks weights, or cannot read texts of
            `params.max_length` tokens.
    """

    def __init__(self, folder: str, params: Retriever, batch_tokens: int = 2048):
        self.params, self.batch_tokens = params, batch_tokens
        self.device = best_device()
        refuse_unsafe(Path(folder), folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        precision = choose_precision(params.precision)
        model = load_whole(AutoModel, folder, folder, but_head=True, dtype=DTYPES[precision])
        lengths = {"retriever.max_length": params.max_length}
        refuse_longer(folder, most_tokens(model.config), lengths)
        self.model = model.eval().to(self.device)
        set_attention(self.model, precision, training=False)

    def encode(self, texts: Sequence[str], prefix: str, what: str) -> np.ndarray:
        """Return float32 of shape (len(texts), hidden size), each row of length 1.

        Args:
            prefix: stands before each text; what: names the texts in the progress bar.
        """
        if not texts:  # the tokenizer refuses an empty list
            return np.zeros((0, self.model.config.hidden_size), np.float32)
        ids = self.tokenizer(
            [prefix + text for text in texts], truncation=True, max_length=self.params.max_length
        )["input_ids"]
        threads = batch_threads(self.model.device)
        batches = length_batches([len(one) for one in ids], self.batch_tokens, threads)
        vectors = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        with tqdm(total=len(texts), desc=f"encode {what}", unit="text") as bar:
            encoded = map_batches(
                lambda batch: self._vectors([ids[i] for i in batch]), batches, threads
            )
            for batch, rows in zip(batches, encoded):
                vectors[batch] = rows
                bar.update(len(batch))
        return vectors

    @torch.inference_mode()
    def _vectors(self, ids: list[list[int]]) -> np.ndarray:
        inputs = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        hidden = self.model(**inputs).last_hidden_state.float()
        if self.params.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = inputs["attention_mask"][..., None]
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
