"""Tables as people have them: other names of columns, labels, splits and ids, and few rows."""

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from tunerank.core.errors import InputError
from tunerank.params.load import load

sys.path.insert(0, str(ROOT / "src"))
import prepare as stage

PARAMETERS = (ROOT / "tests/params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the stage on tables: passages, questions by split, dropped rows, and the output.

    A question is its text and the ids of its relevant passages.
    """
    monkeypatch.chdir(tmp_path)

    def run(qa: str, corpus: str | None = None, **changes) -> dict:
        text = PARAMETERS.replace("raw: data/raw/yunshan", "raw: raw")
        for name, value in changes.items():
            text = re.sub(rf"(?m)^  {name}: .*$", f"  {name}: {value}", text)
        Path("params.yaml").write_text(text, encoding="utf-8")
        Path("raw").mkdir(exist_ok=True)
        Path("raw/qa.csv").write_text(qa, encoding="utf-8")
        if corpus is not None:
            Path("raw/corpus.csv").write_text(corpus, encoding="utf-8")
        stage.main("out", "data.json")
        said = capsys.readouterr()
        rows = {
            path.stem: [json.loads(line) for line in path.open(encoding="utf-8")]
            for path in Path("out").iterdir()
        }
        return {
            "passages": {row["id"]: row["text"] for row in rows["corpus"]},
            "corpus": rows["corpus"],
            "rows": {name: rows[name] for name in ("train", "valid", "test")},
            **{
                split: [
                    (row["question"], *[item["passage"] for item in row["relevant"]])
                    for row in rows[split]
                ]
                for split in ("train", "valid", "test")
            },
            "dropped": [(row["row"], row["reason"]) for row in rows["dropped"]],
            "counts": json.loads(Path("data.json").read_text())["dropped"],
            "said": said.out.splitlines(),
            "warned": said.err.splitlines(),
        }

    return run


def refusal(run, *tables, **changes) -> str:
    with pytest.raises(InputError) as error:
        run(*tables, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


# A questions' table for a corpus with the passages 1 and 2.
QA = "uuid,question,dataset\n1,甲坏了？,train\n2,乙坏了？,test\n"


# prepare.columns


def test_a_mapped_column_wins_over_one_that_has_our_name(run):
    corpus = "uuid,doc,content\n1,维修手册.pdf,甲坏了请联系售后。\n2,维修手册.pdf,乙坏了请寄回。\n"
    made = run(QA, corpus, columns="{doc: content}")
    assert made["passages"] == {"1": "甲坏了请联系售后。", "2": "乙坏了请寄回。"}
    assert made["corpus"][0] == {"id": "1", "text": "甲坏了请联系售后。"}
    assert "raw/corpus.csv: columns not used: 'doc' ('content' is mapped to it)" in made["said"]


def test_a_mapped_column_wins_in_a_table_of_questions_too(run):
    qa = "question,客户原话,doc,dataset\n#1,甲坏了？,一,train\n#2,乙坏了？,二,test\n"
    made = run(qa, columns="{question: 客户原话}")
    assert [made[split][0][0] for split in ("train", "test")] == ["甲坏了？", "乙坏了？"]
    assert "raw/qa.csv: columns not used: 'question' ('客户原话' is mapped to it)" in made["said"]


@pytest.mark.parametrize(
    "columns, message",
    [
        (
            "{doc: 正文}",
            "raw/corpus.csv: prepare.columns maps 'doc' to '正文', which is not among 'uuid', "
            "'doc', 'title'",
        ),
        (
            "{title: 章节}",
            "raw/corpus.csv: prepare.columns maps 'title' to '章节', which is not among 'uuid', "
            "'doc', 'title'",
        ),
        (
            "{question: doc}",  # of the corpus alone
            "raw/qa.csv: prepare.columns maps 'question' to 'doc', which is not among 'uuid', "
            "'question', 'dataset'",
        ),
        (
            "{uuid: 编号}",
            "raw/qa.csv: prepare.columns maps 'uuid' to '编号', which is not among 'uuid', "
            "'question', 'dataset', 'uuid', 'doc', 'title'",
        ),
        (
            "{qa: {uuid: title}}",
            "raw/qa.csv: prepare.columns maps 'uuid' to 'title', which is not among 'uuid', "
            "'question', 'dataset'",
        ),
        (
            "{corpus: {doc: question}}",
            "raw/corpus.csv: prepare.columns maps 'doc' to 'question', which is not among 'uuid', "
            "'doc', 'title'",
        ),
    ],
)
def test_a_mapping_to_a_column_that_is_not_there_is_refused_though_ours_is(run, columns, message):
    corpus = "uuid,doc,title\n1,一,A\n2,二,A\n"
    assert refusal(run, QA, corpus, columns=columns) == message


def test_one_of_their_columns_can_be_two_of_ours(run):
    qa = "标题,正文,集\n甲怎么修？,联系售后。,train\n乙怎么修？,寄回。,test\n"
    columns = "{question: 标题, title: 标题, doc: 正文, dataset: 集}"
    made = run(qa, columns=columns)
    assert list(made["passages"].values()) == ["联系售后。", "寄回。"]
    assert [made[split][0][0] for split in ("train", "test")] == ["甲怎么修？", "乙怎么修？"]
    # Passages of a questions' table have no titles.
    assert (
        "raw/qa.csv: columns not used: '标题' as title (only a corpus table has that)"
        in made["said"]
    )


def test_one_column_can_be_the_passage_and_its_evidence(run):
    qa = "question,正文,dataset\n甲？,一,train\n乙？,二,test\n"
    made = run(qa, columns="{doc: 正文, context: 正文}")
    assert list(made["passages"].values()) == ["一", "二"]
    relevant = [made["rows"][split][0]["relevant"] for split in ("train", "test")]
    assert [item["context"] for (item,) in relevant] == ["一", "二"]


def test_two_columns_can_swap_their_names(run):
    qa = "doc,question,dataset\n甲？,一,train\n乙？,二,test\n"
    made = run(qa, columns="{question: doc, doc: question}")
    assert list(made["passages"].values()) == ["一", "二"] and made["train"][0][0] == "甲？"
    assert not [line for line in made["said"] if "not used" in line]


IDS = ("id,uuid,question,dataset\n1,b,甲？,train\n2,a,乙？,test\n", "id,doc\na,一\nb,二\n")


def test_one_mapping_is_not_used_for_a_column_of_both_tables_beside_ours(run):
    assert refusal(run, *IDS, columns="{uuid: id}") == (
        "raw/qa.csv: prepare.columns maps 'uuid' to 'id', which is in both tables, beside 'uuid' "
        "in one; map per table: prepare.columns: {qa: {uuid: ...}, corpus: {uuid: ...}}"
    )
    qa, corpus = "id,question,dataset\n1,甲？,train\n2,乙？,test\n", "id,uuid,doc\n7,1,一\n8,2,二\n"
    assert "is in both tables, beside 'uuid' in one" in refusal(
        run, qa, corpus, columns="{uuid: id}"
    )


def test_a_mapping_can_be_given_for_one_table(run):
    made = run(*IDS, columns="{corpus: {uuid: id}}")
    assert made["train"] == [("甲？", "b")] and made["passages"] == {"a": "一", "b": "二"}
    assert "raw/qa.csv: columns not used: 'id'" in made["said"]


def test_a_mapping_can_be_given_for_each_table(run):
    qa, corpus = "q,p,dataset\n甲？,1,train\n乙？,2,test\n", "p,q,doc\n9,1,一\n8,2,二\n"
    made = run(qa, corpus, columns="{qa: {question: q, uuid: p}, corpus: {uuid: q}}")
    assert made["train"] == [("甲？", "1")] and made["passages"] == {"1": "一", "2": "二"}


def test_a_mapping_of_one_table_alone_reaches_each_table_that_has_the_column(run):
    """Without a column of ours beside it, it is the same column in both tables."""
    qa, corpus = "id,question,dataset\n1,甲？,train\n2,乙？,test\n", "id,doc\n1,一\n2,二\n"
    assert run(qa, corpus, columns="{uuid: id}")["train"] == [("甲？", "1")]
    corpus = "uuid,doc\n1,一\n2,二\n"
    assert run(qa, corpus, columns="{uuid: id}")["train"] == [("甲？", "1")]


def test_a_mapping_for_a_table_that_is_not_there_is_refused(run):
    assert refusal(run, QA, columns="{corpus: {uuid: id}}") == (
        "raw/qa.csv: prepare.columns has 'corpus', but there is no corpus table; let prepare.raw "
        "be a folder with both tables"
    )


@pytest.mark.parametrize(
    "qa, corpus, columns, message",
    [
        (
            "id,question,dataset\n1,甲？,train\n",
            "nr,doc\n1,一\n",
            "{uuid: id}",
            "raw/corpus.csv: no column 'uuid' among 'nr', 'doc'; rename it there, or map it under "
            "'corpus' in prepare.columns",
        ),
        (
            "question,answer,dataset\n甲？,一,train\n",
            "uuid,doc\n1,一\n",
            "{}",
            "raw/qa.csv: no column 'uuid' among 'question', 'answer', 'dataset'; rename it there, "
            "or map it in prepare.columns",
        ),
        (
            "题,文\n甲？,一\n",
            None,
            "{question: 题}",
            "raw/qa.csv: no column 'answer, context or doc' among '题', '文'; rename it there, or "
            "map it in prepare.columns",
        ),
    ],
)
def test_a_missing_column_is_refused_with_what_is_left_to_do(run, qa, corpus, columns, message):
    assert refusal(run, qa, corpus, columns=columns) == message


@pytest.mark.parametrize(
    "columns, message",
    [
        (
            "{frage: 题}",
            "'frage' is none of our columns: question, answer, context, doc, uuid, qa_type, "
            "dataset, label, query_id, title, document",
        ),
        (
            "{corpus: {question: 题}}",
            "'question' is none of the columns of corpus: uuid, doc, title, document",
        ),
        (
            "{qa: {titel: 题}}",
            "'titel' is none of the columns of qa: question, answer, context, doc, uuid, qa_type, "
            "dataset, label, query_id",
        ),
        (
            "{qa: {question: 题}, doc: 文}",
            "'doc' stands beside a table's columns; put it under qa or under corpus too",
        ),
        ("{qa: 题}", "qa has the columns of that table, as in {uuid: id}"),
        (
            "{question: 1}",
            "'question' needs the name of a column, in quotes if it is a number",
        ),
        (
            "{qa: {question: }}",
            "'question' needs the name of a column, in quotes if it is a number",
        ),
    ],
)
def test_a_mapping_of_neither_form_is_refused(tmp_path, columns, message):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMETERS.replace("columns: {}", f"columns: {columns}"), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load(path)
    assert str(error.value) == f"{path}: prepare.columns: {message}"


def test_both_forms_of_a_mapping_give_that_of_a_table(tmp_path):
    path = tmp_path / "params.yaml"
    for columns, wanted in (
        ("{}", ({}, {})),
        ("{uuid: id}", ({"uuid": "id"}, {"uuid": "id"})),
        ("{corpus: {uuid: id}}", ({}, {"uuid": "id"})),
        ("{qa: {uuid: p}, corpus: {uuid: id}}", ({"uuid": "p"}, {"uuid": "id"})),
    ):
        path.write_text(PARAMETERS.replace("columns: {}", f"columns: {columns}"), encoding="utf-8")
        params = load(path).prepare
        assert (params.mapping("qa"), params.mapping("corpus")) == wanted


# columns that are not used


def test_columns_that_are_not_used_are_named_in_a_line_for_each_table(run):
    qa = "uuid,question,doc,分数,备注,dataset\n1,甲？,x,5,好,train\n2,乙？,x,4,,test\n"
    corpus = "uuid,doc,title,document,text,url\n1,一,A,D,x,y\n2,二,A,D,x,y\n"
    said = run(qa, corpus)["said"]
    assert [line for line in said if "not used" in line] == [
        "raw/qa.csv: columns not used: 'doc', '分数', '备注'",
        "raw/corpus.csv: columns not used: 'text', 'url'",
    ]


def test_nothing_is_said_where_all_columns_are_used(run):
    qa = (
        "uuid,question,answer,context,doc,qa_type,dataset,label,query_id\n"
        "1,甲？,a,,一,,train,1,7\n2,乙？,a,,二,,train,1,8\n3,丙？,a,,三,,test,1,9\n"
    )
    assert run(qa)["said"] == [
        "3 passages; questions: 1 train, 1 valid, 1 test; 0 rows dropped",
        "test questions on passages seen in training: 0, unseen: 1",
    ]


@pytest.mark.parametrize("column", ["doc", "tags"])
def test_a_list_is_refused_in_a_column_that_is_used_alone(run, column):
    rows = [
        {"question": "甲？", "doc": "一", "dataset": "train", column: ["a", "b"]},
        {"question": "乙？", "doc": "二", "dataset": "test"},
    ]
    run("question,doc,dataset\n甲？,一,train\n乙？,二,test\n")
    Path("raw/qa.csv").unlink()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path("raw/qa.jsonl").write_text(text, encoding="utf-8")
    if column == "tags":
        stage.main("out", "data.json")
    else:
        with pytest.raises(InputError, match=r"^raw/qa.jsonl, line 1, .*doc"):
            stage.main("out", "data.json")


# labels


def negatives(made, split="train") -> dict[str, list[str]]:
    return {row["question"]: row["negatives"] for row in made["rows"][split]}


def test_rows_of_label_0_are_negatives_of_their_question_or_dropped_and_counted(run):
    qa = (
        "uuid,question,doc,label,dataset\n"
        "a,甲？,一,1,train\nb,甲？,二,0,train\nc,乙？,三,1.0,test\na,丙？,一,0.0,test\n"
    )
    made = run(qa)
    assert (made["train"], made["test"]) == ([("甲？", "a")], [("乙？", "c")])
    assert negatives(made) == {"甲？": ["b"]} and negatives(made, "test") == {"乙？": []}
    assert made["passages"] == {"a": "一", "b": "二", "c": "三"}
    assert made["dropped"] == [(5, "no relevant passage")]
    assert made["counts"] == {"no relevant passage": 1}
    assert "dropped raw/qa.csv, row 5: no relevant passage" in made["said"]


@pytest.mark.parametrize(
    "label, grade",
    [
        *(("1", 1), ("2", 2), ("10", 10), ("01", 1), ("3.00", 3), ("TRUE", 1), ("yes", 1)),
        *(("0", 0), ("00", 0), ("0.0", 0), ("False", 0), ("No", 0)),
        *(("999999999", 999999999), ("00000000000004", 4)),
    ],
)
def test_a_label_is_read_as_a_person_reads_it(run, label, grade):
    qa = f"question,doc,label,dataset\n甲？,一,1,train\n乙？,二,1,test\n丙？,三,{label},train\n"
    made = run(qa, valid_fraction="0.0")
    grades = [[item["grade"] for item in row["relevant"]] for row in made["rows"]["train"]]
    assert grades == [[1], *([[grade]] if grade else [])]
    assert made["dropped"] == ([] if grade else [(4, "no relevant passage")])


@pytest.mark.parametrize("label", ["", "-1", "0.5", "好", "1e3", "２", "1" * 10, "9" * 5000])
def test_another_label_is_refused_by_row(run, label):
    qa = f"question,doc,label,dataset\n甲？,一,1,train\n乙？,二,1,test\n丙？,三,{label},train\n"
    assert refusal(run, qa) == (
        f"raw/qa.csv, row 4: label {label!r} is neither 0 nor 1 nor a higher grade; correct it, or "
        "rename the column if it does not say whether the passage is right"
    )


def test_a_label_is_found_under_another_name_and_an_empty_column_is_none(run):
    qa = "question,doc,相关,dataset\n甲？,一,1,train\n乙？,二,0,train\n丙？,三,1,test\n"
    assert run(qa, columns="{label: 相关}")["dropped"] == [(3, "no relevant passage")]
    empty = "question,doc,label,dataset\n甲？,一,,train\n乙？,二,,test\n"
    assert run(empty)["dropped"] == []


def test_a_row_of_label_0_needs_no_passage_in_the_corpus(run):
    qa = "uuid,question,label,dataset\n1,甲？,1,train\n2,乙？,1,test\n9,甲？,0,train\n"
    made = run(qa, "uuid,doc\n1,一\n2,二\n")
    assert made["dropped"] == [(4, "label 0 of a passage that is not in the corpus")]
    assert made["train"] == [("甲？", "1")] and negatives(made) == {"甲？": []}


def test_where_all_rows_are_dropped_the_reasons_are_said(run):
    qa = "question,doc,label\n甲？,一,0\n乙？,二,0\n,三,1\n"
    assert refusal(run, qa) == (
        "raw/qa.csv: no train question is left of 3 rows; all were dropped: empty question (1), "
        "no relevant passage (2); a right passage has the label 1 or more, a wrong one 0; correct "
        "column 'label'"
    )


# splits


def number(seed: int, key: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64


def few(count: int) -> str:
    rows = [f"p{row},问题{row}？,正文{row}\n" for row in range(count)]
    return "uuid,question,doc\n" + "".join(rows)


@pytest.mark.parametrize("count", [3, 8, 10])
def test_few_rows_have_all_splits_with_each_seed_and_a_draw_that_is_not_empty_stays(run, count):
    drawn_alone = 0
    for seed in range(40):
        made = run(few(count), split_seed=seed)
        ids = [f"p{row}" for row in range(count)]
        test = {key for key in ids if number(seed, key) >= 0.75}
        if not test:
            test = {max(ids, key=lambda key: number(seed, key))}
            drawn_alone += 1
        if len(test) == count:
            test -= {min(ids, key=lambda key: number(seed, key))}
        rest = [key for key in ids if key not in test]
        valid = {key for key in rest if number(seed, f"v{key}") < 0.15}
        if not valid and len(rest) > 1:
            valid = {min(rest, key=lambda key: number(seed, f"v{key}"))}
            drawn_alone += 1
        if len(valid) == len(rest):
            valid -= {max(rest, key=lambda key: number(seed, f"v{key}"))}
        assert {key for _, key in made["test"]} == test
        assert {key for _, key in made["valid"]} == valid
        assert {key for _, key in made["train"]} == set(rest) - valid != set()
    assert drawn_alone > 5


def test_eight_rows_and_the_seed_42_have_these_splits(run):
    made = run(few(8))
    assert made["test"] == [("问题3？", "p3")] and made["valid"] == [("问题7？", "p7")]
    assert len(made["train"]) == 6
    made = run(few(8).replace("p", "x"))
    assert [key for _, key in made["test"]] == ["x3", "x4", "x5", "x6"]
    assert made["valid"] == [("问题0？", "x0")] and len(made["train"]) == 3


def test_a_validation_question_is_drawn_where_a_table_names_only_the_other_splits(run):
    rows = [f"p{row},问题{row}？,正文{row},{'test' if row == 0 else 'train'}" for row in range(4)]
    made = run("uuid,question,doc,dataset\n" + "\n".join(rows) + "\n", valid_fraction="0.001")
    assert made["test"] == [("问题0？", "p0")] and len(made["train"]) == 2
    assert [key for _, key in made["valid"]] == [
        min(("p1", "p2", "p3"), key=lambda key: number(42, f"v{key}"))
    ]


def test_a_validation_question_is_drawn_by_question_where_all_passages_are_tested(run):
    qa = (
        "uuid,question,doc,dataset\n"
        "p1,甲一？,一,train\np1,甲二？,一,train\np1,甲三？,一,test\n"
        "p2,乙一？,二,train\np2,乙二？,二,test\n"
    )
    made = run(qa, valid_fraction="0.001")
    assert [question for question, _ in made["valid"]] == [
        min(("甲一？", "甲二？", "乙一？"), key=lambda key: number(42, f"v{key}"))
    ]


def test_a_large_fraction_leaves_a_training_question(run):
    made = run(few(3), test_fraction="0.999", valid_fraction="0.999")
    assert (len(made["test"]), len(made["valid"]), len(made["train"])) == (2, 0, 1)
    named = "".join(f"p{row},问题{row}？,正文{row},train\n" for row in range(3))
    qa = "uuid,question,doc,dataset\n" + named + "p9,测？,测,test\n"
    made = run(qa, valid_fraction="0.999")
    assert (len(made["test"]), len(made["valid"]), len(made["train"])) == (1, 2, 1)


TOO_FEW = (
    "raw/qa.csv: too few training questions to draw validation questions from; add some about "
    "another passage, or name valid rows in column 'dataset'"
)


@pytest.mark.parametrize(
    "qa",
    [
        few(2),
        "question,doc,dataset\n甲？,一,train\n乙？,一,train\n丙？,二,test\n",  # one passage
        "question,doc,dataset\n甲？,一,train\n乙？,一,test\n",  # one question
    ],
)
def test_a_validation_question_that_cannot_be_drawn_is_asked_for(run, qa):
    made = run(qa)
    assert made["said"][-1] == TOO_FEW and made["valid"] == [] and made["train"]
    assert TOO_FEW not in run(qa, valid_fraction="0.0")["said"]


@pytest.mark.parametrize(
    "qa, changes, message",
    [
        (
            "question,doc\n甲？,一\n乙？,一\n",
            {},
            "raw/qa.csv: no test question is left of 2 rows; all are about one passage: add "
            "questions about another one",
        ),
        (
            few(9),
            {"test_fraction": "0.0"},
            "raw/qa.csv: no test question is left of 9 rows; set prepare.test_fraction above 0, or "
            "name some in column 'dataset'",
        ),
    ],
)
def test_a_test_question_that_cannot_be_drawn_is_asked_for(run, qa, changes, message):
    assert refusal(run, qa, **changes) == message


@pytest.mark.parametrize(
    "train, valid, test",
    [
        ("Train", "dev", "TEST"),
        ("training", "validation", "Test"),
        (" TRAINING ", "Val", "\u3000test"),
        ("train", "DEV", "test"),
    ],
)
def test_splits_have_other_names(run, train, valid, test):
    qa = f"question,doc,dataset\n甲？,一,{train}\n乙？,二,{valid}\n丙？,三,{test}\n"
    made = run(qa)
    assert [made[split][0][0] for split in ("train", "valid", "test")] == ["甲？", "乙？", "丙？"]


def test_a_repeated_question_of_a_split_with_another_name_is_kept_by_split(run):
    made = run("question,doc,dataset\n甲？,一,Train\n甲？,一,TEST\n乙？,二,train\n丙？,三,dev\n")
    assert made["dropped"] == [(2, "repeated question (row 3)")]


@pytest.mark.parametrize("name", ["eval", "Holdout", "train2"])
def test_an_unknown_split_is_refused_as_it_is_written(run, name):
    assert refusal(run, f"question,doc,dataset\n甲？,一,train\n乙？,二,{name}\n") == (
        f"raw/qa.csv, row 3: dataset '{name}' is not one of train, valid, test; correct it, or "
        "leave the whole column empty to split by passage"
    )


# ids


@pytest.mark.parametrize(
    "asked, there",
    [
        *(("1.0", "1"), ("1", "1.0"), ("1.00", "1.0"), ("7", "007"), ("007.0", "7")),
        *(("P7", "p7"), ("p 7", "p7"), ("Ａ1", "a1"), ("0", "0.0"), ("10", "10.0")),
    ],
)
def test_an_id_that_is_written_in_another_way_in_the_corpus_is_named(run, asked, there):
    qa = f"uuid,question,dataset\n{asked},甲？,train\nz,乙？,test\n"
    assert refusal(run, qa, f"uuid,doc\nz,二\n{there},一\n") == (
        f"raw/qa.csv, row 2: passage '{asked}' is not in the corpus, which has '{there}'; write "
        "the id alike in both tables"
    )


@pytest.mark.parametrize("asked, there", [("1", "10"), ("0", "00x"), ("", "0"), ("1.5", "1")])
def test_another_id_is_no_hint(run, asked, there):
    qa = f"uuid,question,answer,dataset\n{asked},甲？,a,train\nz,乙？,a,test\n"
    assert refusal(run, qa, f"uuid,doc\nz,二\n{there},一\n") == (
        f"raw/qa.csv, row 2: passage '{asked}' is not in the corpus; add it there or correct the "
        "uuid"
    )


# HTML


def test_passages_with_html_tags_are_counted_and_stay_as_they_are(run):
    corpus = 'uuid,doc\n1,<p>甲坏了</p>\n2,"乙<BR/>坏了 <a href=""x"">这里</a>"\n3,1 < 2 > 0\n'
    made = run(QA, corpus)
    assert made["passages"]["1"] == "<p>甲坏了</p>"
    assert [line for line in made["said"] if "HTML" in line] == [
        "raw/corpus.csv: HTML tags such as <p> in 2 of 3 passages; they count among the characters "
        "shown"
    ]


@pytest.mark.parametrize(
    "text", ["净重 <5 千克>", "a < b 且 b > c", "<姓名>", "List<String>", "x<y"]
)
def test_other_angle_brackets_are_no_html(run, text):
    made = run(f"question,doc,dataset\n甲？,{text},train\n乙？,二,test\n")
    assert not [line for line in made["said"] if "HTML" in line]


def test_html_tags_of_a_table_without_a_corpus_are_counted(run):
    made = run("question,doc,dataset\n甲？,一<br>二,train\n乙？,二,test\n")
    assert (
        "raw/qa.csv: HTML tags such as <br> in 1 of 2 passages; they count among the characters "
        "shown" in made["said"]
    )


# repeated questions


def test_a_question_with_a_passage_of_equal_text_is_a_repeated_one(run):
    qa = "uuid,question,doc,dataset\n1,甲？,一,train\n2,甲？,一,train\n3,乙？,三,test\n"
    made = run(qa)
    assert made["dropped"] == [(3, "repeated question (row 2)")] and made["warned"] == []
    assert made["train"] == [("甲？", "1")]
    assert made["corpus"] == [
        {"id": "1", "text": "一", "also": ["2"]},
        {"id": "3", "text": "三"},
    ]


def test_a_question_in_two_rows_has_both_passages_in_what_the_stage_writes(run):
    qa = "question,uuid,dataset\n" + "".join(
        f"问题{n}？,p0{n},{split}\n问题{n}？,p0{n}b,{split}\n"
        for n, split in enumerate(("train", "valid", "test"))
    )
    corpus = "uuid,doc\n" + "".join(f"p0{n},手册{n}\np0{n}b,商店{n}\n" for n in range(3))
    made = run(qa, corpus)
    assert [made[split] for split in ("train", "valid", "test")] == [
        [(f"问题{n}？", f"p0{n}", f"p0{n}b")] for n in range(3)
    ]
    assert made["dropped"] == [] and made["warned"] == []
    assert made["said"] == [
        "6 passages; questions: 1 train, 1 valid, 1 test; 0 rows dropped",
        "passages of the questions: relevant: 2 train, 2 valid, 2 test; judged wrong: 0 train, "
        "0 valid, 0 test",
        "test questions on passages seen in training: 0, unseen: 1",
    ]


# a file for each split


@pytest.mark.parametrize("names", [("test",), ("dev", "test")])
def test_files_without_training_questions_are_refused_with_advice_about_files(tmp_path, names):
    text = re.sub("raw: .*", "raw: raw", PARAMETERS)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "raw").mkdir()
    for name in names:
        rows = f"question,doc\n{name}一？,甲\n{name}一？,乙\n{name}二？,丙\n"
        (tmp_path / f"raw/{name}.csv").write_text(rows, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError) as error:
        patch.chdir(tmp_path)
        stage.main("out", "data.json")
    name = "raw" if names[1:] else "raw/test.csv"
    assert str(error.value) == (
        f"{name}: no train question is left of {3 * len(names)} rows; add a file of train "
        "questions, or leave one file alone and name it train: prepare.test_fraction then draws "
        "test questions from it"
    )


@pytest.fixture
def files(run, capsys):
    """Run the stage on files by their names; return what it prints."""

    def files(**texts: str) -> list[str]:
        run(few(3))  # writes params.yaml
        Path("raw/qa.csv").unlink()
        for name, text in texts.items():
            Path("raw", name.replace("_", ".")).write_text(text, encoding="utf-8")
        stage.main("out", "data.json")
        return capsys.readouterr().out.splitlines()

    return files


def jsonl(*rows: dict) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_rows_of_several_files_are_named_in_messages(files):
    train = "question,doc\n甲？,一\n甲？,一\n乙？,二\n"
    said = files(train_csv=train, test_csv="question,doc\n丙？,三\n甲？,四\n")
    assert "dropped raw/train.csv, row 3: repeated question (train.csv, row 2)" in said
    rows = [json.loads(line) for line in Path("out/dropped.jsonl").open(encoding="utf-8")]
    assert [(row["row"], row["reason"]) for row in rows] == [
        ("train.csv:3", "repeated question (train.csv, row 2)")
    ]
    asked = [json.loads(line) for line in Path("out/test.jsonl").open(encoding="utf-8")]
    assert [(row["question"], row["row"], len(row["relevant"])) for row in asked] == [
        ("丙？", "test.csv:2", 1),
        ("甲？", "test.csv:3", 2),
    ]


def test_rows_of_a_file_of_lines_are_named_by_their_lines(files):
    rows = [{"question": "甲？", "doc": "一"}] * 2 + [{"question": "乙？", "doc": "二"}]
    said = files(qa_jsonl=jsonl(*rows))
    assert "dropped raw/qa.jsonl, line 2: repeated question (line 1)" in said


def test_a_cell_with_a_list_is_named_by_its_file_and_line(files):
    right, wrong = {"question": "甲？", "doc": "一"}, {"question": "乙？", "doc": ["二", "三"]}
    with pytest.raises(InputError) as error:
        files(train_jsonl=jsonl(right, wrong), test_jsonl=jsonl(right))
    assert str(error.value) == (
        "raw/train.jsonl, line 2, column 'doc': a list of 2 values; one row for each value is "
        "needed"
    )


@pytest.mark.parametrize("corpus", [{}, {"corpus_csv": "id,text\np1,正文\n"}])
def test_a_passage_without_visible_text_is_named_by_its_file(files, corpus):
    """The paragraph has only a zero-width space."""
    rows = [
        {"id": split, "question": f"{split}？", "context": text, "answers": {"text": []}}
        for split, text in (("train", "一"), ("test", "\u200b"))
    ]
    with pytest.raises(InputError) as error:
        files(train_jsonl=jsonl(rows[0]), test_jsonl=jsonl(rows[1]), **corpus)
    assert str(error.value) == "raw/test.jsonl, line 1: empty doc; fill it or delete the row"
