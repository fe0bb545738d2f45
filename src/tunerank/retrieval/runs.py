"""Match the results of the user's own search with the questions and passages.

They are ranked by score, as trec_eval does, which does not read the ranks either.
"""

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tunerank.core.errors import InputError
from tunerank.data.passages import Passage
from tunerank.retrieval.run_lines import run_files, run_lines

UNSEEN = re.compile("[\\s\0-\x1f\x7f-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+")
"""White space, control characters and other characters that nobody sees."""

NO_NUMBER, NO_QUESTION, NO_PASSAGE, TWICE = "number", "question", "passage", "twice"
"""What is wrong with a line."""


def read_run(
    path: Path,
    questions: Mapping[str, Sequence[dict]],
    passages: Mapping[str, Passage],
    merged: Mapping[str, str],
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return question id -> passage -> score, best first, and lines that a person should read.

    Of equal scores the one that comes first in the file comes first. A passage that comes twice for
    a query has the higher score.

    Args:
        path: a file, or a folder of files that are all read.
        questions: split -> its questions.
        merged: other id of a passage -> its id in `passages`.

    Raises:
        InputError: there is no file, a line has another form, a score is no finite number, or no
            query or no passage is known.
    """
    by_text: dict[str, tuple[str, ...]] = {}
    for row in (row for rows in questions.values() for row in rows):
        by_text[row["question"]] = (*by_text.get(row["question"], ()), row["id"])
    ids = {key: (key,) for keys in by_text.values() for key in keys}
    asked = Names(by_text | ids, by_text.items())
    known = Names(
        {**merged, **{key: key for key in passages}},
        ((passage.text, key) for key, passage in passages.items()),
    )
    found: dict[str, dict[str, tuple[float, int | None]]] = {}
    notes = Notes(path)
    for file in run_files(path):
        for number, query, passage, given, rank in run_lines(file):
            notes.lines += 1
            score, keys = finite(given), asked.find(query)
            target = known.find(passage) if keys else None
            if score is None:
                notes.add(NO_NUMBER, str(given), file, number)
            elif not keys:
                notes.add(NO_QUESTION, query, file, number)
            elif target is None:
                notes.add(NO_PASSAGE, passage, file, number)
            else:
                listed = [found.setdefault(key, {}) for key in keys]
                if any(target in one for one in listed):
                    notes.add(TWICE, passage, file, number)
                for one in listed:
                    if target not in one or one[target][0] < score:
                        one.pop(target, None)  # it comes where its higher score stands
                        one[target] = score, rank
    notes.refuse(questions, passages)
    contradicted = [key for key, listed in found.items() if contradicts(listed.values())]
    run = {}
    for key in list(found):
        ranked = sorted(found.pop(key).items(), key=lambda item: -item[1][0])
        run[key] = {passage: score for passage, (score, _) in ranked}
    return run, notes.said(run, questions, contradicted)


class Names:
    """Find what a run's name means: one of `ids`, percent-encoded too, or a text, loosely the same.

    Args:
        ids: name -> what it means.
        texts: (text, what it means); read once a name is no id. The first of equal texts wins.
    """

    def __init__(self, ids: Mapping[str, Any], texts: Iterable[tuple[str, Any]]):
        self.found, self.texts = dict(ids), texts
        self.by_text: dict[bytes, Any] | None = None

    def find(self, name: str) -> Any | None:
        """Return what a name means, or None."""
        if name not in self.found:
            if self.by_text is None:
                self.by_text = {}
                for text, meaning in self.texts:
                    self.by_text.setdefault(fingerprint(text), meaning)
            plain = unquote(name)
            texts = (self.by_text.get(fingerprint(text)) for text in (name, plain))
            meanings = (self.found.get(plain), *texts)
            self.found[name] = next((found for found in meanings if found is not None), None)
        return self.found[name]


def fingerprint(text: str) -> bytes:
    """Return the same bytes for texts that differ in white space, width of letters or case alone.

    >>> fingerprint("P300 ｍanual") == fingerprint("p300manual")
    True
    """
    loose = UNSEEN.sub("", unicodedata.normalize("NFKC", text)).casefold()
    return hashlib.blake2b(loose.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def finite(value: object) -> float | None:
    """Return a score as a float, None if it is no finite number."""
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return score if math.isfinite(score) else None


def contradicts(listed: Iterable[tuple[float, int | None]]) -> bool:
    """Return whether the ranks of (score, rank) are repeated, or not in the order of the scores.

    >>> contradicts([(0.5, 2), (0.9, 1)]), contradicts([(0.5, 1), (0.9, 2)])
    (False, True)
    """
    pairs = sorted((-score, rank) for score, rank in listed if rank is not None)
    return any(later <= earlier for (_, earlier), (_, later) in zip(pairs, pairs[1:]))


class Notes:
    """What is wrong with a run's lines, counted, with an example."""

    def __init__(self, path: Path):
        self.path, self.lines = path, 0
        self.counts: Counter[str] = Counter()
        self.places: dict[str, dict[str, tuple[Path, int]]] = {}

    def add(self, what: str, name: str, file: Path, number: int) -> None:
        """Count a line; `name` is what it has."""
        self.counts[what] += 1
        self.places.setdefault(what, {}).setdefault(name, (file, number))

    def example(self, what: str) -> str:
        """Return the first name of a kind, and where it is."""
        name, (file, number) = next(iter(self.places[what].items()))
        return f"{short(name)} ({file.name}, line {number})"

    def refuse(
        self, questions: Mapping[str, Sequence[dict]], passages: Mapping[str, Passage]
    ) -> None:
        """Raise InputError where nothing of the run can be used, or a score is no finite number."""
        counts = self.counts
        if not self.lines:
            raise InputError(f"{self.path}: no line; write the results of a search into it")
        if wrong := counts[NO_NUMBER]:
            raise InputError(
                f"{self.path}: scores that are no finite numbers: {wrong}, the first "
                f"{self.example(NO_NUMBER)}; correct them or delete their lines"
            )
        if counts[NO_QUESTION] == self.lines:
            key = next(row["id"] for rows in questions.values() for row in rows)
            raise InputError(
                f"{self.path}: no query is a question; write the question's id in data/prepared, "
                f"such as {key!r}, or its text, where {self.example(NO_QUESTION)} is"
            )
        if counts[NO_QUESTION] + counts[NO_PASSAGE] == self.lines:
            raise InputError(
                f"{self.path}: no passage is in the corpus; write its id in data/prepared, such as "
                f"{next(iter(passages))!r}, or its text, where {self.example(NO_PASSAGE)} is"
            )

    def said(
        self,
        run: Mapping[str, Mapping[str, float]],
        questions: Mapping[str, Sequence[dict]],
        contradicted: Sequence[str],
    ) -> list[str]:
        """Return a line about the run, and one for each kind of fault that there is."""
        lengths = [len(listed) for listed in run.values()]
        total = sum(map(len, questions.values()))
        lines = [
            f"{self.lines} lines give {len(run)} of {total} questions {min(lengths)} to "
            f"{max(lengths)} candidates"
        ]
        without = {
            split: [row for row in rows if row["id"] not in run]
            for split, rows in questions.items()
        }
        if any(without.values()):
            counted = ", ".join(f"{len(rows)} {split}" for split, rows in without.items() if rows)
            first = next(row for rows in without.values() for row in rows)
            example = f"{short(first['id'])}, {short(first['question'])}"
            lines.append(f"questions without candidates: {counted}; the first is {example}")
        for what, title, end in (
            (NO_QUESTION, "queries that no split has", ""),
            (NO_PASSAGE, "passages that the corpus lacks", ""),
            (TWICE, "passages that a query has twice", "; the higher score counts"),
        ):
            if count := self.counts[what]:
                number = count if what == TWICE else len(self.places[what])
                within = "" if number == count else f" in {count} lines"
                lines.append(f"{title}: {number}{within}, such as {self.example(what)}{end}")
        if contradicted:
            lines.append(
                f"queries with ranks that are repeated or contradict the scores: "
                f"{len(contradicted)}, such as {short(contradicted[0])}; the scores count"
            )
        return [f"{self.path}: {line}" for line in lines]


def short(name: str) -> str:
    """Return a name in quotes, cut at 40 characters."""
    return repr(name if len(name) <= 40 else f"{name[:39]}…")
