"""Turn raw tables into clean questions, passages and splits, and report every dropped row."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.passages import SPLITS
from tunerank.data.preparation.cleaning import (
    assign_corpus_passages,
    assign_own_passages,
    check_columns,
    check_mapping,
    clean_rows,
    corpus_passages,
    drop_repeated_questions,
    merge_same_texts,
    rename_columns,
)
from tunerank.params.data import Prepare


@dataclass(frozen=True)
class Prepared:
    """Passages, questions by split, dropped rows and merged passages, in the order of the tables.

    passages: {id, text, ...}
    questions: split -> {id, question, answer, context, passage, qa_type, row}
    dropped: {row, question, reason}
    merged: id of a removed passage -> id of the passage with the same text
    """

    passages: list[dict]
    questions: dict[str, list[dict]]
    dropped: list[dict]
    merged: dict[str, str] = field(default_factory=dict)


def prepare(
    qa: pd.DataFrame,
    corpus: pd.DataFrame | None,
    params: Prepare,
    name: str = "qa",
    corpus_name: str = "corpus",
) -> Prepared:
    """Clean the tables, check them and split the questions.

    Args:
        qa: the questions' table, from `read_table`.
        corpus: the passages' table (`uuid`, `doc` and other columns), or None to take the passages
            from the questions' rows.
        name: of the questions' table, in messages; `corpus_name` is that of the passages' table.

    Raises:
        InputError: rows contradict each other, or a column is missing; the message says which.
    """
    check_mapping(qa, corpus, params.columns, name)
    qa = rename_columns(qa, params.columns)
    check_columns(qa, corpus is not None, name)
    rows, dropped = clean_rows(qa, params)
    if corpus is None:
        passages = assign_own_passages(rows, name)
    else:
        passages = corpus_passages(corpus, params, corpus_name)
        assign_corpus_passages(rows, passages, name)
    merged = merge_same_texts(rows, passages)
    rows, repeated = drop_repeated_questions(rows)
    assign_splits(rows, params, name)
    questions = {
        split: [_question(row) for row in rows if row["dataset"] == split] for split in SPLITS
    }
    for split in ("train", "test"):
        if not questions[split]:
            raise InputError(
                f"{name}: no {split} question is left of {len(qa)} rows; name some in column "
                "'dataset', or leave that column out and set prepare.test_fraction"
            )
    return Prepared(
        passages=[dict(passage, id=key) for key, passage in passages.items()],
        questions=questions,
        dropped=sorted(dropped + repeated, key=lambda drop: drop["row"]),
        merged=merged,
    )


def assign_splits(rows: list[dict], params: Prepare, name: str) -> None:
    """Set row["dataset"]: the table's own split, or else one drawn by passage.

    A draw depends only on prepare.split_seed and the passage's id, or the question: a new passage
    or question does not move any other.

    Raises:
        InputError: a row names an unknown split.
    """
    given = {row["dataset"] for row in rows}
    if given <= {""}:
        for row in rows:
            number = uniform_number(params.split_seed, row["passage"])
            row["dataset"] = "test" if number >= 1 - params.test_fraction else "train"
    else:
        for row in rows:
            if row["dataset"] not in SPLITS:
                raise InputError(
                    f"{name}, row {row['row']}: dataset {row['dataset']!r} is not one of "
                    f"{', '.join(SPLITS)}; correct it, or leave the whole column empty to split "
                    "by passage"
                )
    if "valid" not in given:
        assign_validation(rows, params)


def assign_validation(rows: list[dict], params: Prepare) -> None:
    """Move a part of the training rows to the split `valid`.

    They are drawn by passage, from the passages without test questions. If these have less than
    half of the training questions, too few to choose parameters by, they are drawn by question.
    """
    tested = {row["passage"] for row in rows if row["dataset"] == "test"}
    train = [row for row in rows if row["dataset"] == "train"]
    # A passage with test questions stays in training: its test questions are the `seen` ones.
    untested = [row for row in train if row["passage"] not in tested]
    by_passage = 2 * len(untested) >= len(train)
    for row in untested if by_passage else train:
        key = row["passage"] if by_passage else row["question"]
        if uniform_number(params.split_seed, "v" + key) < params.valid_fraction:
            row["dataset"] = "valid"


def uniform_number(seed: int, key: str) -> float:
    """Return a pseudorandom number in [0, 1) that depends only on the seed and the key."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64


def _question(row: dict) -> dict:
    key = "q" + hashlib.sha256(row["question"].encode()).hexdigest()[:12]
    fields = ("question", "answer", "context", "passage", "qa_type", "row")
    return {"id": key} | {name: row[name] for name in fields}


def summarise(prepared: Prepared) -> dict:
    """Return the counts of metrics/data.json.

    A test question is `seen` if a training question has the same passage.
    """
    trained = {question["passage"] for question in prepared.questions["train"]}
    test = prepared.questions["test"]
    held_out = {
        question["passage"] for split in ("valid", "test") for question in prepared.questions[split]
    } - trained
    return {
        "passages": len(prepared.passages),
        "passages_merged": len(prepared.merged),
        "passages_train": len(trained),
        "passages_held_out": len(held_out),
        "questions": {split: len(prepared.questions[split]) for split in SPLITS},
        "qa_type": {
            split: count(question["qa_type"] or "none" for question in prepared.questions[split])
            for split in SPLITS
        },
        "test_seen": sum(question["passage"] in trained for question in test),
        "test_unseen": sum(question["passage"] not in trained for question in test),
        "dropped": count(drop["reason"].split(" (")[0] for drop in prepared.dropped),
    }


def count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
