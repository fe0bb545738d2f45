"""Turn raw tables into clean questions, passages and splits, and report every dropped row."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.passages import SPLITS
from tunerank.data.preparation.cleaning import clean_rows
from tunerank.data.preparation.columns import check_columns, check_mapping, map_columns
from tunerank.data.preparation.passages import (
    assign_corpus_passages,
    assign_own_passages,
    corpus_passages,
    merge_same_texts,
)
from tunerank.data.preparation.relevance import FIELDS, unite
from tunerank.data.preparation.splits import assign_splits, check_names
from tunerank.data.questions import relevant_passages, several
from tunerank.params.data import Prepare


@dataclass(frozen=True)
class Prepared:
    """Passages, questions by split, dropped rows and merged passages, in the order of the tables.

    passages: {id, text, ..., also}; `also` are the ids of merged passages, if any
    questions: split -> questions as in data/questions.py
    dropped: {row, question, reason}
    merged: id of a removed passage -> id of the passage with the same text
    notes: lines for people, such as the tables' columns that are not used
    """

    passages: list[dict]
    questions: dict[str, list[dict]]
    dropped: list[dict]
    merged: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def prepare(
    qa: pd.DataFrame,
    corpus: pd.DataFrame | None,
    params: Prepare,
    name: str = "qa",
    corpus_name: str = "corpus",
    split_files: bool = False,
) -> Prepared:
    """Clean the tables, check them, unite the rows of each question and split the questions.

    Args:
        qa: the questions' table, from `read_raw`; its index has row numbers, or `file:row` where
            several files make one table.
        corpus: the passages' table (`uuid`, `doc` and other columns), or None to take the passages
            from the questions' rows.
        name: of the questions' table, in messages; `corpus_name` is that of the passages' table.
        split_files: whether files are named after their splits, as advice for an empty split says.

    Raises:
        InputError: rows contradict each other, or a column is missing; the message says which.
    """
    tables = {"qa": qa} if corpus is None else {"qa": qa, "corpus": corpus}
    names = {"qa": name, "corpus": corpus_name}
    check_mapping(tables, params, names)
    check_columns(tables, params, names)
    frames, notes = {}, []
    for table in tables:
        frames[table], columns = map_columns(table, tables, params, names[table])
        if columns:
            notes.append(f"{names[table]}: columns not used: {', '.join(columns)}")
    rows, dropped = clean_rows(frames["qa"], params, name)
    if corpus is None:
        passages, rows, without = assign_own_passages(rows, name)
    else:
        passages = corpus_passages(frames["corpus"], params, corpus_name)
        rows, without = assign_corpus_passages(rows, passages, name)
    merged = merge_same_texts(rows, passages)
    check_names(rows, name)
    found, repeated, said = unite(rows, passages, name)
    dropped = sorted([*dropped, *without, *repeated], key=lambda drop: drop["position"])
    named = {question["question"]: question["dataset"] for question in found}
    notes += said + assign_splits(found, params, name)
    questions = {
        split: [{key: q[key] for key in FIELDS} for q in found if q["dataset"] == split]
        for split in SPLITS
    }
    for split in ("train", "test"):
        if not questions[split]:
            if not found:
                remedy = _remedy_of_dropped(dropped)
            elif any(named.values()):
                lost = [row for row in rows if row["dataset"] == split and row["question"] in named]
                remedy = _remedy_of_named(split, len(lost), split_files)
            else:
                remedy = _remedy_of_drawn(found, params)
            raise InputError(f"{name}: no {split} question is left of {len(qa)} rows; {remedy}")
    return Prepared(
        passages=[dict(passage, id=key) for key, passage in passages.items()],
        questions=questions,
        dropped=[{key: drop[key] for key in ("row", "question", "reason")} for drop in dropped],
        merged=merged,
        notes=notes,
    )


def _remedy_of_dropped(dropped: list[dict]) -> str:
    reasons = count(drop["reason"].split(" (")[0] for drop in dropped)
    if "no relevant passage" in reasons:
        remedy = "a right passage has the label 1 or more, a wrong one 0; correct column 'label'"
    else:
        remedy = "correct the table or the parameters of prepare"
    listed = ", ".join(f"{reason} ({rows})" for reason, rows in reasons.items())
    return f"all were dropped: {listed}; {remedy}"


def _remedy_of_named(split: str, lost: int, split_files: bool) -> str:
    """Return what to do about a split that the data does not name, or only in `lost` rows."""
    if lost:
        return (
            f"{lost} name it, but their questions are in another split too, and test goes before "
            "valid before train; name one split for each question"
        )
    if split_files:
        return (
            f"add a file of {split} questions, or leave one file alone and name it train: "
            "prepare.test_fraction then draws test questions from it"
        )
    return "name some in column 'dataset', or leave that column out and set prepare.test_fraction"


def _remedy_of_drawn(questions: list[dict], params: Prepare) -> str:
    if not params.test_fraction:
        return "set prepare.test_fraction above 0, or name some in column 'dataset'"
    if len(relevant_passages(questions)) > 1:
        return "there is one question: add others"
    return "all are about one passage: add questions about another one"


def summarise(prepared: Prepared) -> dict:
    """Return the counts of metrics/data.json.

    A test question is `seen` if one of its relevant passages is relevant to a training question.
    `relevant` and `negatives` count passages of questions, if these have more than one right one.
    """
    questions = prepared.questions
    trained = relevant_passages(questions["train"])
    held_out = relevant_passages(questions["valid"] + questions["test"]) - trained
    seen = sum(bool(trained & relevant_passages([question])) for question in questions["test"])
    judged = {
        key: {split: sum(len(question[key]) for question in questions[split]) for split in SPLITS}
        for key in ("relevant", "negatives")
    }
    everything = [question for split in SPLITS for question in questions[split]]
    if not several(everything) and not any(judged["negatives"].values()):
        judged = {}
    return {
        "passages": len(prepared.passages),
        "passages_merged": len(prepared.merged),
        "passages_train": len(trained),
        "passages_held_out": len(held_out),
        "questions": {split: len(questions[split]) for split in SPLITS},
        **judged,
        "qa_type": {
            split: count(question["qa_type"] or "none" for question in questions[split])
            for split in SPLITS
        },
        "test_seen": seen,
        "test_unseen": len(questions["test"]) - seen,
        "dropped": count(drop["reason"].split(" (")[0] for drop in prepared.dropped),
    }


def count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
