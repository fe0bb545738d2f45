"""From raw tables to clean questions, passages and splits, with every dropped row named."""

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import pandas as pd

from reranker.errors import InputError
from reranker.params import Prepare
from reranker.passages import SPLITS

TEXTS = ("answer", "context", "doc")
INVISIBLE = re.compile("[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
"""Controls, soft hyphens, zero-width spaces and marks of direction: two questions that differ in these alone look the same to
their writer, and one would be trained on and the other tested. Joiners stay, which emoji and Persian are written with."""


@dataclass(frozen=True)
class Prepared:
    """passages: {id, text, ...}; questions by split: {id, question, answer, context, passage, qa_type, row};
    dropped: {row, question, reason}. All in the order of the tables. merged: id -> the passage with the same text that it is."""

    passages: list[dict]
    questions: dict[str, list[dict]]
    dropped: list[dict]
    merged: dict[str, str] = field(default_factory=dict)


def prepare(
    qa: pd.DataFrame, corpus: pd.DataFrame | None, params: Prepare, seed: int, name: str = "qa", corpus_name: str = "corpus"
) -> Prepared:
    """Clean, check and split.

    Args:
        qa: the questions' table as `read_table` gives it; `name` is what messages call it, and `corpus_name` the other.
        corpus: the passages' table (`uuid`, `doc`, anything else), or None to take passages from the questions' rows.
        seed: of the split by passage, where the table names no splits.

    Raises:
        InputError: naming row and remedy, where rows contradict each other or a needed column is missing.
    """
    there = set(qa) | set(corpus if corpus is not None else ())
    for ours, theirs in params.columns.items():
        if ours not in there and theirs not in there:
            raise InputError(
                f"{name}: prepare.columns maps {ours!r} to {theirs!r}, which is not among {', '.join(map(repr, qa.columns))}"
            )
    qa = _rename(qa, params.columns)
    texts_here = any(column in qa for column in TEXTS) or (corpus is not None and "uuid" in qa)
    if "question" not in qa or not texts_here:
        missing = "question" if "question" not in qa else "answer, context or doc"
        raise InputError(
            f"{name}: no column {missing!r} among {', '.join(map(repr, qa.columns))}; rename it there, "
            "or map it in prepare.columns"
        )

    def clean(text: str) -> str:
        return unicodedata.normalize(params.unicode, INVISIBLE.sub("", text)).strip()

    qa = qa.map(clean)
    texts = _passages_of(corpus, params, clean, corpus_name)
    shared_corpus = bool(texts)
    rows, dropped = [], []
    for number, cells in zip(qa.index, qa.to_dict("records")):
        row = {column: cells.get(column, "") for column in ("question", *TEXTS, "uuid", "qa_type", "dataset")}
        row["row"] = int(number)
        reason = _reason_to_drop(row, params)
        if reason:
            dropped.append({"row": row["row"], "question": row["question"], "reason": reason})
            continue
        _place_passage(row, texts, shared_corpus, name)
        rows.append(row)

    merged = _merge_same_texts(rows, texts)
    rows, repeated = _drop_repeated(rows)
    dropped = sorted(dropped + repeated, key=lambda drop: drop["row"])
    _split(rows, params, seed, name)
    questions = {split: [_question(row) for row in rows if row["dataset"] == split] for split in SPLITS}
    for split in ("train", "test"):
        if not questions[split]:
            raise InputError(
                f"{name}: no {split} question is left of {len(qa)} rows; name some in column 'dataset', or leave that column "
                "out and set prepare.test_fraction"
            )
    for passage in texts.values():
        passage.pop("stands_in", None)
    return Prepared([dict(passage, id=key) for key, passage in texts.items()], questions, dropped, merged)


def summarise(prepared: Prepared) -> dict:
    """Counts for metrics/data.json; `seen` test questions ask about a passage that some training question asks about."""
    trained = {question["passage"] for question in prepared.questions["train"]}
    test = prepared.questions["test"]
    held_out = {q["passage"] for split in ("valid", "test") for q in prepared.questions[split]} - trained
    return {
        "passages": len(prepared.passages),
        "passages_merged": len(prepared.merged),
        "passages_train": len(trained),
        "passages_held_out": len(held_out),
        "questions": {split: len(prepared.questions[split]) for split in SPLITS},
        "qa_type": {
            split: dict(sorted(Counter(q["qa_type"] or "none" for q in prepared.questions[split]).items())) for split in SPLITS
        },
        "test_seen": sum(q["passage"] in trained for q in test),
        "test_unseen": sum(q["passage"] not in trained for q in test),
        "dropped": dict(sorted(Counter(drop["reason"].split(" (")[0] for drop in prepared.dropped).items())),
    }


def _rename(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    return table.rename(columns={theirs: ours for ours, theirs in columns.items() if ours not in table})


def _passages_of(corpus: pd.DataFrame | None, params: Prepare, clean, name: str) -> dict[str, dict]:
    if corpus is None:
        return {}
    corpus = _rename(corpus, params.columns)
    for column in ("uuid", "doc"):
        if column not in corpus:
            raise InputError(f"{name}: no column {column!r} among {', '.join(map(repr, corpus.columns))}")
    texts: dict[str, dict] = {}
    for number, cells in zip(corpus.index, corpus.map(clean).to_dict("records")):
        key, text = cells.pop("uuid"), cells.pop("doc")
        if not key or not text:
            raise InputError(f"{name}, row {number}: empty {'uuid' if not key else 'doc'}; fill it or delete the row")
        others = {column: cell for column, cell in cells.items() if column not in ("id", "text", "stands_in")}
        _add(texts, key, {"text": text} | others, f"{name}, row {number}")
    return texts


def _add(texts: dict[str, dict], key: str, passage: dict, where: str) -> None:
    if texts.get(key, {}).pop("stands_in", False):
        texts[key]["text"] = passage["text"]
    if texts.setdefault(key, passage)["text"] != passage["text"]:
        raise InputError(f"{where}: uuid {key!r} already has another text; give each passage an id of its own")


def _reason_to_drop(row: dict, params: Prepare) -> str | None:
    if not row["question"]:
        return "empty question"
    if params.qa_types and row["qa_type"] not in params.qa_types:
        return f"qa_type {row['qa_type']!r} not wanted"
    if not any(row[column] for column in (*TEXTS, "uuid")):
        return "no answer, context or doc"
    return None


def _place_passage(row: dict, texts: dict[str, dict], shared_corpus: bool, name: str) -> None:
    """Set row['passage'], and take the passage's text from the row unless a corpus table has them all."""
    where = f"{name}, row {row['row']}"
    if shared_corpus:
        if row["uuid"] not in texts:
            raise InputError(f"{where}: passage {row['uuid']!r} is not in the corpus; add it there or correct the uuid")
        row["passage"] = row["uuid"]
        return
    text = row["doc"] or row["context"] or row["answer"]
    if not text:
        raise InputError(f"{where}: no text for passage {row['uuid']!r}; fill doc, context or answer")
    row["passage"] = row["uuid"] or hashlib.sha256(text.encode()).hexdigest()[:16]
    if row["doc"] or not row["uuid"]:
        _add(texts, row["passage"], {"text": text}, where)
    else:  # several evidence sentences under one id are one passage's: the first stands for it, until a row has its doc
        texts.setdefault(row["passage"], {"text": text, "stands_in": True})


def _merge_same_texts(rows: list[dict], texts: dict[str, dict]) -> dict[str, str]:
    """Make one passage of those that have the same text and title: each would be a false negative of the other's questions, and
    what one's teach, the other's would test. The smallest id stays, in whatever order they stand."""
    kept: dict[tuple[str, str], str] = {}
    for key in sorted(texts):
        kept.setdefault((texts[key]["text"], texts[key].get("title", "")), key)
    first = {key: kept[passage["text"], passage.get("title", "")] for key, passage in texts.items()}
    for row in rows:
        row["passage"] = first[row["passage"]]
    merged = {key: other for key, other in first.items() if key != other}
    for key in merged:
        del texts[key]
    return merged


def _drop_repeated(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Keep one row of each question: a test row before a valid one before a train one, so that no test question is
    trained on; among equals the first."""
    precedence = {"test": 0, "valid": 1}
    kept: dict[str, dict] = {}
    for row in sorted(rows, key=lambda row: (precedence.get(row["dataset"], 2), row["row"])):
        kept.setdefault(row["question"], row)
    dropped = [
        {"row": row["row"], "question": row["question"], "reason": f"repeated question (row {kept[row['question']]['row']})"}
        for row in rows
        if kept[row["question"]] is not row
    ]
    return [row for row in rows if kept[row["question"]] is row], dropped


def _split(rows: list[dict], params: Prepare, seed: int, name: str) -> None:
    """Fill row['dataset']: the table's own where it has one, else by passage; a missing `valid` is taken from `train`.

    That is by passage, of those without test questions, or by question where those hold less than half of the training
    questions and would leave too few to choose by. A place depends on the seed and the passage's id, or the question, alone, so
    that a new one moves no other.
    """

    def share(key: str) -> float:
        return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64

    given = {row["dataset"] for row in rows}
    if given <= {""}:
        for row in rows:
            place = share(row["passage"])
            row["dataset"] = "test" if place >= 1 - params.test_fraction else "train"
    else:
        for row in rows:
            if row["dataset"] not in SPLITS:
                raise InputError(
                    f"{name}, row {row['row']}: dataset {row['dataset']!r} is none of {', '.join(SPLITS)}; correct it, or "
                    "leave the whole column empty to split by passage"
                )
    if "valid" not in given:
        tested = {row["passage"] for row in rows if row["dataset"] == "test"}
        train = [row for row in rows if row["dataset"] == "train"]
        # A passage with test questions stays in training: its test questions are the `seen` ones.
        untested = [row for row in train if row["passage"] not in tested]
        drawn, by = (untested, "passage") if 2 * len(untested) >= len(train) else (train, "question")
        for row in drawn:
            if share("v" + row[by]) < params.valid_fraction:
                row["dataset"] = "valid"


def _question(row: dict) -> dict:
    key = "q" + hashlib.sha256(row["question"].encode()).hexdigest()[:12]
    fields = {column: row[column] for column in ("question", "answer", "context", "passage", "qa_type", "row")}
    return {"id": key, **fields}
