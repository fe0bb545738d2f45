"""Read parquet files, and the arrow files of Hugging Face's datasets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow.parquet

from tunerank.core.errors import InputError
from tunerank.core.files import regular
from tunerank.data.readers.cells import as_cell, check_header, check_size, column_name


def read_parquet(path: Path) -> pd.DataFrame:
    """Return a parquet file as `read_table` does."""
    with _one_line(path):
        file = pyarrow.parquet.ParquetFile(path)
        # Read no other metadata: those of a broken file's columns crash the process (pyarrow 26).
        check_size(path, file.metadata.num_rows, file.metadata.num_columns)
        return _from_arrow(path, file.schema_arrow.names, file.read)


def read_arrow(path: Path) -> pd.DataFrame:
    """Return a file of a folder that Hugging Face's datasets saved, as `read_table` does."""
    with _one_line(path), pyarrow.memory_map(str(regular(path))) as content:
        file = pyarrow.ipc.open_stream(content)
        return _from_arrow(path, file.schema.names, file.read_all)


def _from_arrow(path: Path, names: list[str], read: Callable[[], pyarrow.Table]) -> pd.DataFrame:
    names = [column_name(name) for name in names]
    check_header(path, "header", names)
    table = read()
    check_size(path, *table.shape)
    # Unlike pandas, to_pydict keeps lists, and integers in columns with empty cells.
    cells = {
        name: [as_cell(cell) for cell in column]
        for name, column in zip(names, table.to_pydict().values())
        if not name.startswith("__index_level_")
    }
    return pd.DataFrame(cells, index=range(1, len(table) + 1), dtype=object)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: a column of bytes that are not UTF-8 text; leave it out, or store it as text"
        ) from None
    except Exception as error:  # pyarrow's errors have no common base below Exception.
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]} ({reason})") from None
