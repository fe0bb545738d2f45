"""Clean the rows of raw tables: column names, texts, rows to drop, and the passages they name.

A row is a dict of question, answer, context, doc, uuid, qa_type, dataset and row, its number in the
table. A passage is a dict of text and the corpus table's other columns. `tables` has the questions'
table `qa` and, if there is one, `corpus`; `names` are their names in messages.
"""

import hashlib
import re
import unicodedata
from collections.abc import Collection

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.passages import SPLITS
from tunerank.data.readers.tables import refuse_nested
from tunerank.params.data import TABLES, Prepare

TEXTS = ("answer", "context", "doc")
COLUMNS = ("question", *TEXTS, "uuid", "qa_type", "dataset")

INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad"
    "\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
"""Control characters, soft hyphens, zero-width spaces and direction marks. Two questions that
differ only in these look the same, but one could be trained on and the other tested. Joiners are
kept: emoji and Persian need them."""

SPLIT_NAMES = {"training": "train", "dev": "valid", "val": "valid", "validation": "valid"}


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


def clean_text(text: str, unicode: str) -> str:
    return unicodedata.normalize(unicode, INVISIBLE.sub("", text)).strip()


def clean_rows(qa: pd.DataFrame, params: Prepare, name: str) -> tuple[list[dict], list[dict]]:
    """Return the cleaned rows, and the rows to drop as {row, question, reason}.

    Raises:
        InputError: a row has an unknown label.
    """
    rows, dropped = [], []
    qa = qa.map(clean_text, unicode=params.unicode)
    labelled = "label" in qa and (qa["label"] != "").any()
    for number, cells in zip(qa.index, qa.to_dict("records")):
        row = {column: cells.get(column, "") for column in COLUMNS} | {"row": int(number)}
        split = row["dataset"].casefold()
        if (split := SPLIT_NAMES.get(split, split)) in SPLITS:
            row["dataset"] = split
        reason = reason_to_drop(row, params)
        if not reason and labelled and not is_relevant(cells["label"], f"{name}, row {number}"):
            reason = "label 0"
        if reason:
            dropped.append({"row": row["row"], "question": row["question"], "reason": reason})
        else:
            rows.append(row)
    return rows, dropped


def reason_to_drop(row: dict, params: Prepare) -> str | None:
    if not row["question"]:
        return "empty question"
    if params.qa_types and row["qa_type"] not in params.qa_types:
        return f"qa_type {row['qa_type']!r} not wanted"
    if not any(row[column] for column in (*TEXTS, "uuid")):
        return "no answer, context or doc"
    return None


def is_relevant(label: str, where: str) -> bool:
    """Return whether a label is not 0.

    Raises:
        InputError: it is no number of 0 and more.
    """
    words = {"false": "0", "no": "0", "true": "1", "yes": "1"}
    grade = re.fullmatch(r"([0-9]+)(\.0+)?", words.get(label.casefold(), label))
    if not grade:
        raise InputError(
            f"{where}: label {label!r} is neither 0 nor 1 nor a higher grade; correct it, or "
            "rename the column if it does not say whether the passage is right"
        )
    return bool(grade[1].strip("0"))


def corpus_passages(corpus: pd.DataFrame, params: Prepare, name: str) -> dict[str, dict]:
    """Return id -> passage of a corpus table.

    Raises:
        InputError: a cell is empty, or an id has two texts.
    """
    passages: dict[str, dict] = {}
    corpus = corpus.map(clean_text, unicode=params.unicode)
    for number, cells in zip(corpus.index, corpus.to_dict("records")):
        where = f"{name}, row {number}"
        key, text = cells.pop("uuid"), cells.pop("doc")
        if not key or not text:
            missing = "doc" if key else "uuid"
            raise InputError(f"{where}: empty {missing}; fill it or delete the row")
        others = {column: cell for column, cell in cells.items() if column not in ("id", "text")}
        add_passage(passages, key, {"text": text} | others, where)
    return passages


def add_passage(passages: dict[str, dict], key: str, passage: dict, where: str) -> None:
    if passages.setdefault(key, passage)["text"] != passage["text"]:
        raise InputError(
            f"{where}: uuid {key!r} already has another text; give each passage an id of its own"
        )


def assign_corpus_passages(rows: list[dict], passages: dict[str, dict], name: str) -> None:
    """Set row["passage"] to the id of a passage of the corpus table.

    Raises:
        InputError: the corpus table has no such id.
    """
    for row in rows:
        row["passage"] = key = row["uuid"]
        if key not in passages:
            remedy = "; add it there or correct the uuid"
            if alike := [other for other in passages if loose_id(other) == loose_id(key) != ""]:
                remedy = f", which has {alike[0]!r}; write the id alike in both tables"
            where = f"{name}, row {row['row']}"
            raise InputError(f"{where}: passage {key!r} is not in the corpus{remedy}")


def loose_id(key: str) -> str:
    """Return an id without what spreadsheets change: blanks, case, leading zeros, a final `.0`."""
    key = "".join(unicodedata.normalize("NFKC", key).casefold().split())
    return re.sub(r"^0+(?=[^.])|\.0+$", "", key)


def assign_own_passages(rows: list[dict], name: str) -> dict[str, dict]:
    """Set row["passage"] and return id -> passage, with texts from the rows.

    Several rows with one id and no doc have different evidence of one passage: the first evidence
    is the passage's text, until a row has its doc.

    Raises:
        InputError: a row has no text, or an id has two texts.
    """
    passages: dict[str, dict] = {}
    without_doc: set[str] = set()
    for row in rows:
        where = f"{name}, row {row['row']}"
        text = row["doc"] or row["context"] or row["answer"]
        if not text:
            raise InputError(
                f"{where}: no text for passage {row['uuid']!r}; fill doc, context or answer"
            )
        key = row["passage"] = row["uuid"] or hashlib.sha256(text.encode()).hexdigest()[:16]
        if row["doc"] or not row["uuid"]:
            if key in without_doc:
                without_doc.remove(key)
                passages[key] = {"text": text}
            add_passage(passages, key, {"text": text}, where)
        elif key not in passages:
            without_doc.add(key)
            passages[key] = {"text": text}
    return passages
