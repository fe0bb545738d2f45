"""A corpus with its vectors and its BM25 index, in memory and in a folder."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import bm25s

from tunerank.core.errors import InputError
from tunerank.core.files import link_or_copy, read_jsonl
from tunerank.data.passages import Passage
from tunerank.params.base import Retriever
from tunerank.params.data import Retrieve
from tunerank.retrieval.candidates import Index
from tunerank.retrieval.retrievers import BM25
from tunerank.searching.vectors import (
    KnownVectors,
    SameVectors,
    Vectors,
    read_vectors,
    write_vectors,
)

VECTORS, WORDS = "vectors", "bm25"
"""Folders with the files of a corpus."""

DAMAGED = (ValueError, OSError, LookupError, TypeError, EOFError)
"""What numpy, json and bm25s raise for a missing or damaged file."""


@dataclass(frozen=True)
class Texts:
    """passages: id -> passage, by id, as they are searched; titles: id -> title, for people.

    merged: other ids of passages, which `prepare` merged with one of equal text -> the id left.
    """

    passages: dict[str, Passage]
    titles: dict[str, str]
    merged: dict[str, str]

    def with_rows(self, rows: Mapping[str, tuple[str, str]], titles: bool) -> "Texts":
        """Return the texts with further ones, id -> (title, text), or with others in their place.

        Args:
            titles: whether they are searched after their titles, `retrieve.title`.
        """
        passages = {
            key: Passage(title if titles else "", text) for key, (title, text) in rows.items()
        }
        named = {key: title for key, (title, _) in rows.items()}
        merged = {other: key for other, key in self.merged.items() if other not in rows}
        return Texts(dict(sorted((self.passages | passages).items())), self.titles | named, merged)


def read_texts(path: Path, titles: bool) -> Texts:
    """Read corpus.jsonl.

    Raises:
        InputError: as `read_jsonl`, or there is no passage.
    """
    rows, merged = {}, {}
    for row in read_jsonl(path, ("id", "text")):
        rows[row["id"]] = row.get("title", ""), row["text"]
        merged |= dict.fromkeys(row.get("also", ()), row["id"])
    if not rows:
        raise InputError(f"{path}: no passages; check the table in prepare.raw")
    return Texts({}, {}, merged).with_rows(rows, titles)


@dataclass(frozen=True)
class Corpus:
    """What a first stage searches; it does not change.

    bm25: None with `retrieve.run`. vectors: kind -> those of `index`, empty without
    `Retrieve.dense`.
    """

    texts: Texts
    index: Index
    bm25: BM25 | None
    vectors: Mapping[str, Vectors]


def build_corpus(texts: Texts, retrieve: Retrieve, known: KnownVectors) -> Corpus:
    """Index a corpus as `Retrieval` does; texts with known vectors are not encoded."""
    index = Index(texts.passages, known if retrieve.dense else None, retrieve)
    bm25 = None
    if not retrieve.run:
        views = [passage.view() for passage in texts.passages.values()]
        bm25 = BM25(views, retrieve.bm25_k1, retrieve.bm25_b)
    return Corpus(texts, index, bm25, known.made)


def write_corpus(folder: Path, corpus: Corpus) -> None:
    """Write the vectors and the BM25 index of a corpus into a new folder."""
    folder.mkdir()
    write_vectors(folder / VECTORS, corpus.vectors)
    if corpus.bm25:
        corpus.bm25.index.save(folder / WORDS, show_progress=False)


def load_corpus(folder: Path, texts: Texts, retrieve: Retrieve, retriever: Retriever) -> Corpus:
    """Return the corpus of these very texts from a folder, mapped into memory.

    Raises:
        One of DAMAGED: a file is missing or damaged.
    """
    same = SameVectors(retriever, read_vectors(folder / VECTORS))
    index = Index(texts.passages, same if retrieve.dense else None, retrieve)
    bm25 = None if retrieve.run else load_bm25(folder / WORDS, len(texts.passages))
    return Corpus(texts, index, bm25, same.made)


def load_bm25(folder: Path, size: int) -> BM25:
    """Return the BM25 index of `size` texts.

    Raises:
        One of DAMAGED: a file is missing or damaged.
    """
    bm25 = BM25.__new__(BM25)
    # The file may name a backend; only numpy checks the bounds of what it reads.
    bm25.index, bm25.size = bm25s.BM25.load(folder, mmap=True, backend="numpy"), size
    if bm25.index.scores["num_docs"] != size:
        raise ValueError(f"{folder}: an index of {bm25.index.scores['num_docs']} texts, not {size}")
    return bm25


def copy_corpus(source: Path, target: Path) -> None:
    """Put the files of a corpus into another folder, by hard links where they are possible."""
    for name in (VECTORS, WORDS):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, copy_function=link_or_copy)
