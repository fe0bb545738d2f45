"""Unite the rows of each question: the passages that answer it, and those judged not to.

A question is what data/questions.py says, and `dataset`, its split or "".
"""

import hashlib
from collections.abc import Iterable

from tunerank.core.errors import InputError
from tunerank.data.preparation.cleaning import drop
from tunerank.data.readers.cells import place, row_name

STRENGTH = {"test": 0, "valid": 1, "train": 2}
"""A question is in the strongest split that its rows name, so that no test question is trained
on."""

FIELDS = ("id", "question", "relevant", "negatives", "qa_type", "row")
"""What data/prepared has of a question."""


def unite(
    rows: list[dict], passages: dict[str, dict], name: str
) -> tuple[list[dict], list[dict], list[str]]:
    """Return the questions, the rows to drop, and lines for people.

    Questions stand where their first right row in the strongest split is. Of rows that repeat a
    question and a passage the first one of the strongest split is kept, and the highest grade.

    Args:
        rows: cleaned rows with `passage`, in the order of the table.
        passages: id -> passage, none of them equal in text and title.
        name: of the questions' table, in messages.

    Raises:
        InputError: two questions have one id.
    """
    groups: dict[str, list[dict]] = {}
    for row in sorted(rows, key=lambda row: STRENGTH.get(row["dataset"], 3)):
        groups.setdefault(row["question"], []).append(row)
    found, dropped, elsewhere, renamed = [], [], 0, []
    for group in groups.values():
        right, repeated = _without_repeats([row for row in group if row["grade"]])
        dropped += repeated
        if not right:
            dropped += [drop(row, "no relevant passage") for row in group]
            continue
        negatives, repeated = _negatives(group, right, passages)
        dropped += repeated
        head, split = next(iter(right.values())), group[0]["dataset"]
        splits = [row["dataset"] for row in (*right.values(), *negatives.values())]
        elsewhere += sum(other not in ("", split) for other in splits)
        ids = list(dict.fromkeys(row["query_id"] for row in group if row["query_id"]))
        if ids[1:]:
            renamed.append(ids)
        question = {
            "id": ids[0] if ids else text_id(head["question"]),
            "question": head["question"],
            "relevant": _relevant(right.values()),
            "negatives": list(negatives),
            "qa_type": head["qa_type"],
            "row": head["row"],
            "dataset": split,
        }
        found.append((head["position"], question))
    questions = [question for _, question in sorted(found, key=lambda pair: pair[0])]
    check_ids(questions, name)
    return questions, dropped, _notes(elsewhere, renamed, name)


def _notes(elsewhere: int, renamed: list[list[str]], name: str) -> list[str]:
    notes = []
    if elsewhere:
        notes.append(
            f"{name}: rows that name another split than their question has: {elsewhere}; a "
            "question in several splits is in test before valid before train"
        )
    if renamed:
        notes.append(
            f"{name}: questions with several query_ids: {len(renamed)}; the first is kept, for "
            f"example {renamed[0][0]!r}, not {renamed[0][1]!r}"
        )
    return notes


def _without_repeats(rows: list[dict]) -> tuple[dict[str, dict], list[dict]]:
    """Return passage -> its first row, with the highest grade of all, and the others to drop."""
    kept: dict[str, dict] = {}
    dropped = []
    for row in rows:
        first = kept.setdefault(row["passage"], row)
        if first is not row:
            first["grade"] = max(first["grade"], row["grade"])
            dropped.append(drop(row, "repeated question", first))
    return kept, dropped


def _negatives(
    group: list[dict], right: dict[str, dict], passages: dict[str, dict]
) -> tuple[dict[str, dict], list[dict]]:
    """Return passage -> row of the wrong passages of a question, and the rows to drop.

    Args:
        group: the rows of the question.
        right: its relevant passages -> rows.
    """
    texts = {passages[key]["text"]: row for key, row in right.items()}
    wrong = (row for row in group if not row["grade"])
    left, dropped = [], []
    for row in sorted(wrong, key=lambda row: row["position"]):
        if other := right.get(row["passage"]):
            dropped.append(drop(row, "label 0, but another row calls the passage right", other))
        elif other := texts.get(passages[row["passage"]]["text"]):
            dropped.append(drop(row, "label 0, but a right passage has the same text", other))
        else:
            left.append(row)
    kept, repeated = _without_repeats(left)
    return kept, dropped + repeated


def _relevant(rows: Iterable[dict]) -> list[dict]:
    """Return the relevant passages of a question, higher grades first, then in table order."""
    fields = ("passage", "grade", "context", "answer")
    order = sorted(rows, key=lambda row: (-row["grade"], row["position"]))
    return [{name: row[name] for name in fields} for row in order]


def text_id(question: str) -> str:
    """Return the id of a question that the data gives none.

    >>> text_id("问题甲")
    'q6f420b074f6f'
    """
    return "q" + hashlib.sha256(question.encode()).hexdigest()[:12]


def check_ids(questions: list[dict], name: str) -> None:
    """Check that each question has an id of its own.

    Raises:
        InputError: two have the same.
    """
    rows: dict[str, int | str] = {}
    for question in questions:
        key, row = question["id"], question["row"]
        if key in rows:
            raise InputError(
                f"{place(name, row)}: the question's id {key!r} is that of "
                f"{row_name(name, rows[key])} too; give each question a query_id of its own, or "
                "rename that column if it does not name questions"
            )
        rows[key] = row
