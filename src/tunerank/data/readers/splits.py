"""Find the split that a file's name says, and join the tables of several files."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.readers.cells import place
from tunerank.data.readers.forms import Form

WORDS = {
    **dict.fromkeys(("train", "training", "训练", "训练集"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "验证", "验证集", "开发集"), "valid"),
    **dict.fromkeys(("test", "测试", "测试集"), "test"),
}
DRAWN = "other splits are drawn from the training data"
REPEATED = "the query ids are not used: different files have the same for different questions"


def split_of(name: str) -> str:
    """Return the split that a name says, or "" for none or several.

    >>> split_of("cmrc2018_train"), split_of("dev-v1.1"), split_of("Validation"), split_of("qa")
    ('train', 'valid', 'valid', '')
    """
    words = re.split(r"[\W\d_]+", name.casefold())
    found = {WORDS[word] for word in words if word in WORDS}
    return found.pop() if len(found) == 1 else ""


def split_of_file(path: Path) -> str:
    """Return the split that a file's name says, or its folder's name for datasets' arrow files."""
    return split_of(path.parent.name if path.suffix == ".arrow" else path.stem)


def splits_of(paths: Sequence[Path]) -> tuple[dict[Path, str], list[str]]:
    """Return path -> the split that its name says, and notes for people.

    Training data alone has no split, so that validation and test questions are drawn from it.

    Raises:
        InputError: some names say a split, and others do not.
    """
    splits = {path: split_of_file(path) for path in paths}
    without = [path for path, split in splits.items() if not split]
    if 0 < len(without) < len(paths):
        raise InputError(
            f"{without[0]}: the name says no split, as other files' names do; rename it to train, "
            "dev or test"
        )
    if set(splits.values()) == {"train"}:
        return dict.fromkeys(splits, ""), [DRAWN]
    return splits, []


def join(forms: Sequence[Form], splits: dict[Path, str], folder: Path) -> Form:
    """Return the tables of several files as one; of one file, they are as they are.

    Rows of several files are labelled as `with_file` does. The column `dataset` has the files'
    splits.

    Raises:
        InputError: a row names another split than its file, or a query id has two questions.
    """
    frames, corpora = [], []
    for form, (path, split) in zip(forms, splits.items()):
        qa, corpus = form.qa, form.corpus
        if split:
            _check_dataset(qa, path, split)
            qa = qa.assign(dataset=pd.Series([split] * len(qa), index=qa.index, dtype=object))
        if len(forms) > 1:
            qa = with_file(qa, path, folder)
            corpus = None if corpus is None else with_file(corpus, path, folder)
        frames.append(qa)
        corpora += [] if corpus is None else [corpus]
    asides, notes = sum((form.asides for form in forms), Counter()), []
    qa = pd.concat(frames).fillna("") if len(frames) > 1 else frames[0]
    if _query_ids_repeat([form.qa for form in forms], list(splits)):
        qa = qa.drop(columns="query_id")
        notes.append(REPEATED)
    corpus = pd.concat(corpora).fillna("").drop_duplicates("uuid") if corpora else None
    unused = list(dict.fromkeys(name for form in forms for name in form.unused))
    names = list(dict.fromkeys(form.name for form in forms))
    return Form(" and ".join(names), qa, corpus, unused, asides, notes)


def with_file(table: pd.DataFrame, path: Path, folder: Path) -> pd.DataFrame:
    """Return a table of a file of the folder with row 12 labelled `train.csv:12`."""
    name = path.relative_to(folder).as_posix()
    return table.set_axis([f"{name}:{number}" for number in table.index])


def _check_dataset(qa: pd.DataFrame, path: Path, split: str) -> None:
    for number, name in qa["dataset"].items() if "dataset" in qa else ():
        if name and split_of(name) != split:
            raise InputError(
                f"{place(path, number)}: dataset {name!r} in a file that is named for {split}; "
                "correct it, or rename the file"
            )


def _query_ids_repeat(frames: Sequence[pd.DataFrame], paths: Sequence[Path]) -> bool:
    """Whether files have the same query id for different questions.

    Raises:
        InputError: one file has.
    """
    known: dict[str, str] = {}
    repeated = False
    for qa, path in zip(frames, paths):
        if "query_id" not in qa or "question" not in qa:
            continue
        own: dict[str, str] = {}
        for number, key, question in zip(qa.index, qa["query_id"], qa["question"]):
            if key and own.setdefault(key, question) != question:
                raise InputError(
                    f"{place(path, number)}: query id {key!r} already has another question; give "
                    "each question an id of its own"
                )
        repeated |= any(known.get(key, question) != question for key, question in own.items())
        known |= own
    return repeated
