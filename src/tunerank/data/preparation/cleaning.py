"""Clean the rows of raw tables: column names, texts, rows to drop, and the passages they name.

A row is a dict of question, answer, context, doc, uuid, qa_type, dataset and row, its number in the
table. A passage is a dict of text and the corpus table's other columns.
"""

import hashlib
import re
import unicodedata

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.params.data import Prepare

TEXTS = ("answer", "context", "doc")
COLUMNS = ("question", *TEXTS, "uuid", "qa_type", "dataset")

INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad"
    "\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
"""Control characters, soft hyphens, zero-width spaces and direction marks. Two questions that
differ only in these look the same, but one could be trained on and the other tested. Joiners are
kept: emoji and Persian need them."""


def check_mapping(
    qa: pd.DataFrame, corpus: pd.DataFrame | None, columns: dict[str, str], name: str
) -> None:
    """Check that prepare.columns maps to columns that exist.

    Raises:
        InputError: a column is in neither table.
    """
    known = set(qa) | set(corpus if corpus is not None else ())
    for ours, theirs in columns.items():
        if ours not in known and theirs not in known:
            raise InputError(
                f"{name}: prepare.columns maps {ours!r} to {theirs!r}, which is not among "
                f"{', '.join(map(repr, qa.columns))}"
            )


def rename_columns(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Rename the table's columns to our names; a column that already has our name stays."""
    return table.rename(
        columns={theirs: ours for ours, theirs in columns.items() if ours not in table}
    )


def check_columns(qa: pd.DataFrame, has_corpus: bool, name: str) -> None:
    """Check that the table has questions, and texts or ids of passages.

    Raises:
        InputError: a column is missing.
    """
    has_texts = any(column in qa for column in TEXTS) or (has_corpus and "uuid" in qa)
    if "question" not in qa or not has_texts:
        missing = "question" if "question" not in qa else "answer, context or doc"
        raise InputError(
            f"{name}: no column {missing!r} among {', '.join(map(repr, qa.columns))}; rename it "
            "there, or map it in prepare.columns"
        )


def clean_text(text: str, unicode: str) -> str:
    return unicodedata.normalize(unicode, INVISIBLE.sub("", text)).strip()


def clean_rows(qa: pd.DataFrame, params: Prepare) -> tuple[list[dict], list[dict]]:
    """Return the cleaned rows, and the rows to drop as {row, question, reason}."""
    rows, dropped = [], []
    qa = qa.map(clean_text, unicode=params.unicode)
    for number, cells in zip(qa.index, qa.to_dict("records")):
        row = {column: cells.get(column, "") for column in COLUMNS} | {"row": int(number)}
        if reason := reason_to_drop(row, params):
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


def corpus_passages(corpus: pd.DataFrame, params: Prepare, name: str) -> dict[str, dict]:
    """Return id -> passage of a corpus table.

    Raises:
        InputError: a column or a cell is missing, or an id has two texts.
    """
    corpus = rename_columns(corpus, params.columns)
    for column in ("uuid", "doc"):
        if column not in corpus:
            columns = ", ".join(map(repr, corpus.columns))
            raise InputError(
                f"{name}: no column {column!r} among {columns}; rename it there, or map it in "
                "prepare.columns"
            )
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
        if row["uuid"] not in passages:
            raise InputError(
                f"{name}, row {row['row']}: passage {row['uuid']!r} is not in the corpus; add it "
                "there or correct the uuid"
            )
        row["passage"] = row["uuid"]


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


def merge_same_texts(rows: list[dict], passages: dict[str, dict]) -> dict[str, str]:
    """Merge passages with the same text and title; return removed id -> remaining id.

    Otherwise each would be a false negative of the other's questions, and one could be trained on
    and the other tested. The smallest id remains, so that the order of the tables does not matter.
    """
    remaining: dict[tuple[str, str], str] = {}
    for key in sorted(passages):
        remaining.setdefault((passages[key]["text"], passages[key].get("title", "")), key)
    new_ids = {
        key: remaining[passage["text"], passage.get("title", "")]
        for key, passage in passages.items()
    }
    for row in rows:
        row["passage"] = new_ids[row["passage"]]
    merged = {key: other for key, other in new_ids.items() if key != other}
    for key in merged:
        del passages[key]
    return merged


def drop_repeated_questions(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Keep one row of each question; return the kept rows, and the others as dropped rows.

    A test row is kept before a valid row and a valid row before a train row, so that no test
    question is trained on. Among rows of one split the first is kept.
    """
    precedence = {"test": 0, "valid": 1}
    kept: dict[str, dict] = {}
    for row in sorted(rows, key=lambda row: (precedence.get(row["dataset"], 2), row["row"])):
        kept.setdefault(row["question"], row)
    dropped = [
        {
            "row": row["row"],
            "question": row["question"],
            "reason": f"repeated question (row {kept[row['question']]['row']})",
        }
        for row in rows
        if kept[row["question"]] is not row
    ]
    return [row for row in rows if kept[row["question"]] is row], dropped
