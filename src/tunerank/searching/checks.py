"""Check what callers pass: queries, passages and a number of results."""

from collections.abc import Iterable, Mapping
from operator import index

from tunerank.core.errors import InputError


def as_questions(queries: Iterable[str]) -> list[dict]:
    """Return queries as questions without judgements.

    Raises:
        InputError: one is empty, or not text.
    """
    if isinstance(queries, str):
        raise InputError("search_many takes a list of queries; search takes one")
    texts = [checked_text(query, "the query") for query in queries]
    return [
        {"id": f"q{place}", "question": text, "relevant": [], "negatives": []}
        for place, text in enumerate(texts)
    ]


def checked_text(text: object, what: str, empty: bool = False) -> str:
    """Return a text without blanks around it.

    Raises:
        InputError: it is not text, half a character is in it, or nothing is and `empty` is false.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} is of type {type(text).__name__}; give text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} has half a character (a lone surrogate); give Unicode") from None
    if not (text := text.strip()) and not empty:
        raise InputError(f"{what} is empty")
    return text


def checked_count(top_k: object) -> int:
    """Return `top_k`.

    Raises:
        InputError: it is no integer from 1.
    """
    try:
        count = 0 if isinstance(top_k, bool) else index(top_k)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"top_k {top_k!r}: give an integer from 1")
    return count


def checked_passages(passages: Iterable[Mapping]) -> dict[str, tuple[str, str]]:
    """Return id -> (title, text); of equal ids the last one counts.

    Raises:
        InputError: a passage cannot be used; the message has its place, from 1.
    """
    found = {}
    for place, row in enumerate(passages, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"passage {place} is no mapping; give {{'id': ..., 'text': ...}}")
        key = checked_text(row.get("id"), f"the id of passage {place}")
        title = checked_text(row.get("title") or "", f"the title of passage {place}", empty=True)
        found[key] = title, checked_text(row.get("text"), f"the text of passage {place}")
    return found
