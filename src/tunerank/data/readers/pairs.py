"""Recognise tables of questions with texts: FlagEmbedding's and sentence-transformers' columns.

FlagEmbedding has lists of texts (query, pos, neg), sentence-transformers pairs, triplets, pairs
with a label, and lists with labels. Each text becomes a row of its own.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.readers.cells import Unusable, as_text, place
from tunerank.data.readers.forms import QUESTIONS, Columns, Form

ASKED = ("anchor", "query", "question", "sentence1", "sentence_A")
TEXTS = ("sentence2", "sentence_B", "passage", "document", "response", "text", "answer")
LISTS = ("docs", "documents", "passages")
NEGATIVE = re.compile(r"negatives?(_?\d+)?")
OWN = {"doc", "uuid", "context", "answer"}
"""Our columns: a table with `question` and one of these is in no other form."""
KEPT = ("dataset", "qa_type", "query_id")
EVIDENCE = ("answer", "context")
"""Our columns that say something about the right passage only."""
PRINTED = re.compile(r"""\[\s*['"].*\]""", re.DOTALL)
"""A list as Python prints it, which csv files have that were written without thinking of lists."""


@dataclass(frozen=True)
class Layout:
    """The columns of a form.

    texts: column -> the label of its texts, or the column that has their labels
    """

    name: str
    question: str
    texts: dict[str, str]
    labels: str = ""
    lists: bool = False


def recognise_pairs(table: pd.DataFrame, path: Path) -> Form | None:
    """Return the table's texts as rows with labels, 1 for right ones; None for other tables.

    Raises:
        InputError: a cell has something else than texts, or texts and labels differ in number.
    """
    layout = _layout(list(table))
    if layout is None:
        return None
    sources = {layout.question, *layout.texts, layout.labels}
    evidence = [name for name in EVIDENCE if name in table and name not in sources]
    kept = [name for name in KEPT if name in table]
    rows, seen = Columns(QUESTIONS), set()
    several = len(layout.texts) > 1 or layout.lists
    columns = {name: table[name].tolist() for name in (*sources - {""}, *kept, *evidence)}
    for at, number in enumerate(table.index):
        row = {name: column[at] for name, column in columns.items()}
        where = place(path, number)
        for name in (layout.question, *kept, *evidence):
            _single(row[name], where, name)
        cells = {name: row[name] for name in kept} | {"question": row[layout.question]}
        right = {name: row[name] for name in evidence}
        added = False
        for text, label in _labelled(layout, row, where):
            if several and (cells["question"], text, label) in seen:
                added = True
            elif text:
                added = True
                seen.add((cells["question"], text, label))
                rows.add(number, doc=text, label=label, **cells, **(right if label != "0" else {}))
        if not added:  # Cleaning lists it among the rows that are dropped.
            rows.add(number, label="1", **cells)
    unused = [name for name in table if name not in {*sources, *kept, *evidence}]
    return Form(layout.name, rows.frame(), unused=unused)


def _layout(columns: list[str]) -> Layout | None:
    question = next((name for name in ASKED if name in columns), None)
    if question is None or question == "question" and OWN & {*columns}:
        return None
    if question == "query" and "pos" in columns:
        texts = {"pos": "1"} | ({"neg": "0"} if "neg" in columns else {})
        return Layout("FlagEmbedding's lists", question, texts, lists=True)
    ours = "sentence-transformers'"
    many = next((name for name in LISTS if name in columns), None)
    labels = next((name for name in ("labels", "scores") if name in columns), None)
    if many and labels:
        return Layout(f"{ours} labelled lists", question, {many: labels}, labels, lists=True)
    if "positive" in columns:
        wrong = [name for name in columns if NEGATIVE.fullmatch(name)]
        name = f"{ours} triplets" if wrong else f"{ours} pairs"
        return Layout(name, question, {"positive": "1"} | dict.fromkeys(wrong, "0"))
    text = next((name for name in TEXTS if name in columns), None)
    label = next((name for name in ("label", "score") if name in columns), None)
    if text and label:
        return Layout(f"{ours} labelled pairs", question, {text: label}, label)
    return Layout(f"{ours} pairs", question, {text: "1"}) if text else None


def _labelled(layout: Layout, row: dict[str, str], where: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of a row with their labels."""
    for column, label in layout.texts.items():
        cell = row[column]
        if not layout.lists and not isinstance(cell, Unusable):
            yield cell, row[layout.labels] if layout.labels else label
            continue
        texts = _texts(cell, where, column)
        if not layout.labels:
            yield from ((text, label) for text in texts)
            continue
        labels = _values(row[layout.labels], where, layout.labels)
        if len(labels) != len(texts):
            raise InputError(
                f"{where}: {len(texts)} texts in {column!r}, but {len(labels)} in "
                f"{layout.labels!r}; give each text a label"
            )
        yield from zip(texts, map(as_text, labels))


def _texts(cell: str, where: str, column: str) -> list[str]:
    values = _values(cell, where, column)
    for value in values:
        if not isinstance(value, str | bytes):
            raise InputError(
                f"{where}, column {column!r}: a list with {json.dumps(value, default=str)[:40]}; "
                "a list of texts is needed"
            )
    return [as_text(value) for value in values]


def _values(cell: str, where: str, column: str) -> list:
    """Return the values of a cell with a list, or with one text; csv has lists as JSON."""
    if isinstance(cell, Unusable):
        if not isinstance(cell.value, list):
            raise InputError(f"{where}, column {column!r}: {cell.reason}")
        return cell.value
    if cell.startswith("["):
        with suppress(ValueError, RecursionError):
            if isinstance(values := json.loads(cell), list):
                return values
        if PRINTED.fullmatch(cell):
            raise InputError(
                f"{where}, column {column!r}: a list as Python prints it; save the table as jsonl"
            )
    return [cell] if cell else []


def _single(cell: str, where: str, column: str) -> None:
    if isinstance(cell, Unusable):
        raise InputError(f"{where}, column {column!r}: {cell.reason}")
