"""Files on disk: read with the line that is wrong named, written whole or not at all."""

import codecs
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

from reranker.errors import InputError

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `target`, a file or a folder, and rename it into place when the block succeeds.

    A block that fails leaves what was at `target` untouched; so does a kill, but that it may leave a folder's former
    content as `target.former`, between two renames. What is renamed is on the disk by then, so that a power cut cannot leave an
    empty file under a name that dvc.lock knows, and has the mode that the umask asks for.
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
    if target.is_dir():  # a folder cannot be renamed over another that holds files
        os.replace(target, former)
    os.replace(partial, target)
    flush(target.parent)
    remove(former)


def settle(path: Path) -> None:
    """Give a file, or a folder and all in it, the mode that the umask asks for, and wait until it is on the disk.

    Some libraries write through temporary files that only their owner may read (safetensors, huggingface_hub). A file with
    further names keeps its mode, because one of them may be an object of DVC's cache, which is read-only.
    """
    umask = os.umask(0)
    os.umask(umask)
    for found in [*(path.rglob("*") if path.is_dir() else ()), path]:
        if found.is_symlink():
            continue
        if found.is_dir():
            found.chmod(0o777 & ~umask)
        elif found.stat().st_nlink == 1:
            found.chmod(0o666 & ~umask)
        flush(found)


def flush(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError:
        if not path.is_dir():  # some file systems cannot flush a folder
            raise
    finally:
        os.close(opened)


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


def regular(path: str | Path, missing: str = "no such file") -> Path:
    """`path`, if it is a file that can be read: a pipe would be waited for, a device never ends.

    Raises:
        InputError: saying what it is instead; `missing` where there is nothing.
    """
    path = Path(path)
    if CONTROL.search(str(path)):
        raise InputError(f"{str(path)!r}: a line break or another control character in the name; rename it")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(
            f"{path}: a link to {os.readlink(path)}, which is not there" if path.is_symlink() else f"{path}: {missing}"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is a pipe or a device, not a file; save what it gives as a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be opened (no permission); make it readable")
    return path


def decode(path: Path) -> str:
    """The file's text: UTF-8, UTF-16 with a byte order mark, or else GB18030, which Excel writes in Chinese locales; it says when
    it was not the first."""
    content = regular(path).read_bytes()
    text, encoding = _decoded(path, content)
    if "\0" in text:
        row = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path}, row {row}: a NUL byte; is this a text file? If it is UTF-16, save it as UTF-8")
    if encoding != "UTF-8":
        print(f"{path}: read as {encoding} (it is not UTF-8)")
    return text


def _decoded(path: Path, content: bytes) -> tuple[str, str]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16"), "UTF-16"
        except UnicodeDecodeError:
            raise InputError(f"{path}: begins as UTF-16 and is broken further on; save it as UTF-8") from None
    try:
        return content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError as error:
        if b"\0" in content:
            return content.decode("latin-1"), "binary"
        try:
            text = content.decode("gb18030")
        except UnicodeDecodeError as other:
            # The encoding that read some text beyond ASCII is the file's.
            start = other.start if content[: error.start].isascii() else error.start
            row = content[:start].count(b"\n") + 1
            raise InputError(
                f"{path}, row {row}: bytes that are neither UTF-8 nor GB18030; save the table as UTF-8 and try again"
            ) from None
    other = _other_encoding(content, text)
    if other:
        raise InputError(f"{path}: not UTF-8, and as GB18030 hardly Chinese; it may be {other}: save it as UTF-8")
    return text, "GB18030"


def _other_encoding(content: bytes, text: str) -> str | None:
    """The encoding that `content` is likelier in than GB18030, as which almost any bytes can be read.

    Of Chinese text nearly all characters are those of GB 2312, and of what is misread few; long text in GB18030 is seldom valid in
    another.
    """
    beyond = [character for character in text[: 2**20] if not character.isascii()]
    known = len("".join(beyond).encode("gb2312", "ignore")) / 2
    if known >= 0.8 * len(beyond):
        return None
    for encoding, name in (("big5", "Big5"), ("cp932", "Shift-JIS")):
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return name
    return None


def read_jsonl(path: str | Path, needs: Sequence[str] = ()) -> Iterator[dict]:
    """The objects of a jsonl file, one a line; blank lines are skipped. Errors as `numbered_jsonl`, and where one lacks a name that
    it `needs`."""
    for number, row in numbered_jsonl(path):
        for name in needs:
            if name not in row:
                raise InputError(f"{path}, line {number}: no {name!r}; make the file again by the stage that writes it")
        yield row


def read_by_id(path: str | Path, name: str, ids: Iterable[str]) -> dict[str, Any]:
    """What each of these ids has under `name` in a jsonl file; rows of other ids are passed over.

    Raises:
        InputError: as `read_jsonl`, and where an id has no row.
    """
    ids = list(ids)
    wanted = set(ids)
    found = {row["id"]: row[name] for row in read_jsonl(path, ("id", name)) if row["id"] in wanted}
    missing = next((key for key in ids if key not in found), None)
    if missing is not None:
        raise InputError(f"{path}: no {name} of {missing!r}; make the file again by the stage that writes it")
    return found


def numbered_jsonl(path: str | Path, pairs: Callable[[list], dict] | None = None) -> Iterator[tuple[int, dict]]:
    """Line numbers and objects of a jsonl file.

    Args:
        pairs: makes an object of its names and values, as json's object_pairs_hook.

    Raises:
        InputError: naming file and line, where a line is no JSON object.
    """
    with open(regular(path), encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            line = line.strip().lstrip("\ufeff")  # where files were put together
            if not line:
                continue
            try:
                line.isascii() or line.encode()
                row = json.loads(line, object_pairs_hook=pairs)
                if SURROGATE.search(line):
                    json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                escaped = error.object is not line
                reason = "half a character (an escaped surrogate alone)" if escaped else "not UTF-8"
                remedy = "repair or delete the line" if escaped else "save the file as UTF-8"
                raise InputError(f"{path}, line {number}: {reason}; {remedy}") from None
            except RecursionError:
                raise InputError(f"{path}, line {number}: nested too deep; repair or delete the line") from None
            except json.JSONDecodeError as error:
                if number == 1 and (line.startswith("[") or line == "{"):
                    raise InputError(f"{path}: a JSON document, where a jsonl file has one object in each line; convert it") from None
                raise InputError(f"{path}, line {number}: not valid JSON ({error.msg}); repair or delete the line") from None
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from None
            except ValueError:  # an integer of more than sys.get_int_max_str_digits() digits
                raise InputError(f"{path}, line {number}: a number too long to be read; repair or delete the line") from None
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
