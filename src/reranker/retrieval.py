"""First-stage retrieval: BM25 and dense, each exact, fused by weighted reciprocal rank fusion.

Sources: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009). Showing an expensive ranker
only the window that a cheap one prefers: Hofstaetter et al., "Intra-Document Cascading" (SIGIR 2021).
"""

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import bm25s
import jieba
import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from reranker.batching import batch_threads, length_batches, map_batches
from reranker.device import DTYPES, choose_precision, set_attention
from reranker.fusion import fuse
from reranker.params import Retrieve, Retriever
from reranker.passages import Passage, nearest_views, windows
from reranker.safe_checkpoint import refuse_unsafe

jieba.setLogLevel(logging.WARNING)

READ = 2**15
"""Questions that are in memory at a time."""
BLOCK = 2**26
"""Cosines that are in memory at a time, at most: a quarter of a gigabyte."""
DIGITS = 4
"""Decimals of a cosine. Sums in another order, as another CPU or number of threads takes them, move the sixth or seventh in
fp32; what they leave equal is ordered by id."""


class Words(jieba.Tokenizer):
    """jieba with its dictionary as it is installed. By itself it takes `jieba.cache` from the temporary folder, where any user of
    the machine, or another version of it, may have left other words, and reads it by marshal."""

    def initialize(self, dictionary=None):
        self.FREQ, self.total = self.gen_pfdict(self.get_dict_file())
        self.initialized = True


WORDS = Words()


class BM25:
    """BM25 (Lucene's variant) over jieba's tokens."""

    def __init__(self, texts: Sequence[str], k1: float, b: float):
        self.index, self.size = bm25s.BM25(k1=k1, b=b), len(texts)
        vocabulary: dict[str, int] = {}  # a word of a million texts is one object in memory
        # A text of punctuation alone still needs one token to be a row of the index.
        ids = [
            [vocabulary.setdefault(token, len(vocabulary)) for token in self.tokens(text) or [""]]
            for text in tqdm(texts, desc="index passages", unit="passage")
        ]
        self.index.index((ids, vocabulary), show_progress=False)

    @staticmethod
    def tokens(text: str) -> list[str]:
        return [token for token in WORDS.lcut(text.lower()) if any(c.isalnum() for c in token)]

    def scores(self, query: str) -> np.ndarray:
        """float32 of shape (number of texts,): 0 for a text that shares no token with the query."""
        tokens = self.tokens(query)
        return self.index.get_scores(tokens) if tokens else np.zeros(self.size, np.float32)

    @staticmethod
    def top(scores: np.ndarray, depth: int) -> list[int]:
        """Indices of at most `depth` texts with a score above 0, best first, ties in their own order."""
        found = np.flatnonzero(scores > 0)
        if len(found) > depth:  # not all of a large corpus is sorted
            found = found[scores[found] >= np.partition(scores[found], -depth)[-depth]]
        return found[np.argsort(-scores[found], kind="stable")][:depth].tolist()


