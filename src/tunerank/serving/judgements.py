"""Keep what people call right or wrong: a row for each person, question and passage.

Rows are in FOLDER/YYYY-MM.csv, the month of the click. `prepare` can read such a file as it is, and
`tunerank feedback` puts all of them beside a table. A later click of a person on the same passage
for the same question replaces the row, because `prepare` would let a label 1 win over a later 0.

A cell that a spreadsheet would read as a formula gets an invisible character before it, which
`prepare` removes: the question is read back as it was asked. An apostrophe would stay in it.
"""

import csv
import fcntl
import io
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import regular, replacing
from tunerank.evaluation.safe_csv import SIGNS
from tunerank.serving.bodies import loaded
from tunerank.serving.limits import Refused

COLUMNS = ("when", "who", "question", "uuid", "label", "doc")

GUARD = "\u200b"
"""A zero-width space. `prepare` removes it wherever it stands."""
CONTROL = re.compile("[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
"""Removed from every text. `prepare` would do that too, but cannot read a NUL."""

LONGEST = {"query": 4000, "passage": 1000, "text": 1_000_000, "who": 100}
"""Characters of each text of a request."""
BODY = 4 << 20
"""Bytes of a request."""
VALUES = 100_000
"""See `loaded`."""
MONTH = 64 << 20
"""Bytes of a month's file, which is written whole for every row."""
PATIENCE = 5.0
"""Seconds to wait for other writers."""


@dataclass(frozen=True)
class Judgement:
    """What a person says of a passage: label 1 right, 0 wrong, None withdrawn."""

    question: str
    uuid: str
    label: int | None
    who: str = ""
    doc: str = ""


def parse(body: bytes) -> Judgement:
    """Return the judgement of a request {query, passage, label, who?}.

    `passage` is an id, or {id, text}. `label` has to be there: null withdraws an earlier one.

    Raises:
        Refused: it is something else; the message names the key.
    """
    try:
        values = loaded(body, VALUES)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not valid JSON") from None
    if not isinstance(values, dict):
        raise Refused(400, "the body is not a JSON object")
    passage = values.get("passage")
    if not isinstance(passage, dict):
        passage = {"id": passage}
    question = _text(values.get("query"), "query")
    uuid = _text(passage.get("id"), "passage")
    label = values.get("label", "")
    if label is not None and (type(label) is not int or label not in (0, 1)):
        raise Refused(422, "label: neither 1 (right) nor 0 (wrong) nor null (withdrawn)")
    who, doc = (
        _text("" if value is None else value, name, empty=True)
        for name, value in (("who", values.get("who")), ("text", passage.get("text")))
    )
    return Judgement(question, uuid, label, " ".join(who.split()), doc)


def _text(value: object, name: str, empty: bool = False) -> str:
    """Return a text without control characters and blanks around it."""
    if not isinstance(value, str):
        raise Refused(422, f"{name}: not a text")
    if len(value) > LONGEST[name]:
        raise Refused(413, f"{name}: longer than {LONGEST[name]} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(422, f"{name}: half a character (a surrogate alone)") from None
    value = CONTROL.sub("", value).strip()
    if not value and not empty:
        raise Refused(422, f"{name}: empty")
    return value


def guarded(cell: str) -> str:
    """Return a cell that no spreadsheet reads as a formula.

    >>> guarded("=1+1") == "\\u200b=1+1", guarded("1-1")
    (True, '1-1')
    """
    return GUARD + cell if re.match(rf"{SIGNS}|\r", cell) else cell


def csv_line(cells: Sequence[str]) -> str:
    """Return a row of a csv file. Python's csv does not quote a carriage return before 3.13.

    >>> csv_line(["a", 'b"c', "d, e"])
    'a,"b""c","d, e"\\n'
    """
    return ",".join(map(_quoted, cells)) + "\n"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if re.search('[",\r\n]', cell) else cell


class Feedback:
    """The files of a folder. Several threads and processes may keep judgements at once."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def keep(self, judgement: Judgement, now: datetime | None = None) -> None:
        """Write the judgement's row, and remove an earlier one of this person on this pair.

        Each file is replaced as a whole: no reader sees half of a row, and a file that is a link
        into DVC's cache leaves the cache as it is.

        Raises:
            Refused: a file is full, or others write for too long.
            InputError: a file is not as this class writes it.
            OSError: a file cannot be written.
        """
        now = (now or datetime.now(UTC)).astimezone(UTC)
        given = (judgement.who, judgement.question, judgement.uuid)
        who, question, uuid = key = tuple(map(guarded, given))
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            files = sorted(self.folder.glob("????-??.csv"))
            kept = ((path, _without(path, key)) for path in files)
            changed = {path: rows for path, rows in kept if rows is not None}
            if judgement.label is not None:
                month = self.folder / f"{now:%Y-%m}.csv"
                rows = changed.pop(month, None)
                if rows is None:
                    rows = read_rows(month) if month.exists() else []
                when = now.isoformat(timespec="seconds").replace("+00:00", "Z")
                row = [when, who, question, uuid, str(judgement.label), guarded(judgement.doc)]
                # The new row first: a crash before the next file leaves two, of which one is later.
                changed = {month: [*rows, row], **changed}
            for path, rows in changed.items():
                _write(path, rows)


def _without(path: Path, key: tuple[str, ...]) -> list[list[str]] | None:
    """Return a file's rows but those of `key` (who, question, uuid), or None if it has none."""
    uuid = key[-1].replace('"', '""').encode()
    if uuid not in regular(path).read_bytes():
        return None
    rows = read_rows(path)
    kept = [row for row in rows if tuple(row[1:4]) != key]
    return kept if len(kept) < len(rows) else None


def read_rows(path: Path) -> list[list[str]]:
    """Return the rows of a month's file, cells as they are written.

    Raises:
        InputError: it is not as `Feedback` writes it.
    """
    remedy = "save it as UTF-8 with commas and its own columns, or move it away"
    csv.field_size_limit(2**31 - 1)
    try:
        text = regular(path).read_bytes().decode("utf-8-sig")
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (ValueError, csv.Error):
        raise InputError(f"{path}: not a csv file as this server writes it; {remedy}") from None
    if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise InputError(f"{path}: other columns than {', '.join(COLUMNS)}; {remedy}")
    return rows


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    if not rows:  # `prepare` refuses a table without rows
        return path.unlink()
    text = "".join(csv_line(row) for row in (COLUMNS, *rows))
    content = text.encode("utf-8-sig")  # with its mark Excel reads UTF-8 as such
    if len(content) > MONTH:
        raise Refused(507, f"{path.name} is full ({MONTH >> 20} MiB); move it away")
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers away. The folder itself is locked: a lock file would lie in the data.

    Raises:
        Refused: another process has the lock for longer than PATIENCE seconds.
    """
    handle, end = os.open(folder, os.O_RDONLY), time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Refused(503, "others write feedback now; click again", 1) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)
