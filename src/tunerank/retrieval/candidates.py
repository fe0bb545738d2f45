"""First-stage retrieval: exact BM25 and dense search, fused by weighted reciprocal rank fusion.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009).
Hofstaetter et al., "Intra-Document Cascading" (SIGIR 2021): the expensive ranker reads only the
window that a cheap one prefers.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from tunerank.data.passages import Passage, select_views, windows
from tunerank.data.questions import grades
from tunerank.params.data import Retrieve
from tunerank.retrieval.fusion import fuse
from tunerank.retrieval.retrievers import BM25, DenseEncoder

QUESTION_BLOCK = 2**15
"""Questions in memory at a time."""

COSINE_BLOCK = 2**26
"""Cosines in memory at a time, at most: a quarter of a gigabyte."""

DIGITS = 4
"""Decimals of a score. Another CPU or number of threads changes the sixth or seventh in fp32."""


class Index:
    """Vectors of passages and of their windows where there is an encoder, and views by them.

    Args:
        passages: id -> passage.

    Attributes:
        ids: of the passages in their order, which is that of all rows; position: id -> row.
        offsets: (passages + 1,), the first row of each passage's windows.
        passage_vectors, window_vectors: float32 of shape (rows, hidden size), with an encoder.
    """

    def __init__(
        self, passages: Mapping[str, Passage], encoder: DenseEncoder | None, params: Retrieve
    ):
        self.params = params
        self.ids = list(passages)
        self.position = {key: index for index, key in enumerate(self.ids)}
        self.windows = [
            windows(passage.text, params.window, params.stride) for passage in passages.values()
        ]
        self.lengths = [len(passage.text) for passage in passages.values()]
        self.offsets = np.cumsum([0] + [len(spans) for spans in self.windows])
        if not encoder:
            return
        texts = [passage.view() for passage in passages.values()]
        prefix = encoder.params.passage_prefix
        self.passage_vectors = self.window_vectors = encoder.encode(texts, prefix, "passages")
        if self.offsets[-1] > len(texts):
            window_texts = [
                passage.view(*span)
                for passage, spans in zip(passages.values(), self.windows)
                for span in spans
            ]
            self.window_vectors = encoder.encode(window_texts, prefix, "windows")

    def rows(self, index: int) -> slice:
        """Return where a passage's windows are among those of all passages."""
        return slice(self.offsets[index], self.offsets[index + 1])

    def views(self, index: int, place: int, cosines: np.ndarray | None) -> dict:
        """Return a candidate's `nearest` and `views`, see `Search.candidates`.

        Args:
            index: the passage's row; place: of the candidate in its question's list, from 0.
            cosines: of the query with the passage's windows. Without them no window is known to be
                the nearest.
        """
        length, spans = self.lengths[index], self.windows[index]
        if cosines is None:
            return {"nearest": (0, length), "views": [(0, length)]}
        count = self.params.views if place < self.params.views_depth else 1
        views = select_views(spans, cosines, self.params.shown, length, count)
        return {"nearest": spans[int(cosines.argmax())], "views": views}


class Search:
    """Give each question its candidates, a block of questions at a time."""

    encoder: DenseEncoder | None

    def candidates(
        self, questions: Iterable[dict], what: str, total: int | None = None
    ) -> Iterable[tuple[dict, list[dict]]]:
        """Yield each question with its candidates, best first, and then its `judged` passages.

        Args:
            what: names the questions in the progress bar.
            total: the number of questions, for the progress bar; they are read as needed.

        Yields:
            the question, and a list of {passage, nearest, views, ...}: the window nearest to the
            query, and the spans that the reranker reads, the nearest first. Each of the first
            `views_depth` candidates has up to `views` spans, the others have one.
        """
        questions = iter(questions)
        with tqdm(total=total, desc=f"retrieve {what}", unit="question") as bar:
            while block := list(itertools.islice(questions, QUESTION_BLOCK)):
                for question, near in zip(block, self._near(block, what)):
                    yield question, self._candidates(question, *near)
                    bar.update()

    def _vectors(self, questions: Sequence[dict], what: str) -> np.ndarray:
        """Return float32 of shape (questions, hidden size)."""
        return self.encoder.encode(
            [question["question"] for question in questions],
            self.encoder.params.query_prefix,
            f"{what} questions",
        )

    def _near(self, questions: Sequence[dict], what: str) -> Iterable[tuple]:
        """Yield what `_candidates` needs to know of a question's vector."""
        raise NotImplementedError

    def _candidates(self, question: dict, *near) -> list[dict]:
        raise NotImplementedError


