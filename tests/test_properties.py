"""Test invariants of splits and samples for random tables, and readers with random bytes.

hypothesis (https://hypothesis.readthedocs.io) draws the tables, the same ones in every run.
"""

import csv
import json
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
from tunerank.data.questions import grades, relevant_passages
from tunerank.data.readers.tables import READERS, read_table
from tunerank.params.data import Units
from tunerank.params.load import load
from tunerank.retrieval.candidates import Retrieval
from tunerank.samples.build import build
from tunerank.samples.negatives import held_out_passages
from tunerank.samples.units import draw_unit

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


LABELS = st.sampled_from(["0", "1", "1", "2", ""])


@st.composite
def tables(draw, splits: bool | None = None):
    """Draw consistent tables: (questions, corpus or None).

    An id always has the same text. Either all rows or no row names a split, and all or none have a
    label. Some questions have several rows.
    """
    rows = draw(
        st.lists(st.tuples(CELLS, CELLS, CELLS, st.sampled_from(SPLITS)), min_size=2, max_size=14)
    )
    split, shared = draw(st.booleans()) if splits is None else splits, draw(st.booleans())
    labelled = draw(st.booleans())
    ids = draw(st.lists(IDS, min_size=1, max_size=6, unique=True))
    docs = {
        key: draw(CELLS.filter(lambda text: any(character.isalnum() for character in text)))
        for key in ids
    }
    table = []
    for number, (question, answer, context, dataset) in enumerate(rows):
        key = ids[number % len(ids)]
        row = {
            "question": question,
            "uuid": key,
            "answer": answer,
            "context": context,
            "dataset": dataset if split else "",
        }
        if labelled:
            row["label"] = draw(LABELS)
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


def everything(prepared) -> dict[str, tuple]:
    return {
        q["id"]: (split, q["question"], grades(q), set(q["negatives"]))
        for split, questions in prepared.questions.items()
        for q in questions
    }


@given(tables())
def test_every_row_is_a_judgement_of_one_question_or_dropped_with_a_reason(drawn):
    qa, corpus = drawn
    prepared = made(qa, corpus)
    questions = [question for split in SPLITS for question in prepared.questions[split]]
    judged = sum(len(question["relevant"]) + len(question["negatives"]) for question in questions)
    dropped = [drop["row"] for drop in prepared.dropped]
    assert judged + len(dropped) == len(qa)
    rows = [question["row"] for question in questions] + dropped
    assert len(set(rows)) == len(rows) and set(rows) <= set(qa.index)
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
    passages = {passage["id"] for passage in prepared.passages}
    assert len(passages) == len({p["text"] for p in prepared.passages}) == len(prepared.passages)
    for question in questions:
        judged = [item["passage"] for item in question["relevant"]] + question["negatives"]
        assert len(set(judged)) == len(judged) and set(judged) <= passages
        found = [item["grade"] for item in question["relevant"]]
        assert found and found == sorted(found, reverse=True) and found[-1] >= 1


@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_has_no_effect(drawn, rng):
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


