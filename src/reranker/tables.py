"""Tables as people have them: csv (UTF-8, UTF-16 or Excel's GB18030), xlsx, jsonl, parquet; every cell as text."""

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet

from reranker.errors import InputError
from reranker.files import decode, numbered_jsonl, regular
from reranker.workbooks import read_rows

SUFFIXES = (".csv", ".xlsx", ".jsonl", ".parquet")
CELLS = 2**26
"""Of a table, empty ones included: some gigabytes in memory. A small file can have more, by repetition."""


def read_table(path: str | Path) -> pd.DataFrame:
    """Read one table with all cells as stripped strings, an empty cell as "".

    Returns:
        a frame with the table's columns and, as its index, the row numbers a spreadsheet shows (the header is row 1;
        a jsonl file's are its line numbers).

    Raises:
        InputError: naming file, row where there is one, and remedy.
    """
    path = regular(path, "no such file; put the table there or set prepare.raw to where it is")
    readers = {".csv": _read_csv, ".xlsx": _read_xlsx, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: cannot read '{path.suffix}' tables; use one of {', '.join(SUFFIXES)}")
    table = readers[path.suffix.lower()](path)
    if table.empty:
        raise InputError(f"{path}: the table has no rows")
    return table


def find_tables(raw: str | Path) -> tuple[Path, Path | None]:
    """The questions' table and the corpus's, if there is one: `raw` itself, or `qa.*` and `corpus.*` inside it."""
    raw = Path(raw)
    if not raw.is_dir():
        return raw, None
    found = {}
    try:
        inside = sorted(raw.iterdir())
    except OSError as error:
        raise InputError(f"{raw}: cannot be opened ({error.strerror})") from None
    for stem in ("qa", "corpus"):
        matches = [path for path in inside if path.stem == stem and path.suffix.lower() in SUFFIXES]
        if len(matches) > 1:
            raise InputError(f"{raw}: both {matches[0].name} and {matches[1].name}; keep one of them")
        found[stem] = matches[0] if matches else None
    if found["qa"] is None:
        raise InputError(f"{raw}: no qa.csv, qa.xlsx, qa.jsonl or qa.parquet in this folder")
    return found["qa"], found["corpus"]


def _read_csv(path: Path) -> pd.DataFrame:
    text = decode(path)
    csv.field_size_limit(2**31 - 1)
    records = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, number = [], 0
    try:
        for number, record in enumerate(records, 1):
            cells = [cell.strip() for cell in record]
            if not any(cells):
                continue
            if not rows:
                _check_separator(path, number, cells)
            elif len(cells) != len(rows[0][1]):
                raise InputError(
                    f"{path}, row {number}: {len(cells)} cells where the header has {len(rows[0][1])}; "
                    "quote a cell that holds a comma"
                )
            rows.append((number, cells))
    except csv.Error as error:
        raise InputError(f"{path}, row {number + 1}: {error}; check the quotes") from None
    return _framed(path, rows)


def _check_separator(path: Path, number: int, header: list[str]) -> None:
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "'|'")):
        if len(header) == 1 and separator in header[0]:
            raise InputError(f"{path}, row {number}: one column, {header[0]!r}; separate cells by commas, not by {name}")


def _read_xlsx(path: Path) -> pd.DataFrame:
    return _framed(path, [(number, [_text(cell) for cell in row]) for number, row in read_rows(path)])


def _framed(path: Path, rows: list[tuple[int, list[str]]]) -> pd.DataFrame:
    """The rows under a header, which is the first of them with text in it; columns without a name and without text are left out."""
    rows = [(number, row) for number, row in rows if any(row)]
    if not rows:
        return pd.DataFrame()
    width = max(len(row) for _, row in rows)
    _bound(path, len(rows), width)
    rows = [(number, row + [""] * (width - len(row))) for number, row in rows]
    number, header = rows.pop(0)
    header = [_name(name) for name in header]
    kept = [at for at, name in enumerate(header) if name or any(row[at] for _, row in rows)]
    header = [header[at] for at in kept]
    _check_header(path, f"row {number}", header)
    cells = [[row[at] for at in kept] for _, row in rows]
    return pd.DataFrame(cells, columns=header, index=[number for number, _ in rows], dtype=object)


def _bound(path: Path, rows: int, columns: int) -> None:
    if rows * columns > CELLS:
        raise InputError(
            f"{path}: {rows} rows of {columns} columns, more than {CELLS} cells; leave out columns, or cut the table"
        )


def _name(column: str) -> str:
    return column.strip(" \t\r\n\ufeff\u200b")


def _check_header(path: Path, where: str, header: list[str]) -> None:
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise InputError(
            f"{path}, {where}: column {repeated[0]!r} stands twice; rename one"
            if repeated[0]
            else f"{path}, {where}: two columns without a name; name them, or delete what is under them"
        )


def _read_jsonl(path: Path) -> pd.DataFrame:
    rows = list(numbered_jsonl(path, _object))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    _bound(path, len(rows), len(names))
    cells = []
    for number, row in rows:
        try:
            cells.append([_text(row.get(name)) for name in names])
        except RecursionError:
            raise InputError(f"{path}, line {number}: nested too deep; repair or delete the line") from None
    return pd.DataFrame(cells, columns=names, index=[number for number, _ in rows], dtype=object)


def _object(pairs: list[tuple[str, object]]) -> dict:
    row = {_name(name): value for name, value in pairs}
    if len(row) < len(pairs):
        twice = next(name for name, count in Counter(_name(name) for name, _ in pairs).items() if count > 1)
        raise InputError(f"{twice!r} stands twice; rename one")
    return row


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        # Not more of the metadata: of a broken file's columns it ends the process (pyarrow 26).
        _bound(path, file.metadata.num_rows, file.metadata.num_columns)
        names = [_name(name) for name in file.schema_arrow.names]
        _check_header(path, "header", names)
        columns = file.read().to_pydict().values()  # Python's own values: lists, and integers beside None
        cells = {
            name: [_text(cell) for cell in column]
            for name, column in zip(names, columns)
            if not name.startswith("__index_level_")
        }
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(f"{path}: a column of bytes that are no UTF-8 text; leave it out, or store it as text") from None
    except Exception as error:  # pyarrow's errors have no common base below Exception
        raise InputError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())})") from None
    table = pd.DataFrame(cells, dtype=object)
    table.index = range(1, len(table) + 1)
    return table


def _text(cell: object) -> str:
    if isinstance(cell, (list, dict, tuple)):
        return json.dumps(cell, ensure_ascii=False, default=_text)
    if isinstance(cell, bytes):
        return cell.decode().strip()
    return "" if cell is None or pd.isna(cell) else str(cell).strip()
