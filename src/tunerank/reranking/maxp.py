"""Rank a passage by the best of its views: MaxP.

Dai and Callan, "Deeper Text Understanding for IR with Contextual Neural Language Modeling",
SIGIR 2019, arXiv:1905.09217.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from tunerank.core.errors import InputError
from tunerank.data.passages import Passage
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.reranking.ways import WHOLE, Scores

DIGITS = 4
"""Decimals of a logit. Another CPU or number of threads changes the sixth in fp32."""


def view_pairs(
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    corpus: Mapping[str, Passage],
    choose: Callable[[Sequence[dict]], Iterable[str]],
    whole: bool = False,
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (question id, passage id) and (query, text) of every view that a reranker reads.

    Args:
        candidates: question id -> candidates, as `Retrieval.candidates` gives them.
        choose: returns the passages to read among a question's candidates.
        whole: read all of a passage as one view.

    Raises:
        InputError: a candidate is not in the corpus.
    """
    keys, pairs = [], []
    for question in questions:
        found = candidates[question["id"]]
        views = {candidate["passage"]: candidate["views"] for candidate in found}
        for passage in choose(found):
            if passage not in corpus:
                raise InputError(
                    f"candidate {passage!r} of {question['id']!r} is not in corpus.jsonl; "
                    "run dvc repro retrieve --force"
                )
            spans = [()] if whole else views[passage]
            keys += [(question["id"], passage)] * len(spans)
            pairs += [(question["question"], corpus[passage].view(*span)) for span in spans]
    return keys, pairs


def max_over_views(
    keys: Sequence[tuple[str, str]], scores: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Return question id -> passage -> its best view's score, rounded, in the order of `keys`.

    >>> max_over_views([("q", "a"), ("q", "b"), ("q", "a")], [-1.0, 0.5, 2.00004])
    {'q': {'a': 2.0, 'b': 0.5}}
    """
    best: dict[str, dict[str, float]] = {}
    for (question, passage), score in zip(keys, scores, strict=True):
        found = best.setdefault(question, {})
        found[passage] = max(found.get(passage, -math.inf), round(float(score), DIGITS))
    return best


class ScoringTask:
    """The texts that a reranker reads of the candidates of some questions, each way.

    Args:
        questions, candidates, corpus: as `view_pairs`.
        choose: way -> a function as `view_pairs` takes it.

    Raises:
        InputError: a candidate is not in the corpus.
    """

    def __init__(
        self,
        questions: Sequence[dict],
        candidates: Mapping[str, Sequence[dict]],
        corpus: Mapping[str, Passage],
        choose: Mapping[str, Callable[[Sequence[dict]], Iterable[str]]],
    ):
        self.questions = [question["id"] for question in questions]
        self.pairs = {
            way: view_pairs(questions, candidates, corpus, choose[way], way == WHOLE)
            for way in choose
        }

    def texts(self) -> list[str]:
        """Return the distinct queries and views."""
        return list(
            dict.fromkeys(
                text for _, pairs in self.pairs.values() for pair in pairs for text in pair
            )
        )

    def score(self, model: CrossEncoder, what: str) -> dict[str, Scores]:
        """Return way -> scores of every question, passages in the order of `choose`.

        A question without candidates has an empty dict. `what` names the pairs in the progress bar.
        """
        pairs = [pair for _, pairs in self.pairs.values() for pair in pairs]
        scores = iter(model.score(pairs, what))
        return {
            way: {question: {} for question in self.questions}
            | max_over_views(keys, list(islice(scores, len(keys))))
            for way, (keys, _) in self.pairs.items()
        }
