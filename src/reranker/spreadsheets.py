"""Tables of metrics as csv that a spreadsheet shows as they are: a text from the data never becomes a formula.

Excel and LibreOffice take a cell that begins with one of these signs for a formula, which may call programs or send other cells
away. An apostrophe before it makes it text (OWASP, "CSV Injection", https://owasp.org/www-community/attacks/CSV_Injection).
`read_csv` takes it off again. Numbers, which have a sign too, stay numbers.
"""

import re
from pathlib import Path
from typing import IO

import pandas as pd

from reranker.files import write_text

# The wide ones are those of Chinese and Japanese keyboards, which some versions take for the same.
SIGNS = r"[=+\-@\t\n＝＋－＠]"


def as_text(cell: str) -> str:
    """A carriage return, which Python's csv does not quote before 3.13, becomes a line feed.

    >>> as_text("=1+1"), as_text("1-1"), as_text("'=1+1"), as_text("'s")
    ("'=1+1", '1-1', "''=1+1", "'s")
    """
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{cell}" if re.match(f"'*{SIGNS}", cell) else cell


def as_written(cell: str) -> str:
    """What `as_text` was given.

    >>> as_written("'=1+1"), as_written("1-1"), as_written("''=1+1"), as_written("'s")
    ('=1+1', '1-1', "'=1+1", "'s")
    """
    return cell[1:] if re.match(f"'+{SIGNS}", cell) else cell


def write_csv(path: Path, table: pd.DataFrame) -> None:
    write_text(path, of_text(table, as_text).to_csv(index=False, lineterminator="\n"))


def read_csv(source: Path | IO[str], **options) -> pd.DataFrame:
    """As pandas' own, of what `write_csv` wrote."""
    return of_text(pd.read_csv(source, **options), as_written)


def of_text(table: pd.DataFrame, change) -> pd.DataFrame:
    """The table with `change` done to its cells of text."""
    changed = {
        name: column.map(lambda cell: change(cell) if isinstance(cell, str) else cell)
        for name, column in table.items()
        if column.dtype in ("object", "str")
    }
    return table.assign(**changed)