@given(tables(), st.sampled_from(["NFC", "NFKC"]))
def test_preparing_prepared_tables_changes_nothing(drawn, unicode):
    first = made(*drawn, unicode)
    rows = [
        {"uuid": judged["passage"], "dataset": split, "label": str(judged["grade"])}
        | {name: q[name] for name in ("question", "qa_type")}
        | {name: judged.get(name, "") for name in ("answer", "context")}
        for split in SPLITS
        for q in first.questions[split]
        for judged in q["relevant"] + [{"passage": key, "grade": 0} for key in q["negatives"]]
    ]
    # The first run may have drawn no validation question, so the second must not draw any.
    again = PARAMS.prepare.model_copy(update={"unicode": unicode, "valid_fraction": 0.0})
    second = prepare(
        frame(rows),
        frame([{"uuid": p["id"], "doc": p["text"]} for p in first.passages]),
        again,
    )
    keys = ("id", "question", "relevant", "negatives", "qa_type")
    for split in SPLITS:
        one, other = (
            [[question[key] for key in keys] for question in prepared.questions[split]]
            for prepared in (first, second)
        )
        assert one == other
    assert not second.dropped and not second.merged
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
    about = items(train) if pair in ("qd", "qa") else {}
    several = any(len(question["relevant"]) > 1 for question in train)
    questions = {question["id"]: question for question in train}
    tested_alone = relevant_passages(
        prepared.questions["valid"] + prepared.questions["test"]
    ) - relevant_passages(train)
    for sample in build(params, corpus, asked, held_out, about, several):
        own = grades(questions[sample["id"]])
        assert not set(sample["pos"]) & set(sample["neg"]) and sample["pos"] and sample["neg"]
        assert not own.keys() & set(sample["neg_passages"])
        assert not tested_alone & {*sample["neg_passages"], *sample["pos_passages"]}
        texts = {corpus[passage].text for passage in own}
        assert all(corpus[passage].text not in texts for passage in sample["neg_passages"])
        assert (
            len(sample["neg"])
            == len(sample["neg_passages"])
            == len(set(sample["neg_passages"]))
            <= 3
        )


def items(questions: list[dict]) -> dict[str, list[dict]]:
    """Return passage -> the items of `relevant` that name it."""
    found: dict[str, list[dict]] = {}
    for question in questions:
        for item in question["relevant"]:
            found.setdefault(item["passage"], []).append(item)
    return found


@st.composite
def judgements(draw):
    """Draw (passages, training questions, candidates of each, passages that are held out).

    Texts, evidence and answers repeat. Every question has one to four relevant passages, and some
    have explicit negatives: relevant ones among them, which `prepare` would leave out.
    """
    texts = st.sampled_from(["甲甲甲甲乙", "甲甲甲甲丙", "甲甲", "丁戊己庚辛壬癸"])
    passages = {
        key: Passage(draw(st.sampled_from(["", "题", "另题"])), draw(texts))
        for key in "abcdefgh"[: draw(st.integers(2, 8))]
    }
    keys = st.sampled_from(list(passages))
    words, questions, candidates = st.sampled_from(["", "甲甲", "丙", "无"]), [], []
    for number in range(draw(st.integers(1, 5))):
        relevant = [
            {
                "passage": key,
                "grade": draw(st.integers(1, 3)),
                "context": draw(words),
                "answer": draw(words),
            }
            for key in draw(st.lists(keys, min_size=1, max_size=4, unique=True))
        ]
        negatives = draw(st.lists(keys, max_size=3, unique=True))
        questions.append(
            {
                "id": f"q{number}",
                "question": f"问{number}",
                "relevant": sorted(relevant, key=lambda item: -item["grade"]),
                "negatives": negatives,
            }
        )
        found = draw(st.lists(keys, max_size=8, unique=True))
        found += [item["passage"] for item in relevant] + negatives
        candidates.append(
            [
                {
                    "passage": key,
                    "dense_score": draw(st.sampled_from([0.9, 0.8, 0.5])),
                    "nearest": (0, draw(st.integers(1, len(passages[key].text)))),
                }
                for key in dict.fromkeys(found)
            ]
        )
    held_out = set(draw(st.lists(keys, max_size=2))) - relevant_passages(questions)
    return passages, questions, candidates, held_out


