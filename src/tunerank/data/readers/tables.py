"""Read tables with all cells as text: csv (UTF-8, UTF-16 or GB18030), xlsx, jsonl, parquet.

A new format is one function that returns a frame, and its entry in READERS at the end.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet

from tunerank.core.errors import InputError
from tunerank.core.files import numbered_jsonl, regular
from tunerank.data.readers.excel import read_rows
from tunerank.data.readers.text import EXACT, split_csv

CELLS = 2**26
"""Limit on the cells of a table, some gigabytes in memory. A small parquet file can exceed it."""
TITLED = 5
"""Rows among which the header is searched, if the first ones have a single cell."""
ALONE = {"question", "query", "doc", "text", "passage"}
"""Names of a column that can be the only one with a name; others alone in a row are titles."""


class Unusable(str):
    """The text of a cell with a list, an object or an inexact number; `refuse_nested` refuses it.

    A column that nobody uses may have such cells.
    """

    def __new__(cls, text: str, reason: str) -> "Unusable":
        cell = super().__new__(cls, text)
        cell.reason = reason
        return cell


def refuse_nested(table: pd.DataFrame, columns: Iterable[str], path: str | Path) -> None:
    """Check that the columns, as far as the table has them, have no cell that is not one text.

    Raises:
        InputError: one has; the message names file, row or line, column and remedy.
    """
    unit = "line" if Path(path).suffix.lower() == ".jsonl" else "row"
    for column in columns:
        for number, cell in table[column].items() if column in table else ():
            if isinstance(cell, Unusable):
                raise InputError(f"{path}, {unit} {number}, column {column!r}: {cell.reason}")


def read_table(path: str | Path, extra: Sequence[str] = ()) -> pd.DataFrame:
    """Read one table with all cells as stripped strings, an empty cell as "".

    Args:
        extra: suffixes that the caller reads itself; a message lists them.

    Returns:
        a frame with the table's columns. Its index has the row numbers of a spreadsheet (the header
        is row 1), or the line numbers of a jsonl file.

    Raises:
        InputError: the table cannot be read; the message names file, row and remedy.
    """
    path = regular(path, "no such file; put the table there or set prepare.raw to where it is")
    if path.suffix.lower() not in READERS:
        suffixes = ", ".join((*READERS, *extra))
        raise InputError(f"{path}: cannot read '{path.suffix}' tables; use one of {suffixes}")
    table = READERS[path.suffix.lower()](path)
    if table.empty:
        raise InputError(f"{path}: the table has no rows")
    return table


def find_tables(raw: str | Path) -> tuple[Path, Path | None]:
    """Return the path of the questions' table and that of the corpus table, or None.

    They are `raw` itself and None, or `qa.*` and `corpus.*` in the folder `raw`.

    Raises:
        InputError: the folder has no questions' table, or two tables of one kind.
    """
    raw = Path(raw)
    if not raw.is_dir():
        return raw, None
    tables = {}
    try:
        files = sorted(raw.iterdir())
    except OSError as error:
        raise InputError(f"{raw}: cannot be opened ({error.strerror})") from None
    for stem in ("qa", "corpus"):
        matches = [path for path in files if path.stem == stem and path.suffix.lower() in READERS]
        if len(matches) > 1:
            raise InputError(
                f"{raw}: both {matches[0].name} and {matches[1].name}; keep one of them"
            )
        tables[stem] = matches[0] if matches else None
    if tables["qa"] is None:
        names = [f"qa{suffix}" for suffix in READERS]
        raise InputError(f"{raw}: no {', '.join(names[:-1])} or {names[-1]} in this folder")
    return tables["qa"], tables["corpus"]


def _read_csv(path: Path) -> pd.DataFrame:
    return _to_frame(path, split_csv(path))


def _read_xlsx(path: Path) -> pd.DataFrame:
    rows = [(number, [_excel_cell(cell) for cell in row]) for number, row in read_rows(path)]
    return _to_frame(path, rows)


def _excel_cell(cell: object) -> str:
    if not isinstance(cell, int | float) or abs(cell) < EXACT:
        return _text(cell)
    remedy = "of which Excel keeps 15; format the column as text and enter it again"
    return Unusable(_text(cell), f"a number of {len(str(abs(cell)))} digits, {remedy}")


def _to_frame(path: Path, rows: list[tuple[int, list[str]]]) -> pd.DataFrame:
    """Return rows as a frame: the first row below any titles is the header; drop empty columns."""
    rows = _without_titles(path, [(number, row) for number, row in rows if any(row)])
    if not rows:
        return pd.DataFrame()
    width = max(len(row) for _, row in rows)
    _check_size(path, len(rows), width)
    rows = [(number, row + [""] * (width - len(row))) for number, row in rows]
    number, header = rows.pop(0)
    if sum(map(bool, header)) > 1 and (repeats := [row[1] for row in rows].count(header)):
        print(f"{path}: left out rows that repeat the header: {repeats}")
        rows = [row for row in rows if row[1] != header]
    header = [_name(name) for name in header]
    kept = [i for i, name in enumerate(header) if name or any(row[i] for _, row in rows)]
    header = [header[i] for i in kept]
    _check_header(path, f"row {number}", header)
    cells = [[row[i] for i in kept] for _, row in rows]
    return pd.DataFrame(cells, columns=header, index=[number for number, _ in rows], dtype=object)


def _without_titles(path: Path, rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Return the rows without those above the header that have a single text, if rows follow it."""
    several = (at for at, (_, row) in enumerate(rows[:TITLED]) if sum(map(bool, row)) > 1)
    above = next(several, 0)
    if not 0 < above < len(rows) - 1 or any(ALONE & {*row} for _, row in rows[:above]):
        return rows
    print(f"{path}: row {rows[above][0]} is read as the header, the text above it as a title")
    return rows[above:]


