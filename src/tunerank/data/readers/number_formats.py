"""Write a workbook's numbers and dates as Excel shows them."""

import re
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

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
