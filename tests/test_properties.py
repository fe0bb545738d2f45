"""Test invariants of splits and samples for random tables, and readers with random bytes.

hypothesis (https://hypothesis.readthedocs.io) draws the tables, the same ones in every run.
"""

import csv
import tempfile
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from conftest import ROOT
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tunerank.core.errors import InputError
from tunerank.core.files import write_jsonl
from tunerank.data.passages import SPLITS, Passage
from tunerank.data.preparation.prepare import prepare
from tunerank.data.readers.tables import READERS, read_table
from tunerank.params.data import Units
from tunerank.params.load import load
from tunerank.retrieval.candidates import Retrieval
from tunerank.samples.build import build
from tunerank.samples.negatives import held_out_passages

settings.register_profile(
    "reproducible",
    derandomize=True,
    deadline=None,
    max_examples=40,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("reproducible")
PARAMS = load(ROOT / "tests/params.yaml")

# A few words, so that questions, texts and ids repeat. Other cells are any Unicode text.
WORDS = [
    "云杉多少钱？",
    "云杉 多少钱？",
    "云杉\u200b多少钱？",
    "\u200b\u3000甲",
    "ＡＢ",
    "AB",
    "保修几年？",
    "1",
    "e\u0301",
    "é",
    "\u3000",
    "",
    "👩‍👧",
    "שלום",
]
CELLS = st.one_of(
    st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
IDS = st.one_of(
    st.sampled_from(["007", "7", "1.0", "1e5", "甲"]),
    st.text("ab", min_size=1, max_size=2),
    st.uuids().map(str),
)


@st.composite
def tables(draw, splits: bool | None = None, repeats: bool = True):
    """Draw consistent tables: (questions, corpus or None).

    An id always has the same text. Either all rows or no row names a split.
    """
    rows = draw(
        st.lists(st.tuples(CELLS, CELLS, CELLS, st.sampled_from(SPLITS)), min_size=2, max_size=14)
    )
    split, shared = draw(st.booleans()) if splits is None else splits, draw(st.booleans())
    ids = draw(st.lists(IDS, min_size=1, max_size=6, unique=True))
    docs = {
        key: draw(CELLS.filter(lambda text: any(character.isalnum() for character in text)))
        for key in ids
    }
    table = []
    for number, (question, answer, context, dataset) in enumerate(rows):
        key = ids[number % len(ids)]
        question = question if repeats else f"{question}{number}"
        row = {
            "question": question,
            "uuid": key,
            "answer": answer,
            "context": context,
            "dataset": dataset if split else "",
        }
        table.append(row if shared else row | {"doc": docs[key]})
    return frame(table), frame(
        [{"uuid": key, "doc": doc} for key, doc in docs.items()]
    ) if shared else None


def frame(rows: list[dict]) -> pd.DataFrame:
    """Return a table as read_table returns it."""
    return pd.DataFrame(rows, index=range(2, len(rows) + 2), dtype=object).map(str.strip)


def made(qa: pd.DataFrame, corpus: pd.DataFrame | None, unicode: str = "NFC"):
    """Return what prepare makes of the tables; skip tables that it refuses in one line."""
    try:
        return prepare(
            qa,
            corpus,
            PARAMS.prepare.model_copy(update={"unicode": unicode, "valid_fraction": 0.3}),
        )
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        assume(False)


def everything(prepared) -> dict[str, tuple[str, str, str]]:
    return {
        q["id"]: (split, q["question"], q["passage"])
        for split, questions in prepared.questions.items()
        for q in questions
    }


@given(tables())
def test_every_row_is_in_one_split_or_dropped_with_a_reason(drawn):
    qa, corpus = drawn
    prepared = made(qa, corpus)
    rows = [question["row"] for split in SPLITS for question in prepared.questions[split]] + [
        drop["row"] for drop in prepared.dropped
    ]
    assert sorted(rows) == list(qa.index)
    assert all(drop["reason"] for drop in prepared.dropped)


@given(tables(), st.sampled_from(["NFC", "NFKC"]))
def test_no_question_and_no_text_is_repeated(drawn, unicode):
    prepared = made(*drawn, unicode)
    questions = [question for split in SPLITS for question in prepared.questions[split]]
    assert (
        len({question["id"] for question in questions})
        == len({question["question"] for question in questions})
        == len(questions)
    )
    assert (
        len({passage["id"] for passage in prepared.passages})
        == len({p["text"] for p in prepared.passages})
        == len(prepared.passages)
    )
    assert {question["passage"] for question in questions} <= {
        passage["id"] for passage in prepared.passages
    }


@given(tables(repeats=False), st.randoms(use_true_random=False))
def test_the_order_of_rows_has_no_effect_if_no_question_is_repeated(drawn, rng):
    """An exception is a passage without a doc in any row: its first context replaces it."""
    qa, corpus = drawn
    before = made(qa, corpus)
    orders = [list(range(len(table))) if table is not None else None for table in (qa, corpus)]
    for order in orders:
        rng.shuffle(order or [])
    after = made(qa.iloc[orders[0]], corpus.iloc[orders[1]] if corpus is not None else None)
    assert everything(after) == everything(before)
    assert {p["id"]: p["text"] for p in after.passages} == {
        p["id"]: p["text"] for p in before.passages
    }


@given(tables(splits=True), st.randoms(use_true_random=False))
def test_questions_and_their_given_splits_do_not_depend_on_which_repeated_row_is_kept(drawn, rng):
    qa, corpus = drawn
    before = made(qa, corpus)
    order = list(range(len(qa)))
    rng.shuffle(order)
    after = made(qa.iloc[order].set_axis(qa.index), corpus)
    given = [
        {key: split for key, (split, *_) in everything(found).items()} for found in (before, after)
    ]
    if any(qa["dataset"][question["row"]] == "valid" for question in before.questions["valid"]):
        assert given[0] == given[1]
    else:  # a part of the training questions is drawn by passage
        assert given[0].keys() == given[1].keys()
        assert [key for key in given[0] if "test" in (given[0][key], given[1][key])] == [
            key for key in given[0] if given[0][key] == given[1][key] == "test"
        ]


@given(tables(), st.sampled_from(["NFC", "NFKC"]))
def test_preparing_prepared_tables_changes_nothing(drawn, unicode):
    first = made(*drawn, unicode)
    rows = [
        {"uuid": q["passage"], "dataset": split}
        | {name: q[name] for name in ("question", "answer", "context", "qa_type")}
        for split in SPLITS
        for q in first.questions[split]
    ]
    # The first run may have drawn no validation question, so the second must not draw any.
    again = PARAMS.prepare.model_copy(update={"unicode": unicode, "valid_fraction": 0.0})
    second = prepare(
        frame(rows),
        frame([{"uuid": p["id"], "doc": p["text"]} for p in first.passages]),
        again,
    )
    assert everything(second) == everything(first) and not second.dropped and not second.merged
    assert second.passages == [{"id": p["id"], "text": p["text"]} for p in first.passages]


@given(
    tables(),
    st.sampled_from(["passage", "evidence", "both", "qd", "qa"]),
    st.sampled_from([0, 3, 80]),
    st.integers(0, 3),
)
@settings(max_examples=60)
def test_no_negative_is_a_positive_or_from_a_held_out_passage(drawn, pair, shown, random_negatives):
    prepared = made(*drawn)
    retrieve = PARAMS.retrieve.model_copy(
        update={"dense_weight": 0.0, "window": 0, "stride": 0, "shown": shown, "depth": 5}
    )
    units = Units(view=1.0, window=1.0, whole=1.0)
    samples = PARAMS.samples.model_copy(
        update={
            "pair": pair,
            "negatives": 3,
            "random_negatives": random_negatives,
            "teacher": "none",
            "units": units,
            "untitled": 0.5,
        }
    )
    params = PARAMS.model_copy(update={"retrieve": retrieve, "samples": samples})
    corpus = {passage["id"]: Passage("", passage["text"]) for passage in prepared.passages}
    train = prepared.questions["train"]
    asked = Retrieval(corpus, None, retrieve).candidates(train, "train")
    held_out = held_out_passages(prepared.questions)
    about: dict[str, list[dict]] = {}
    for question in train if pair in ("qd", "qa") else ():
        about.setdefault(question["passage"], []).append(question)

    questions = {question["id"]: question for question in train}
    trained = {question["passage"] for question in train}
    tested_alone = {
        q["passage"] for split in ("valid", "test") for q in prepared.questions[split]
    } - trained
    for sample in build(params, corpus, asked, held_out, about):
        assert not set(sample["pos"]) & set(sample["neg"]) and sample["pos"] and sample["neg"]
        assert questions[sample["id"]]["passage"] not in sample["neg_passages"]
        assert not tested_alone & {*sample["neg_passages"], *sample["pos_passages"]}
        own = corpus[questions[sample["id"]]["passage"]].text
        assert all(corpus[passage].text != own for passage in sample["neg_passages"])
        assert (
            len(sample["neg"])
            == len(sample["neg_passages"])
            == len(set(sample["neg_passages"]))
            <= 3
        )


# readers


# The characters of XML 1.0 except the carriage return, which XML reads as a line feed.
WRITABLE = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"
    ),
    max_size=8,
)
GRIDS = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(WRITABLE, min_size=width, max_size=width), min_size=1, max_size=5
    )
)


