"""Make the cells of a table texts, name its rows, and check its size and its header."""

import json
from collections import Counter
from collections.abc import Iterable
from os.path import splitext
from pathlib import Path

import pandas as pd

from tunerank.core.errors import InputError

CELLS = 2**26
"""Limit on the cells of a table, some gigabytes in memory. A small parquet file can exceed it."""
ROWS = {"", ".csv", ".xlsx", ".parquet", ".json", ".arrow"}
"""Suffixes of files with rows; people count the lines of others, such as jsonl and TREC's files."""


class Unusable(str):
    """The text of a cell with a list, an object or an inexact number; `refuse_nested` refuses it.

    A column that nobody uses may have such cells. `value` is the list or the object, for the forms
    of data that have them.
    """

    def __new__(cls, text: str, reason: str, value: list | dict | None = None) -> "Unusable":
        cell = super().__new__(cls, text)
        cell.reason, cell.value = reason, value
        return cell


def as_cell(value: object) -> str:
    """Return the text of a value; a list of one text is that text."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | bytes):
        value = value[0]
    if not isinstance(value, list | dict):
        return as_text(value)
    text = json.dumps(value, ensure_ascii=False, default=as_text)
    if isinstance(value, dict):
        return Unusable(text, "an object; a text or null is needed", value)
    values = "1 value" if len(value) == 1 else f"{len(value)} values"
    needed = "one row for each value" if len(value) > 1 else "a text or null"
    return Unusable(text, f"a list of {values}; {needed} is needed", value)


def as_text(value: object) -> str:
    """Return a single value as a stripped text, "" for none."""
    if isinstance(value, bytes):
        return value.decode().strip()
    return "" if value is None or pd.isna(value) else str(value).strip()


def place(name: str | Path, row: int | str) -> str:
    """Return where a row is, for messages: a row of a file, or `file:row` of a folder.

    >>> place("raw/qa.csv", 7), place("raw/beir", "qrels/train.tsv:7")
    ('raw/qa.csv, row 7', 'raw/beir/qrels/train.tsv, line 7')
    """
    return f"{name}{'/' if isinstance(row, str) else ', '}{row_name(name, row)}"


def row_name(name: str | Path, row: int | str) -> str:
    """Return the part of `place` that tells a row from the others of a file or folder.

    >>> row_name("raw/qa.csv", 7), row_name("raw/beir", "qrels/train.tsv:7")
    ('row 7', 'qrels/train.tsv, line 7')
    """
    file, _, number = str(row).rpartition(":")
    kind = "row" if splitext(file or name)[1].lower() in ROWS else "line"
    return f"{file}, {kind} {number}" if file else f"{kind} {number}"


def column_name(name: str) -> str:
    """Return a column's name without blanks and marks around it."""
    return name.strip(" \t\r\n\ufeff\u200b")


def json_object(pairs: list[tuple[str, object]]) -> dict:
    """Return a JSON object's (name, value) pairs as a dict and refuse repeated names."""
    row = {column_name(name): value for name, value in pairs}
    if len(row) < len(pairs):
        counts = Counter(column_name(name) for name, _ in pairs)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise InputError(f"{repeated!r} appears twice; rename one")
    return row


def check_size(path: Path, rows: int, columns: int) -> None:
    """Check that a table has no more than CELLS cells."""
    if rows * columns > CELLS:
        raise InputError(
            f"{path}: {rows} rows of {columns} columns, more than {CELLS} cells; leave out "
            "columns, or cut the table"
        )


def check_header(path: Path, where: str, header: Iterable[str]) -> None:
    """Check that every column has a name of its own."""
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        reason = "two columns without a name; name them, or delete their cells"
        if repeated[0]:
            reason = f"column {repeated[0]!r} appears twice; rename one"
        raise InputError(f"{path}, {where}: {reason}")
