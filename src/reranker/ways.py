"""The ways in which a reranker is shown its candidates: as `retrieve.shown` says, and whole, as every other tool shows them.

Where `retrieve.shown` is 0 the two are one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from reranker.files import read_by_id, write_jsonl
from reranker.params import Retrieve

RANKED, WHOLE = "scores", "whole"
"""The fields of a row of scores: what the pipeline ranks by, and the scores of whole passages with their titles."""

SAID = {RANKED: "ranked as retrieve.shown says", WHOLE: "on whole passages"}

Scores = Mapping[str, Mapping[str, float]]
"""question id -> passage -> raw logit, of its best view or of the whole."""


def ways(params: Retrieve) -> tuple[str, ...]:
    return (RANKED, WHOLE) if params.shown else (RANKED,)


def write_scores(path: Path, found: Mapping[str, Scores]) -> None:
    """A line for each question, {id, scores} and, where views are shown, whole."""
    write_jsonl(path, ({"id": key} | {way: scores[key] for way, scores in found.items()} for key in found.get(RANKED, ())))


def read_scores(path: Path, keys: Iterable[str], params: Retrieve) -> dict[str, Scores]:
    """way -> scores of the questions `keys`.

    Raises:
        InputError: a question has none.
    """
    keys = list(keys)
    return {way: read_by_id(path, way, keys) for way in ways(params)}