def _check_size(path: Path, rows: int, columns: int) -> None:
    if rows * columns > CELLS:
        raise InputError(
            f"{path}: {rows} rows of {columns} columns, more than {CELLS} cells; leave out "
            "columns, or cut the table"
        )


def _name(column: str) -> str:
    return column.strip(" \t\r\n\ufeff\u200b")


def _check_header(path: Path, where: str, header: list[str]) -> None:
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        reason = "two columns without a name; name them, or delete their cells"
        if repeated[0]:
            reason = f"column {repeated[0]!r} appears twice; rename one"
        raise InputError(f"{path}, {where}: {reason}")


def _read_jsonl(path: Path) -> pd.DataFrame:
    rows = list(numbered_jsonl(path, _object))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    _check_size(path, len(rows), len(names))
    cells = []
    for number, row in rows:
        try:
            cells.append([_cell(row.get(name)) for name in names])
        except RecursionError:
            reason = "nested too deep; repair or delete the line"
            raise InputError(f"{path}, line {number}: {reason}") from None
    return pd.DataFrame(cells, columns=names, index=[number for number, _ in rows], dtype=object)


def _object(pairs: list[tuple[str, object]]) -> dict:
    """Return a JSON object's (name, value) pairs as a dict and refuse repeated names."""
    row = {_name(name): value for name, value in pairs}
    if len(row) < len(pairs):
        counts = Counter(_name(name) for name, _ in pairs)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise InputError(f"{repeated!r} appears twice; rename one")
    return row


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        # Read no other metadata: those of a broken file's columns crash the process (pyarrow 26).
        _check_size(path, file.metadata.num_rows, file.metadata.num_columns)
        names = [_name(name) for name in file.schema_arrow.names]
        _check_header(path, "header", names)
        # Unlike pandas, to_pydict keeps lists, and integers in columns with empty cells.
        columns = file.read().to_pydict().values()
        cells = {
            name: [_cell(cell) for cell in column]
            for name, column in zip(names, columns)
            if not name.startswith("__index_level_")
        }
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: a column of bytes that are not UTF-8 text; leave it out, or store it as text"
        ) from None
    except Exception as error:  # pyarrow's errors have no common base below Exception.
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as parquet ({reason})") from None
    table = pd.DataFrame(cells, dtype=object)
    table.index = range(1, len(table) + 1)
    return table


def _cell(cell: object) -> str:
    """Return the text of a cell; a list of one text is that text."""
    if isinstance(cell, list) and len(cell) == 1 and isinstance(cell[0], str | bytes):
        cell = cell[0]
    if not isinstance(cell, list | dict):
        return _text(cell)
    text = json.dumps(cell, ensure_ascii=False, default=_text)
    if isinstance(cell, dict):
        return Unusable(text, "an object; a text or null is needed")
    values = "1 value" if len(cell) == 1 else f"{len(cell)} values"
    needed = "one row for each value" if len(cell) > 1 else "a text or null"
    return Unusable(text, f"a list of {values}; {needed} is needed")


def _text(cell: object) -> str:
    if isinstance(cell, bytes):
        return cell.decode().strip()
    return "" if cell is None or pd.isna(cell) else str(cell).strip()


READERS = {
    ".csv": _read_csv,
    ".xlsx": _read_xlsx,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
"""Suffix -> a function from the path to the table, a row's number as its index."""
