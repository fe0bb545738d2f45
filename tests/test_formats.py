"""Forms of data that people have: read as they are, or refused in one line."""

import json
from pathlib import Path

import datasets
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from tunerank.core.errors import InputError
from tunerank.data.readers.raw import Raw, read_raw
from tunerank.data.readers.splits import split_of


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(path: Path, *objects: dict) -> Path:
    return put(path, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects))


def document(path: Path, value: object) -> Path:
    return put(path, json.dumps(value, ensure_ascii=False, indent=1))


def parquet(path: Path, *objects: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist([*objects]), path)
    return path


def workbook(path: Path, *objects: dict) -> Path:
    book = openpyxl.Workbook()
    for row in ([*objects[0]], *([*each.values()] for each in objects)):
        book.active.append(row)
    book.save(path)
    return path


def table(path: Path, *objects: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([*objects]).to_csv(path, index=False)
    return path


def rows(frame: pd.DataFrame, *names: str) -> list[tuple[str, ...]]:
    """Each row's label, then the cells of these columns."""
    return [*frame[[*names]].itertuples(name=None)]


def said(raw: Raw, path: Path) -> str:
    assert len(raw.recognised.splitlines()) <= 1
    return raw.recognised.removeprefix(f"{path}: ")


def refusal(path: Path, under: str = "") -> str:
    with pytest.raises(InputError) as error:
        read_raw(path)
    message = str(error.value)
    assert message.startswith(str(path)) and len(message.splitlines()) == 1
    return message.removeprefix(f"{path}").removeprefix(f"/{under}")


# plain tables


PLAIN = {"question": "甲？", "doc": "一", "answer": "二"}


def test_a_plain_table_is_as_it_was(tmp_path):
    path = table(tmp_path / "mine.csv", PLAIN)
    raw = read_raw(path)
    assert rows(raw.qa, *PLAIN) == [(2, "甲？", "一", "二")]
    assert (raw.corpus, raw.qa_name, raw.recognised) == (None, str(path), "")


def test_a_folder_of_plain_tables_is_as_it_was(tmp_path):
    table(tmp_path / "qa.csv", {"question": "甲？", "uuid": "p1", "dataset": "test"})
    table(tmp_path / "corpus.csv", {"uuid": "p1", "doc": "一", "label": "x"})
    for name in ("README.md", "LICENSE", "licence.txt", ".hidden", "~$qa.xlsx", "Thumbs.db"):
        put(tmp_path / name, "x")
    raw = read_raw(str(tmp_path))
    assert rows(raw.qa, "question", "uuid", "dataset") == [(2, "甲？", "p1", "test")]
    assert rows(raw.corpus, "uuid", "doc", "label") == [(2, "p1", "一", "x")]
    assert (raw.qa_name, raw.corpus_name, raw.recognised) == (
        f"{tmp_path}/qa.csv",
        f"{tmp_path}/corpus.csv",
        "",
    )


def test_files_that_are_not_read_are_named(tmp_path):
    for name in ("qa.csv", "qa_old.csv", "notes.txt", "more/a.csv"):
        put(tmp_path / name, "question,doc\n甲？,一\n")
    raw = read_raw(tmp_path)
    assert said(raw, tmp_path) == "files ignored: more, notes.txt, qa_old.csv"
    for number in range(5):
        put(tmp_path / f"a{number}.txt", "")
    assert said(read_raw(tmp_path), tmp_path) == (
        "files ignored: a0.txt, a1.txt, a2.txt, a3.txt, a4.txt and 3 more"
    )


@pytest.mark.parametrize("column", ["doc", "uuid", "context", "answer"])
def test_a_table_with_our_columns_is_in_no_other_form(tmp_path, column):
    row = {"question": "甲？", column: "一", "positive": "二", "label": "1", "text": "三"}
    raw = read_raw(lines(tmp_path / "t.jsonl", row))
    assert raw.qa.columns.tolist() == [*row] and raw.recognised == ""


def test_a_folder_without_data_says_what_it_needs(tmp_path):
    needed = ": no qa.csv, qa.xlsx, qa.jsonl, qa.parquet or qa.json in this folder"
    assert refusal(tmp_path) == needed
    put(tmp_path / "notes.md", "x")
    assert refusal(tmp_path) == needed
    table(tmp_path / "客服.csv", PLAIN)
    assert refusal(tmp_path) == f"{needed}; to read 客服.csv, set prepare.raw to it"


def test_columns_that_the_user_maps_are_left_as_they_are(tmp_path):
    pair = {"query": "甲？", "text": "一", "label": "1"}
    raw = read_raw(table(tmp_path / "t.csv", pair), plain=True)
    assert raw.qa.columns.tolist() == [*pair] and raw.recognised == ""


# json


def test_a_json_list_is_a_table(tmp_path):
    raw = read_raw(document(tmp_path / "t.json", [PLAIN, {"question": "乙？", "doc": None}]))
    assert rows(raw.qa, *PLAIN) == [(1, "甲？", "一", "二"), (2, "乙？", "", "")]
    assert read_raw(document(tmp_path / "t.json", {"data": [PLAIN]})).qa.to_dict("records") == [
        PLAIN
    ]


def test_jsonl_under_the_name_of_json_is_read(tmp_path):
    raw = read_raw(lines(tmp_path / "t.json", PLAIN, PLAIN | {"question": "乙？"}))
    assert raw.qa["question"].tolist() == ["甲？", "乙？"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", ": the table has no rows"),
        ("[]", ": the table has no rows"),
        (
            '[{"question": "甲？"},\n {"question": }]',
            ", line 2: not valid JSON (Expecting value, column 15); repair the file",
        ),
        (
            '{"question": {"0": "甲？"}}',
            ": neither a list of objects nor an object that has one as 'data'; convert it "
            "(pandas: to_json(orient='records'))",
        ),
        ('[{"q": "甲"}, ["乙"]]', ", row 2: expected a JSON object, found list"),
        ('[{"q": 1, "q": 2}]', ": 'q' appears twice; rename one"),
        ('[{"q": "\\ud800"}]', ": half a character (an escaped surrogate alone); repair the file"),
        ("[" * 100000, ": nested too deep; repair the file"),
        ('[{"q": 1}] {}', ", line 1: not valid JSON (Extra data, column 12); repair the file"),
        (
            '{"q": 1}\n{"q": }',
            ", line 2: not valid JSON (Expecting value); repair or delete the line",
        ),
        ('[{"q": ' + "9" * 5000 + "}]", ": a number that is too long; repair the file"),
        (
            b'[{"q": "\xff\xff"}]',
            ", row 1: bytes that are neither UTF-8 nor GB18030; save the table as UTF-8 and try "
            "again",
        ),
    ],
)
def test_a_broken_json_is_refused_by_its_place(tmp_path, text, message):
    assert refusal(put(tmp_path / "t.json", text)) == message


