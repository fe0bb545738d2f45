import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT

from tunerank.core.errors import InputError
from tunerank.data.preparation.prepare import Prepared, prepare, summarise
from tunerank.data.readers.tables import read_table
from tunerank.params.data import Prepare

WORKBOOK = ROOT.parent / "shared/data/masteringrag/question_answer_v1_1_20240811.xlsx"


def settings(**changes):
    values = {
        "raw": "x",
        "columns": {},
        "qa_types": [],
        "unicode": "NFC",
        "valid_fraction": 0.0,
        "test_fraction": 0.25,
        "split_seed": 42,
    }
    return Prepare(**values | changes)


def frame(*rows):
    """Return a table as read_table does: cells are text, empty ones "", rows numbered from 2."""
    return pd.DataFrame(list(rows), index=range(2, len(rows) + 2), dtype=object).fillna("")


# These two rows, a training and a test question, make any table complete.
TRAIN = {"uuid": "p1", "question": "train?", "answer": "a1", "doc": "text one", "dataset": "train"}
TEST = {"uuid": "p2", "question": "test?", "answer": "a2", "doc": "text two", "dataset": "test"}


def run(*rows, corpus=None, **changes):
    return prepare(
        frame(*rows), frame(*corpus) if corpus else None, settings(**changes), name="qa.csv"
    )


