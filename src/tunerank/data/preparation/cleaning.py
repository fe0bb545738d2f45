"""Clean the rows of the questions' table, and say which are to be dropped.

A row is a dict of question, answer, context, doc, uuid, qa_type, dataset, query_id, grade, table,
row and position. `grade` says how right the passage is for the question: 0 is wrong. `table` is the
table's name in messages. `row` is the label of its index: a row number, or `file:row` if several
files make the table. `position` counts from 0, in the order of the table.
"""

import re
import unicodedata

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.passages import SPLITS
from tunerank.data.preparation.columns import TEXTS
from tunerank.data.readers.cells import place, row_name
from tunerank.params.data import Prepare

COLUMNS = ("question", *TEXTS, "uuid", "qa_type", "dataset", "query_id")

INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad"
    "\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
"""Control characters, soft hyphens, zero-width spaces and direction marks. Two questions that
differ only in these look the same, but one could be trained on and the other tested. Joiners are
kept: emoji and Persian need them."""

SPLIT_NAMES = {"training": "train", "dev": "valid", "val": "valid", "validation": "valid"}


def clean_text(text: str, unicode: str) -> str:
    return unicodedata.normalize(unicode, INVISIBLE.sub("", text)).strip()


def clean_rows(qa: pd.DataFrame, params: Prepare, name: str) -> tuple[list[dict], list[dict]]:
    """Return the cleaned rows, and the rows to drop, from `drop`.

    Raises:
        InputError: a row has an unknown label.
    """
    rows, dropped = [], []
    qa = qa.map(clean_text, unicode=params.unicode)
    labelled = "label" in qa and (qa["label"] != "").any()
    for position, (label, cells) in enumerate(zip(qa.index, qa.to_dict("records"))):
        row = {column: cells.get(column, "") for column in COLUMNS}
        label = label if isinstance(label, str) else int(label)
        row |= {"table": name, "row": label, "position": position}
        split = row["dataset"].casefold()
        if (split := SPLIT_NAMES.get(split, split)) in SPLITS:
            row["dataset"] = split
        if reason := reason_to_drop(row, params):
            dropped.append(drop(row, reason))
        else:
            row["grade"] = grade(cells["label"], place(name, label)) if labelled else 1
            rows.append(row)
    return rows, dropped


def drop(row: dict, reason: str, kept: dict | None = None) -> dict:
    """Return a row to drop as {row, question, reason, position}; the reason names the `kept` row.

    Reasons are counted without what follows " (".
    """
    if kept:
        reason += f" ({row_name(kept['table'], kept['row'])})"
    return {name: row[name] for name in ("row", "question", "position")} | {"reason": reason}


def reason_to_drop(row: dict, params: Prepare) -> str | None:
    if not row["question"]:
        return "empty question"
    if params.qa_types and row["qa_type"] not in params.qa_types:
        return f"qa_type {row['qa_type']!r} not wanted"
    if not any(row[column] for column in (*TEXTS, "uuid")):
        return "no answer, context or doc"
    return None


def grade(label: str, where: str) -> int:
    """Return a label as a grade: 0 is a wrong passage, 1 a right one, more a better one.

    Raises:
        InputError: it is no number of 0 and more, or of more than nine digits.
    """
    words = {"false": "0", "no": "0", "true": "1", "yes": "1"}
    number = re.fullmatch(r"0*([0-9]{1,9})(\.0+)?", words.get(label.casefold(), label))
    if not number:
        raise InputError(
            f"{where}: label {label!r} is neither 0 nor 1 nor a higher grade; correct it, or "
            "rename the column if it does not say whether the passage is right"
        )
    return int(number[1])