# FlagEmbedding


LISTS = [
    {"query": "甲？", "pos": ["一", "二"], "neg": ["三"], "prompt": "p", "pos_scores": [1, 2]},
    {"query": "乙？", "pos": ["三"], "neg": [], "prompt": "p", "pos_scores": [1]},
    {"query": "丙？", "pos": "四", "neg": ["四五", "六", "六"], "prompt": None},
]
LABELLED = [
    ("甲？", "一", "1"),
    ("甲？", "二", "1"),
    ("甲？", "三", "0"),
    ("乙？", "三", "1"),
    ("丙？", "四", "1"),
    ("丙？", "四五", "0"),
    ("丙？", "六", "0"),
]


def as_json_text(path: Path, *objects: dict) -> Path:
    """Write lists as JSON into csv."""
    cells = [
        {
            name: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
            for name, value in each.items()
        }
        for each in objects
    ]
    return table(path, *cells)


@pytest.mark.parametrize(
    "write, suffix, first",
    [(lines, "jsonl", 1), (document, "json", 1), (parquet, "parquet", 1), (as_json_text, "csv", 2)],
)
def test_flag_embeddings_lists_are_rows_with_labels(tmp_path, write, suffix, first):
    path = tmp_path / f"t.{suffix}"
    given = [LISTS[0], LISTS[1], LISTS[2] | {"pos": ["四"]}] if write is parquet else LISTS
    write(path, given) if write is document else write(path, *given)
    raw = read_raw(path)
    numbers = [first + at for at in (0, 0, 0, 1, 2, 2, 2)]
    assert rows(raw.qa, "question", "doc", "label") == [
        (number, *row) for number, row in zip(numbers, LABELLED)
    ]
    assert raw.qa.columns.tolist() == ["question", "doc", "label"] and raw.corpus is None
    assert said(raw, path) == (
        "read as FlagEmbedding's lists; questions: 3, passages: 6, right pairs: 4, wrong pairs: 3; "
        "columns not used: 'prompt', 'pos_scores'"
    )


def test_lists_without_negatives_and_without_positives(tmp_path):
    path = lines(
        tmp_path / "t.jsonl",
        {"query": "甲？", "pos": ["一"]},
        {"query": "乙？", "pos": []},
        {"query": "", "pos": ["二", " "], "dataset": "test", "query_id": 7},
    )
    assert rows(read_raw(path).qa, "question", "doc", "label", "dataset", "query_id") == [
        (1, "甲？", "一", "1", "", ""),
        (2, "乙？", "", "1", "", ""),
        (3, "", "二", "1", "test", "7"),
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pos": ["一", 2]}, ", column 'pos': a list with 2; a list of texts is needed"),
        (
            {"neg": [{"text": "一"}]},
            ', column \'neg\': a list with {"text": "\\u4e00"}; a list of texts is needed',
        ),
        ({"neg": [None, "一"]}, ", column 'neg': a list with null; a list of texts is needed"),
        ({"pos": {"text": "一"}}, ", column 'pos': an object; a text or null is needed"),
        (
            {"query": ["甲", "乙"]},
            ", column 'query': a list of 2 values; one row for each value is needed",
        ),
    ],
)
def test_lists_of_something_else_are_refused_by_line(tmp_path, change, message):
    path = lines(tmp_path / "t.jsonl", LISTS[0], LISTS[0] | change)
    assert refusal(path) == f", line 2{message}"


def test_lists_that_python_has_printed_are_refused(tmp_path):
    path = table(tmp_path / "t.csv", {"query": "甲？", "pos": "['一' '二']"})
    assert refusal(path) == (
        ", row 2, column 'pos': a list as Python prints it; save the table as jsonl"
    )


# sentence-transformers


TRIPLETS = [
    {"anchor": "甲？", "positive": "一", "negative_1": "二", "negative_2": "三", "note": "x"},
    {"anchor": "甲？", "positive": "一", "negative_1": "四", "negative_2": "", "note": ""},
]
FROM_TRIPLETS = [("甲？", "一", "1"), ("甲？", "二", "0"), ("甲？", "三", "0"), ("甲？", "四", "0")]


