"""Questions with their relevant passages, as `prepare` writes them.

A question is {id, question, relevant, negatives, qa_type, row}. `relevant` lists what answers it,
{passage, grade, context, answer}: the id of a passage, its grade from 1, and the evidence sentence
and the answer there, both empty where the data has none. Higher grades come first, then the order
of the table. `negatives` are ids of passages that somebody has judged not to answer it.
"""

from collections.abc import Iterable
from pathlib import Path

from tunerank.core.files import read_jsonl


def read_questions(path: str | Path) -> list[dict]:
    """Read the questions of one split."""
    return list(read_jsonl(path, ("id", "question", "relevant")))


def grades(question: dict) -> dict[str, int]:
    """Return relevant passage -> grade.

    >>> grades({"relevant": [{"passage": "b", "grade": 2}, {"passage": "a", "grade": 1}]})
    {'b': 2, 'a': 1}
    """
    return {item["passage"]: item["grade"] for item in question["relevant"]}


def relevant_passages(questions: Iterable[dict]) -> set[str]:
    """Return every passage that answers one of the questions."""
    return {item["passage"] for question in questions for item in question["relevant"]}


def several(questions: Iterable[dict]) -> bool:
    """Return whether a question has more than one relevant passage, or a grade above 1."""
    return any(
        len(question["relevant"]) > 1 or question["relevant"][0]["grade"] > 1
        for question in questions
    )