@given(
    judgements(),
    st.sampled_from(["passage", "evidence", "both", "qd", "qa"]),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 3),
    st.sampled_from([None, 0.0]),
)
@settings(max_examples=300)
def test_no_relevant_passage_of_several_is_a_negative(
    drawn, pair, untitled, random_negatives, margin
):
    corpus, questions, candidates, held_out = drawn
    changes = {"pair": pair, "untitled": untitled, "units": Units(view=1.0, window=0.0, whole=1.0)}
    changes |= {"negatives": 3, "random_negatives": random_negatives, "absolute_margin": margin}
    changes |= {"skip_top": 0, "window": 4, "teacher": "retriever"}
    params = with_settings(strategy="hard", **changes)
    several = any(len(question["relevant"]) > 1 for question in questions)
    about = items(questions) if pair in ("qd", "qa") else {}
    known = {question["id"]: question for question in questions}
    for sample in build(params, corpus, zip(questions, candidates), held_out, about, several):
        question = known[sample["id"]]
        own, unit = grades(question), draw_unit(params.samples, 2, params.seed, question["id"])
        assert not own.keys() & set(sample["neg_passages"])
        assert not held_out & set(sample["neg_passages"])
        assert not set(sample["pos"]) & set(sample["neg"])
        looks = {unit.of(corpus[passage]) for passage in own}
        assert all(unit.of(corpus[passage]) not in looks for passage in sample["neg_passages"])
        assert list(dict.fromkeys(sample["pos_passages"])) == list(own)
        for side in ("pos", "neg"):
            assert len(sample[side]) == len(sample[f"{side}_passages"])
            assert len(sample[side]) == len(sample[f"{side}_scores"])
        assert len(set(sample["neg_passages"])) == len(sample["neg_passages"]) <= 3
        first = sample.get("explicit_negatives", 0)
        explicit = [one for one in question["negatives"] if one in sample["neg_passages"]]
        assert sample["neg_passages"][:first] == explicit
        assert ("pos_weights" in sample) == several
        if several:
            shares = {key: 0.0 for key in own}
            for passage, weight in zip(sample["pos_passages"], sample["pos_weights"], strict=True):
                shares[passage] += weight
            assert shares == own


@given(
    judgements(),
    st.sampled_from(["passage", "evidence", "qd", "qa"]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([None, 1, 2]),
)
@settings(max_examples=200)
def test_no_text_of_a_relevant_passage_is_a_negative_in_the_articles_samples(
    drawn, pair, untitled, size
):
    """Each passage's text begins with its own letter here, so that a text tells its passage."""
    _, questions, candidates, held_out = drawn
    corpus = {key: Passage("题", key + "x" * 9) for key in "abcdefgh"}
    for question in questions:
        for item in question["relevant"]:
            item |= {"context": item["passage"], "answer": item["passage"] + "x"}
    for found in candidates:
        for candidate in found:
            candidate["nearest"] = (0, 2)
    units = Units(view=1.0, window=0.0, whole=1.0)
    changes = {"pair": pair, "untitled": untitled, "units": units, "teacher": "none"}
    params = with_settings(strategy="all", neg_batch_size=size, n_neg_batch=3, **changes)
    several = any(len(question["relevant"]) > 1 for question in questions)
    about = items(questions) if pair in ("qd", "qa") else {}
    known = {question["question"]: question for question in questions}
    for sample in build(params, corpus, zip(questions, candidates), held_out, about, several):
        own = grades(known[sample["query"]])
        named = {side: [text.removeprefix("题。")[0] for text in sample[side]] for side in SIDES}
        assert named["pos"] == list(own) and sample["neg"]
        assert not own.keys() & set(named["neg"]) and not held_out & set(named["neg"])
        explicit = [one for one in known[sample["query"]]["negatives"] if one not in own]
        first = sample.get("explicit_negatives", 0)
        assert set(named["neg"][:first]) <= set(explicit) - held_out
        assert sample.get("pos_weights") == ([*map(float, own.values())] if several else None)


SIDES = ("pos", "neg")


def with_settings(**changes):
    samples = PARAMS.samples.model_copy(update=changes)
    retrieve = PARAMS.retrieve.model_copy(update={"shown": 2})
    return PARAMS.model_copy(update={"samples": samples, "retrieve": retrieve})


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
    elif path.suffix == ".json":
        found = [dict(zip(names, row)) for row in rows]
        path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
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
def test_the_formats_give_the_same_cells(grid):
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