@pytest.mark.parametrize(
    "write, suffix", [(lines, "jsonl"), (parquet, "parquet"), (table, "csv"), (workbook, "xlsx")]
)
def test_triplets_are_rows_with_labels(tmp_path, write, suffix):
    path = write(tmp_path / f"t.{suffix}", *TRIPLETS)
    raw = read_raw(path)
    assert [row[1:] for row in rows(raw.qa, "question", "doc", "label")] == FROM_TRIPLETS
    assert said(raw, path) == (
        "read as sentence-transformers' triplets; questions: 1, passages: 4, right pairs: 1, "
        "wrong pairs: 3; columns not used: 'note'"
    )


@pytest.mark.parametrize(
    "content",
    [
        "anchor,positive,negative\r\n甲？,一,二\r\n".encode(),
        "\ufeffanchor,positive,negative\n甲？,一,二\n".encode(),
        "anchor;positive;negative\n甲？;一;二\n".encode("gb18030"),
        "anchor\tpositive\tnegative\n甲？\t一\t二\n".encode("utf-16"),
    ],
)
def test_triplets_in_any_csv(tmp_path, content):
    qa = read_raw(put(tmp_path / "t.csv", content)).qa
    assert rows(qa, "question", "doc", "label") == [(2, "甲？", "一", "1"), (2, "甲？", "二", "0")]


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"anchor": "甲", "positive": "一"}, [("甲", "一", "1")]),
        (
            {"query": "甲", "positive": "一", "negative": "二"},
            [("甲", "一", "1"), ("甲", "二", "0")],
        ),
        (
            {"question": "甲", "positive": "一", "negatives": ["二", "三"]},
            [("甲", "一", "1"), ("甲", "二", "0"), ("甲", "三", "0")],
        ),
        ({"sentence1": "甲", "sentence2": "一"}, [("甲", "一", "1")]),
        ({"query": "甲", "answer": "一"}, [("甲", "一", "1")]),
        ({"question": "甲", "passage": "一"}, [("甲", "一", "1")]),
        ({"sentence1": "甲", "sentence2": "一", "label": 0}, [("甲", "一", "0")]),
        ({"sentence_A": "甲", "sentence_B": "一", "score": 3.0}, [("甲", "一", "3.0")]),
        ({"query": "甲", "response": "一", "label": True}, [("甲", "一", "True")]),
        ({"query": "甲", "document": "一", "score": 0.83}, [("甲", "一", "0.83")]),
        (
            {"query": "甲", "docs": ["一", "二"], "labels": [2, 0]},
            [("甲", "一", "2"), ("甲", "二", "0")],
        ),
        ({"query": "甲", "passages": ["一"], "scores": [1]}, [("甲", "一", "1")]),
    ],
)
def test_the_columns_of_sentence_transformers_are_known(tmp_path, row, expected):
    raw = read_raw(lines(tmp_path / "t.jsonl", row))
    assert rows(raw.qa, "question", "doc", "label") == [(1, *each) for each in expected]
    assert "read as sentence-transformers'" in raw.recognised


def test_evidence_belongs_to_the_right_passage(tmp_path):
    row = {"query": "甲", "positive": "一。二", "negative": "三", "answer": "二", "qa_type": "k"}
    qa = read_raw(lines(tmp_path / "t.jsonl", row)).qa
    assert rows(qa, "doc", "answer", "qa_type") == [(1, "一。二", "二", "k"), (1, "三", "", "k")]


def test_lists_need_a_label_for_each_text(tmp_path):
    path = lines(tmp_path / "t.jsonl", {"query": "甲", "docs": ["一", "二"], "labels": [1]})
    assert refusal(path) == (
        ", line 1: 2 texts in 'docs', but 1 in 'labels'; give each text a label"
    )


# SQuAD


PARAGRAPH = "云杉很高。它有30米吗？ 有！Dr. Who 说：“它有40米。”松树矮；柏树30米"
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "云杉",
            "paragraphs": [
                {
                    "context": PARAGRAPH,
                    "qas": [
                        {
                            "id": "q1",
                            "question": "柏树多高？",
                            "answers": [{"text": "30米", "answer_start": PARAGRAPH.rindex("30")}],
                            "is_impossible": False,
                        },
                        {
                            "id": "q2",
                            "question": "谁说？",
                            "answers": [
                                {"text": "Who", "answer_start": PARAGRAPH.index("Who")},
                                {"text": "Dr. Who", "answer_start": 0},
                            ],
                            "is_impossible": False,
                        },
                        {
                            "id": "q3",
                            "question": "橡树多高？",
                            "answers": [],
                            "plausible_answers": [{"text": "30米", "answer_start": 7}],
                            "is_impossible": True,
                        },
                    ],
                }
            ],
        },
        {
            "title": "别的",
            "paragraphs": [
                {
                    "context": f" {PARAGRAPH}\n",
                    "qas": [{"id": 4, "question": "多高？", "answers": [{"text": "40米。”松"}]}],
                },
                {"context": "无题", "qas": []},
            ],
        },
    ],
}


def test_squads_paragraphs_are_passages(tmp_path):
    path = document(tmp_path / "t.json", SQUAD)
    raw = read_raw(path)
    key, other = raw.corpus["uuid"]
    assert other == "86d0b7f720e07d37"  # printf 无题 | sha256sum
    assert rows(raw.corpus, "doc", "title") == [(1, PARAGRAPH, "云杉"), (2, "无题", "别的")]
    assert rows(raw.qa, "query_id", "question", "uuid", "label", "answer", "context") == [
        (1, "q1", "柏树多高？", key, "1", "30米", "柏树30米"),
        (2, "q2", "谁说？", key, "1", "Who", "Who 说：“它有40米。”"),
        (3, "q3", "橡树多高？", key, "0", "", ""),
        (4, "4", "多高？", key, "1", "40米。”松", "Who 说：“它有40米。”松树矮；"),
    ]
    assert said(raw, path) == (
        "read as SQuAD's form; questions: 4, passages: 2, right pairs: 3, wrong pairs: 1"
    )


