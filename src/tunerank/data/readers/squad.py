"""Recognise SQuAD's form: paragraphs with questions about them, and answers found in them.

It has three shapes: articles with paragraphs (SQuAD 1.1 and 2.0, DRCD, cmrc2018), paragraphs with
questions (cmrc2018's own files), and the Hub's flat tables, a row for each question.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.readers.cells import Unusable, as_text, place
from tunerank.data.readers.forms import PASSAGES, QUESTIONS, Columns, Form, text_id

FLAT = {"context", "question", "answers"}
END = re.compile(r"[。！？!?；;\n]+[”’」』）)\"']*|\.\s")
"""The end of a sentence, with the quotes and brackets that close after it."""
PRINTED = re.compile(r"""[\[{]\s*['"{].*[\]}]""", re.DOTALL)
"""Answers as Python prints them in csv."""
UNFOUND = "answers that are not in their paragraph"
WITHOUT = "questions without a paragraph"


def recognise_squad(table: pd.DataFrame, path: Path) -> Form | None:
    """Return the paragraphs as passages, and their questions; None for other tables.

    The evidence (column `context`) is the sentence with the answer, or the sentences if it spans
    several. A question that its paragraph does not answer has label 0.

    Raises:
        InputError: paragraphs, questions or answers are not as in SQuAD's files.
    """
    columns = set(table)
    if not (FLAT <= columns or "paragraphs" in columns or "qas" in columns and _context(table)):
        return None
    form = Form("SQuAD's form", pd.DataFrame())
    if FLAT <= columns:
        form.unused = [
            name for name in table if name not in FLAT | {"id", "title", "is_impossible"}
        ]
    rows, passages, seen = Columns(QUESTIONS), Columns(PASSAGES), set()
    found = list(_questions(table, path, passages, seen))
    answered = any(answers for *_, answers, _ in found)
    for number, (label, key, text, ends, question, answers, impossible) in enumerate(found, 1):
        if not text:
            form.asides[WITHOUT] += 1
            continue
        if impossible is None:  # SQuAD 1.1, and the flat form of 2.0, do not say it.
            impossible = answered and not answers
        answer, start = answers[0] if answers and not impossible else ("", None)
        context = _sentences(text, ends, answer, start) if answer else ""
        form.asides[UNFOUND] += bool(answer and not context)
        rows.add(
            label or number,
            question=as_text(question.get("question", question.get("query_text"))),
            query_id=as_text(question.get("id", question.get("query_id"))),
            uuid=key,
            answer=answer,
            context=context,
            label="0" if impossible else "1",
        )
    form.qa, form.corpus = rows.frame(), passages.frame()
    return form


def _context(table: pd.DataFrame) -> str | None:
    return next((name for name in ("context", "context_text") if name in table), None)


def _questions(
    table: pd.DataFrame, path: Path, passages: Columns, seen: set[str]
) -> Iterator[tuple[int | None, str, str, list[int], dict, list, bool | None]]:
    """Yield (row or None, passage, text, ends of sentences, question, answers, impossible).

    New passages are added to `passages`.
    """
    flat = FLAT <= set(table)
    for number, where, title, text, questions in _paragraphs(table, path):
        key = text_id(text) if text else ""
        if text and key not in seen:
            seen.add(key)
            label = number if flat else len(seen)
            passages.add(label, uuid=key, doc=text, title=title)
        ends = [match.end() for match in END.finditer(text)]
        for question in questions:
            answers = _answers(question.get("answers"), where)
            impossible = question.get("is_impossible")
            if impossible is not None:
                impossible = as_text(impossible).casefold() in ("true", "1")
            yield number if flat else None, key, text, ends, question, answers, impossible


def _paragraphs(table: pd.DataFrame, path: Path) -> Iterator[tuple[int, str, str, str, list[dict]]]:
    """Yield (row, place, title, text, questions) of each paragraph."""
    names = list(table)
    for number, *cells in table.itertuples(name=None):
        row = {name: _value(cell) for name, cell in zip(names, cells)}
        where = place(path, number)
        if FLAT <= set(names):
            for name in ("question", "context", "id", "title"):
                _text(row.get(name), where, name)
            yield number, where, row.get("title", ""), row["context"], [row]
            continue
        title = _text(row.get("title"), where, "title")
        paragraphs = [row]
        if "paragraphs" in row:
            paragraphs = _objects(row["paragraphs"], where, "paragraphs")
        for paragraph in paragraphs:
            name = next((name for name in ("context", "context_text") if name in paragraph), None)
            text = _text(paragraph.get(name), where, "context")
            yield number, where, title, text, _objects(paragraph.get("qas"), where, "qas")


def _value(cell: str) -> object:
    return cell if getattr(cell, "value", None) is None else cell.value


def _text(value: object, where: str, name: str) -> str:
    if isinstance(value, list | dict | Unusable):
        raise InputError(f"{where}: {name!r} is not one text")
    return as_text(value)


def _objects(value: object, where: str, name: str) -> list[dict]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InputError(f"{where}: {name!r} is not a list of objects, as in SQuAD's files")
    for each in value:
        for key in ("question", "query_text", "id", "query_id"):
            _text(each.get(key), where, key)
    return value


def _answers(value: object, where: str) -> list[tuple[str, int | None]]:
    """Return the texts of answers, and where they start in the paragraph, if the data says it."""
    if isinstance(value, str) and PRINTED.fullmatch(value):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            reason = "answers as Python prints them; save the table as jsonl"
            raise InputError(f"{where}, column 'answers': {reason}") from None
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        texts = texts if isinstance(texts, list) else [texts]
        starts = starts if isinstance(starts, list) else [starts] * len(texts)
        value = [
            {"text": text, "answer_start": start}
            for text, start in zip(texts, [*starts, *[None] * len(texts)])
        ]
    answers = []
    for each in value if isinstance(value, list) else [value]:
        text, start = each, None
        if isinstance(each, dict):
            text, start = each.get("text"), each.get("answer_start")
        text = _text(text, where, "answers")
        if text:
            answers.append((text, start if isinstance(start, int) else None))
    return answers


def _sentences(text: str, ends: list[int], answer: str, start: int | None) -> str:
    """Return the sentences with the answer's occurrence that is nearest to `start`, or ""."""
    places = [match.start() for match in re.finditer(re.escape(answer), text)]
    if not places:
        return ""
    first = min(places, key=lambda at: abs(at - (start or 0)))
    before = bisect_right(ends, first) - 1
    after = bisect_left(ends, first + len(answer))
    begin = ends[before] if before >= 0 else 0
    return text[begin : ends[after] if after < len(ends) else len(text)].strip()