class Encoder:
    """A dense encoder: unit vectors from a transformer's token vectors, by mean or first-token pooling."""

    def __init__(self, folder: str, params: Retriever, batch_tokens: int = 2048):
        self.params, self.batch_tokens = params, batch_tokens
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        refuse_unsafe(Path(folder), folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        options = {"add_pooling_layer": False} if params.pooling == "mean" else {}
        precision = choose_precision(params.precision)
        self.model = AutoModel.from_pretrained(folder, dtype=DTYPES[precision], **options).eval().to(self.device)
        set_attention(self.model, precision, training=False)

    def encode(self, texts: Sequence[str], prefix: str, what: str) -> np.ndarray:
        """Returns float32 of shape (len(texts), hidden size), each row of length 1, in the order given."""
        if not texts:  # a split without questions, for which the tokenizer has no answer
            return np.zeros((0, self.model.config.hidden_size), np.float32)
        ids = self.tokenizer([prefix + text for text in texts], truncation=True, max_length=self.params.max_length)["input_ids"]
        threads = batch_threads(self.model.device)
        batches = length_batches([len(one) for one in ids], self.batch_tokens, threads)
        vectors = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        with tqdm(total=len(texts), desc=f"encode {what}", unit="text") as bar:
            found = map_batches(lambda batch: self._vectors([ids[i] for i in batch]), batches, threads)
            for batch, vector in zip(batches, found):
                vectors[batch] = vector
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


class Retrieval:
    """Both first stages over one corpus, passage id -> passage; BM25 alone where there is no encoder (`Retrieve.dense`).

    Equal scores are ordered by passage id.
    """

    def __init__(self, passages: Mapping[str, Passage], encoder: Encoder | None, params: Retrieve):
        self.params, self.encoder = params, encoder
        passages = dict(sorted(passages.items()))
        self.ids = list(passages)
        self.position = {key: i for i, key in enumerate(self.ids)}
        self.spans = [windows(passage.text, params.window, params.stride) for passage in passages.values()]
        self.lengths = [len(passage.text) for passage in passages.values()]
        texts = [passage.view() for passage in passages.values()]
        self.offsets = np.cumsum([0] + [len(spans) for spans in self.spans])
        self.bm25 = BM25(texts, params.bm25_k1, params.bm25_b)
        if not encoder:
            return
        prefix = encoder.params.passage_prefix
        self.whole = encoder.encode(texts, prefix, "passages")
        self.parts = self.whole
        if self.offsets[-1] > len(texts):
            pieces = [passage.view(*span) for passage, spans in zip(passages.values(), self.spans) for span in spans]
            self.parts = encoder.encode(pieces, prefix, "windows")

    def candidates(self, questions: Iterable[dict], what: str, total: int | None = None) -> Iterable[tuple[dict, list[dict]]]:
        """For each question its dense top `depth`, its BM25 list and its own passage, in fused order.

        A passage's dense score is the mean of two cosines with the query: the whole passage's and its nearest window's.

        Args:
            total: how many questions there are, for the estimate of what is left; they are read as they are needed.

        Yields:
            each question with its list of {passage, dense, bm25, dense_score, bm25_score, nearest, views}: the passage's rank in
            either list (null where it is in neither's reach), its scores (0 of a retriever that is not run), the window nearest
            to the query (all of it where there are none), and the spans that the reranker is shown, the nearest first: up to
            `views` of the list's first `views_depth` passages, one of the others.
        """
        questions = iter(questions)
        with tqdm(total=total, desc=f"retrieve {what}", unit="question") as bar:
            while read := list(itertools.islice(questions, READ)):
                for question, dense in zip(read, self._nearness(read, what)):
                    yield question, self._candidates(question, *dense)
                    bar.update()

    def _nearness(self, questions: Sequence[dict], what: str) -> Iterable[tuple[np.ndarray | None, np.ndarray | None]]:
        """Of each question, the dense score of every passage and the cosine with every window; None without an encoder."""
        if not self.encoder:
            yield from itertools.repeat((None, None), len(questions))
            return
        vectors = self.encoder.encode([q["question"] for q in questions], self.encoder.params.query_prefix, f"{what} questions")
        block = max(1, min(256, BLOCK // len(self.parts)))
        for start in range(0, len(questions), block):
            near = np.round(vectors[start : start + block] @ self.parts.T, DIGITS)
            best = np.maximum.reduceat(near, self.offsets[:-1], axis=1)
            yield from zip(np.round((vectors[start : start + block] @ self.whole.T + best) / 2, DIGITS), near)

    def _candidates(self, question: dict, scores: np.ndarray | None, near: np.ndarray | None) -> list[dict]:
        order, dense_rank = [], None
        if scores is not None:
            order = np.argsort(-scores, kind="stable")
            dense_rank = np.empty(len(scores), np.int64)
            dense_rank[order] = np.arange(1, len(scores) + 1)
            order = order[: self.params.depth].tolist()
        sparse_scores = self.bm25.scores(question["question"])
        sparse = self.bm25.top(sparse_scores, self.params.bm25_depth)
        sparse_rank = {index: rank for rank, index in enumerate(sparse, 1)}

        fused = fuse([(order, self.params.dense_weight), (sparse, self.params.bm25_weight)], self.params.rrf_k)
        listed = [index for index, _ in fused]
        gold = self.position[question["passage"]]
        if gold not in listed:
            listed.append(gold)  # its dense score is what margins compare with
        return [
            {
                "passage": self.ids[index],
                "dense": int(dense_rank[index]) if scores is not None else None,
                "bm25": sparse_rank.get(index),
                "dense_score": round(float(scores[index]), DIGITS) if scores is not None else 0.0,
                "bm25_score": round(float(sparse_scores[index]), DIGITS),
                **self._spans(index, place, near),
            }
            for place, index in enumerate(listed)
        ]

    def _spans(self, index: int, place: int, near: np.ndarray | None) -> dict:
        if near is None:  # nothing says which part is the nearest
            whole = (0, self.lengths[index])
            return {"nearest": whole, "views": [whole]}
        count = self.params.views if place < self.params.views_depth else 1
        windows_near = near[self.offsets[index] : self.offsets[index + 1]]
        views = nearest_views(self.spans[index], windows_near, self.params.shown, self.lengths[index], count)
        return {"nearest": self.spans[index][int(windows_near.argmax())], "views": views}
