"""Decode text files, split csv into cells, and write a workbook's numbers as Excel shows them."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import regular

MARK = re.compile("(?<![^\r\n])\ufeff+")
"""Byte order marks at the start of a line: joining two files leaves one in the middle."""

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
DECLARED = re.compile(r'"?sep=([,;\t|])"?(?:\r\n|\r|\n|$)', re.IGNORECASE)
"""The first line that Excel writes to name the separator, and does not show."""

EXACT = 2**53
"""Excel's numbers are floats, which have every integer below this one."""
FORMAT = re.compile(
    r'"([^"]*)"|\\(.)|[_*].|\[\$([^]-]*)(?:-[^]]*)?\]'
    r"|\[(?:black|blue|cyan|green|magenta|red|white|yellow|color ?\d+)\]|(.)",
    re.IGNORECASE | re.DOTALL,
)
"""A literal (in quotes, escaped, a currency), something that is not text, or one code."""
PERCENT = re.compile(r"(L*)([#0]+(?:,[#0]+)*)(\.?)([#0]{0,9})(L*)%L*")
PADDED = re.compile("[L#]*0L*0[L0]*")


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


def split_csv(path: Path) -> list[tuple[int, list[str]]]:
    """Return (row number, stripped cells) for the rows of a csv file that have text.

    Raises:
        InputError: it has wrong quotes, or a row has too few or too many cells.
    """
    text = decode(path)
    declared = DECLARED.match(text)
    text = text[declared.end() :] if declared else text
    separator = declared[1] if declared else _separator(text)
    if separator != ",":
        print(f"{path}: read as separated by {SEPARATORS[separator]}s")
    rows: list[tuple[int, list[str]]] = []
    try:
        for number, cells in _records(text, separator):
            if problem := rows and _misfit(cells, rows[0][1], separator):
                raise InputError(f"{path}, row {number}: {problem}")
            rows.append((number, cells))
    except csv.Error as error:
        raise InputError(f"{path}, {error}; check the quotes") from None
    return rows


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    lines, number = io.StringIO(text, newline=""), 0
    records = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for number, record in enumerate(records, 1):
            cells = [cell.strip() for cell in record]
            if any(cells):
                yield number, cells
    except csv.Error as error:
        raise csv.Error(f"row {number + 1}: {error}") from None


def _separator(text: str) -> str:
    """Return the separator that gives the header several cells, and most rows as many as it.

    If two do so equally well, it is the one that comes first in the header.
    """
    headers = {}
    for separator in SEPARATORS:
        with suppress(csv.Error, StopIteration):
            _, header = next(_records(text, separator))
            if len(header) > 1:
                headers[separator] = header
    if len(headers) < 2:
        return next(iter(headers), ",")
    fitting = dict.fromkeys(headers, 0)
    for separator, header in headers.items():
        with suppress(csv.Error):
            for _, cells in _records(text, separator):
                fitting[separator] += not _misfit(cells, header, separator)
    return max(headers, key=lambda separator: (fitting[separator], -len(headers[separator][0])))


def _misfit(cells: list[str], header: list[str], separator: str) -> str:
    """Return what is wrong with a row's number of cells; empty cells at the end do not count."""
    count, named = (max(at for at, cell in enumerate(row, 1) if cell) for row in (cells, header))
    if len(cells) < named:
        count, wanted, remedy = len(cells), named, "fill it up, or quote a cell with a line break"
    elif count > len(header):
        wanted, remedy = len(header), f"quote a cell that holds a {SEPARATORS[separator]}"
    else:
        return ""
    by = "" if separator == "," else f" (separated by {SEPARATORS[separator]}s)"
    return f"{count} cell{'s' * (count > 1)} where the header has {wanted}{by}; {remedy}"


def shown(value: object, number_format: str) -> str | None:
    """Return a number or a date as Excel shows it by a format; None for other kinds of formats.

    The kinds are percentages, whole numbers with leading zeros, and dates without time.

    >>> shown(0.155, "0%"), shown(7, "0000"), shown(date(2024, 8, 11), 'yyyy"年"m"月"')
    ('16%', '0007', '2024年8月')
    """
    sections = [each for each in _sections(number_format) if "@" not in each[0]] or [("", [])]
    if isinstance(value, date):
        return _date(value, *sections[0], number_format)
    if not isinstance(value, int | float) or abs(value) >= EXACT:
        return None
    at = 1 if value < 0 else 2 if value == 0 else 0
    codes, literals = sections[at] if at < len(sections) else sections[0]
    text = _percentage(abs(value), codes, literals) or _padded(abs(value), codes, literals)
    minus = value < 0 and len(sections) == 1 and re.search("[1-9]", text or "")
    return f"-{text}" if minus else text


@lru_cache(1024)
def _sections(number_format: str) -> list[tuple[str, list[str]]]:
    """Return the codes and the literals of each section; L among the codes is a literal."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for quoted, escaped, symbol, code in FORMAT.findall(number_format):
        codes, literals = sections[-1]
        if code == ";":
            sections.append(("", []))
        elif literal := quoted or escaped or symbol or code * (code in "$-+() " or code > "\x7f"):
            sections[-1] = codes + "L", [*literals, literal]
        else:
            sections[-1] = codes + code.lower(), literals
    return sections


def _percentage(value: float, codes: str, literals: list[str]) -> str | None:
    if not (match := PERCENT.fullmatch(codes)):
        return None
    before, whole, point, fraction, between = match.groups()
    rounded = (Decimal(repr(value)) * 100).quantize(Decimal(10) ** -len(fraction), ROUND_HALF_UP)
    digits, _, decimals = f"{rounded:f}".partition(".")
    digits = f"{int(digits):,}" if "," in whole else digits.lstrip("0").zfill(whole.count("0"))
    kept = len(fraction.rstrip("#"))
    number = digits + point + decimals[:kept] + decimals[kept:].rstrip("0")
    start, end = len(before), len(before) + len(between)
    return "".join([*literals[:start], number, *literals[start:end], "%", *literals[end:]])


def _padded(value: float, codes: str, literals: list[str]) -> str | None:
    if not PADDED.fullmatch(codes) or value != int(value):
        return None
    digits = str(int(value)).zfill(codes.count("0"))
    more = len(digits) - (len(codes) - len(literals))
    first = max(more, 0) + 1  # The first place has all digits that have no place.
    numbers = iter([*[""] * -more, digits[:first], *digits[first:]])
    texts = iter(literals)
    return "".join(next(texts if code == "L" else numbers) for code in codes)


def _date(value: date, codes: str, literals: list[str], number_format: str) -> str | None:
    """Return a date as shown, or as yyyy-mm-dd if that depends on a language or a computer."""
    if set(codes) & set("hs[") or not set(codes) & set("ymd"):
        return None
    texts, year, month, day = iter(literals), value.year, value.month, value.day
    numbers = {"m": str(month), "mm": f"{month:02}", "d": str(day), "dd": f"{day:02}"}
    numbers |= dict.fromkeys(("yyy", "yyyy"), f"{year:04}")
    numbers |= dict.fromkeys(("y", "yy"), f"{year % 100:02}")
    runs = [match[0] for match in re.finditer(r"([a-z])\1*|.", codes, re.DOTALL)]
    if number_format == "mm-dd-yy" or not set(runs) <= {*numbers, *"L/.,"}:
        return value.isoformat()[:10]
    return "".join(next(texts) if run == "L" else numbers.get(run, run) for run in runs)
