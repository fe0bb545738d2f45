"""Rank a passage by the best of its views: MaxP.

Dai and Callan, "Deeper Text Understanding for IR with Contextual Neural Language Modeling", SIGIR 2019, arXiv:1905.09217.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from reranker.errors import InputError
from reranker.passages import Passage

DIGITS = 4
"""Decimals of a logit. Sums in another order, as another CPU or number of threads takes them, move the sixth in fp32."""


def view_pairs(
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    corpus: Mapping[str, Passage],
    chosen: Callable[[Sequence[dict]], Iterable[str]],
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The views of each question's chosen candidates, as a reranker reads them.

    Args:
        candidates: question id -> as `Retrieval.candidates` gives them; chosen: of one question's candidates, the passages.

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
            keys += [(question["id"], passage)] * len(views[passage])
            pairs += [(question["question"], corpus[passage].view(*view)) for view in views[passage]]
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
