"""Split the lines of csv files into cells."""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.data.readers.text import decode

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
DECLARED = re.compile(r'"?sep=([,;\t|])"?(?:\r\n|\r|\n|$)', re.IGNORECASE)
"""The first line that Excel writes to name the separator, and does not show."""


def split_csv(path: Path) -> list[tuple[int, list[str]]]:
    """Return (row number, stripped cells) for the rows of a csv file that have text.

    Raises:
        InputError: it has wrong quotes, or a row has too few or too many cells.
    """
    text = decode(path)
    declared = DECLARED.match(text)
    text = text[declared.end() :] if declared else text
    separator = declared[1] if declared else _separator(text)
    if separator != ",":
        print(f"{path}: read as separated by {SEPARATORS[separator]}s")
    rows: list[tuple[int, list[str]]] = []
    try:
        for number, cells in _records(text, separator):
            if problem := rows and _misfit(cells, rows[0][1], separator):
                raise InputError(f"{path}, row {number}: {problem}")
            rows.append((number, cells))
    except csv.Error as error:
        raise InputError(f"{path}, {error}; check the quotes") from None
    return rows


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    lines, number = io.StringIO(text, newline=""), 0
    records = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for number, record in enumerate(records, 1):
            cells = [cell.strip() for cell in record]
            if any(cells):
                yield number, cells
    except csv.Error as error:
        raise csv.Error(f"row {number + 1}: {error}") from None


def _separator(text: str) -> str:
    """Return the separator that gives the header several cells, and most rows as many as it.

    If two do so equally well, it is the one that comes first in the header.
    """
    headers = {}
    for separator in SEPARATORS:
        with suppress(csv.Error, StopIteration):
            _, header = next(_records(text, separator))
            if len(header) > 1:
                headers[separator] = header
    if len(headers) < 2:
        return next(iter(headers), ",")
    fitting = dict.fromkeys(headers, 0)
    for separator, header in headers.items():
        with suppress(csv.Error):
            for _, cells in _records(text, separator):
                fitting[separator] += not _misfit(cells, header, separator)
    return max(headers, key=lambda separator: (fitting[separator], -len(headers[separator][0])))


def _misfit(cells: list[str], header: list[str], separator: str) -> str:
    """Return what is wrong with a row's number of cells; empty cells at the end do not count."""
    count, named = (max(at for at, cell in enumerate(row, 1) if cell) for row in (cells, header))
    if len(cells) < named:
        count, wanted, remedy = len(cells), named, "fill it up, or quote a cell with a line break"
    elif count > len(header):
        wanted, remedy = len(header), f"quote a cell that holds a {SEPARATORS[separator]}"
    else:
        return ""
    by = "" if separator == "," else f" (separated by {SEPARATORS[separator]}s)"
    return f"{count} cell{'s' * (count > 1)} where the header has {wanted}{by}; {remedy}"
