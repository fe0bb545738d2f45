"""Decode text files."""

import codecs
import re
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import regular

MARK = re.compile("(?<![^\r\n])\ufeff+")
"""Byte order marks at the start of a line: joining two files leaves one in the middle."""


def decode(path: Path) -> str:
    """Return a file's text without byte order marks; print the encoding if it is not UTF-8.

    It is UTF-8, UTF-16 with a byte order mark, or GB18030, which Excel writes in Chinese locales.

    Raises:
        InputError: it is none of them.
    """
    content = regular(path).read_bytes()
    text, encoding = _decoded(path, content)
    if "\0" in text:
        row = _row(text[: text.index("\0")].encode())
        raise InputError(
            f"{path}, row {row}: a NUL byte; is this a text file? If it is UTF-16, save it as UTF-8"
        )
    if encoding != "UTF-8":
        print(f"{path}: read as {encoding} (it is not UTF-8)")
    return MARK.sub("", text)


def _row(before: bytes) -> int:
    return len((before + b".").splitlines())


def _decoded(path: Path, content: bytes) -> tuple[str, str]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16"), "UTF-16"
        except UnicodeDecodeError:
            reason = "starts as UTF-16 but is not valid UTF-16; save it as UTF-8"
            raise InputError(f"{path}: {reason}") from None
    try:
        return content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError as error:
        if b"\0" in content:
            return content.decode("latin-1"), "binary"
        try:
            text = content.decode("gb18030")
        except UnicodeDecodeError as other:
            # If one encoding decodes some characters beyond ASCII, it is probably the file's.
            start = other.start if content[: error.start].isascii() else error.start
            raise InputError(
                f"{path}, row {_row(content[:start])}: bytes that are neither UTF-8 nor GB18030; "
                "save the table as UTF-8 and try again"
            ) from None
    other = _other_encoding(content, text)
    if other:
        raise InputError(
            f"{path}: not UTF-8, and hardly any Chinese when read as GB18030; it may be {other}: "
            "save it as UTF-8"
        )
    return text, "GB18030"


def _other_encoding(content: bytes, text: str) -> str | None:
    """Return an encoding that is likelier than GB18030, which decodes almost any bytes, or None.

    In Chinese text nearly all characters are in GB 2312, in misread text few. Long GB18030 text is
    rarely valid in another encoding.
    """
    non_ascii = [character for character in text[: 2**20] if not character.isascii()]
    common = len("".join(non_ascii).encode("gb2312", "ignore")) / 2
    if common >= 0.8 * len(non_ascii):
        return None
    for encoding, name in (("big5", "Big5"), ("cp932", "Shift-JIS")):
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return name
    return None
