"""Passages, windows of their text for retrieval, and views of their text for reranking.

A window from the middle of a manual does not say which product it is about, but the title does. The
title stands before the text as a sentence of its own. BEIR (Thakur et al. 2021, arXiv:2104.08663)
joins the two with a space: docs/quality.md compares them.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl

SPLITS = ("train", "valid", "test")
HAN = re.compile(r"[\u3400-\u9fff]")
"""Chinese characters."""


@dataclass(frozen=True)
class Passage:
    """A title, empty if missing or not used (`retrieve.title`), and a text."""

    title: str
    text: str

    def view(self, start: int = 0, end: int | None = None) -> str:
        """Return the title, a full stop, and the characters [start, end) of the text.

        >>> Passage("P300 manual", "It weighs 4.8 kg.").view(3, 9)
        'P300 manual. weighs'
        >>> Passage("P300 手册", "净重 4.8 千克。").view(0, 2)
        'P300 手册。净重'
        """
        if not self.title:
            return self.text[start:end]
        stop = "。" if HAN.search(self.title) else ". "
        return f"{self.title}{stop}{self.text[start:end]}"


def read_passages(path: str | Path, titles: bool) -> dict[str, Passage]:
    """Read data/prepared/corpus.jsonl as id -> passage, in the file's order.

    Raises:
        InputError: as `read_jsonl`, or there is no passage.
    """
    rows = read_jsonl(path, ("id", "text"))
    passages = {
        row["id"]: Passage(row.get("title", "") if titles else "", row["text"]) for row in rows
    }
    if not passages:
        raise InputError(f"{path}: no passages; check the table in prepare.raw")
    return passages


def windows(text: str, size: int, stride: int) -> list[tuple[int, int]]:
    """Return character spans [start, end) of at most `size`, one every `stride`, that cover `text`.

    With size 0 it is one span, the whole text.

    >>> windows("abcdefgh", 4, 3)
    [(0, 4), (3, 7), (6, 8)]
    """
    if not size or len(text) <= size:
        return [(0, len(text))]
    return [
        (start, min(start + size, len(text)))
        for start in range(0, len(text) - size + stride, stride)
    ]


def centered_span(start: int, end: int, size: int, length: int) -> tuple[int, int]:
    """Return the span of `size` characters around [start, end), shifted into a text of `length`.

    With size 0 it is the whole text.

    >>> centered_span(4, 6, 6, 10), centered_span(0, 2, 6, 10), centered_span(8, 10, 6, 10)
    ((2, 8), (0, 6), (4, 10))
    >>> centered_span(0, 2, 0, 10)
    (0, 10)
    """
    if not size or size >= length:
        return 0, length
    first = min(max(0, (start + end - size) // 2), length - size)
    return first, first + size


def select_views(
    spans: Sequence[tuple[int, int]], near: Sequence[float], size: int, length: int, count: int
) -> list[tuple[int, int]]:
    """Return up to `count` views of a text: `size` characters around its windows, nearest first.

    A window is skipped if its view overlaps the view of a nearer window by more than half.

    Args:
        spans: the windows of a text of `length` characters.
        near: similarity of each window to the query.
        size: characters of a view; 0 is the whole text.

    >>> select_views([(0, 4), (2, 6), (4, 8), (6, 10)], [0.1, 0.9, 0.8, 0.3], 4, 10, 3)
    [(2, 6), (4, 8), (6, 10)]
    >>> select_views([(0, 4), (2, 6), (4, 8), (6, 10)], [0.1, 0.9, 0.8, 0.3], 6, 10, 3)
    [(1, 7), (4, 10)]
    """
    views: list[tuple[int, int]] = []
    for index in sorted(range(len(spans)), key=lambda index: -near[index]):
        start, end = centered_span(*spans[index], size, length)
        if all(2 * abs(start - other) >= end - start for other, _ in views):
            views.append((start, end))
        if len(views) == count:
            break
    return views


def random_view(rng: random.Random, length: int, size: int) -> tuple[int, int]:
    """Draw a span of `size` characters of a text of `length`; with size 0 it is the whole text.

    Passages that were not retrieved need it: no window is known that is nearest to the query.
    """
    if not size:
        return 0, length
    start = rng.randrange(max(1, length - size + 1))
    return start, start + size
