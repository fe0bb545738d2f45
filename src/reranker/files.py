"""Files on disk: read with the line that is wrong named, written whole or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reranker.errors import InputError


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `target`, a file or a folder, and rename it into place when the block succeeds.

    A block that fails leaves what was at `target` untouched; so does a kill, but that it may leave a folder's former
    content as `target.former`, between two renames.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    remove(partial)
    try:
        yield partial
    except BaseException:
        remove(partial)
        raise
    former = target.with_name(target.name + ".former")
    remove(former)
    if target.is_dir():  # a folder cannot be renamed over another that holds files
        os.replace(target, former)
    os.replace(partial, target)
    remove(former)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: str, target: str) -> None:
    """One file under two names where the file system can, else a copy; for shutil.copytree."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def decode(path: Path) -> str:
    """The file's text: UTF-8, or else GB18030, which Excel writes in Chinese locales; it says when it was the latter."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            text = content.decode("gb18030")
        except UnicodeDecodeError as other:
            # The encoding that read some text beyond ASCII is the file's.
            start = other.start if content[: error.start].isascii() else error.start
            row = content[:start].count(b"\n") + 1
            raise InputError(
                f"{path}, row {row}: bytes that are neither UTF-8 nor GB18030; save the table as UTF-8 and try again"
            ) from None
    print(f"{path}: read as GB18030 (it is not UTF-8)")
    return text


def read_jsonl(path: str | Path) -> Iterator[dict]:
    """The objects of a jsonl file, one a line; blank lines are skipped. Errors as `numbered_jsonl`."""
    return (row for _, row in numbered_jsonl(path))


def numbered_jsonl(path: str | Path) -> Iterator[tuple[int, dict]]:
    """Line numbers and objects of a jsonl file.

    Raises:
        InputError: naming file and line, where a line is no JSON object.
    """
    with open(path, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: not valid JSON ({error.msg}); repair or delete the line") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
            yield number, row


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> int:
    """Write one JSON object a line, readable Chinese, keys in the order given; returns how many."""
    count = 0
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_json(path: str | Path, value: dict) -> None:
    """Write one indented JSON document with a final newline, floats at 6 digits, so that Git diffs stay small."""
    rounded = json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 6))
    with replacing(path) as partial:
        partial.write_text(json.dumps(rounded, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
