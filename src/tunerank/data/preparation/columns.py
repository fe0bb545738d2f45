"""Columns of raw tables: find ours, map theirs to ours, and name those that are not used.

`tables` has the questions' table `qa` and, if there is one, `corpus`; `names` are their names in
messages.
"""

from collections.abc import Collection

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.readers.tables import refuse_nested
from tunerank.params.data import TABLES, Prepare

TEXTS = ("answer", "context", "doc")
"""Columns of the questions' table that can have a passage's text."""


def check_mapping(tables: dict[str, pd.DataFrame], params: Prepare, names: dict[str, str]) -> None:
    """Check that prepare.columns maps to columns that exist, in one table or alike in both.

    Raises:
        InputError: a column is in no table, or could be meant in either.
    """
    for only, mapping in (params.columns if params.per_table else {"": params.columns}).items():
        if only not in ("", *tables):
            raise InputError(
                f"{names['qa']}: prepare.columns has '{only}', but there is no {only} table; let "
                "prepare.raw be a folder with both tables"
            )
        for ours, theirs in mapping.items():
            having = [table for table in tables if ours in our_columns(table, tables)]
            places = [only] if only else having or ["qa"]
            found = [table for table in places if theirs in tables[table]]
            if not found:
                columns = ", ".join(repr(name) for table in places for name in tables[table])
                raise InputError(
                    f"{names[places[0]]}: prepare.columns maps {ours!r} to {theirs!r}, which is "
                    f"not among {columns}"
                )
            if len(found) > 1 and theirs != ours and any(ours in tables[table] for table in found):
                raise InputError(
                    f"{names['qa']}: prepare.columns maps {ours!r} to {theirs!r}, which is in both "
                    f"tables, beside {ours!r} in one; map per table: prepare.columns: {{qa: "
                    f"{{{ours}: ...}}, corpus: {{{ours}: ...}}}}"
                )


def our_columns(table: str, tables: Collection[str]) -> list[str]:
    """Return our columns of a table. A corpus replaces the column `doc` of the questions' table."""
    replaced = {"doc"} if table == "qa" and "corpus" in tables else set()
    return [column for column in TABLES[table] if column not in replaced]


def check_columns(tables: dict[str, pd.DataFrame], params: Prepare, names: dict[str, str]) -> None:
    """Check that there are questions, texts or ids of passages, and in a corpus both of these.

    Raises:
        InputError: a column is missing.
    """
    texts = ("uuid",) if "corpus" in tables else TEXTS
    needed = {"qa": (("question",), texts), "corpus": (("uuid",), ("doc",))}
    for table, columns in [(table, columns) for table in tables for columns in needed[table]]:
        frame, mapping = tables[table], params.mapping(table)
        if not any(column in frame or mapping.get(column) in frame for column in columns):
            missing = " or ".join(", ".join(columns).rsplit(", ", 1))
            under = f" under {table!r}" if columns[0] in mapping else ""
            raise InputError(
                f"{names[table]}: no column {missing!r} among {', '.join(map(repr, frame))}; "
                f"rename it there, or map it{under} in prepare.columns"
            )


def map_columns(
    table: str, tables: dict[str, pd.DataFrame], params: Prepare, name: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return a table with our columns' names, and its columns that are not used, for people.

    A mapped column wins over one that has our name. Others keep their names.
    """
    frame, mapping = tables[table], params.mapping(table)
    sources = {
        ours: mapping[ours] if mapping.get(ours) in frame else ours
        for ours in our_columns(table, tables)
    }
    titles = {mapping[ours]: ours for ours in mapping if ours not in TABLES["qa"]}
    pairs, unused = [], []
    for column in frame:
        names = [ours for ours, theirs in sources.items() if theirs == column]
        pairs += [(ours, column) for ours in names or [column] if names or column not in sources]
        if column in titles and len(tables) == 1:
            unused.append(f"{column!r} as {titles[column]} (only a corpus table has that)")
        elif not names:
            taken = f" ({sources[column]!r} is mapped to it)" if column in sources else ""
            unused.append(f"{column!r}{taken}")
    theirs = [column for _, column in pairs]
    refuse_nested(frame, [column for column in theirs if column in sources.values()], name)
    return frame[theirs].set_axis([ours for ours, _ in pairs], axis=1), unused