class Retrieval(Search):
    """Search one corpus by BM25, and by dense vectors where there is an encoder (`Retrieve.dense`).

    The candidates are the dense top `depth` and the BM25 list, in fused order. Beside the keys of
    `Search.candidates` they have dense, bm25, dense_score and bm25_score: the rank in each list,
    None where it is not in the list, and the scores, 0 from a retriever that is not run. A dense
    score is the mean of two cosines with the query: the whole passage's and its nearest window's.
    Equal scores are ordered by passage id.

    Args:
        passages: id -> passage.
    """

    def __init__(
        self, passages: Mapping[str, Passage], encoder: DenseEncoder | None, params: Retrieve
    ):
        self.params, self.encoder = params, encoder
        passages = dict(sorted(passages.items()))
        texts = [passage.view() for passage in passages.values()]
        self.bm25 = BM25(texts, params.bm25_k1, params.bm25_b)
        self.index = Index(passages, encoder, params)

    def _near(
        self, questions: Sequence[dict], what: str
    ) -> Iterable[tuple[np.ndarray | None, np.ndarray | None]]:
        """Yield a question's dense score of every passage and cosine with every window, or None."""
        if not self.encoder:
            yield from itertools.repeat((None, None), len(questions))
            return
        vectors, index = self._vectors(questions, what), self.index
        size = max(1, min(256, COSINE_BLOCK // len(index.window_vectors)))
        for start in range(0, len(questions), size):
            block = vectors[start : start + size]
            cosines = np.round(block @ index.window_vectors.T, DIGITS)
            nearest = np.maximum.reduceat(cosines, index.offsets[:-1], axis=1)
            scores = np.round((block @ index.passage_vectors.T + nearest) / 2, DIGITS)
            yield from zip(scores, cosines)

    def _candidates(
        self, question: dict, scores: np.ndarray | None, cosines: np.ndarray | None
    ) -> list[dict]:
        dense, dense_rank = [], None
        if scores is not None:
            order = np.argsort(-scores, kind="stable")
            dense_rank = np.empty(len(scores), np.int64)
            dense_rank[order] = np.arange(1, len(scores) + 1)
            dense = order[: self.params.depth].tolist()
        sparse_scores = self.bm25.scores(question["question"])
        sparse = self.bm25.top(sparse_scores, self.params.bm25_depth)
        sparse_rank = {index: rank for rank, index in enumerate(sparse, 1)}

        rankings = [(dense, self.params.dense_weight), (sparse, self.params.bm25_weight)]
        fused = dict.fromkeys(index for index, _ in fuse(rankings, self.params.rrf_k))
        fused |= dict.fromkeys(self.index.position[passage] for passage in judged(question))
        return [
            {
                "passage": self.index.ids[index],
                "dense": int(dense_rank[index]) if scores is not None else None,
                "bm25": sparse_rank.get(index),
                "dense_score": round(float(scores[index]), DIGITS) if scores is not None else 0.0,
                "bm25_score": round(float(sparse_scores[index]), DIGITS),
                **self.index.views(
                    index, place, cosines if cosines is None else cosines[self.index.rows(index)]
                ),
            }
            for place, index in enumerate(fused)
        ]


def judged(question: dict) -> list[str]:
    """Return a question's relevant passages, and then those that are judged not to answer it.

    All are among its candidates: training pairs the first with it, and the margins of `samples`
    compare with their dense scores.
    """
    return [*grades(question), *question.get("negatives", ())]
