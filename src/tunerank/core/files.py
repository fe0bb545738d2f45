"""Read files with errors that name the line, and write files completely or not at all."""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunerank.core.errors import InputError

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

CONTROL = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, a file or folder; rename it to `target` at the end.

    If the block fails, `target` keeps its old content. If the process is killed, too, but a folder
    killed between two renames has its old content as `target.former`. The new content has the
    umask's mode and is flushed to disk before the rename: otherwise a power cut could leave an
    empty file under a name that dvc.lock lists.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    remove(partial)
    try:
        yield partial
        settle(partial)
    except BaseException:
        remove(partial)
        raise
    if target.exists() and target.is_dir() != partial.is_dir():
        kind = "folder" if target.is_dir() else "file"
        remove(partial)
        raise InputError(f"{target}: is a {kind}, which is not replaced; move it away")
    former = target.with_name(target.name + ".former")
    remove(former)
    if target.is_dir():  # A folder cannot be renamed over another one that contains files.
        os.replace(target, former)
    os.replace(partial, target)
    flush(target.parent)
    remove(former)


def settle(path: Path) -> None:
    """Give a file, or a folder with its content, the umask's mode, and flush it to disk.

    Some libraries (safetensors, huggingface_hub) write temporary files that only their owner may
    read. A file with several hard links keeps its mode: one of them may be in DVC's cache, which
    is read-only.
    """
    umask = os.umask(0)
    os.umask(umask)
    for entry in [*(path.rglob("*") if path.is_dir() else ()), path]:
        if entry.is_symlink():
            continue
        if entry.is_dir():
            entry.chmod(0o777 & ~umask)
        elif entry.stat().st_nlink == 1:
            entry.chmod(0o666 & ~umask)
        flush(entry)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # Some file systems cannot flush a folder.
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file, a link, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: str, target: str) -> None:
    """Hard-link a file, or copy it where the file system has no links; for shutil.copytree."""
    try:
        os.link(os.path.realpath(source), target)  # not a link of DVC, but its file
    except OSError:
        shutil.copy2(source, target)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def regular(path: str | Path, missing: str = "no such file") -> Path:
    """Return `path` if it is a readable file, not a pipe (waits) or a device (may never end).

    Args:
        missing: the message if there is nothing at `path`.

    Raises:
        InputError: it is not such a file; the message says what it is.
    """
    path = Path(path)
    if CONTROL.search(str(path)):
        raise InputError(
            f"{str(path)!r}: a line break or another control character in the name; rename it"
        )
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            missing = f"a link to {os.readlink(path)}, which does not exist; correct the link"
        raise InputError(f"{path}: {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is a pipe or a device, not a file; save its output as a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be opened (no permission); make it readable")
    return path


def read_jsonl(path: str | Path, needs: Sequence[str] = ()) -> Iterator[dict]:
    """Yield the objects of a jsonl file, one a line; skip blank lines.

    Raises:
        InputError: as `numbered_jsonl`, or an object has no key of `needs`.
    """
    for number, row in numbered_jsonl(path):
        for key in needs:
            if key not in row:
                raise InputError(
                    f"{path}, line {number}: no {key!r}; rerun the stage that writes it"
                )
        yield row


def read_by_id(path: str | Path, name: str, ids: Iterable[str]) -> dict[str, Any]:
    """Return id -> the value of `name` in that id's row of a jsonl file; skip other ids.

    Raises:
        InputError: as `read_jsonl`, or an id has no row.
    """
    ids = list(ids)
    wanted = set(ids)
    values = {row["id"]: row[name] for row in read_jsonl(path, ("id", name)) if row["id"] in wanted}
    missing = next((key for key in ids if key not in values), None)
    if missing is not None:
        raise InputError(f"{path}: no {name} of {missing!r}; rerun the stage that writes it")
    return values


def numbered_jsonl(
    path: str | Path, pairs: Callable[[list], dict] | None = None
) -> Iterator[tuple[int, dict]]:
    """Yield the line numbers and objects of a jsonl file; skip blank lines.

    Args:
        pairs: makes an object of its (key, value) pairs, as json's object_pairs_hook.

    Raises:
        InputError: a line is not a JSON object; the message names file and line.
    """
    with open(regular(path), encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            # A byte order mark inside a file comes from joining two files.
            line = line.strip().lstrip("\ufeff")
            if not line:
                continue
            try:
                row = parse_object(line, pairs)
            except json.JSONDecodeError as error:
                if number == 1 and (line.startswith("[") or line == "{"):
                    reason = "a JSON document, but jsonl has one object in each line; convert it"
                    raise InputError(f"{path}: {reason}") from None
                reason = f"not valid JSON ({error.msg}); repair or delete the line"
                raise InputError(f"{path}, line {number}: {reason}") from None
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from None
            yield number, row


def parse_object(line: str, pairs: Callable[[list], dict] | None) -> dict:
    """Parse one line of a jsonl file; bytes that are not UTF-8 are lone surrogates in `line`.

    Raises:
        json.JSONDecodeError: it is not valid JSON.
        InputError: anything else is wrong with it; the message does not name the line.
    """
    try:
        line.isascii() or line.encode()
        row = json.loads(line, object_pairs_hook=pairs)
        if SURROGATE.search(line):
            json.dumps(row, ensure_ascii=False).encode()
    except (InputError, json.JSONDecodeError):
        raise
    except UnicodeEncodeError as error:
        if error.object is line:
            raise InputError("not UTF-8; save the file as UTF-8") from None
        reason = "half a character (an escaped surrogate alone)"
        raise InputError(f"{reason}; repair or delete the line") from None
    except RecursionError:
        raise InputError("nested too deep; repair or delete the line") from None
    except ValueError:  # an integer of more than sys.get_int_max_str_digits() digits
        raise InputError("a number that is too long; repair or delete the line") from None
    if not isinstance(row, dict):
        raise InputError(f"expected a JSON object, found {type(row).__name__}")
    return row


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> int:
    """Write one JSON object a line, with readable Chinese; return the number of rows."""
    count = 0
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_json(path: str | Path, value: dict) -> None:
    """Write one indented JSON document; floats have 6 decimals, so that Git diffs stay small."""
    rounded = json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 6))
    with replacing(path) as partial:
        partial.write_text(
            json.dumps(rounded, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 with line feeds."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
