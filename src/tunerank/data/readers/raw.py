"""Read the raw data of `prepare`, in whichever form people have it."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import NoReturn

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.core.files import CONTROL
from tunerank.core.inputs import IGNORED
from tunerank.data.readers.collection import (
    collection_parts,
    read_collection,
    read_corpus,
)
from tunerank.data.readers.columnar import read_arrow
from tunerank.data.readers.forms import Form, with_ids
from tunerank.data.readers.pairs import recognise_pairs
from tunerank.data.readers.splits import join, split_of, split_of_file, splits_of, with_file
from tunerank.data.readers.squad import recognise_squad
from tunerank.data.readers.tables import (
    COMPRESSED,
    READERS,
    find_tables,
    read_table,
    table_named,
)

INSIDE = ("qrels", "data")
"""Folders in the raw folder that may have files: BEIR's judgements, and tables as on the Hub."""
QUIET = re.compile(
    r"(readme|licen[sc]e|notice|citation|copying)\b.*|.*\.dvc|(dataset_(infos?|dict)|state)\.json",
    re.IGNORECASE,
)
"""Names of files that nobody expects to be read as data."""
WRONG = ("0", "0.0", "false", "no")
"""Labels of wrong passages."""
NAMED = 5
"""Files or columns that a line names; others are counted."""


@dataclass(frozen=True)
class Raw:
    """Raw data: cells are stripped texts, "" if empty, and `Unusable` if they are not one text.

    qa: the questions' table, rows indexed by their numbers, or by `train.csv:12` if they come from
        several files
    corpus: the passages' table, indexed alike, or None
    qa_name, corpus_name: the files or folders that messages name, for `place`
    recognised: one line that says how the data was read, "" for plain tables
    """

    qa: pd.DataFrame
    corpus: pd.DataFrame | None
    qa_name: str
    corpus_name: str
    recognised: str = ""


def read_raw(raw: str | Path, plain: bool = False) -> Raw:
    """Return the tables of a file or a folder.

    Data in another form than tables with our columns is recognised by its content, and gets our
    columns. A folder has `qa.*` and perhaps `corpus.*`, or a collection with judgements, or a file
    for each split.

    Args:
        plain: leave the columns of tables as they are, because the user maps them to ours.

    Raises:
        InputError: there is no known form, or the data has a fault.
    """
    raw = Path(raw)
    if not raw.is_dir():
        return _read_tables([raw], None, raw, plain)
    if table_named("qa", raw):
        qa, corpus = find_tables(raw)
        return _read_tables([qa], corpus, raw, plain)
    files = _files(raw)
    parts = collection_parts(files)
    if parts.found:
        if not parts.complete:
            _refuse_packed(files)
        form = read_collection(raw, parts)
        used = {*parts.qrels, *parts.queries, *parts.corpora}
        said = _said(raw, form, _ignored(raw, files, used))
        return Raw(form.qa, form.corpus, str(parts.judged(raw)), str(parts.corpora[0]), said)
    named = [path for path in files if path.suffix.lower() in READERS and split_of_file(path)]
    named = [path for path in named if path.parent == raw] or named or _saved(raw)
    if not named:
        _refuse(raw, files)
    splits = {split_of_file(path) for path in named}
    _refuse_packed(path for path in files if split_of(path.stem) not in {*splits, ""})
    first: dict[Path, Path] = {}
    for path in named:
        if (other := first.setdefault(path.with_suffix(""), path)) != path:
            raise InputError(f"{raw}: both {other.name} and {path.name}; keep one of them")
    return _read_tables(named, table_named("corpus", raw), raw, plain, split=True)


