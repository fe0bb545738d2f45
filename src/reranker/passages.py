"""A passage, and what of it is searched and shown: windows of its text, its title before each.

A window out of the middle of a manual does not say which product it is about; its title does. It stands before the text as a
sentence of its own, where BEIR (Thakur et al. 2021, arXiv:2104.08663) joins the two by a space: docs/quality.md has what that
is worth.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reranker.errors import InputError
from reranker.files import read_jsonl

SPLITS = ("train", "valid", "test")
HAN = re.compile(r"[\u3400-\u9fff]")


@dataclass(frozen=True)
class Passage:
    """`title` is empty where there is none, or where it is not to be shown (`retrieve.title`)."""

    title: str
    text: str

    def view(self, start: int = 0, end: int | None = None) -> str:
        """The title, a full stop, and the characters [start, end) of the text.

        >>> Passage("P300 manual", "It weighs 4.8 kg.").view(3, 9), Passage("P300 手册", "净重 4.8 千克。").view(0, 2)
        ('P300 manual. weighs', 'P300 手册。净重')
        """
        if not self.title:
            return self.text[start:end]
        stop = "。" if HAN.search(self.title) else ". "
        return f"{self.title}{stop}{self.text[start:end]}"


def read_passages(path: str | Path, titles: bool) -> dict[str, Passage]:
    """id -> passage, of data/prepared/corpus.jsonl in its order."""
    rows = read_jsonl(path, ("id", "text"))
    found = {row["id"]: Passage(row.get("title", "") if titles else "", row["text"]) for row in rows}
    if not found:
        raise InputError(f"{path}: there is no passage in it")
    return found


def read_questions(path: str | Path) -> list[dict]:
    """The questions of a split, of data/prepared, each with the id of the passage that answers it."""
    return list(read_jsonl(path, ("id", "question", "passage")))


def windows(text: str, size: int, stride: int) -> list[tuple[int, int]]:
    """Character spans [start, end) of at most `size`, a `stride` apart, that cover `text`; the whole where size is 0.

    >>> windows("abcdefgh", 4, 3)
    [(0, 4), (3, 7), (6, 8)]
    """
    if not size or len(text) <= size:
        return [(0, len(text))]
    return [(start, min(start + size, len(text))) for start in range(0, len(text) - size + stride, stride)]


def around(start: int, end: int, size: int, length: int) -> tuple[int, int]:
    """The span of `size` characters with [start, end) in its middle, moved to lie inside a text of `length`; all of it where
    size is 0.

    >>> around(4, 6, 6, 10), around(0, 2, 6, 10), around(8, 10, 6, 10), around(0, 2, 0, 10)
    ((2, 8), (0, 6), (4, 10), (0, 10))
    """
    if not size or size >= length:
        return 0, length
    first = min(max(0, (start + end - size) // 2), length - size)
    return first, first + size


def nearest_views(
    spans: Sequence[tuple[int, int]], near: Sequence[float], size: int, length: int, count: int
) -> list[tuple[int, int]]:
    """At most `count` views of a text: `size` characters around each of its windows, the nearest to the query first. A window
    whose view shares more than half with a nearer one's has none of its own.

    Args:
        spans: the windows of a text of `length`; near: what is larger the nearer to the query each of them is.

    >>> nearest_views([(0, 4), (2, 6), (4, 8), (6, 10)], [0.1, 0.9, 0.8, 0.3], 4, 10, 3)
    [(2, 6), (4, 8), (6, 10)]
    >>> nearest_views([(0, 4), (2, 6), (4, 8), (6, 10)], [0.1, 0.9, 0.8, 0.3], 6, 10, 3)
    [(1, 7), (4, 10)]
    """
    views: list[tuple[int, int]] = []
    for index in sorted(range(len(spans)), key=lambda index: -near[index]):
        start, end = around(*spans[index], size, length)
        if all(2 * abs(start - other) >= end - start for other, _ in views):
            views.append((start, end))
        if len(views) == count:
            break
    return views


def drawn_window(rng: random.Random, length: int, size: int) -> tuple[int, int]:
    """A span for a passage that has no window nearest to the query; all of it where size is 0."""
    if not size:
        return 0, length
    start = rng.randrange(max(1, length - size + 1))
    return start, start + size
