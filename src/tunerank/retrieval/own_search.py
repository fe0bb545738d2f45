"""Candidates from the user's own search, in place of BM25 and the dense retriever."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tunerank.data.passages import Passage
from tunerank.params.data import Retrieve
from tunerank.retrieval.candidates import DIGITS, Index, Search, judged
from tunerank.retrieval.retrievers import DenseEncoder


class OwnSearch(Search):
    """Give each question the first `retrieve.depth` passages of a run.

    Beside the keys of `Search.candidates` a candidate has run, run_score and dense_score: its rank
    in the run, None where it is not there, and the scores. A judged passage that the run lacks has
    the lowest score of the question's candidates, 0 without any.

    Where there is an encoder (`Retrieve.dense`), it finds the windows nearest to a question, and
    its scores are for `samples`. It encodes only passages that are candidates or judged; the corpus
    may be far larger.

    Args:
        passages: id -> passage.
        run: question id -> passage -> score, best first, as `read_run` gives it.
        questions: all that will be asked for their candidates.
    """

    def __init__(
        self,
        passages: Mapping[str, Passage],
        encoder: DenseEncoder | None,
        params: Retrieve,
        run: Mapping[str, Mapping[str, float]],
        questions: Iterable[dict],
    ):
        self.params, self.encoder, self.run = params, encoder, run
        used = {passage for question in questions for passage in self._passages(question)}
        self.index = Index({key: passages[key] for key in sorted(used)}, encoder, params)

    def _passages(self, question: dict) -> list[str]:
        """Return the head of the run, and then the judged passages that are not in it."""
        head = itertools.islice(self.run.get(question["id"], ()), self.params.depth)
        return list(dict.fromkeys([*head, *judged(question)]))

    def _near(self, questions: Sequence[dict], what: str) -> Iterable[tuple[np.ndarray | None]]:
        """Yield a question's vector, or None."""
        return zip(self._vectors(questions, what) if self.encoder else [None] * len(questions))

    def _candidates(self, question: dict, vector: np.ndarray | None) -> list[dict]:
        scores = self.run.get(question["id"], {})
        ranks = {passage: rank for rank, passage in enumerate(scores, 1)}
        found = self._passages(question)
        lowest = min((scores[passage] for passage in found if passage in scores), default=0.0)
        candidates = []
        for place, passage in enumerate(found):
            row, cosines, dense = self.index.position[passage], None, 0.0
            if vector is not None:
                near = self.index.window_vectors[self.index.rows(row)] @ vector
                cosines = np.round(near, DIGITS)
                dense = (self.index.passage_vectors[row] @ vector + cosines.max()) / 2
            candidates.append(
                {
                    "passage": passage,
                    "run": ranks.get(passage),
                    "run_score": scores.get(passage, lowest),
                    "dense_score": round(float(dense), DIGITS),
                    **self.index.views(row, place, cosines),
                }
            )
        return candidates
