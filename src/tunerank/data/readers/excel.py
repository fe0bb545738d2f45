"""Read the rows of an xlsx workbook, after a first pass over its XML that enforces size limits.

openpyxl has no such limits: a workbook of some kilobytes can unpack to gigabytes, and one cell in
the last column of every row makes it build 16384 cells for each. The limits on rows and columns are
Excel's own. A workbook must not have a document type declaration, which can define entities that
expand without end (ECMA-376 part 2, 8.1.4).
"""

import re
import warnings
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn
from xml.parsers import expat

import openpyxl
from openpyxl.utils import column_index_from_string, range_boundaries
from openpyxl.utils.datetime import from_excel
from openpyxl.utils.escape import unescape

from tunerank.core.errors import InputError
from tunerank.data.readers.number_formats import shown

UNPACKED = 2**30
"""Limit on the bytes of all unpacked parts of a workbook."""
ELEMENTS = 2**25
"""Limit on the XML elements of a workbook: a million rows of seven columns have 29 million."""
ROWS = 2**20
CELLS = 2**26
"""Limit on the cells of a sheet, including empty ones before the last cell of a row."""
COMPOUND = bytes.fromhex("d0cf11e0a1b11ae1")
"""The first bytes of an xls workbook and of an encrypted xlsx workbook ([MS-CFB])."""

SURROGATE = re.compile("[\ud800-\udfff]")

MONTH, DAY = 'yyyy"年"m"月"', 'm"月"d"日"'
CHINESE = {30: "m-d-yy", 31: 'yyyy"年"m"月"d"日"'}
CHINESE |= dict.fromkeys((27, 36, 50, 52, 57), MONTH) | dict.fromkeys((28, 29, 51, 53, 54, 58), DAY)
CHINESE |= dict.fromkeys((32, 33, 34, 35, 55, 56), "h:mm")
"""Formats of dates and times that Excel has in Chinese and openpyxl lacks (ECMA-376, 18.8.30)."""


@dataclass
class Part:
    """What openpyxl does not report: merged ranges, and the cell of a formula without a value."""

    merged: list[str] = field(default_factory=list)
    uncalculated: str | None = None


def read_rows(path: Path) -> list[tuple[int, list]]:
    """Return (row number, values) for the rows of the first visible sheet that have a value.

    An empty cell and an error such as #N/A are None. A merged cell's value is used for every row it
    covers. Percentages, padded numbers and dates without time are text, as Excel shows them.

    Raises:
        InputError: it is not a workbook, is too large, or has a formula without a value.
    """
    with open(path, "rb") as content:
        if content.read(8) == COMPOUND:
            raise InputError(
                f"{path}: an old or a password-protected workbook; save it as xlsx without a "
                "password"
            )
    try:
        with warnings.catch_warnings(action="ignore"):  # openpyxl warns about unknown styles
            return _read(path)
    except InputError:
        raise
    # openpyxl passes on its parsers' errors: BadZipFile, KeyError, XML errors.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as an Excel workbook ({reason}); open it and save it as xlsx "
            "again"
        ) from None


def _read(path: Path) -> list[tuple[int, list]]:
    parts = _checked(path)
    book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        sheets = [
            sheet for sheet in book.worksheets if sheet.sheet_state == "visible"
        ] or book.worksheets
        sheet, *others = sheets
        if others:
            titles = ", ".join(repr(other.title) for other in others)
            print(f"{path}: sheet {sheet.title!r} is read, not {titles}")
        part = parts[sheet._worksheet_path]
        if part.uncalculated:
            raise InputError(
                f"{path}, cell {part.uncalculated}: a formula without a value; open the workbook "
                "in Excel or LibreOffice, and save it"
            )
        sheet.reset_dimensions()  # The dimensions in the file may be wrong.
        values = (
            (number, [_value(cell) for cell in row]) for number, row in enumerate(sheet.rows, 1)
        )
        rows = [(number, row) for number, row in values if any(cell is not None for cell in row)]
    finally:
        book.close()
    filled = _fill_merged(dict(rows), part.merged)
    if filled:
        print(f"{path}: {filled} merged cells: their value is used for every row they cover")
    return rows


