"""Read the lines of a search's results: a TREC run, or jsonl of query, passage and score.

    q17 Q0 manual-3 1 12.7 elastic                             TREC, with blanks or tabs between
    {"query": "q17", "passage": "manual-3", "score": 12.7}     jsonl

The first line shows which of them a file is.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import numbered_jsonl, regular

FORMS = (
    "a line is `query Q0 passage rank score tag`, with %20 for a blank in an id, or "
    '{"query": ..., "passage": ..., "score": ...}'
)
MARK = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8."""

WHOLE_NUMBER = re.compile(r"[0-9]+(\.0*)?")

Line = tuple[int, str, str, object, int | None]
"""Number, query, passage, score as it is, and rank (None in jsonl)."""


def run_files(path: Path) -> list[Path]:
    """Return the files of a run: `path` itself, or those of a folder without hidden and DVC's own.

    Raises:
        InputError: there is none; the message says what there is.
    """

    def names(folder: Path) -> list[str]:
        files = folder.iterdir() if folder.is_dir() else ()
        return sorted(file.name for file in files if file.name[0] != "." and file.suffix != ".dvc")

    if path.is_dir():
        if not (inside := names(path)):
            raise InputError(f"{path}: no file in this folder; retrieve.run reads all files in it")
        return [path / name for name in inside]
    there = ", ".join(names(path.parent)[:5]) or "nothing"
    pull = "; run dvc pull" if path.with_name(f"{path.name}.dvc").exists() else ""
    missing = f"no such file; retrieve.run names one in {path.parent}, which has {there}{pull}"
    return [regular(path, missing)]


def run_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a run's file.

    Raises:
        InputError: a line has another form.
    """
    with open(regular(path), "rb") as content:
        first = next(filter(None, (line.removeprefix(MARK).strip() for line in content)), b"")
    yield from json_lines(path) if first[:1] in (b"{", b"[") else trec_lines(path)


def json_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a jsonl file, as `run_lines`."""
    for number, row in numbered_jsonl(path):
        for name in ("query", "passage"):
            value = row.get(name)
            if not isinstance(value, str | int) or isinstance(value, bool):
                found = f"is of type {type(value).__name__}" if name in row else "is missing"
                raise InputError(f"{path}, line {number}: {name!r} {found}; {FORMS}")
        yield number, str(row["query"]), str(row["passage"]), row.get("score"), None


def trec_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a TREC run, as `run_lines`."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            # Only ASCII's white space separates. Between tabs a name may have blanks.
            line = line.removeprefix(MARK).strip()
            cells = [cell.strip() for cell in line.split(b"\t")]
            cells = cells if len(cells) == 6 else line.split()
            if not cells:
                continue
            where = f"{path}, line {number}"
            try:
                texts = [cell.decode() for cell in cells]
            except UnicodeDecodeError:
                raise InputError(f"{where}: not UTF-8; save the file as UTF-8") from None
            if len(texts) != 6:
                columns = f"{len(texts)} column{'s' * (len(texts) > 1)}"
                raise InputError(f"{where}: {columns} where a run has 6; {FORMS}")
            query, _, passage, rank, score, _ = texts
            if not WHOLE_NUMBER.fullmatch(rank):
                # Columns in another order would rank by something else than the score.
                raise InputError(f"{where}: the rank {rank!r} is no whole number; {FORMS}")
            yield number, query, passage, score, int(float(rank))
