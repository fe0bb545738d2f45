"""Tables as people have them: csv (UTF-8 or Excel's GB18030), xlsx, jsonl, parquet; every cell as text."""

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet

from reranker.errors import InputError
from reranker.files import decode, numbered_jsonl

SUFFIXES = (".csv", ".xlsx", ".jsonl", ".parquet")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read one table with all cells as stripped strings, an empty cell as "".

    Returns:
        a frame with the table's columns and, as its index, the row numbers a spreadsheet shows (the header is row 1;
        a jsonl file's are its line numbers).

    Raises:
        InputError: naming file, row where there is one, and remedy.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; put the table there or set prepare.raw to where it is")
    readers = {".csv": _read_csv, ".xlsx": _read_xlsx, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: cannot read '{path.suffix}' tables; use one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a table")
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
    for stem in ("qa", "corpus"):
        matches = sorted(path for path in raw.iterdir() if path.stem == stem and path.suffix.lower() in SUFFIXES)
        if len(matches) > 1:
            raise InputError(f"{raw}: both {matches[0].name} and {matches[1].name}; keep one of them")
        found[stem] = matches[0] if matches else None
    if found["qa"] is None:
        raise InputError(f"{raw}: no qa.csv, qa.xlsx, qa.jsonl or qa.parquet in this folder")
    return found["qa"], found["corpus"]


def _read_csv(path: Path) -> pd.DataFrame:
    text = decode(path)
    if "\0" in text:
        raise InputError(f"{path}, row {text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL byte; is this a text file?")
    csv.field_size_limit(2**31 - 1)
    records = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, numbers, header, number = [], [], None, 0
    try:
        for number, record in enumerate(records, 1):
            if not any(cell.strip() for cell in record):
                continue
            if header is None:
                header = [cell.strip() for cell in record]
                _check_header(path, number, header)
                continue
            if len(record) != len(header):
                raise InputError(
                    f"{path}, row {number}: {len(record)} cells where the header has {len(header)}; "
                    "quote a cell that holds a comma"
                )
            rows.append([cell.strip() for cell in record])
            numbers.append(number)
    except csv.Error as error:
        raise InputError(f"{path}, row {number + 1}: {error}; check the quotes") from None
    return pd.DataFrame(rows, columns=header, index=numbers, dtype=object)


def _read_xlsx(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_excel(path, sheet_name=0, header=None, dtype=str, keep_default_na=False, engine="openpyxl")
    except Exception as error:  # openpyxl raises its parsers' own errors: BadZipFile, KeyError, XML errors
        raise InputError(f"{path}: cannot be read as an Excel workbook ({error}); open it and save it as xlsx again") from None
    table.index = range(1, len(table) + 1)
    table = table.map(_text).astype(object)
    table = table.loc[(table != "").any(axis=1), (table != "").any(axis=0)]
    if table.empty:
        return table
    header = table.iloc[0].tolist()
    _check_header(path, table.index[0], header)
    return table.iloc[1:].set_axis(header, axis=1)


def _check_header(path: Path, number: int, header: list[str]) -> None:
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise InputError(f"{path}, row {number}: column {sorted(repeated)[0]!r} stands twice; rename one")


def _read_jsonl(path: Path) -> pd.DataFrame:
    try:
        rows = list(numbered_jsonl(path))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save the file as UTF-8") from None
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    cells = [[_text(row.get(name)) for name in names] for _, row in rows]
    return pd.DataFrame(cells, columns=names, index=[number for number, _ in rows], dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        columns = pyarrow.parquet.read_table(path).to_pydict()  # Python's own values: lists, and integers beside None
    except Exception as error:  # pyarrow's errors have no common base below Exception
        raise InputError(f"{path}: cannot be read as parquet ({error})") from None
    cells = {name: [_text(cell) for cell in column] for name, column in columns.items()}
    table = pd.DataFrame(cells, dtype=object).drop(columns=[name for name in cells if name.startswith("__index_level_")])
    table.index = range(1, len(table) + 1)
    return table


def _text(cell: object) -> str:
    if isinstance(cell, (list, dict)):
        return json.dumps(cell, ensure_ascii=False)
    return "" if cell is None or pd.isna(cell) else str(cell).strip()
