"""Write metrics as csv that is safe to open in a spreadsheet: no cell can become a formula.

Excel and LibreOffice read a cell that begins with one of SIGNS as a formula, which can start
programs or send other cells away. An apostrophe before the sign makes the cell text (OWASP, "CSV
Injection", https://owasp.org/www-community/attacks/CSV_Injection). `read_csv` removes it again.
Numbers can begin with a sign too; they stay numbers.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pandas as pd

from tunerank.core.files import write_text

# Chinese and Japanese keyboards type the wide ones, which some versions read as the others.
SIGNS = r"[=+\-@\t\n＝＋－＠]"


def escape_cell(cell: str) -> str:
    """Return the cell with an apostrophe before a sign, and with line feeds for carriage returns.

    Python's csv does not quote a carriage return before 3.13.

    >>> escape_cell("=1+1"), escape_cell("1-1"), escape_cell("'=1+1"), escape_cell("'s")
    ("'=1+1", '1-1', "''=1+1", "'s")
    """
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{cell}" if re.match(f"'*{SIGNS}", cell) else cell


def unescape_cell(cell: str) -> str:
    """Return the text that `escape_cell` was given.

    >>> unescape_cell("'=1+1"), unescape_cell("1-1"), unescape_cell("''=1+1"), unescape_cell("'s")
    ('=1+1', '1-1', "'=1+1", "'s")
    """
    return cell[1:] if re.match(f"'+{SIGNS}", cell) else cell


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write the table with its texts escaped."""
    write_text(path, map_texts(table, escape_cell).to_csv(index=False, lineterminator="\n"))


def read_csv(source: Path | IO[str], **options) -> pd.DataFrame:
    """Read a table that `write_csv` wrote; `options` as pandas.read_csv."""
    return map_texts(pd.read_csv(source, **options), unescape_cell)


def map_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return the table with `change` applied to each cell that is text."""
    changed = {
        name: column.map(lambda cell: change(cell) if isinstance(cell, str) else cell)
        for name, column in table.items()
        if column.dtype in ("object", "str")
    }
    return table.assign(**changed)
