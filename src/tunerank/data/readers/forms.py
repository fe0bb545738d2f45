"""Hold what a form of data gives: tables with our columns, and what was left out."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

QUESTIONS = (
    *("question", "uuid", "doc", "answer", "context"),
    *("dataset", "label", "query_id", "qa_type"),
)
PASSAGES = ("uuid", "doc", "title", "document")


@dataclass
class Form:
    """Tables with our columns, made from data in a form that is recognised.

    name: the form, for people
    qa, corpus: tables as `read_table` gives them; without a corpus, `qa` has the texts
    unused: the data's columns that are not used
    asides: what was left out or changed -> how often
    notes: what else people should know
    """

    name: str
    qa: pd.DataFrame
    corpus: pd.DataFrame | None = None
    unused: list[str] = field(default_factory=list)
    asides: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


class Columns:
    """Columns of a table that grow row by row: a list of cells takes less memory than a dict a row.

    >>> columns = Columns(("question", "doc", "answer"))
    >>> columns.add(2, question="甲？", doc="一")
    >>> columns.frame().to_dict()
    {'question': {2: '甲？'}, 'doc': {2: '一'}}
    """

    def __init__(self, names: Iterable[str]):
        self.labels: list[int | str] = []
        self.cells: dict[str, list[str]] = {name: [] for name in names}

    def add(self, label: int | str, /, **cells: str) -> None:
        """Append a row; columns that are not given are empty in it."""
        self.labels.append(label)
        for name, column in self.cells.items():
            column.append(cells.get(name, ""))

    def frame(self) -> pd.DataFrame:
        """Return the table: its first column, and others that are not empty."""
        first = next(iter(self.cells))
        filled = {
            name: column for name, column in self.cells.items() if name == first or any(column)
        }
        return pd.DataFrame(filled, index=self.labels, dtype=object)


def text_id(text: str) -> str:
    """Return the id of a passage that has none: the first 16 digits of its text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_ids(qa: pd.DataFrame, corpus: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables with the questions' texts (column `doc`) as passages of the corpus.

    A text that the corpus has becomes its id there, another text a new passage at the end.
    """
    if "doc" not in qa:
        return qa, corpus
    known = dict(zip(reversed(corpus["doc"].tolist()), reversed(corpus["uuid"].tolist())))
    new = Columns(PASSAGES)
    ids = []
    given = qa["uuid"] if "uuid" in qa else [""] * len(qa)
    for label, key, text in zip(qa.index, given, qa["doc"]):
        if text and not key:
            key = known.get(text)
            if key is None:
                key = known[text] = text_id(text)
                new.add(label, uuid=key, doc=text)
        ids.append(key)
    corpus = pd.concat([corpus, new.frame()]).fillna("") if new.labels else corpus
    return qa.drop(columns="doc").assign(uuid=pd.Series(ids, index=qa.index, dtype=object)), corpus