def test_squads_form_without_impossible_questions(tmp_path):
    """SQuAD 1.1, DRCD and cmrc2018 in SQuAD's form; a question without answer is impossible."""
    qas = [
        {"id": "a", "question": "多高？", "answers": [{"text": "很高", "answer_start": 2}]},
        {"id": "b", "question": "多宽？", "answers": []},
        {"id": "c", "question": "谁？", "answers": [{"text": "没有这个", "answer_start": 2}]},
    ]
    data = [{"title": "", "paragraphs": [{"context": PARAGRAPH, "qas": qas}]}]
    path = document(tmp_path / "t.json", {"version": "1.1", "data": data})
    raw = read_raw(path)
    assert rows(raw.qa, "query_id", "label", "answer", "context") == [
        (1, "a", "1", "很高", "云杉很高。"),
        (2, "b", "0", "", ""),
        (3, "c", "1", "没有这个", ""),
    ]
    assert said(raw, path).endswith("; answers that are not in their paragraph: 1")


def test_a_test_set_without_answers_is_not_impossible(tmp_path):
    data = [{"paragraphs": [{"context": "一", "qas": [{"id": "a", "question": "甲？"}]}]}]
    raw = read_raw(document(tmp_path / "t.json", {"data": data}))
    assert rows(raw.qa, "question", "label") == [(1, "甲？", "1")]
    assert "title" not in raw.corpus


FLAT = [
    {
        "id": "a",
        "title": "云杉",
        "context": PARAGRAPH,
        "question": "多高？",
        "answers": {"text": ["很高", "高"], "answer_start": [2, 3]},
    },
    {
        "id": "b",
        "title": "云杉",
        "context": PARAGRAPH,
        "question": "多宽？",
        "answers": {"text": [], "answer_start": []},
    },
]


@pytest.mark.parametrize(
    "write, suffix", [(lines, "jsonl"), (parquet, "parquet"), (document, "json")]
)
def test_the_hubs_flat_form_of_squad(tmp_path, write, suffix):
    path = tmp_path / f"t.{suffix}"
    write(path, FLAT) if write is document else write(path, *FLAT)
    raw = read_raw(path)
    key = raw.corpus["uuid"].item()
    assert rows(raw.corpus, "doc", "title") == [(1, PARAGRAPH, "云杉")]
    assert rows(raw.qa, "query_id", "question", "uuid", "label", "answer", "context") == [
        (1, "a", "多高？", key, "1", "很高", "云杉很高。"),
        (2, "b", "多宽？", key, "0", "", ""),
    ]


def test_flat_answers_as_texts_and_as_python_prints_them(tmp_path):
    row = {"context": PARAGRAPH, "question": "多高？", "answers": ["很高"]}
    assert read_raw(lines(tmp_path / "t.jsonl", row)).qa["answer"].tolist() == ["很高"]
    printed = row | {"answers": "{'text': array(['很高'], dtype=object)}"}
    assert refusal(table(tmp_path / "t.csv", printed)) == (
        ", row 2, column 'answers': answers as Python prints them; save the table as jsonl"
    )
    written = row | {"answers": json.dumps(FLAT[0]["answers"])}
    assert read_raw(table(tmp_path / "t.csv", written)).qa["answer"].tolist() == ["很高"]


def test_a_question_without_a_paragraph_is_counted(tmp_path):
    path = lines(tmp_path / "t.jsonl", FLAT[0], FLAT[1] | {"context": None})
    raw = read_raw(path)
    assert raw.qa["query_id"].tolist() == ["a"]
    assert said(raw, path).endswith("; questions without a paragraph: 1")


def test_cmrc2018s_own_files(tmp_path):
    qas = [
        {"query_id": "T_0", "query_text": "多高？", "answers": ["很高", "高"]},
        {"query_id": "T_1", "query_text": "几米？", "answers": ["40米"]},
    ]
    paragraph = {"context_id": "T", "context_text": PARAGRAPH, "title": "云杉", "qas": qas}
    raw = read_raw(document(tmp_path / "t.json", [paragraph]))
    key = raw.corpus["uuid"].item()
    assert rows(raw.corpus, "doc", "title") == [(1, PARAGRAPH, "云杉")]
    assert rows(raw.qa, "query_id", "question", "uuid", "answer", "context") == [
        (1, "T_0", "多高？", key, "很高", "云杉很高。"),
        (2, "T_1", "几米？", key, "40米", "Who 说：“它有40米。”"),
    ]


@pytest.mark.parametrize(
    "article, message",
    [
        ({"title": "x"}, "'paragraphs' is not a list of objects, as in SQuAD's files"),
        ({"paragraphs": "x"}, "'paragraphs' is not a list of objects, as in SQuAD's files"),
        (
            {"paragraphs": [{"context": "x"}]},
            "'qas' is not a list of objects, as in SQuAD's files",
        ),
        (
            {"paragraphs": [{"context": "x", "qas": ["y"]}]},
            "'qas' is not a list of objects, as in SQuAD's files",
        ),
        ({"paragraphs": [{"context": ["x", "y"], "qas": []}]}, "'context' is not one text"),
        (
            {"paragraphs": [{"context": "x", "qas": [{"question": ["y", "z"]}]}]},
            "'question' is not one text",
        ),
        (
            {"paragraphs": [{"context": "x", "qas": [{"answers": [["y"]]}]}]},
            "'answers' is not one text",
        ),
    ],
)
def test_a_broken_squad_is_refused_by_its_article(tmp_path, article, message):
    whole = {"paragraphs": [{"context": "一", "qas": []}]}
    path = document(tmp_path / "t.json", {"data": [whole, article]})
    assert refusal(path) == f", row 2: {message}"


