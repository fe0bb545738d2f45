"""Passages of the corpus table, or of the questions' rows, and the merging of equal ones.

A passage is a dict of text and the corpus table's other columns. Rows are those of cleaning.py;
they get the key `passage`, an id.
"""

import hashlib
import re
import unicodedata

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.preparation.cleaning import clean_text, drop
from tunerank.data.readers.cells import place
from tunerank.params.data import Prepare

OURS = ("id", "text", "also")
"""Keys of data/prepared/corpus.jsonl that a column of the corpus table does not replace."""


def corpus_passages(corpus: pd.DataFrame, params: Prepare, name: str) -> dict[str, dict]:
    """Return id -> passage of a corpus table.

    Raises:
        InputError: a cell is empty, or an id has two texts.
    """
    passages: dict[str, dict] = {}
    corpus = corpus.map(clean_text, unicode=params.unicode)
    for label, cells in zip(corpus.index, corpus.to_dict("records")):
        where = place(name, label)
        key, text = cells.pop("uuid"), cells.pop("doc")
        if not key or not text:
            missing = "doc" if key else "uuid"
            raise InputError(f"{where}: empty {missing}; fill it or delete the row")
        others = {column: cell for column, cell in cells.items() if column not in OURS}
        add_passage(passages, key, {"text": text} | others, where)
    return passages


def add_passage(passages: dict[str, dict], key: str, passage: dict, where: str) -> None:
    if passages.setdefault(key, passage)["text"] != passage["text"]:
        raise InputError(
            f"{where}: uuid {key!r} already has another text; give each passage an id of its own"
        )


def assign_corpus_passages(
    rows: list[dict], passages: dict[str, dict], name: str
) -> tuple[list[dict], list[dict]]:
    """Set row["passage"] to the id of a passage of the corpus table; return rows and dropped rows.

    Only a row of label 0 is dropped if its passage is not there: nothing can be learned from it.

    Raises:
        InputError: the corpus table has no such id.
    """
    kept, dropped = [], []
    for row in rows:
        row["passage"] = key = row["uuid"]
        if key in passages:
            kept.append(row)
        elif not row["grade"]:
            dropped.append(drop(row, "label 0 of a passage that is not in the corpus"))
        else:
            remedy = "; add it there or correct the uuid"
            if alike := [other for other in passages if loose_id(other) == loose_id(key) != ""]:
                remedy = f", which has {alike[0]!r}; write the id alike in both tables"
            where = place(name, row["row"])
            raise InputError(f"{where}: passage {key!r} is not in the corpus{remedy}")
    return kept, dropped


def loose_id(key: str) -> str:
    """Return an id without what spreadsheets change: blanks, case, leading zeros, a final `.0`."""
    key = "".join(unicodedata.normalize("NFKC", key).casefold().split())
    return re.sub(r"^0+(?=[^.])|\.0+$", "", key)


def assign_own_passages(
    rows: list[dict], name: str
) -> tuple[dict[str, dict], list[dict], list[dict]]:
    """Set row["passage"]; return id -> passage, with texts from the rows, rows and dropped rows.

    Several rows with one id and no doc have different evidence of one passage: the first evidence
    is the passage's text, until a row has its doc. A row of label 0 has evidence only for an id
    that no other row has a text of; without any text it is dropped.

    Raises:
        InputError: a row has no text, or an id has two texts.
    """
    passages: dict[str, dict] = {}
    without_doc: set[str] = set()
    kept, dropped = [], []
    for row in sorted(rows, key=lambda row: (not row["grade"]) * (2 - bool(_text(row)))):
        where, text = place(name, row["row"]), _text(row)
        key = row["passage"] = row["uuid"] or hashlib.sha256(text.encode()).hexdigest()[:16]
        if not text and not row["grade"]:
            if key not in passages:
                dropped.append(drop(row, "label 0 of a passage without text"))
                continue
        elif not text:
            raise InputError(
                f"{where}: no text for passage {row['uuid']!r}; fill doc, context or answer"
            )
        elif row["doc"] or not row["uuid"]:
            if key in without_doc:
                without_doc.remove(key)
                passages[key] = {"text": text}
            add_passage(passages, key, {"text": text}, where)
        elif key not in passages:
            without_doc.add(key)
            passages[key] = {"text": text}
        kept.append(row)
    kept.sort(key=lambda row: row["position"])
    return {row["passage"]: passages[row["passage"]] for row in kept}, kept, dropped


def _text(row: dict) -> str:
    return row["doc"] or row["context"] or row["answer"]


def merge_same_texts(rows: list[dict], passages: dict[str, dict]) -> dict[str, str]:
    """Merge passages with the same text and title; return removed id -> remaining id.

    Otherwise each would be a false negative of the other's questions, and one could be trained on
    and the other tested. The smallest id remains, so that the order of the tables does not matter.
    It lists the removed ids as `also`: other data, such as a search server's, may have them.
    """
    remaining, new_ids = {}, {}
    for key in sorted(passages):
        identity = passages[key]["text"], passages[key].get("title", "")
        new_ids[key] = remaining.setdefault(identity, key)
    for row in rows:
        row["passage"] = new_ids[row["passage"]]
    merged = {key: new_ids[key] for key in passages if new_ids[key] != key}
    for key, other in merged.items():
        del passages[key]
        passages[other].setdefault("also", []).append(key)
    return merged