def write(path: Path, names: list[str], rows: list[list[str]]) -> Path:
    if path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows([names, *rows])
    elif path.suffix == ".jsonl":
        write_jsonl(path, [dict(zip(names, row)) for row in rows])
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(
            pa.table({name: pa.array(column) for name, column in zip(names, zip(*rows))}), path
        )
    else:
        book = openpyxl.Workbook()
        for number, row in enumerate([names, *rows], 1):
            for at, text in enumerate(row, 1):
                # A text that begins with = must not become a formula.
                book.active.cell(number, at, text).data_type = "s"
        book.save(path)
    return path


@given(GRIDS)
def test_the_four_formats_give_the_same_cells(grid):
    names = [f"c{at}" for at in range(len(grid[0]))]
    wanted = [[cell.strip() for cell in row] for row in grid]
    assume(all(any(row) for row in wanted) and "_x" not in "".join(map("".join, grid)))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in READERS:
            found = read_table(write(Path(folder, f"t{suffix}"), names, grid))
            assert found.columns.tolist() == names
            assert found.to_numpy().tolist() == wanted


def start(suffix: str) -> bytes:
    """Return the bytes of a valid file, from which broken ones are made."""
    with tempfile.TemporaryDirectory() as folder:
        return write(
            Path(folder, f"t{suffix}"), ["question", "doc"], [["甲？", "一"], ["乙？", "二"]]
        ).read_bytes()


STARTS = {suffix: start(suffix) for suffix in READERS}


@given(st.sampled_from(tuple(READERS)), st.data())
@settings(max_examples=300)
def test_a_reader_gives_text_or_refuses_any_bytes_in_one_line(suffix, data):
    whole = STARTS[suffix]
    at = data.draw(st.integers(0, len(whole)))
    content = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.binary(max_size=8).map(lambda new: whole[:at] + new + whole[at + len(new) :]),
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"t{suffix}")
        path.write_bytes(content)
        try:
            cells = read_table(path).to_numpy().ravel().tolist()
        except InputError as error:
            assert str(error).startswith(str(path)) and len(str(error).splitlines()) == 1
        else:
            assert cells and all(
                cell == cell.strip() and cell.encode() is not None for cell in cells
            )
