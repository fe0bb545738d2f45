"""Rows of an xlsx workbook, after a first pass over its XML that keeps out what would take all memory, or for ever.

openpyxl checks nothing of that kind: a workbook of some kilobytes can unpack to gigabytes, and one cell in the last column of
every row makes it build 16384 for each. The limits on rows and columns are Excel's own. A document type declaration, where
entities that expand without end are declared, has no place in a workbook (ECMA-376 part 2, 8.1.4).
"""

import re
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import openpyxl
from openpyxl.utils import column_index_from_string, range_boundaries
from openpyxl.utils.escape import unescape

from reranker.errors import InputError

UNPACKED = 2**30
"""Bytes of a workbook's parts together."""
ELEMENTS = 2**25
"""XML elements of a workbook: a million rows of seven columns have 29 million."""
ROWS = 2**20
CELLS = 2**26
"""Of a sheet, empty ones before a row's last included."""
COMPOUND = bytes.fromhex("d0cf11e0a1b11ae1")
"""How a file begins that is an old workbook, or an encrypted new one ([MS-CFB])."""

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class Part:
    """What openpyxl does not say of a sheet: the cells that are merged, and one whose formula has no value."""

    merged: list[str] = field(default_factory=list)
    uncalculated: str | None = None


def read_rows(path: Path) -> list[tuple[int, list]]:
    """Row numbers and values, None where there is none, of the first sheet that is not hidden; rows without any are left out.

    A merged cell's value is that of every row it covers. An error (#N/A) is no value.

    Raises:
        InputError: it is no workbook, or too large, or has a formula without a value.
    """
    with open(path, "rb") as content:
        if content.read(8) == COMPOUND:
            raise InputError(f"{path}: an old or a password-protected workbook; save it as xlsx without a password")
    try:
        with warnings.catch_warnings(action="ignore"):  # of openpyxl, about styles and what it does not know
            return _read(path)
    except InputError:
        raise
    except Exception as error:  # openpyxl raises its parsers' own errors: BadZipFile, KeyError, XML errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as an Excel workbook ({reason}); open it and save it as xlsx again") from None


def _read(path: Path) -> list[tuple[int, list]]:
    parts = _checked(path)
    book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets
        sheet, *others = sheets
        if others:
            print(f"{path}: sheet {sheet.title!r} is read, not {', '.join(repr(other.title) for other in others)}")
        part = parts[sheet._worksheet_path]
        if part.uncalculated:
            raise InputError(
                f"{path}, cell {part.uncalculated}: a formula without a value; open the workbook in Excel or LibreOffice, and save it"
            )
        sheet.reset_dimensions()  # they may be wrong
        values = ((number, [_value(cell) for cell in row]) for number, row in enumerate(sheet.rows, 1))
        rows = [(number, row) for number, row in values if any(cell is not None for cell in row)]
    finally:
        book.close()
    filled = _fill_merged(dict(rows), part.merged)
    if filled:
        print(f"{path}: {filled} merged cells, whose value is taken for every row that they cover")
    return rows


def _checked(path: Path) -> dict[str, Part]:
    """What is in each part that is XML; the whole workbook is within the limits."""
    parts, count = {}, 0
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())  # zipfile reads no more than that
        if size > UNPACKED:
            raise InputError(
                f"{path}: unpacks to {size / 2**30:.1f} GB, more than the {UNPACKED / 2**30:.0f} GB that are read of a workbook; "
                "save the sheet as csv"
            )
        for name in archive.namelist():
            with archive.open(name) as content:
                if content.read(64).lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<"):
                    content.seek(0)
                    parts[name], count = _scan(path, content, count)
    return parts


def _scan(path: Path, content, count: int) -> tuple[Part, int]:
    """A part's findings, and `count` with its elements added."""
    part, parser = Part(), expat.ParserCreate(namespace_separator=" ")
    row = cells = width = 0
    cell, kind, formula, value = "", "", False, True

    def refuse(what: str):
        raise InputError(f"{path}: {what}; save the sheet as csv")

    def declared(*_):
        raise InputError(f"{path}: declares a document type, which no workbook does; open it and save it as xlsx again")

    def heard(text: str) -> None:
        nonlocal value
        value = value or bool(text.strip())

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count, row, cells, width, cell, kind, formula, value
        count += 1
        if count > ELEMENTS:
            refuse(f"more than the {ELEMENTS} XML elements that are read of a workbook")
        name = name.rpartition(" ")[2]
        if name == "f":
            formula = True
        elif name == "v":
            value = kind == "str"  # whose value may be empty
            parser.CharacterDataHandler = heard if formula else None
        elif name in ("c", "row", "mergeCells"):
            if formula and not value:
                part.uncalculated = part.uncalculated or cell
            formula = value = False
            if name == "c":
                cell, kind = attributes.get("r", ""), attributes.get("t", "n")
                letters = cell.rstrip("0123456789")
                width = column_index_from_string(letters) if letters else width + 1
            elif name == "row":
                cells, width = cells + width, 0
                row = max(row + 1, float(attributes.get("r", 0)))
                if row > ROWS or cells > CELLS:
                    refuse(f"more than {ROWS} rows, or {CELLS} cells")
        elif name == "mergeCell":
            part.merged.append(attributes["ref"])

    parser.StartElementHandler, parser.StartDoctypeDeclHandler = start, declared
    parser.ParseFile(content)
    if formula and not value:
        part.uncalculated = part.uncalculated or cell
    return part, count


def _value(cell) -> object:
    value = None if cell.data_type == "e" else cell.value
    if isinstance(value, str) and "_x" in value:  # Excel writes a carriage return as _x000D_
        text = unescape(value)
        return value if SURROGATE.search(text) else text
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fill_merged(rows: dict[int, list], merged: list[str]) -> int:
    """Give rows under a merged cell its value; how many cells there are that cover several rows below the header."""
    filled, work, header, last = 0, 0, min(rows, default=0), max(rows, default=0)
    for reference in merged:
        left, top, _, bottom = range_boundaries(reference)
        if top <= header or bottom == top or top not in rows or left > len(rows[top]) or rows[top][left - 1] is None:
            continue
        filled += 1
        work += min(bottom, last) - top
        if work > CELLS:
            raise ValueError("merged cells that overlap")
        for number in range(top + 1, min(bottom, last) + 1):
            if row := rows.get(number):
                row.extend([None] * (left - len(row)))
                if row[left - 1] is None:
                    row[left - 1] = rows[top][left - 1]
    return filled
