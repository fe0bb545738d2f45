"""The two ways in which a reranker reads a passage: by views (`retrieve.shown`), or whole.

Other tools rank whole passages. Where `retrieve.shown` is 0 the two ways are the same.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tunerank.core.files import read_by_id, write_jsonl
from tunerank.params.data import Retrieve

RANKED, WHOLE = "scores", "whole"
"""The ways by name, as in a row of scores: what the pipeline ranks by, and whole passages."""

SAID = {RANKED: "ranked as retrieve.shown says", WHOLE: "on whole passages"}

Scores = Mapping[str, Mapping[str, float]]
"""question id -> passage -> raw logit, of the best view or of the whole passage."""


def ways(params: Retrieve) -> tuple[str, ...]:
    """Return the names of the ways that these parameters rank by."""
    return (RANKED, WHOLE) if params.shown else (RANKED,)


def measure_name(measure: str, way: str) -> str:
    """Return a measure's name in metrics/train.json and metrics/valid.csv.

    >>> measure_name("MRR@10", RANKED), measure_name("MRR@10", WHOLE)
    ('MRR@10', 'whole MRR@10')
    """
    return measure if way == RANKED else f"{way} {measure}"


def system_name(system: str, way: str) -> str:
    """Return the name of a system, or of its weights, in metrics/eval.json and the tables.

    >>> system_name("reranker", RANKED), system_name("reranker", WHOLE)
    ('reranker', 'reranker_whole')
    """
    return system if way == RANKED else f"{system}_{way}"


def system_title(name: str) -> str:
    """Return the title of a system for people.

    >>> system_title("reranker_whole"), system_title("fused")
    ('reranker, whole', 'fused')
    """
    return name.replace("_", ", ")


def write_scores(path: Path, scores: Mapping[str, Scores]) -> None:
    """Write a line for each question: {id, scores} and, where views are shown, whole."""
    write_jsonl(
        path,
        (
            {"id": question} | {way: found[question] for way, found in scores.items()}
            for question in scores.get(RANKED, ())
        ),
    )


def read_scores(path: Path, questions: Iterable[str], params: Retrieve) -> dict[str, Scores]:
    """Read way -> scores of the questions with these ids.

    Raises:
        InputError: a question has no scores.
    """
    questions = list(questions)
    return {way: read_by_id(path, way, questions) for way in ways(params)}