def refusal(*rows, **arguments):
    with pytest.raises(InputError) as error:
        run(*rows, **arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def texts(prepared):
    return {passage["id"]: passage["text"] for passage in prepared.passages}


def answering(question):
    """Return the ids of a question's relevant passages."""
    return [item["passage"] for item in question["relevant"]]


def asked(prepared):
    return {
        split: [question["question"] for question in questions]
        for split, questions in prepared.questions.items()
    }


# cleaning


def test_a_question_keeps_its_fields_and_row():
    prepared = run(TRAIN | {"context": "c1", "qa_type": "detailed"}, TEST)
    assert prepared.questions["train"] == [
        {
            "id": prepared.questions["train"][0]["id"],
            "question": "train?",
            "relevant": [{"passage": "p1", "grade": 1, "context": "c1", "answer": "a1"}],
            "negatives": [],
            "qa_type": "detailed",
            "row": 2,
        }
    ]
    assert list(prepared.questions["train"][0]) == [
        *("id", "question", "relevant", "negatives", "qa_type", "row")
    ]
    assert [
        (q["question"], q["relevant"][0]["context"], q["qa_type"], q["row"])
        for q in prepared.questions["test"]
    ] == [("test?", "", "", 3)]
    assert prepared.passages == [{"id": "p1", "text": "text one"}, {"id": "p2", "text": "text two"}]
    assert prepared.questions["valid"] == [] and prepared.dropped == []


@pytest.mark.parametrize(
    "given, nfc, nfkc",
    [
        ("ＡＢ１２（甲）？", "ＡＢ１２（甲）？", "AB12(甲)?"),
        ("cafe\u0301", "caf\u00e9", "caf\u00e9"),
        ("①㎡", "①㎡", "1m2"),
        ("\ufeff \u200b甲\u200b\ufeff\n", "甲", "甲"),
        ("\t甲 乙 ", "甲 乙", "甲 乙"),
    ],
)
def test_every_cell_is_normalised_and_trimmed(given, nfc, nfkc):
    for form, wanted in (("NFC", nfc), ("NFKC", nfkc)):
        row = {
            "uuid": "p1",
            "question": given,
            "answer": given,
            "context": given,
            "doc": given,
            "dataset": "train",
        }
        prepared = run(row, TEST, unicode=form)
        (question,) = prepared.questions["train"]
        (item,) = question["relevant"]
        assert [question["question"], item["answer"], item["context"]] == [wanted] * 3
        assert texts(prepared)["p1"] == wanted


def test_spellings_that_normalise_to_one_question_are_repeated():
    prepared = run(TRAIN | {"question": "ａ"}, TRAIN | {"question": "a"}, TEST, unicode="NFKC")
    assert asked(prepared)["train"] == ["a"] and [drop["row"] for drop in prepared.dropped] == [3]
    assert asked(run(TRAIN | {"question": "ａ"}, TRAIN | {"question": "a"}, TEST))["train"] == [
        "ａ",
        "a",
    ]


# dropped rows


@pytest.mark.parametrize("question", ["", "  ", "\u200b\ufeff"])
def test_an_empty_question_is_dropped_with_its_row(question):
    prepared = run(TRAIN, TRAIN | {"question": question}, TEST)
    assert prepared.dropped == [{"row": 3, "question": "", "reason": "empty question"}]
    assert asked(prepared) == {"train": ["train?"], "valid": [], "test": ["test?"]}


def test_a_row_with_no_text_at_all_is_dropped():
    prepared = run(TRAIN, {"question": "alone?"}, TEST)
    assert prepared.dropped == [
        {"row": 3, "question": "alone?", "reason": "no answer, context or doc"}
    ]


@pytest.mark.parametrize(
    "splits, kept",
    [
        (["train", "test"], 3),
        (["test", "train"], 2),
        (["train", "valid"], 3),
        (["valid", "test", "train"], 3),
        (["train", "train"], 2),
        (["test", "test"], 2),
    ],
)
def test_a_repeated_question_keeps_test_before_valid_before_train(splits, kept):
    rows = [TRAIN | {"question": "same?", "dataset": split} for split in splits]
    prepared = run(*rows, TRAIN, TEST)
    found = [
        (split, q["row"])
        for split, questions in prepared.questions.items()
        for q in questions
        if q["question"] == "same?"
    ]
    assert found == [(splits[kept - 2], kept)]
    assert prepared.dropped == [
        {"row": row, "question": "same?", "reason": f"repeated question (row {kept})"}
        for row in range(2, len(splits) + 2)
        if row != kept
    ]


def test_only_wanted_kinds_are_kept():
    rows = [
        TRAIN | {"qa_type": "detailed"},
        TRAIN | {"qa_type": "large", "question": "b?"},
        TRAIN | {"question": "c?"},
    ]
    prepared = run(*rows, TEST | {"qa_type": "detailed"}, qa_types=["detailed"])
    assert asked(prepared) == {"train": ["train?"], "valid": [], "test": ["test?"]}
    assert prepared.dropped == [
        {"row": 3, "question": "b?", "reason": "qa_type 'large' not wanted"},
        {"row": 4, "question": "c?", "reason": "qa_type '' not wanted"},
    ]


def test_dropped_rows_are_listed_in_the_order_of_the_table():
    rows = [TRAIN, TRAIN, TRAIN | {"question": ""}, TEST, TRAIN, TRAIN | {"question": ""}]
    assert [drop["row"] for drop in run(*rows).dropped] == [3, 4, 6, 7]


# columns


def test_columns_are_mapped_to_ours():
    rows = [
        {"编号": "p1", "问题": "甲？", "正文": "一", "集": "train"},
        {"编号": "p2", "问题": "乙？", "正文": "二", "集": "test"},
    ]
    prepared = run(
        *rows, columns={"uuid": "编号", "question": "问题", "doc": "正文", "dataset": "集"}
    )
    assert asked(prepared) == {"train": ["甲？"], "valid": [], "test": ["乙？"]}
    assert texts(prepared) == {"p1": "一", "p2": "二"}


def test_a_mapping_to_a_missing_column_names_both_and_the_present_columns():
    message = refusal({"题": "甲？", "doc": "一"}, columns={"question": "问题"})
    assert (
        message
        == "qa.csv: prepare.columns maps 'question' to '问题', which is not among '题', 'doc'"
    )


def test_a_mapping_applies_to_the_corpus_too():
    prepared = run(
        {"编号": "p1", "question": "甲？", "answer": "a", "dataset": "train"},
        {"编号": "p1", "question": "乙？", "answer": "b", "dataset": "test"},
        corpus=[{"编号": "p1", "doc": "一"}],
        columns={"uuid": "编号"},
    )
    assert texts(prepared) == {"p1": "一"} and asked(prepared)["test"] == ["乙？"]


def test_a_column_that_only_the_corpus_has_can_be_mapped():
    rows = [
        {name: row[name] for name in ("uuid", "question", "answer", "dataset")}
        for row in (TRAIN, TEST)
    ]
    prepared = run(
        *rows,
        corpus=[{"uuid": "p1", "正文": "一"}, {"uuid": "p2", "正文": "二"}],
        columns={"doc": "正文"},
    )
    assert texts(prepared) == {"p1": "一", "p2": "二"}


@pytest.mark.parametrize(
    "row, missing, found",
    [
        ({"问题": "甲？", "doc": "一"}, "question", "'问题', 'doc'"),
        (
            {"question": "甲？", "uuid": "p1", "正文": "一"},
            "answer, context or doc",
            "'question', 'uuid', '正文'",
        ),
    ],
)
def test_a_missing_column_is_named_beside_those_found(row, missing, found):
    wanted = (
        f"qa.csv: no column '{missing}' among {found}; "
        f"rename it there, or map it in prepare.columns"
    )
    assert refusal(row) == wanted


# passages


def test_a_passage_with_two_texts_is_refused_by_row():
    message = refusal(TRAIN, TEST, TRAIN | {"question": "b?", "doc": "another text"})
    assert (
        message
        == "qa.csv, row 4: uuid 'p1' already has another text; give each passage an id of its own"
    )


def test_texts_that_differ_only_in_normal_form_are_one_passage():
    rows = [
        TRAIN | {"doc": "cafe\u0301 "},
        TRAIN | {"doc": "\ufeffcaf\u00e9", "question": "b?"},
        TEST,
    ]
    assert texts(run(*rows))["p1"] == "caf\u00e9"


def test_a_passage_without_an_id_gets_one_from_its_text():
    rows = [
        {"question": "问题甲", "doc": "甲的正文", "dataset": "train"},
        {"question": "问题乙", "doc": "乙的正文", "dataset": "test"},
        {"question": "问题丙", "doc": " 甲的正文", "dataset": "train"},
    ]
    prepared = run(*rows)
    assert [answering(question) for question in prepared.questions["train"]] == [
        ["ef6493389b27bca0"]
    ] * 2  # from the SHA-256 of the text
    assert list(texts(prepared).values()) == ["甲的正文", "乙的正文"]


@pytest.mark.parametrize("uuid", ["p9", ""])
def test_the_context_or_else_the_answer_replaces_a_missing_doc(uuid):
    rows = [
        {"uuid": uuid, "question": "甲？", "context": "据", "answer": "答", "dataset": "train"},
        TEST,
    ]
    assert run(*rows).passages[0]["text"] == "据"
    assert run({**rows[0], "context": ""}, TEST).passages[0]["text"] == "答"


def test_the_first_context_replaces_a_missing_doc():
    rows = [
        TRAIN | {"doc": "", "context": "一"},
        TRAIN | {"doc": "", "context": "二", "question": "b?"},
        TEST,
    ]
    prepared = run(*rows)
    assert texts(prepared)["p1"] == "一" and [
        q["relevant"][0]["context"] for q in prepared.questions["train"]
    ] == ["一", "二"]


@pytest.mark.parametrize("filled", [0, 1, 2])
def test_a_doc_in_any_row_is_the_text_of_its_passage(filled):
    rows = [
        TRAIN | {"question": f"{n}?", "context": f"c{n}", "doc": "whole" if n == filled else ""}
        for n in range(3)
    ]
    assert texts(run(*rows, TEST))["p1"] == "whole"


def test_an_id_without_any_text_is_refused_by_row():
    message = refusal(TRAIN, TEST, {"uuid": "p3", "question": "b?"})
    assert message == "qa.csv, row 4: no text for passage 'p3'; fill doc, context or answer"


# a corpus table


CORPUS = [
    {"uuid": "p1", "title": "T1", "doc": "one"},
    {"uuid": "p2", "title": "T2", "doc": " two"},
    {"uuid": "p3", "doc": "three"},
]


def test_a_corpus_gives_all_passages_in_its_order():
    prepared = run(TEST, TRAIN, corpus=CORPUS)
    assert prepared.passages == [
        {"id": "p1", "text": "one", "title": "T1"},
        {"id": "p2", "text": "two", "title": "T2"},
        {"id": "p3", "text": "three", "title": ""},
    ]
    assert [answering(question) for question in prepared.questions["train"]] == [["p1"]]


@pytest.mark.parametrize("column", ["text", "id"])
def test_another_column_of_the_corpus_does_not_replace_the_doc(column):
    prepared = run(TRAIN, TEST, corpus=[row | {column: "other"} for row in CORPUS])
    assert texts(prepared) == {"p1": "one", "p2": "two", "p3": "three"}


@pytest.mark.parametrize("uuid", ["p7", ""])
def test_a_question_on_a_passage_that_is_not_in_the_corpus_is_refused(uuid):
    message = refusal(TRAIN, TEST | {"uuid": uuid}, corpus=CORPUS)
    assert (
        message
        == f"qa.csv, row 3: passage '{uuid}' is not in the corpus; add it there or correct the uuid"
    )


@pytest.mark.parametrize(
    "corpus, message",
    [
        (
            [*CORPUS, {"uuid": "p4", "doc": "\u200b "}],
            "corpus, row 5: empty doc; fill it or delete the row",
        ),
        (
            [{"uuid": "", "doc": "x"}, *CORPUS],
            "corpus, row 2: empty uuid; fill it or delete the row",
        ),
        (
            [*CORPUS, {"uuid": "p1", "doc": "x"}],
            "corpus, row 5: uuid 'p1' already has another text; give each passage an id of its own",
        ),
        (
            [{"uuid": "p1", "text": "x"}],
            "corpus: no column 'doc' among 'uuid', 'text'; "
            "rename it there, or map it in prepare.columns",
        ),
        (
            [{"id": "p1", "doc": "x"}],
            "corpus: no column 'uuid' among 'id', 'doc'; "
            "rename it there, or map it in prepare.columns",
        ),
    ],
)
def test_a_broken_corpus_is_refused_by_row(corpus, message):
    assert refusal(TRAIN, TEST, corpus=corpus) == message


# ids


def test_ids_depend_only_on_the_text():
    rows = [TRAIN, TEST, TRAIN | {"question": "问题甲"}]
    ids = [
        {
            q["question"]: q["id"]
            for questions in run(*order, split_seed=seed).questions.values()
            for q in questions
        }
        for order, seed in ((rows, 1), (rows[::-1], 2))
    ]
    assert ids[0] == ids[1] and ids[0]["问题甲"] == "q6f420b074f6f"  # from SHA-256
    assert len(set(ids[0].values())) == 3


# splits


def many(count, questions=3):
    """Return `count` passages with `questions` questions each, without a dataset column."""
    return [
        {"uuid": f"p{p}", "question": f"{p}-{q}?", "doc": f"text {p}"}
        for p in range(count)
        for q in range(questions)
    ]


def places(prepared):
    """Return passage -> the splits of its questions."""
    found = {}
    for split, questions in prepared.questions.items():
        for question in questions:
            for passage in answering(question):
                found.setdefault(passage, set()).add(split)
    return found


def test_without_a_dataset_all_questions_of_a_passage_share_a_split():
    found = places(run(*many(60), valid_fraction=0.3))
    assert len(found) == 60 and all(len(splits) == 1 for splits in found.values())
    assert set().union(*found.values()) == {"train", "valid", "test"}


def test_an_empty_dataset_column_is_the_same_as_a_missing_one():
    rows = many(30)
    assert places(run(*[row | {"dataset": ""} for row in rows])) == places(run(*rows))


def test_a_new_passage_does_not_move_others_to_another_split():
    before = places(run(*many(40), valid_fraction=0.3))
    after = places(
        run({"question": "new?", "doc": "new text"}, *many(41)[::-1], valid_fraction=0.3)
    )
    assert len(after) == 42 and {passage: after[passage] for passage in before} == before


def test_the_split_depends_on_its_seed():
    first, again, other = (
        places(run(*many(40), valid_fraction=0.3, split_seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again and first != other


def test_the_splits_of_400_passages_have_about_the_given_fractions():
    found = [*places(run(*many(400, 1), valid_fraction=0.2, test_fraction=0.25)).values()]
    assert 70 <= found.count({"test"}) <= 130  # 100 expected, 3.5 standard deviations
    assert 32 <= found.count({"valid"}) <= 88  # a fifth of the other 300


def test_a_fraction_of_zero_takes_nothing():
    rows = [row | {"dataset": "test" if row["uuid"] == "p0" else "train"} for row in many(50)]
    assert set().union(*places(run(*rows, valid_fraction=0.0)).values()) == {"train", "test"}
    assert refusal(*many(50), test_fraction=0.0).startswith(
        "qa.csv: no test question is left of 150 rows; "
    )


def test_valid_is_taken_from_training_passages_without_test_questions():
    # Every second passage has one test question.
    rows = [
        row | {"dataset": "test" if number % 6 == 0 else "train"}
        for number, row in enumerate(many(80))
    ]
    prepared = run(*rows, valid_fraction=0.4)
    tested = {answering(question)[0] for question in prepared.questions["test"]}
    found = places(prepared)
    assert tested == {f"p{n}" for n in range(0, 80, 2)} and len(prepared.questions["test"]) == 40
    assert all(found[passage] == {"train", "test"} for passage in tested)
    untested = [found[f"p{n}"] for n in range(1, 80, 2)]
    assert (
        all(splits in ({"train"}, {"valid"}) for splits in untested)
        and 5 <= untested.count({"valid"}) <= 27
    )


def test_valid_is_taken_by_question_if_nearly_all_passages_have_test_questions():
    """60 of 80 passages with three questions have a test question.

    120 of the 180 training questions are about these 60 passages.
    """
    rows = [
        row | {"dataset": "test" if number % 3 == 0 and number < 180 else "train"}
        for number, row in enumerate(many(80))
    ]
    prepared = run(*rows, valid_fraction=0.25)
    assert len(prepared.questions["test"]) == 60
    valid = [answering(question)[0] for question in prepared.questions["valid"]]
    assert 25 <= len(valid) <= 65  # 45 expected, 3.4 standard deviations
    tested = {f"p{n}" for n in range(60)}
    assert 0.4 <= sum(passage in tested for passage in valid) / len(valid) <= 0.9
    # A new question does not change the split of the others.
    again = run(
        {"question": "new?", "doc": "new text", "dataset": "train"},
        *rows[::-1],
        valid_fraction=0.25,
    )
    assert {q["question"] for q in prepared.questions["valid"]} == {
        q["question"] for q in again.questions["valid"]
    } - {"new?"}


def test_no_question_is_drawn_if_the_table_has_valid_rows():
    rows = [
        row | {"dataset": ("train", "valid", "test")[number % 3]}
        for number, row in enumerate(many(30))
    ]
    prepared = run(*rows, valid_fraction=0.9)
    assert {split: len(questions) for split, questions in prepared.questions.items()} == {
        "train": 30,
        "valid": 30,
        "test": 30,
    }
    assert {question["row"] % 3 for question in prepared.questions["valid"]} == {0}


@pytest.mark.parametrize("value", ["tests", "测试", "", "0"])
def test_an_unknown_dataset_is_refused_by_row(value):
    message = refusal(TRAIN, TEST, TRAIN | {"question": "b?", "dataset": value})
    assert message == (
        f"qa.csv, row 4: dataset '{value}' is not one of train, valid, test; "
        "correct it, or leave the whole column empty to split by passage"
    )


@pytest.mark.parametrize("row, split", [(TRAIN, "test"), (TEST, "train")])
def test_a_split_without_questions_is_refused(row, split):
    assert refusal(row, row | {"question": ""}) == (
        f"qa.csv: no {split} question is left of 2 rows; name some in column 'dataset', "
        "or leave that column out and set prepare.test_fraction"
    )


# counts


def test_the_summary_counts_seen_and_unseen_by_passage():
    def question(passage, qa_type):
        return {"relevant": [{"passage": passage, "grade": 1}], "negatives": [], "qa_type": qa_type}

    prepared = Prepared(
        passages=[{"id": f"p{n}"} for n in range(7)],
        questions={
            "train": [question("p0", "detailed"), question("p0", ""), question("p1", "detailed")],
            "valid": [question("p2", "detailed")],
            "test": [question(p, "large") for p in ("p0", "p0", "p3", "p4", "p4")]
            + [question("p2", "detailed")],
        },
        dropped=[
            {"reason": "repeated question (row 9)"},
            {"reason": "empty question"},
            {"reason": "repeated question (row 12)"},
        ],
        merged={"p8": "p0"},
    )
    assert summarise(prepared) == {
        "passages": 7,
        "passages_merged": 1,
        "passages_train": 2,
        "passages_held_out": 3,
        "questions": {"train": 3, "valid": 1, "test": 6},
        "qa_type": {
            "train": {"detailed": 2, "none": 1},
            "valid": {"detailed": 1},
            "test": {"detailed": 1, "large": 5},
        },
        "test_seen": 2,
        "test_unseen": 4,
        "dropped": {"empty question": 1, "repeated question": 2},
    }


def test_the_summary_counts_judgements_where_a_question_has_several_or_negatives():
    def question(*relevant, negatives=()):
        return {
            "relevant": [{"passage": key, "grade": grade} for key, grade in relevant],
            "negatives": list(negatives),
            "qa_type": "",
        }

    def counts(train, test):
        found = summarise(Prepared([], {"train": train, "valid": [], "test": test}, []))
        return [found.get(name) for name in ("relevant", "negatives")], found["test_seen"]

    one, other = question(("p1", 1)), question(("p2", 1))
    assert counts([one, one], [other]) == ([None, None], 0)
    both = question(("p3", 2), ("p1", 1), negatives=["p2", "p4"])
    assert counts([one, other], [both]) == (
        [{"train": 2, "valid": 0, "test": 2}, {"train": 0, "valid": 0, "test": 2}],
        1,  # p1 alone is trained on
    )
    judged = question(("p1", 1), negatives=["p2"])
    assert counts([judged], [other]) == (
        [{"train": 1, "valid": 0, "test": 1}, {"train": 1, "valid": 0, "test": 0}],
        0,  # a negative is not seen
    )
    assert counts([question(("p1", 2))], [other])[0][0] == {"train": 1, "valid": 0, "test": 1}


@pytest.mark.skipif(not WORKBOOK.exists(), reason="the shared workbook is not at hand")
def test_the_articles_workbook_can_be_read_unchanged():
    qa = read_table(WORKBOOK)
    prepared = prepare(qa, None, settings(valid_fraction=0.15), name=WORKBOOK.name)
    assert (len(qa), len(prepared.passages), len(prepared.merged)) == (417, 73, 1)  # 74 ids
    assert sum(map(len, prepared.questions.values())) + len(prepared.dropped) == 417
    assert len(prepared.questions["test"]) == (qa["dataset"] == "test").sum() == 100
    # Of 317 training questions. Nearly all passages have test questions.
    assert 30 <= len(prepared.questions["valid"]) <= 65


# the stage


QA = (
    "uuid,question,answer,context,doc,qa_type,dataset\n"
    "p1,甲？,一,,正文一,detailed,train\n"
    "p2,乙？,二,,正文二,detailed,test\n"
)


def stage(folder, table):
    (folder / "raw.csv").write_text(table, encoding="utf-8")
    command = [sys.executable, ROOT / "src/prepare.py", "data/prepared", "metrics/data.json"]
    environment = os.environ | {"PYTHONUTF8": "1"}
    return subprocess.run(
        command, cwd=folder, capture_output=True, encoding="utf-8", env=environment
    )


def outputs(folder):
    files = [
        path
        for name in ("data", "metrics")
        for path in (folder / name).rglob("*")
        if path.is_file()
    ]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare")
    parameters = (ROOT / "tests/params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(
        re.sub("raw: .*", "raw: raw.csv", parameters), encoding="utf-8"
    )
    done = stage(folder, QA)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout.splitlines()[0]
        == "2 passages; questions: 1 train, 0 valid, 1 test; 0 rows dropped"
    )
    return folder


def test_the_stage_writes_passages_questions_and_counts(prepared_folder):
    names = ("corpus", "dropped", "test", "train", "valid")
    found = outputs(prepared_folder)
    assert sorted(found) == [f"data/prepared/{name}.jsonl" for name in names] + [
        "metrics/data.json"
    ]
    assert (
        found["data/prepared/corpus.jsonl"].decode()
        == '{"id": "p1", "text": "正文一"}\n{"id": "p2", "text": "正文二"}\n'
    )
    assert found["data/prepared/valid.jsonl"] == b""


@pytest.mark.parametrize(
    "table, message",
    [
        (QA + "p3,丙？,三,,正文三\n", "error: raw.csv, row 4: 5 cells where the header has 7; "),
        (
            QA + "p1,丙？,三,,正文三,detailed,train\n",
            "error: raw.csv, row 4: uuid 'p1' already has another text; ",
        ),
    ],
)
def test_a_broken_table_fails_in_one_line_and_keeps_the_last_result(
    prepared_folder, table, message
):
    before = outputs(prepared_folder)
    done = stage(prepared_folder, table)
    assert done.returncode == 1 and done.stdout == ""
    error, log = done.stderr.splitlines()
    assert error.startswith(message) and log.startswith("log: .cache/logs/prepare-")
    assert outputs(prepared_folder) == before
