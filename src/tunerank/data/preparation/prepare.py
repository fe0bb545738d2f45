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
    map_columns,
)
from tunerank.params.data import Prepare

REPEATED = "repeated question with another passage"
"""Reason to drop a row, until a question can have several right passages."""


@dataclass(frozen=True)
class Prepared:
    """Passages, questions by split, dropped rows and merged passages, in the order of the tables.

    passages: {id, text, ...}
    questions: split -> {id, question, answer, context, passage, qa_type, row}
    dropped: {row, question, reason}
    merged: id of a removed passage -> id of the passage with the same text
    unused: the tables' columns that are not used, a line for each table
    """

    passages: list[dict]
    questions: dict[str, list[dict]]
    dropped: list[dict]
    merged: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


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
    tables = {"qa": qa} if corpus is None else {"qa": qa, "corpus": corpus}
    names = {"qa": name, "corpus": corpus_name}
    check_mapping(tables, params, names)
    check_columns(tables, params, names)
    frames, unused = {}, []
    for table in tables:
        frames[table], columns = map_columns(table, tables, params, names[table])
        if columns:
            unused.append(f"{names[table]}: columns not used: {', '.join(columns)}")
    rows, dropped = clean_rows(frames["qa"], params, name)
    if corpus is None:
        passages = assign_own_passages(rows, name)
    else:
        passages = corpus_passages(frames["corpus"], params, corpus_name)
        assign_corpus_passages(rows, passages, name)
    merged = merge_same_texts(rows, passages)
    rows, repeated = drop_repeated_questions(rows)
    dropped = sorted(dropped + repeated, key=lambda drop: drop["row"])
    named = any(row["dataset"] for row in rows)
    assign_splits(rows, params, name)
    questions = {
        split: [_question(row) for row in rows if row["dataset"] == split] for split in SPLITS
    }
    for split in ("train", "test"):
        if not questions[split]:
            remedy = _remedy(dropped if not rows else [], named, params)
            raise InputError(f"{name}: no {split} question is left of {len(qa)} rows; {remedy}")
    return Prepared(
        passages=[dict(passage, id=key) for key, passage in passages.items()],
        questions=questions,
        dropped=dropped,
        merged=merged,
        unused=unused,
    )


def _remedy(dropped: list[dict], named: bool, params: Prepare) -> str:
    """Return what to do about an empty split: all rows were dropped, or splits were `named`."""
    if dropped:
        reasons = count(drop["reason"].split(" (")[0] for drop in dropped)
        listed = ", ".join(f"{reason} ({rows})" for reason, rows in reasons.items())
        return f"all were dropped: {listed}; correct the table or the parameters of prepare"
    if named:
        share = "set prepare.test_fraction"
        return f"name some in column 'dataset', or leave that column out and {share}"
    if params.test_fraction:
        return "all are about one passage: add questions about another one"
    return "set prepare.test_fraction above 0, or name some in column 'dataset'"


def merge_same_texts(rows: list[dict], passages: dict[str, dict]) -> dict[str, str]:
    """Merge passages with the same text and title; return removed id -> remaining id.

    Otherwise each would be a false negative of the other's questions, and one could be trained on
    and the other tested. The smallest id remains, so that the order of the tables does not matter.
    """
    remaining, new_ids = {}, {}
    for key in sorted(passages):
        identity = passages[key]["text"], passages[key].get("title", "")
        new_ids[key] = remaining.setdefault(identity, key)
    for row in rows:
        row["passage"] = new_ids[row["passage"]]
    merged = {key: new_ids[key] for key in passages if new_ids[key] != key}
    for key in merged:
        del passages[key]
    return merged


def drop_repeated_questions(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Keep one row of each question; return the kept rows, and the others as dropped rows.

    A test row is kept before a valid row and a valid row before a train row, so that no test
    question is trained on. Among rows of one split the first is kept.
    """
    precedence = {"test": 0, "valid": 1}
    kept: dict[str, dict] = {}
    for row in sorted(rows, key=lambda row: (precedence.get(row["dataset"], 2), row["row"])):
        kept.setdefault(row["question"], row)
    dropped = []
    for row in rows:
        other = kept[row["question"]]
        if other is not row:
            reason = "repeated question" if row["passage"] == other["passage"] else REPEATED
            reason += f" (row {other['row']})"
            dropped.append({"row": row["row"], "question": row["question"], "reason": reason})
    return [row for row in rows if kept[row["question"]] is row], dropped


def assign_splits(rows: list[dict], params: Prepare, name: str) -> None:
    """Set row["dataset"]: the table's own split, or else one drawn by passage.

    A draw depends only on prepare.split_seed and the passage's id, or the question: a new passage
    or question does not move any other, except in tables so small that a split would be empty.

    Raises:
        InputError: a row names an unknown split.
    """
    given = {row["dataset"] for row in rows}
    if given <= {""}:
        keys, least = {row["passage"] for row in rows}, 1 - params.test_fraction
        margins = {key: uniform_number(params.split_seed, key) - least for key in keys}
        tested = draw(margins, len(keys) - 1 if params.test_fraction else 0)
        for row in rows:
            row["dataset"] = "test" if row["passage"] in tested else "train"
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
    field = "passage" if by_passage else "question"
    drawable = untested if by_passage else train
    keys, share = {row[field] for row in drawable}, params.valid_fraction
    margins = {key: share - uniform_number(params.split_seed, "v" + key) for key in keys}
    drawn = draw(margins, len(keys) - (len(drawable) == len(train)) if share else 0)
    for row in drawable:
        if row[field] in drawn:
            row["dataset"] = "valid"


def draw(margins: dict[str, float], most: int) -> set[str]:
    """Return the keys with a margin above 0, or the one nearest to it; no more than `most`."""
    order = sorted(margins, key=lambda key: (margins[key], key), reverse=True)
    above = sum(margin > 0 for margin in margins.values())
    return set(order[: min(max(above, 1), most)])


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
