"""Put what people called right or wrong beside a table, as a folder that `prepare` reads.

The rows of data/feedback become rows of the questions' table, with label 1 or 0.
serving/agreement.py says which.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from tunerank.commands.replaced import refuse_file
from tunerank.core.errors import InputError
from tunerank.core.files import file_digest, replacing
from tunerank.data.passages import SPLITS
from tunerank.data.preparation.cleaning import SPLIT_NAMES, clean_text
from tunerank.data.preparation.prepare import Prepared, prepare
from tunerank.data.readers.cells import place
from tunerank.data.readers.raw import Raw, read_raw
from tunerank.data.readers.tables import read_table, refuse_nested
from tunerank.params.data import Prepare
from tunerank.params.load import load
from tunerank.serving.agreement import Pair, judged_pairs, new_pairs, new_rows
from tunerank.serving.judgements import csv_line, guarded

FEEDBACK = Path("data/feedback")
NEEDED = ("question", "uuid", "label")
USED = ("when", "who", *NEEDED, "doc")
TABLES, CARD = ("qa.csv", "corpus.csv"), "README.md"
SEAL = re.compile(r"<!-- tunerank feedback ([0-9a-f]{64}) -->\n\Z")
"""The last line of the card: the SHA-256 of the text above it and of the tables."""


def merge_feedback(
    table: Path, folder: Path, feedback: Path = FEEDBACK, split: str | None = None
) -> None:
    """Write the table with the feedback into `folder`, for prepare.raw.

    Args:
        table: a file or folder, as prepare.raw.
        folder: written; replaced if this command wrote it.
        feedback: the folder of `tunerank serve --feedback`.
        split: train, valid or test, of new questions if the table names splits. None: train, but a
            new question on a held-out passage goes where the other questions on that passage are,
            so that the passage stays held out.

    Raises:
        InputError: a table cannot be read, or `folder` has files of somebody else.
    """
    refuse_others_files(folder, table)
    params = load().prepare
    raw = read_raw(table, plain=bool(params.columns))
    before = _prepared(raw, params)
    named = _named_splits(raw, params)
    if split and not named:
        raise InputError(
            f"{table}: names no splits, so that `prepare` draws them; leave the split out"
        )
    pairs, notes = judged_pairs(_read_feedback(feedback, params), before)
    pairs, left_out = new_pairs(pairs, before)
    rows = new_rows(pairs, before, params, named, split, raw.corpus is None)
    with replacing(folder) as partial:
        partial.mkdir()
        _write_table(partial / TABLES[0], *_joined(raw.qa, rows, params))
        if raw.corpus is not None:
            _write_table(partial / TABLES[1], list(raw.corpus), raw.corpus.to_dict("records"))
        after = _prepared(read_raw(partial, plain=bool(params.columns)), params)
        text = _card(table, feedback, pairs)
        seal = _seal(text, partial)
        (partial / CARD).write_text(
            f"{text}\n<!-- tunerank feedback {seal} -->\n", encoding="utf-8", newline="\n"
        )
    for line in (*notes, *left_out):
        print(line)
    right = sum(pair.right for pair in pairs)
    print(f"{feedback}: new pairs: {right} right, {len(pairs) - right} wrong")
    answered = {question["question"] for split in SPLITS for question in after.questions[split]}
    if alone := sorted({pair.question for pair in pairs} - answered):
        print(f"questions with wrong passages alone, which prepare leaves out: {len(alone)}")
    counts = (
        f"{len(before.questions[name])} -> {len(after.questions[name])} {name}" for name in SPLITS
    )
    print(f"{folder}: questions: {', '.join(counts)}; dvc exp run -S prepare.raw={folder}")


def refuse_others_files(folder: Path, table: Path) -> None:
    """Check that `folder` is missing, empty, or as this command left it, and is not the table.

    Raises:
        InputError: it is a file, or has files that would be lost.
    """
    refuse_file(folder)
    if folder.resolve() == table.resolve():
        raise InputError(f"{folder}: is the table itself; name another folder")
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if not names:
        return
    card = folder / CARD
    text = card.read_bytes().decode("utf-8", "replace") if card.is_file() else ""
    seal = SEAL.search(text)
    own = seal and {*names} <= {*TABLES, CARD}
    if not own or seal[1] != _seal(text[: seal.start() - 1], folder):
        raise InputError(
            f"{folder}: is not as tunerank feedback writes it; name another folder, or move this "
            "one away"
        )


def _seal(text: str, folder: Path) -> str:
    digests = [file_digest(path) for name in TABLES if (path := folder / name).exists()]
    return hashlib.sha256("\n".join((text, *digests)).encode()).hexdigest()


def _prepared(raw: Raw, params: Prepare) -> Prepared:
    return prepare(raw.qa, raw.corpus, params, raw.qa_name, raw.corpus_name)


def _column(name: str, table: pd.DataFrame, params: Prepare) -> str:
    """Return the name that the questions' table has for one of our columns."""
    theirs = params.mapping("qa").get(name)
    return theirs if theirs in table else name


def _read_feedback(folder: Path, params: Prepare) -> list[dict]:
    """Return the rows of all files as cleaned texts, each with `place`, in the order of time.

    Raises:
        InputError: there is no file, or one is not a table of feedback.
    """
    paths = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: no feedback (*.csv); tunerank serve --feedback writes it")
    rows = []
    for path in paths:
        table = read_table(path)
        for name in NEEDED:
            if name not in table:
                columns = ", ".join(map(repr, table))
                raise InputError(f"{path}: no column {name!r} among {columns}; put it back")
        refuse_nested(table, USED, path)
        cells = table.map(clean_text, unicode=params.unicode)
        for number, row in zip(table.index, cells.to_dict("records")):
            rows.append(dict.fromkeys(USED, "") | row | {"place": place(path, number)})
    return sorted(rows, key=lambda row: row["when"])


def _named_splits(raw: Raw, params: Prepare) -> set[str]:
    column = _column("dataset", raw.qa, params)
    cells = raw.qa[column].unique() if column in raw.qa else []
    names = {clean_text(cell, params.unicode).casefold() for cell in cells}
    return {SPLIT_NAMES.get(name, name) for name in names} - {""}


def _joined(
    table: pd.DataFrame, rows: Sequence[Mapping[str, str]], params: Prepare
) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the rows of the table, with the new rows at its end.

    All passages of a table without labels are right; with labels every row needs one.
    """
    label = _column("label", table, params)
    old = table.to_dict("records")
    if label not in table or not (table[label] != "").any():
        old = [row | {label: "1"} for row in old]
    new = [
        {_column(name, table, params): guarded(cell) for name, cell in row.items()} for row in rows
    ]
    columns = dict.fromkeys((*table, *(name for row in new for name in row), label))
    return list(columns), old + new


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as out:
        out.write(csv_line(columns))
        for row in rows:
            out.write(csv_line([row.get(name, "") for name in columns]))


def _card(table: Path, feedback: Path, pairs: Sequence[Pair]) -> str:
    right = sum(pair.right for pair in pairs)
    return (
        "# A table with feedback\n\n"
        f"`tunerank feedback` made this folder of `{table}` and `{feedback}`. The last rows of\n"
        f"`qa.csv` are {right} passages that people call right and {len(pairs) - right} that they "
        "call wrong.\nChange the table or the feedback and run it again, not these files.\n"
    )