def _checked(path: Path) -> dict[str, Part]:
    """Scan all XML parts of a workbook and return them by name.

    Raises:
        InputError: the workbook exceeds a limit, or declares a document type.
    """
    parts, elements = {}, 0
    with zipfile.ZipFile(path) as archive:
        # zipfile reads no more of a member than its declared size.
        size = sum(member.file_size for member in archive.infolist())
        if size > UNPACKED:
            raise InputError(
                f"{path}: unpacks to {size / 2**30:.1f} GB, above the limit of "
                f"{UNPACKED / 2**30:.0f} GB; save the sheet as csv"
            )
        for name in archive.namelist():
            with archive.open(name) as content:
                if content.read(64).lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<"):
                    content.seek(0)
                    scanner = _Scanner(path, elements)
                    parts[name] = scanner.scan(content)
                    elements = scanner.elements
    return parts


class _Scanner:
    """Handlers of expat that read one XML part and enforce the limits on its size."""

    def __init__(self, path: Path, elements: int):
        self.path, self.elements, self.part = path, elements, Part()
        self.row = self.cells = self.width = 0
        self.cell, self.kind, self.formula, self.value = "", "", False, True
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self.start
        self.parser.StartDoctypeDeclHandler = self.refuse_doctype

    def scan(self, content: IO[bytes]) -> Part:
        self.parser.ParseFile(content)
        self.end_cell()
        return self.part

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.elements += 1
        if self.elements > ELEMENTS:
            self.refuse(f"more than {ELEMENTS} XML elements")
        name = name.rpartition(" ")[2]
        if name == "f":
            self.formula = True
        elif name == "v":
            self.value = self.kind == "str"  # A string may be empty.
            self.parser.CharacterDataHandler = self.read_value if self.formula else None
        elif name in ("c", "row", "mergeCells"):
            self.end_cell()
            if name == "c":
                self.cell, self.kind = attributes.get("r", ""), attributes.get("t", "n")
                letters = self.cell.rstrip("0123456789")
                self.width = column_index_from_string(letters) if letters else self.width + 1
            elif name == "row":
                self.cells, self.width = self.cells + self.width, 0
                self.row = max(self.row + 1, float(attributes.get("r", 0)))
                if self.row > ROWS or self.cells > CELLS:
                    self.refuse(f"more than {ROWS} rows, or {CELLS} cells")
        elif name == "mergeCell":
            self.part.merged.append(attributes["ref"])

    def read_value(self, text: str) -> None:
        self.value = self.value or bool(text.strip())

    def end_cell(self) -> None:
        if self.formula and not self.value:
            self.part.uncalculated = self.part.uncalculated or self.cell
        self.formula = self.value = False

    def refuse(self, reason: str) -> NoReturn:
        raise InputError(f"{self.path}: {reason}; save the sheet as csv")

    def refuse_doctype(self, *_) -> NoReturn:
        raise InputError(
            f"{self.path}: declares a document type, which a workbook must not; open it and save "
            "it as xlsx again"
        )


def _value(cell) -> object:
    value = None if cell.data_type == "e" else cell.value
    if isinstance(value, str) and "_x" in value:  # Excel writes a carriage return as _x000D_.
        text = unescape(value)
        return value if SURROGATE.search(text) else text
    if value is None or isinstance(value, str | bool):
        return value
    try:
        style, number_format = cell.style_array.numFmtId, cell.number_format
    except IndexError:  # The workbook has no such style.
        style, number_format = 0, "General"
    if style in CHINESE and cell.data_type == "n":
        number_format = CHINESE[style]
        with suppress(OverflowError, ValueError):
            value = from_excel(value, cell.parent.parent.epoch)
    if (text := shown(value, number_format)) is not None:
        return text
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fill_merged(rows: dict[int, list], merged: list[str]) -> int:
    """Copy the values of merged cells to the rows they cover; return the number of such cells.

    Cells that cover the header or only one row are left as they are.
    """
    filled, work, header, last = 0, 0, min(rows, default=0), max(rows, default=0)
    for reference in merged:
        left, top, _, bottom = range_boundaries(reference)
        if (
            top <= header
            or bottom == top
            or top not in rows
            or left > len(rows[top])
            or rows[top][left - 1] is None
        ):
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