def test_a_query_id_has_one_question(tmp_path):
    path = document(tmp_path / "t.json", [FLAT[0], FLAT[1] | {"id": "a"}])
    assert refusal(path) == (
        ", row 2: query id 'a' already has another question; give each question an id of its own"
    )


# BEIR


CORPUS = [
    {"_id": "d1", "title": "云杉", "text": "云杉很高。", "metadata": {}},
    {"_id": "d2", "title": "", "text": "松树矮。", "metadata": {}},
    {"_id": 3, "title": "只有题目", "text": "", "metadata": {"url": "x"}},
    {"_id": "d4", "title": "", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "多高？"},
    {"_id": 2, "text": "多矮？"},
    {"_id": "q3", "text": "没有判断"},
]
HEADER = "query-id\tcorpus-id\tscore\n"
TRAIN = f"{HEADER}q1\td1\t2\nq1\td2\t0\nq1\t3\t-1\n"


def beir(folder: Path, **qrels: str) -> Path:
    lines(folder / "corpus.jsonl", *CORPUS)
    lines(folder / "queries.jsonl", *QUERIES)
    for name, text in qrels.items():
        put(folder / f"qrels/{name}.tsv", text)
    return folder


def test_beirs_folder(tmp_path):
    beir(tmp_path, train=TRAIN, Dev=f"{HEADER}2\td2\t1\n".replace("\n", "\r\n"))
    put(tmp_path / "README.md", "x")
    put(tmp_path / "qrels/notes.md", "x")
    raw = read_raw(tmp_path)
    assert rows(raw.qa, "question", "uuid", "label", "dataset", "query_id") == [
        ("Dev.tsv:2", "多矮？", "d2", "1", "valid", "2"),
        ("train.tsv:2", "多高？", "d1", "2", "train", "q1"),
        ("train.tsv:3", "多高？", "d2", "0", "train", "q1"),
        ("train.tsv:4", "多高？", "3", "0", "train", "q1"),
    ]
    assert raw.qa.shape == (4, 5)
    assert rows(raw.corpus, "uuid", "doc", "title") == [
        (1, "d1", "云杉很高。", "云杉"),
        (2, "d2", "松树矮。", ""),
        (3, "3", "只有题目", ""),
    ]
    assert (raw.qa_name, raw.corpus_name) == (f"{tmp_path}/qrels", f"{tmp_path}/corpus.jsonl")
    assert said(raw, tmp_path) == (
        "read as a BEIR folder; questions: 2, passages: 3, right pairs: 2, wrong pairs: 2; "
        "passages without text: 1; negative scores, read as 0: 1; queries without judgement: 1; "
        "columns not used: 'metadata'; files ignored: qrels/notes.md"
    )


def test_one_file_of_judgements_has_rows_with_numbers(tmp_path):
    raw = read_raw(beir(tmp_path, test="q1\td1\t1\n\n2\td2\t1.0\n"))
    assert rows(raw.qa, "uuid", "label", "dataset") == [
        (1, "d1", "1", "test"),
        (3, "d2", "1", "test"),
    ]
    assert raw.qa_name == f"{tmp_path}/qrels/test.tsv"


@pytest.mark.parametrize("name", ["qrels", "all", "train"])
def test_splits_that_no_name_says_are_drawn(tmp_path, name):
    raw = read_raw(beir(tmp_path, **{name: TRAIN}))
    assert "dataset" not in raw.qa
    note = "other splits are drawn from the training data"
    assert (note in raw.recognised) == (name == "train")


def test_judgements_beside_the_corpus(tmp_path):
    beir(tmp_path)
    put(tmp_path / "qrels.tsv", TRAIN)
    assert read_raw(tmp_path).qa["uuid"].tolist() == ["d1", "d2", "3"]


def test_judgements_in_two_folders_are_named_from_the_folder_of_both(tmp_path):
    beir(tmp_path, train=TRAIN)
    put(tmp_path / "qrels.test.tsv", "2\td2\t1\n")
    raw = read_raw(tmp_path)
    assert raw.qa.index.tolist() == [
        "qrels.test.tsv:1",
        *(f"qrels/train.tsv:{line}" for line in (2, 3, 4)),
    ]
    assert raw.qa_name == str(tmp_path)


@pytest.mark.parametrize(
    "line, message",
    [
        ("q9\td1\t1", "query 'q9' is not in the queries; add it there, or delete the line"),
        ("q1\td9\t1", "passage 'd9' is not in the corpus; add it there, or delete the line"),
        ("q1\td1\thigh", "score 'high' is not a whole number; correct it"),
        ("q1\td1\t0.5", "score '0.5' is not a whole number; correct it"),
        (
            "q1\td1",
            "2 cells; needed are query, passage and score, or TREC's query, 0, passage and score",
        ),
        (
            "q1\td1\t1",
            "score 1 of query 'q1' and passage 'd1', which have score 2 above; delete one of the "
            "lines",
        ),
    ],
)
def test_a_broken_judgement_is_refused_by_line(tmp_path, line, message):
    beir(tmp_path, train=TRAIN + line, test="2\td2\t1")
    assert refusal(tmp_path, "qrels/train.tsv") == f", line 5: {message}"


