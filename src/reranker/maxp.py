"""Rank a passage by the best of its views: MaxP.

Dai and Callan, "Deeper Text Understanding for IR with Contextual Neural Language Modeling", SIGIR 2019, arXiv:1905.09217.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from reranker.errors import InputError
from reranker.passages import Passage
from reranker.scoring import CrossEncoder
from reranker.ways import WHOLE, Scores

DIGITS = 4
"""Decimals of a logit. Sums in another order, as another CPU or number of threads takes them, move the sixth in fp32."""


def view_pairs(
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    corpus: Mapping[str, Passage],
    chosen: Callable[[Sequence[dict]], Iterable[str]],
    whole: bool = False,
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The views of each question's chosen candidates, as a reranker reads them.

    Args:
        candidates: question id -> as `Retrieval.candidates` gives them; chosen: of one question's candidates, the passages;
        whole: whether a passage has one view, all of it.

    Returns:
        (question id, passage id) and (query, text) of every view.

    Raises:
        InputError: a candidate is no passage of this corpus.
    """
    keys, pairs = [], []
    for question in questions:
        views = {candidate["passage"]: candidate["views"] for candidate in candidates[question["id"]]}
        for passage in chosen(candidates[question["id"]]):
            if passage not in corpus:
                raise InputError(
                    f"candidate {passage!r} of {question['id']!r} is not in corpus.jsonl; run dvc repro retrieve --force"
                )
            spans = [()] if whole else views[passage]
            keys += [(question["id"], passage)] * len(spans)
            pairs += [(question["question"], corpus[passage].view(*span)) for span in spans]
    return keys, pairs


def max_over_views(keys: Sequence[tuple[str, str]], scores: Sequence[float]) -> dict[str, dict[str, float]]:
    """question id -> passage -> the score of its best view at `DIGITS` decimals, in the order of `keys`.

    >>> max_over_views([("q", "a"), ("q", "b"), ("q", "a")], [-1.0, 0.5, 2.00004])
    {'q': {'a': 2.0, 'b': 0.5}}
    """
    best: dict[str, dict[str, float]] = {}
    for (question, passage), score in zip(keys, scores, strict=True):
        found = best.setdefault(question, {})
        found[passage] = max(found.get(passage, -math.inf), round(float(score), DIGITS))
    return best


class Asked:
    """Questions with what a reranker reads of their candidates, each way.

    Args:
        questions, candidates, corpus: as `view_pairs`; chosen: way -> of one question's candidates, the passages.
    """

    def __init__(
        self,
        questions: Sequence[dict],
        candidates: Mapping[str, Sequence[dict]],
        corpus: Mapping[str, Passage],
        chosen: Mapping[str, Callable[[Sequence[dict]], Iterable[str]]],
    ):
        self.keys = [question["id"] for question in questions]
        self.pairs = {way: view_pairs(questions, candidates, corpus, chosen[way], way == WHOLE) for way in chosen}

    def score(self, model: CrossEncoder, what: str) -> dict[str, Scores]:
        """way -> scores of every question, in the order of `chosen`; none of a question without candidates."""
        scores = iter(model.score([pair for _, pairs in self.pairs.values() for pair in pairs], what))
        return {
            way: {key: {} for key in self.keys} | max_over_views(keys, list(islice(scores, len(keys))))
            for way, (keys, _) in self.pairs.items()
        }
