"""Read tables with all cells as text: csv (UTF-8, UTF-16 or GB18030), xlsx, jsonl, json, parquet.

A new format is one function that returns a frame, and its entry in READERS at the end.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.core.files import SURROGATE, numbered_jsonl, regular
from tunerank.data.readers.cells import (
    Unusable,
    as_cell,
    as_text,
    check_header,
    check_size,
    column_name,
    json_object,
    place,
)
from tunerank.data.readers.columnar import read_parquet
from tunerank.data.readers.excel import read_rows
from tunerank.data.readers.number_formats import EXACT
from tunerank.data.readers.separated import split_csv
from tunerank.data.readers.text import decode

TITLED = 5
"""Rows among which the header is searched, if the first ones have a single cell."""
ALONE = {"question", "query", "doc", "text", "passage"}
"""Names of a column that can be the only one with a name; others alone in a row are titles."""
COMPRESSED = {".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".rar"}


def refuse_nested(table: pd.DataFrame, columns: Iterable[str], path: str | Path) -> None:
    """Check that the columns, as far as the table has them, have no cell that is not one text.

    Raises:
        InputError: one has; the message names file, row or line, column and remedy.
    """
    for column in columns:
        for number, cell in table[column].items() if column in table else ():
            if isinstance(cell, Unusable):
                raise InputError(f"{place(path, number)}, column {column!r}: {cell.reason}")


def read_table(path: str | Path, extra: Sequence[str] = ()) -> pd.DataFrame:
    """Read one table with all cells as stripped strings, an empty cell as "".

    Args:
        extra: suffixes that the caller reads itself; a message lists them.

    Returns:
        a frame with the table's columns. Its index has the row numbers of a spreadsheet (the header
        is row 1), the line numbers of a jsonl file, or the places in a json file's list.

    Raises:
        InputError: the table cannot be read; the message names file, row and remedy.
    """
    path = regular(path, "no such file; put the table there or set prepare.raw to where it is")
    if path.suffix.lower() in COMPRESSED:
        raise InputError(f"{path}: is compressed; unpack it")
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
    qa, corpus = table_named("qa", raw), table_named("corpus", raw)
    if qa is None:
        names = [f"qa{suffix}" for suffix in READERS]
        raise InputError(f"{raw}: no {', '.join(names[:-1])} or {names[-1]} in this folder")
    return qa, corpus


def table_named(stem: str, folder: Path) -> Path | None:
    """Return the table of a folder that has this name before its suffix, or None.

    Raises:
        InputError: there are two.
    """
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be opened ({error.strerror})") from None
    tables = [path for path in files if path.stem == stem and path.suffix.lower() in READERS]
    if len(tables) > 1:
        raise InputError(f"{folder}: both {tables[0].name} and {tables[1].name}; keep one of them")
    return tables[0] if tables else None


def _read_csv(path: Path) -> pd.DataFrame:
    return _to_frame(path, split_csv(path))


def _read_xlsx(path: Path) -> pd.DataFrame:
    rows = [(number, [_excel_cell(cell) for cell in row]) for number, row in read_rows(path)]
    return _to_frame(path, rows)


def _excel_cell(cell: object) -> str:
    if not isinstance(cell, int | float) or abs(cell) < EXACT:
        return as_text(cell)
    remedy = "of which Excel keeps 15; format the column as text and enter it again"
    return Unusable(as_text(cell), f"a number of {len(str(abs(cell)))} digits, {remedy}")


def _to_frame(path: Path, rows: list[tuple[int, list[str]]]) -> pd.DataFrame:
    """Return rows as a frame: the first row below any titles is the header; drop empty columns."""
    rows = _without_titles(path, [(number, row) for number, row in rows if any(row)])
    if not rows:
        return pd.DataFrame()
    width = max(len(row) for _, row in rows)
    check_size(path, len(rows), width)
    rows = [(number, row + [""] * (width - len(row))) for number, row in rows]
    number, header = rows.pop(0)
    if sum(map(bool, header)) > 1 and (repeats := [row[1] for row in rows].count(header)):
        print(f"{path}: left out rows that repeat the header: {repeats}")
        rows = [row for row in rows if row[1] != header]
    header = [column_name(name) for name in header]
    kept = [i for i, name in enumerate(header) if name or any(row[i] for _, row in rows)]
    header = [header[i] for i in kept]
    check_header(path, f"row {number}", header)
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


def _read_jsonl(path: Path) -> pd.DataFrame:
    return _from_objects(path, list(numbered_jsonl(path, json_object)))


def _read_json(path: Path) -> pd.DataFrame:
    """Read a list of objects, an object that has one as `data`, or jsonl under this name."""
    text = decode(path)
    try:
        rows = json.loads(text, object_pairs_hook=json_object) if text.strip() else []
        if SURROGATE.search(text):
            json.dumps(rows, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _read_jsonl(path)
        reason = f"not valid JSON ({error.msg}, column {error.colno}); repair the file"
        raise InputError(f"{path}, line {error.lineno}: {reason}") from None
    except UnicodeEncodeError:
        reason = "half a character (an escaped surrogate alone); repair the file"
        raise InputError(f"{path}: {reason}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deep; repair the file") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except ValueError:  # an integer of more than sys.get_int_max_str_digits() digits
        raise InputError(f"{path}: a number that is too long; repair the file") from None
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    if not isinstance(rows, list):
        reason = "neither a list of objects nor an object that has one as 'data'; convert it"
        raise InputError(f"{path}: {reason} (pandas: to_json(orient='records'))")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            found = type(row).__name__
            raise InputError(f"{path}, row {number}: expected a JSON object, found {found}")
    return _from_objects(path, list(enumerate(rows, 1)))


def _from_objects(path: Path, rows: list[tuple[int, dict]]) -> pd.DataFrame:
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    check_size(path, len(rows), len(names))
    cells = []
    for number, row in rows:
        try:
            cells.append([as_cell(row.get(name)) for name in names])
        except RecursionError:
            reason = "nested too deep; repair or delete the line"
            raise InputError(f"{place(path, number)}: {reason}") from None
    return pd.DataFrame(cells, columns=names, index=[number for number, _ in rows], dtype=object)


READERS = {
    ".csv": _read_csv,
    ".xlsx": _read_xlsx,
    ".jsonl": _read_jsonl,
    ".parquet": read_parquet,
    ".json": _read_json,
}
"""Suffix -> a function from the path to the table, a row's number as its index."""