def test_judgements_of_empty_texts_and_repeated_ones_are_counted(tmp_path):
    beir(tmp_path, test="q1\td1\t1\nq1\td1\t1\nq1\td4\t1\n")
    raw = read_raw(tmp_path)
    assert raw.qa["uuid"].tolist() == ["d1"]
    assert "judgements given twice: 1; judgements of empty texts: 1; " in raw.recognised


def test_names_of_all_judgements_say_a_split_or_none(tmp_path):
    beir(tmp_path, train=TRAIN, more="2\td2\t1")
    assert refusal(tmp_path, "qrels/more.tsv") == (
        ": the name says no split, as other files' names do; rename it to train, dev or test"
    )


@pytest.mark.parametrize(
    "missing, message",
    [
        ("queries.jsonl", ": no queries.jsonl in this folder, which has qrels; add it"),
        ("corpus.jsonl", ": no corpus.jsonl in this folder, which has qrels; add it"),
        ("qrels/test.tsv", ": queries and a corpus, but no folder qrels; add qrels/test.tsv"),
    ],
)
def test_a_missing_part_is_named(tmp_path, missing, message):
    beir(tmp_path, test=TRAIN)
    (tmp_path / missing).unlink()
    assert refusal(tmp_path) == message
    put(tmp_path / f"{missing}.gz", b"\x1f\x8b")
    assert refusal(tmp_path, f"{missing}.gz") == ": is compressed; unpack it"


def test_a_compressed_table_is_to_be_unpacked(tmp_path):
    packed = put(tmp_path / "t.jsonl.gz", b"\x1f\x8b")
    assert refusal(packed) == ": is compressed; unpack it"
    assert refusal(tmp_path, "t.jsonl.gz") == ": is compressed; unpack it"
    packed.rename(tmp_path / "train.jsonl.zst")
    table(tmp_path / "test.csv", PLAIN)
    assert refusal(tmp_path, "train.jsonl.zst") == ": is compressed; unpack it"
    table(tmp_path / "train.csv", PLAIN)
    assert said(read_raw(tmp_path), tmp_path).endswith("; files ignored: train.jsonl.zst")


@pytest.mark.parametrize(
    "name, row, message",
    [
        ("corpus", {"_id": "d1", "text": "x"}, ": passage 'd1' already has another text"),
        ("queries", {"_id": "q1", "text": "x"}, ": query 'q1' already has another text"),
        ("corpus", {"_id": "", "text": "x"}, ": empty '_id'; fill it or delete the row"),
        ("queries", {"text": "x"}, ": no id among 'text'; name it uuid, _id, id"),
        (
            "corpus",
            {"_id": "x", "text": ["a", "b"]},
            ", column 'text': a list of 2 values; one row for each value is needed",
        ),
    ],
)
def test_texts_need_ids_of_their_own(tmp_path, name, row, message):
    beir(tmp_path, test=TRAIN)
    given = CORPUS if name == "corpus" else QUERIES
    lines(tmp_path / f"{name}.jsonl", *given, row)
    found = refusal(tmp_path, f"{name}.jsonl")
    assert found.removesuffix("; rename one") == f", line {len(given) + 1}{message}"


def test_a_broken_line_or_an_empty_file_of_a_collection(tmp_path):
    beir(tmp_path, test=TRAIN)
    put(tmp_path / "corpus.jsonl", '{"_id": "d1", "text": "x"}\n{"_id": "d2"')
    assert refusal(tmp_path, "corpus.jsonl") == (
        ", line 2: not valid JSON (Expecting ',' delimiter); repair or delete the line"
    )
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        beir(tmp_path, test=TRAIN)
        put(tmp_path / name, "")
        assert refusal(tmp_path, name) == ": is empty"


# TREC and MS MARCO


COLLECTION = 'd1\t云杉"很高。\nd2\t松树矮。\t松树\n'


