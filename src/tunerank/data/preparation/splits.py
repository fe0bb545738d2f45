"""Draw the splits that a table does not name: by passage, or by question where that cannot be.

A draw depends only on prepare.split_seed and what is drawn: a new passage or question does not move
any other, except in tables so small that a split would be empty. Passages that are relevant to one
question cannot be parted. Such groups are drawn as a whole, by the smallest id of their passages: a
group that grows may move.
"""

import hashlib
from collections import Counter

from tunerank.core.errors import InputError
from tunerank.data.passages import SPLITS
from tunerank.data.questions import relevant_passages
from tunerank.data.readers.cells import place
from tunerank.params.data import Prepare


def check_names(rows: list[dict], name: str) -> None:
    """Check the splits that the rows name.

    Raises:
        InputError: one is unknown.
    """
    for row in rows:
        if row["dataset"] not in ("", *SPLITS):
            raise _unknown(row, name)


def _unknown(row: dict, name: str) -> InputError:
    return InputError(
        f"{place(name, row['row'])}: dataset {row['dataset']!r} is not one of "
        f"{', '.join(SPLITS)}; correct it, or leave the whole column empty to split by passage"
    )


def assign_splits(questions: list[dict], params: Prepare, name: str) -> list[str]:
    """Set question["dataset"]: the table's own split, or else a drawn one; return lines for people.

    Raises:
        InputError: some questions have a split and one has none.
    """
    given, notes = {question["dataset"] for question in questions}, []
    if given <= {""}:
        keys, most = linked(questions), largest(questions)
        if most:
            keys = [question["question"] for question in questions]
            notes.append(
                f"{name}: passages that answer common questions link {most} of {len(questions)} "
                "questions, so that test questions are drawn by question, not by passage: a test "
                "question's passages may be trained on, which is reported as seen"
            )
        least = 1 - params.test_fraction
        margins = {key: uniform_number(params.split_seed, key) - least for key in keys}
        tested = draw(margins, len(margins) - 1 if params.test_fraction else 0)
        for question, key in zip(questions, keys):
            question["dataset"] = "test" if key in tested else "train"
    elif "" in given:
        raise _unknown(next(question for question in questions if not question["dataset"]), name)
    if "valid" not in given:
        assign_validation(questions, params)
    return notes


def assign_validation(questions: list[dict], params: Prepare) -> None:
    """Move a part of the training questions to the split `valid`.

    They are drawn by passage, from the passages without test questions, and without training
    questions that share a passage with one. If these have less than half of the training questions,
    too few to choose parameters by, or hang together, they are drawn by question.
    """
    tested = relevant_passages(q for q in questions if q["dataset"] == "test")
    train = [question for question in questions if question["dataset"] == "train"]
    keys = linked(train)
    # A passage with test questions stays in training: its test questions are the `seen` ones.
    seen = {key for key, question in zip(keys, train) if tested & relevant_passages([question])}
    drawable = [(key, question) for key, question in zip(keys, train) if key not in seen]
    untested = [question for _, question in drawable]
    if 2 * len(untested) < len(train) or largest(untested):
        drawable = [(question["question"], question) for question in train]
    share, names = params.valid_fraction, {key for key, _ in drawable}
    margins = {key: share - uniform_number(params.split_seed, "v" + key) for key in names}
    drawn = draw(margins, len(names) - (len(drawable) == len(train)) if share else 0)
    for key, question in drawable:
        if key in drawn:
            question["dataset"] = "valid"


def linked(questions: list[dict]) -> list[str]:
    """Return for each question the smallest id of all passages that it is linked to.

    Passages that are relevant to one question are linked, and so are those linked to them.

    >>> answered = [["c", "b"], ["d"], ["b", "a"], ["a"]]
    >>> linked([{"relevant": [{"passage": key} for key in keys]} for keys in answered])
    ['a', 'd', 'a', 'a']
    """
    parents: dict[str, str] = {}

    def smallest(key: str) -> str:
        while (parent := parents.setdefault(key, key)) != key:
            parents[key] = parents[parent]
            key = parent
        return key

    for question in questions:
        first, *others = [item["passage"] for item in question["relevant"]]
        for other in others:
            one, two = sorted((smallest(first), smallest(other)))
            parents[two] = one
    return [smallest(question["relevant"][0]["passage"]) for question in questions]


def largest(questions: list[dict]) -> int:
    """Return the questions of the largest linked group if they are more than half, else 0.

    One passage alone is no group: all its questions are in one split, however many they are.
    """
    keys = linked(questions)
    several = {key for key, question in zip(keys, questions) if len(question["relevant"]) > 1}
    most = max((count for key, count in Counter(keys).items() if key in several), default=0)
    return most if 2 * most > len(questions) else 0


def draw(margins: dict[str, float], most: int) -> set[str]:
    """Return the keys with a margin above 0, or the one nearest to it; no more than `most`."""
    order = sorted(margins, key=lambda key: (margins[key], key), reverse=True)
    above = sum(margin > 0 for margin in margins.values())
    return set(order[: min(max(above, 1), most)])


def uniform_number(seed: int, key: str) -> float:
    """Return a pseudorandom number in [0, 1) that depends only on the seed and the key."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64