def _read_tables(
    paths: Sequence[Path], corpus: Path | None, raw: Path, plain: bool, split: bool = False
) -> Raw:
    """Return the tables of one file, or with `split` of a file for each split."""
    splits, notes = splits_of(paths) if split else (dict.fromkeys(paths, ""), [])
    forms = [_recognised(path, plain) for path in splits]
    recognised = [path for path, form in zip(splits, forms) if form.name]
    if 0 < len(recognised) < len(paths):
        other = next(path for path in paths if path not in recognised)
        name = next(form.name for form in forms if form.name)
        raise InputError(
            f"{raw}: {recognised[0].name} has {name}, {other.name} other columns "
            f"({', '.join(map(repr, forms[paths.index(other)].qa))}); write both alike"
        )
    form = join(forms, splits, raw) if split or recognised else forms[0]
    if split and not recognised:
        form.notes.append(f"read as plain tables; rows: {len(form.qa)}")
    form.notes += notes
    name = str(raw if len(paths) > 1 else paths[0])
    corpus_name = str(corpus or name)
    if corpus and not recognised:
        form.corpus = read_table(corpus)
    elif corpus:
        unused = dict.fromkeys(form.unused)
        own, _ = read_corpus(corpus, unused, form.asides)
        if len(paths) > 1:
            own, corpus_name = with_file(own, corpus, raw), name
        form.unused = list(unused)
        if form.corpus is not None:
            own = pd.concat([own, form.corpus]).fillna("").drop_duplicates("uuid")
        form.corpus = own
    if recognised and form.corpus is not None:
        form.qa, form.corpus = with_ids(form.qa, form.corpus)
    ignored = _ignored(raw, _files(raw), {*paths, corpus}) if raw.is_dir() else []
    said = _said(raw, form, ignored) if split or recognised or ignored else ""
    return Raw(form.qa, form.corpus, name, corpus_name, said)


def _saved(raw: Path) -> list[Path]:
    """Return the arrow files of a folder that Hugging Face's datasets saved, of all splits."""
    folders = [raw, *sorted(path for path in raw.iterdir() if path.is_dir())]
    saved = [folder for folder in folders if (folder / "state.json").exists()]
    return [path for folder in saved for path in sorted(folder.glob("data-*.arrow"))]


def _refuse_packed(files: Iterable[Path]) -> None:
    for path in files:
        if path.suffix.lower() in COMPRESSED:
            raise InputError(f"{path}: is compressed; unpack it")


def _refuse(raw: Path, files: Sequence[Path]) -> NoReturn:
    table = next((path for path in files if path.suffix.lower() in READERS), None)
    if not table:
        _refuse_packed(files)
    try:
        find_tables(raw)
    except InputError as error:
        hint = f"; to read {table.name}, set prepare.raw to it" if table else ""
        raise InputError(f"{error}{hint}") from None


def _recognised(path: Path, plain: bool) -> Form:
    table = read_arrow(path) if path.suffix == ".arrow" else read_table(path)
    form = None if plain else recognise_squad(table, path) or recognise_pairs(table, path)
    return form or Form("", table)


def _files(folder: Path) -> list[Path]:
    """Return a folder's visible files, then those of INSIDE; each part sorted."""
    entries = sorted(path for path in folder.iterdir() if _visible(path))
    inside = [path for path in entries if path.is_dir() and path.name.casefold() in INSIDE]
    files = [path for path in entries if not path.is_dir()]
    return files + [path for each in inside for path in _files(each) if not path.is_dir()]


def _visible(path: Path) -> bool:
    name = path.name
    return not name.startswith(".") and not any(fnmatch(name, pattern) for pattern in IGNORED)


def _ignored(raw: Path, files: Sequence[Path], used: Collection[Path | None]) -> list[str]:
    """Return the names of the raw folder's files and folders that are not read."""
    folders = [path for path in raw.iterdir() if path.is_dir() and _visible(path)]
    read = {path.parent for path in used if path}
    unread = [path for path in files if path not in used and path.parent in {raw, *read}]
    unread += [path for path in folders if path not in read]
    names = sorted(path.relative_to(raw).as_posix() for path in unread)
    return [
        repr(name) if CONTROL.search(name) else name
        for name in names
        if not QUIET.fullmatch(Path(name).name)
    ]


def _said(raw: Path, form: Form, ignored: Sequence[str]) -> str:
    """Return the line that says what was recognised, what is left out, and what is ignored."""
    said = []
    if form.name:
        said.append(f"read as {form.name}; {_counts(form)}")
    said += form.notes
    said += [f"{what}: {count}" for what, count in form.asides.items() if count]
    if form.unused:
        said.append(f"columns not used: {_listed([repr(name) for name in form.unused])}")
    if ignored:
        said.append(f"files ignored: {_listed(ignored)}")
    return f"{raw}: {'; '.join(said)}"


def _counts(form: Form) -> str:
    qa = form.qa
    texts = form.corpus["uuid"] if form.corpus is not None else qa.get("doc", pd.Series())
    wrong = int(qa["label"].str.casefold().isin(WRONG).sum()) if "label" in qa else 0
    counts = {"questions": qa["question"].nunique(), "passages": texts.nunique()}
    counts |= {"right pairs": len(qa) - wrong} | ({"wrong pairs": wrong} if wrong else {})
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