def collection(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {"collection.tsv": COLLECTION, **files}.items():
        put(folder / name, text)
    return folder


def test_ms_marcos_names(tmp_path):
    files = {
        "queries.train.tsv": "1\t多高？\n9\t没有判断\n",
        "queries.dev.small.tsv": "2\t多矮？\n",
        "qrels.train.tsv": "1\t0\td1\t1\n",
        "qrels.dev.small.tsv": "2\t0\td2\t1\n",
    }
    raw = read_raw(collection(tmp_path, files))
    assert rows(raw.qa, "question", "uuid", "label", "dataset", "query_id") == [
        ("qrels.dev.small.tsv:1", "多矮？", "d2", "1", "valid", "2"),
        ("qrels.train.tsv:1", "多高？", "d1", "1", "train", "1"),
    ]
    assert rows(raw.corpus, "uuid", "doc", "title") == [
        (1, "d1", '云杉"很高。', ""),
        (2, "d2", "松树矮。", "松树"),
    ]
    assert raw.qa_name == str(tmp_path)
    assert said(raw, tmp_path) == (
        "read as a TREC collection; questions: 2, passages: 2, right pairs: 2; "
        "queries without judgement: 1"
    )


TOPICS = """
<top>
<num> Number: 301
<title> 多高？
 云杉
<desc> Description:
x
</top>

<top>
<num> 302 </num>
<title> 多矮？ </title>
</top>
"""


@pytest.mark.parametrize("name", ["topics.robust.txt", "topics.301-450", "topics"])
def test_trecs_topics_and_judgements(tmp_path, name):
    collection(tmp_path, {name: TOPICS, "robust.qrels": "301 0 d1 2\n302  0  d2  -2\n"})
    raw = read_raw(tmp_path)
    assert rows(raw.qa, "question", "uuid", "label", "query_id") == [
        (1, "多高？ 云杉", "d1", "2", "301"),
        (2, "多矮？", "d2", "0", "302"),
    ]
    put(tmp_path / name, TOPICS.replace("<title> 多矮？", "<titel> 多矮？"))
    assert refusal(tmp_path, name) == ", line 10: a topic without <title>; add it"


@pytest.mark.parametrize(
    "name, text",
    [
        ("corpus.csv", "uuid,doc,title\nd1,云杉很高。,云杉\nd2,松,\n"),
        (
            "corpus.jsonl",
            '{"id": "d1", "contents": "云杉很高。"}\n{"id": "d2", "contents": "松"}\n',
        ),
        ("corpus.jsonl", '{"docid": "d1", "body": "云杉很高。"}\n{"docid": "d2", "text": "松"}\n'),
        ("collection.tsv", "id\ttitle\ttext\nd1\t云杉\t云杉很高。\nd2\t\t松\n"),
        ("corpus.tsv", "d1\t云杉很高。\r\nd2\t松\r\n"),
    ],
)
def test_a_corpus_in_any_form(tmp_path, name, text):
    put(tmp_path / name, text)
    lines(tmp_path / "queries.jsonl", {"query_id": 1, "query": "多高？"})
    put(tmp_path / "qrels/qrels.txt", "1 0 d1 1\n")
    raw = read_raw(tmp_path)
    assert dict(zip(raw.corpus["uuid"], raw.corpus["doc"])) == {"d1": "云杉很高。", "d2": "松"}
    assert raw.qa["question"].tolist() == ["多高？"]


def test_lines_of_a_collection_have_tabs(tmp_path):
    collection(tmp_path, {"queries.tsv": "1 多高？\n", "qrels.txt": "1 0 d1 1\n"})
    assert refusal(tmp_path, "queries.tsv") == (
        ", line 1: cells separated by tabs: 1; needed are id, text, title"
    )
    put(tmp_path / "corpus.jsonl", "")
    assert refusal(tmp_path) == ": both collection.tsv and corpus.jsonl; keep one of them"


# one file a split


@pytest.mark.parametrize(
    "name, split",
    [
        ("train", "train"),
        ("TRAIN", "train"),
        ("train-v1.1", "train"),
        ("cmrc2018_train", "train"),
        ("train-00000-of-00002", "train"),
        ("dev", "valid"),
        ("DRCD_dev", "valid"),
        ("validation", "valid"),
        ("qrels.test", "test"),
        ("训练集", "train"),
        ("测试集_2024", "test"),
        ("train_dev", ""),
        ("constraints", ""),
        ("latest", ""),
        ("qa", ""),
    ],
)
def test_the_split_that_a_name_says(name, split):
    assert split_of(name) == split


def test_a_plain_table_for_each_split(tmp_path):
    table(tmp_path / "train.csv", PLAIN)
    table(tmp_path / "dev.csv", PLAIN | {"dataset": "Validation"})
    table(tmp_path / "test.csv", PLAIN | {"note": "x"})
    table(tmp_path / "mine.csv", PLAIN)
    raw = read_raw(tmp_path)
    assert rows(raw.qa, "question", "doc", "dataset", "note") == [
        ("dev.csv:2", "甲？", "一", "valid", ""),
        ("test.csv:2", "甲？", "一", "test", "x"),
        ("train.csv:2", "甲？", "一", "train", ""),
    ]
    assert (raw.corpus, raw.qa_name) == (None, str(tmp_path))
    assert said(raw, tmp_path) == "read as plain tables; rows: 3; files ignored: mine.csv"


def test_plain_splits_with_a_corpus(tmp_path):
    for name in ("train", "test"):
        table(tmp_path / f"{name}.csv", {"question": name, "uuid": "p1"})
    table(tmp_path / "corpus.csv", {"uuid": "p1", "doc": "一", "more": "x"})
    raw = read_raw(tmp_path)
    assert raw.corpus.to_dict("records") == [{"uuid": "p1", "doc": "一", "more": "x"}]
    assert raw.qa["dataset"].tolist() == ["test", "train"]


def test_split_tables_named_as_queries_are_no_collection(tmp_path):
    for name in ("train", "test"):
        table(tmp_path / f"{name}_queries.csv", {"question": name, "uuid": "p1"})
    table(tmp_path / "corpus.csv", {"uuid": "p1", "doc": "一"})
    assert read_raw(tmp_path).qa["dataset"].tolist() == ["test", "train"]


def test_a_row_that_contradicts_its_files_name_is_refused(tmp_path):
    table(tmp_path / "train.csv", PLAIN)
    table(tmp_path / "test.csv", PLAIN | {"dataset": "test"}, PLAIN | {"dataset": "train"})
    assert refusal(tmp_path, "test.csv") == (
        ", row 3: dataset 'train' in a file that is named for test; correct it, or rename the file"
    )


def test_lists_for_each_split(tmp_path):
    lines(tmp_path / "train.jsonl", LISTS[0])
    lines(tmp_path / "test.jsonl", LISTS[1])
    raw = read_raw(tmp_path)
    assert rows(raw.qa, "question", "doc", "label", "dataset") == [
        ("test.jsonl:1", "乙？", "三", "1", "test"),
        ("train.jsonl:1", "甲？", "一", "1", "train"),
        ("train.jsonl:1", "甲？", "二", "1", "train"),
        ("train.jsonl:1", "甲？", "三", "0", "train"),
    ]


def test_texts_become_ids_of_a_corpus_beside_them(tmp_path):
    lines(tmp_path / "train.jsonl", LISTS[0])
    lines(tmp_path / "test.jsonl", LISTS[1])
    lines(tmp_path / "corpus.jsonl", {"id": 7, "text": "三"}, {"id": 8, "text": "没人问"})
    raw = read_raw(tmp_path)
    one, two = "51a75f4634dfa859", "084b42f6e95e4e65"  # printf 一 | sha256sum
    assert "doc" not in raw.qa and raw.qa["uuid"].tolist() == ["7", one, two, "7"]
    assert rows(raw.corpus, "uuid", "doc") == [
        ("corpus.jsonl:1", "7", "三"),
        ("corpus.jsonl:2", "8", "没人问"),
        ("train.jsonl:1", one, "一"),
        ("train.jsonl:1", two, "二"),
    ]
    assert raw.corpus_name == str(tmp_path)


def test_squads_files_for_each_split_share_paragraphs(tmp_path):
    other = json.loads(json.dumps(SQUAD).replace('"id": ', '"id": 1').replace('1"q', '"d'))
    document(tmp_path / "train-v2.0.json", SQUAD)
    document(tmp_path / "dev-v2.0.json", other)
    raw = read_raw(tmp_path)
    assert raw.corpus["doc"].tolist() == [PARAGRAPH, "无题"]
    assert raw.qa["dataset"].tolist() == ["valid"] * 4 + ["train"] * 4
    assert raw.qa["query_id"].tolist() == ["d1", "d2", "d3", "14", "q1", "q2", "q3", "4"]
    assert raw.qa.index[0] == "dev-v2.0.json:1"
    assert raw.corpus.index.tolist() == ["dev-v2.0.json:1", "dev-v2.0.json:2"]
    assert raw.qa["uuid"].unique().tolist() == [raw.corpus["uuid"].iloc[0]]


def test_query_ids_that_repeat_from_file_to_file_are_not_used(tmp_path):
    parquet(tmp_path / "train.parquet", FLAT[0])
    parquet(tmp_path / "test.parquet", FLAT[0] | {"question": "另一个？"})
    raw = read_raw(tmp_path)
    assert "query_id" not in raw.qa and len(raw.qa) == 2
    assert "; the query ids are not used: different files have the same for different" in (
        raw.recognised
    )


def test_a_query_id_has_one_question_in_each_file(tmp_path):
    parquet(tmp_path / "test.parquet", FLAT[0])
    parquet(tmp_path / "train.parquet", FLAT[0], FLAT[1] | {"id": "a"})
    assert refusal(tmp_path, "train.parquet") == (
        ", row 2: query id 'a' already has another question; give each question an id of its own"
    )


def test_different_forms_for_each_split(tmp_path):
    lines(tmp_path / "train.jsonl", LISTS[0])
    table(tmp_path / "test.csv", {"query": "甲", "text": "一", "label": 1})
    raw = read_raw(tmp_path)
    assert len(raw.qa) == 4 and "labelled pairs and FlagEmbedding's lists; " in raw.recognised
    table(tmp_path / "test.csv", {"frage": "甲", "text": "一"})
    assert refusal(tmp_path) == (
        ": train.jsonl has FlagEmbedding's lists, test.csv other columns ('frage', 'text'); "
        "write both alike"
    )


def test_one_table_twice_is_refused(tmp_path):
    table(tmp_path / "train.csv", PLAIN)
    lines(tmp_path / "train.jsonl", PLAIN)
    assert refusal(tmp_path) == ": both train.csv and train.jsonl; keep one of them"


def test_training_data_alone_has_no_split(tmp_path):
    lines(tmp_path / "train.jsonl", LISTS[0])
    raw = read_raw(tmp_path)
    assert "dataset" not in raw.qa and raw.qa.index.tolist() == [1, 1, 1]
    assert raw.qa_name == f"{tmp_path}/train.jsonl"
    assert "; other splits are drawn from the training data; " in raw.recognised


# Hugging Face's datasets


def test_a_repository_of_the_hub(tmp_path):
    put(tmp_path / "README.md", "x")
    for name, row in zip(("train-00000-of-00002", "train-00001-of-00002", "test-0"), LISTS):
        parquet(tmp_path / f"data/{name}.parquet", row)
    raw = read_raw(tmp_path)
    assert rows(raw.qa, "question", "doc", "label", "dataset")[:2] == [
        ("data/test-0.parquet:1", "丙？", "四", "1", "test"),
        ("data/test-0.parquet:1", "丙？", "四五", "0", "test"),
    ]
    assert raw.qa["dataset"].tolist() == ["test"] * 3 + ["train"] * 4
    assert "ignored" not in raw.recognised


def test_a_folder_that_datasets_saved(tmp_path):
    made = datasets.DatasetDict(
        train=datasets.Dataset.from_list(LISTS[:1]), test=datasets.Dataset.from_list(LISTS[1:2])
    )
    made.save_to_disk(tmp_path / "all")
    raw = read_raw(tmp_path / "all")
    assert rows(raw.qa, "question", "doc", "label", "dataset") == [
        ("test/data-00000-of-00001.arrow:1", "乙？", "三", "1", "test"),
        ("train/data-00000-of-00001.arrow:1", "甲？", "一", "1", "train"),
        ("train/data-00000-of-00001.arrow:1", "甲？", "二", "1", "train"),
        ("train/data-00000-of-00001.arrow:1", "甲？", "三", "0", "train"),
    ]
    made["train"].save_to_disk(tmp_path / "one")
    raw = read_raw(tmp_path / "one")
    assert raw.qa["doc"].tolist() == ["一", "二", "三"] and "dataset" not in raw.qa
    put(next(tmp_path.glob("one/*.arrow")), b"x" * 64)
    assert ": cannot be read as arrow (" in refusal(tmp_path / "one")
