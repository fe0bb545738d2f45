"""Read texts that have ids: queries, topics and corpora, as BEIR, MS MARCO and TREC have them."""

import re
from collections.abc import Iterator
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import numbered_jsonl, regular
from tunerank.data.readers.cells import Unusable, as_cell, json_object, place
from tunerank.data.readers.tables import READERS, read_table
from tunerank.data.readers.text import decode

IDS = (
    *("uuid", "_id", "id", "query_id", "query-id", "qid", "docid", "doc_id", "docno"),
    *("passage_id", "pid"),
)
TEXTS = ("doc", "text", "query", "question", "contents", "body", "passage")
OTHERS = ("title", "document")

TOPIC = re.compile(r"<top>(.*?)</top>", re.DOTALL | re.IGNORECASE)
NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*([^\s<]+)", re.IGNORECASE)
TITLE = re.compile(r"<title>\s*(?:Topic:)?([^<]*)", re.IGNORECASE)


def read_identified(path: Path, unused: dict[str, None]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the row number and {id, text, title, document} of each row.

    The file is jsonl or another table, tab-separated lines (id, text and perhaps title, in this
    order or as a header says), or TREC's topics.

    Args:
        unused: gets the names of columns that are not used.

    Raises:
        InputError: a row has no id, a cell is not one text, or a line is not in these forms.
    """
    suffix = regular(path).suffix.lower()
    if not path.stat().st_size:
        raise InputError(f"{path}: is empty")
    if suffix == ".jsonl":
        yield from _named(path, numbered_jsonl(path, json_object), unused)
    elif suffix in READERS:
        table = read_table(path)
        names = list(table)
        rows = ((number, dict(zip(names, cells))) for number, *cells in table.itertuples(name=None))
        yield from _named(path, rows, unused)
    elif TOPIC.search(text := decode(path)):
        yield from _topics(path, text)
    else:
        yield from _named(path, _separated(path, text), unused)


def _named(
    path: Path, rows: Iterator[tuple[int, dict]], unused: dict[str, None]
) -> Iterator[tuple[int, dict[str, str]]]:
    key = text = None
    for number, row in rows:
        if key not in row:
            key = next((name for name in IDS if name in row), None)
        if text not in row:
            text = next((name for name in TEXTS if name in row), None)
        if key is None:
            names = ", ".join(map(repr, row))
            raise InputError(
                f"{place(path, number)}: no id among {names}; name it {', '.join(IDS[:3])}"
            )
        found = {"id": _single(path, number, key, row[key])}
        found["text"] = "" if text is None else _single(path, number, text, row[text])
        for name in OTHERS:
            found[name] = _single(path, number, name, row.get(name))
        if not found["id"]:
            raise InputError(f"{place(path, number)}: empty {key!r}; fill it or delete the row")
        unused |= dict.fromkeys(
            name for name, value in row.items() if value and name not in (key, text, *OTHERS)
        )
        yield number, found


def _single(path: Path, number: int, name: str, value: object) -> str:
    cell = value if isinstance(value, Unusable) else as_cell(value)
    if isinstance(cell, Unusable):
        raise InputError(f"{place(path, number)}, column {name!r}: {cell.reason}")
    return cell


def _separated(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the cells of tab-separated lines, which have no quotes."""
    names = ["id", "text", "title"]
    for number, line in enumerate(text.split("\n"), 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells):
            continue
        if number == 1 and {*IDS} & {*cells} and {*TEXTS} & {*cells}:
            names = cells
            continue
        if not 1 < len(cells) <= len(names):
            wanted = ", ".join(names)
            raise InputError(
                f"{path}, line {number}: cells separated by tabs: {len(cells)}; needed are {wanted}"
            )
        yield number, dict(zip(names, cells))


def _topics(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    for topic in TOPIC.finditer(text):
        line = text.count("\n", 0, topic.start()) + 1
        number, title = NUMBER.search(topic[1]), TITLE.search(topic[1])
        if not number or not title:
            missing = "title" if number else "num"
            raise InputError(f"{path}, line {line}: a topic without <{missing}>; add it")
        yield line, {"id": number[1], "text": " ".join(title[1].split())}
