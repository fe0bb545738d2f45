"""Write the training samples as a folder that Hugging Face `datasets` loads: parquet and a card."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tunerank.commands.replaced import refuse_file, refuse_foreign
from tunerank.core.errors import InputError
from tunerank.core.files import numbered_jsonl, regular, replacing
from tunerank.provenance.lock import md5_of, outputs, read_lock

SAMPLES = Path("data/samples/train.jsonl")
RERUN = "run dvc repro samples"
CARD, ROWS = "README.md", "train.parquet"
SEAL = re.compile(r"<!-- tunerank samples ([0-9a-f]{64}) -->\n\Z")
"""The last line of a card: the SHA-256 of the text above it."""

BLOCK = 1000  # samples in a row group
TEXT, TEXTS, NUMBERS = pa.string(), pa.list_(pa.string()), pa.list_(pa.float64())
EXPECTED = {TEXT: "a text", TEXTS: "a list of texts", NUMBERS: "a list of numbers"}
Columns = dict[str, tuple[pa.DataType, str]]
"""Name -> type, and what the card says of it."""

LISTWISE: Columns = {
    "id": (TEXT, "id of the question"),
    "query": (TEXT, "the question"),
    "pos": (TEXTS, "texts that answer it"),
    "neg": (TEXTS, "texts that do not answer it"),
    "pos_scores": (NUMBERS, "the teacher's score of each text of `pos`"),
    "neg_scores": (NUMBERS, "the teacher's score of each text of `neg`"),
    "pos_passages": (TEXTS, "id of the passage of each text of `pos`"),
    "neg_passages": (TEXTS, "id of the passage of each text of `neg`"),
    "pos_weights": (NUMBERS, "how often each text of `pos` is drawn, relative to the others"),
}
NEEDED = ("query", "pos", "neg")
TRIPLETS: Columns = {
    "anchor": (TEXT, "the question"),
    "positive": (TEXT, "a text that answers it; a question's positives take turns"),
    "negative": (TEXT, "a text that does not answer it"),
}
LABELLED: Columns = {
    "query": (TEXT, "the question"),
    "passage": (TEXT, "a text"),
    "label": (pa.int64(), "1: the text answers the question; 0: it does not"),
}


def listwise(sample: dict) -> Iterator[dict]:
    """Yield the sample as it is."""
    yield sample


def triplets(sample: dict) -> Iterator[dict]:
    """Yield a row for each negative.

    >>> rows = triplets({"query": "q", "pos": ["a", "b"], "neg": ["x", "y", "z"]})
    >>> [(row["positive"], row["negative"]) for row in rows]
    [('a', 'x'), ('b', 'y'), ('a', 'z')]
    """
    for positive, negative in zip(itertools.cycle(sample["pos"]), sample["neg"]):
        yield {"anchor": sample["query"], "positive": positive, "negative": negative}


def labelled(sample: dict) -> Iterator[dict]:
    """Yield a row for each positive, then one for each negative."""
    for side, label in (("pos", 1), ("neg", 0)):
        for text in sample[side]:
            yield {"query": sample["query"], "passage": text, "label": label}


FORMS: dict[str, tuple[Columns, Callable[[dict], Iterable[dict]], str]] = {
    "listwise": (LISTWISE, listwise, "one row for each training question"),
    "triplets": (TRIPLETS, triplets, "one row for each negative"),
    "labelled": (LABELLED, labelled, "one row for each pair of a question and a text"),
}
"""Name -> columns in order, the rows of a sample, and what a row is. sentence-transformers' trainer
takes the columns of `triplets` and `labelled` by their order, and `label` by its name."""


def write_samples(folder: Path, form: str) -> None:
    """Write the training samples that dvc.lock names into `folder`.

    Args:
        form: a key of FORMS.

    Raises:
        InputError: samples are missing, broken or of another run than dvc.lock's, or `folder` has
            files of somebody else.
    """
    refuse_others_files(folder)
    regular(SAMPLES, f"no such file; {RERUN}, or dvc pull {SAMPLES.parent}")
    origin = proven_origin()
    columns, rows_of, _ = FORMS[form]
    used = used_keys()
    if form == "listwise":
        columns = {name: column for name, column in columns.items() if name in used}
        if ignored := sorted(used - columns.keys()):
            print(f"{SAMPLES}: left out: {', '.join(ignored)}")
    schema = pa.schema([(name, kind) for name, (kind, _) in columns.items()])
    count = 0
    with replacing(folder) as partial:
        partial.mkdir()
        with pq.ParquetWriter(partial / ROWS, schema) as out:
            samples = checked_samples()
            while block := list(itertools.islice(samples, BLOCK)):
                rows = [row for sample in block for row in rows_of(sample)]
                out.write_batch(pa.RecordBatch.from_pylist(rows, schema))
                count += len(rows)
        text = card(form, columns, count, origin)
        (partial / CARD).write_text(text, encoding="utf-8", newline="\n")
    print(f"{folder}: {count} rows; datasets.load_dataset({str(folder)!r})")


def refuse_others_files(folder: Path) -> None:
    """Check that `folder` is missing, empty, or as this command left it.

    Raises:
        InputError: it is a file, or has files that would be lost.
    """
    refuse_file(folder)
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    own = {CARD, ROWS} if is_own_card(folder / CARD) else set()
    refuse_foreign(folder, names, own, "samples")


def is_own_card(path: Path) -> bool:
    """Return whether a file is a card of this command that nobody has edited."""
    if not path.is_file():
        return False
    text = path.read_bytes().decode("utf-8", "replace")
    seal = SEAL.search(text)
    return bool(seal) and digest(text[: seal.start()]) == seal[1]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def proven_origin() -> dict[str, str]:
    """Return path -> md5 of the samples, and of the data that they were made from, by dvc.lock.

    Raises:
        InputError: there is no dvc.lock, or the samples are of another run.
    """
    lock = read_lock(Path("dvc.lock"))
    path = SAMPLES.parent.as_posix()
    locked = outputs(lock).get(path)
    if locked is None:
        raise InputError(f"dvc.lock names no {path}; {RERUN}")
    found = md5_of(SAMPLES.parent)
    if found != locked:
        raise InputError(
            f"{path} is not the one of dvc.lock (md5 {found}, there {locked}): dvc checkout {path} "
            "brings that one back, dvc repro samples makes it again"
        )
    inputs = lock.get("samples", {}).get("deps", [])
    return {path: locked} | {
        dep["path"]: dep["md5"] for dep in inputs if dep["path"].startswith("data/")
    }


def used_keys() -> set[str]:
    """Return the keys that have a value in a sample.

    Raises:
        InputError: as `checked_samples`, or there are no samples.
    """
    used = {key for sample in checked_samples() for key in sample if sample[key] is not None}
    if not used:
        raise InputError(f"{SAMPLES}: no samples; {RERUN}")
    return used


def checked_samples() -> Iterator[dict]:
    """Yield the samples.

    Raises:
        InputError: a line is not a sample; the message names line and key.
    """
    for number, sample in numbered_jsonl(SAMPLES):
        for name, (kind, _) in LISTWISE.items():
            value, needed = sample.get(name), name in NEEDED
            if value is None and not needed:
                continue
            if not has_type(value, kind):
                problem = f"is not {EXPECTED[kind]}"
            elif needed and not value:
                problem = "is empty"
            elif "_" in name and len(value) != len(side := sample[name.partition("_")[0]]):
                problem = f"has {len(value)} values for {len(side)} texts"
            else:
                continue
            raise InputError(f"{SAMPLES}, line {number}: {name!r} {problem}; {RERUN}")
        yield sample


def has_type(value: object, kind: pa.DataType) -> bool:
    """Return whether a JSON value is of a column's type; true and false are not numbers."""
    if kind == TEXT:
        return isinstance(value, str)
    types = (str,) if kind == TEXTS else (int, float)
    return isinstance(value, list) and all(type(item) in types for item in value)


def card(form: str, columns: Columns, count: int, origin: dict[str, str]) -> str:
    """Return the data card: Markdown after its metadata in YAML, and the seal."""
    metadata = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": ROWS}]}],
        "task_categories": ["text-ranking"],
    }
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False) + "---",
        "# Training samples of a reranker",
        "",
        f"{count} rows, {FORMS[form][2]}.",
        "Texts are what the reranker is trained on: whole passages or parts of them, with titles.",
        "Language and licence are those of the tables that the samples were made from.",
        "",
        "| column | type | content |",
        "|---|---|---|",
        *(f"| `{name}` | {type_name(kind)} | {text} |" for name, (kind, text) in columns.items()),
        "",
        f"`tunerank samples --form {form}` wrote this folder from the run of this `dvc.lock`:",
        "",
        "| path | md5 |",
        "|---|---|",
        *(f"| `{path}` | `{md5}` |" for path, md5 in origin.items()),
    ]
    text = "\n".join(lines) + "\n\n"
    return f"{text}<!-- tunerank samples {digest(text)} -->\n"


def type_name(kind: pa.DataType) -> str:
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)
