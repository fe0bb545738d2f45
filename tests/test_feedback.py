"""Feedback: what is kept of a click, and how it comes back through `prepare`."""

import csv
import fcntl
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tunerank.commands.feedback import merge_feedback
from tunerank.core.errors import InputError
from tunerank.data.preparation.prepare import Prepared, prepare
from tunerank.data.questions import grades
from tunerank.data.readers.raw import read_raw
from tunerank.data.readers.tables import read_table
from tunerank.params.data import Prepare
from tunerank.serving import judgements
from tunerank.serving.feedback import feedback_router
from tunerank.serving.judgements import Feedback, Judgement, parse
from tunerank.serving.limits import Refused

NOON = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
MARK = b"\xef\xbb\xbf"
HEADER = "when,who,question,uuid,label,doc\n"


def body(**changes) -> bytes:
    values = {"query": "电池保修几年？", "passage": "p1", "label": 1} | changes
    return json.dumps(values).encode()


def kept(folder: Path, name: str = "2026-11.csv") -> list[list[str]]:
    """Return the cells of a file below its header."""
    text = (folder / name).read_bytes().decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline="")))[1:]


# requests


def test_a_request_is_read():
    assert parse(body()) == Judgement("电池保修几年？", "p1", 1)
    assert parse(body(passage={"id": " p1 ", "text": "正文"}, label=0, who=" 王  芳\n")) == (
        Judgement("电池保修几年？", "p1", 0, "王 芳", "正文")
    )
    assert parse(body(label=None, query="a\0b\x07 ")) == Judgement("ab", "p1", None)


@pytest.mark.parametrize(
    "given, status, message",
    [
        (b"", 400, "the body is not valid JSON"),
        (b"\xff", 400, "the body is not valid JSON"),
        (b"[" * 100_000, 400, "the body is not valid JSON"),
        (b"[1]", 400, "the body is not a JSON object"),
        (b"{}", 422, "query: not a text"),
        (body(query=" \t"), 422, "query: empty"),
        (body(query=["a"]), 422, "query: not a text"),
        (body(query="a" * 4001), 413, "query: longer than 4000 characters"),
        (body(query="\ud83d"), 422, "query: half a character (a surrogate alone)"),
        (body(passage=None), 422, "passage: not a text"),
        (body(passage={"text": "a"}), 422, "passage: not a text"),
        (body(passage=""), 422, "passage: empty"),
        (body(passage={"id": "p1", "text": 7}), 422, "text: not a text"),
        (body(who="x" * 101), 413, "who: longer than 100 characters"),
        *(
            (body(label=label), 422, "label: neither 1 (right) nor 0 (wrong) nor null (withdrawn)")
            for label in (2, -1, True, 1.0, "1", [1])
        ),
        (
            b'{"query": "a", "passage": "p1"}',
            422,
            "label: neither 1 (right) nor 0 (wrong) nor null (withdrawn)",
        ),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(given, status, message):
    with pytest.raises(Refused) as refused:
        parse(given)
    assert (refused.value.status, refused.value.line) == (status, message)


# files


def test_a_click_is_a_row_of_the_month(tmp_path):
    feedback = Feedback(tmp_path / "data/feedback")
    feedback.keep(Judgement("甲, 乙？", "p1", 1, "王芳", '正"文"'), NOON)
    assert (tmp_path / "data/feedback/2026-11.csv").read_bytes() == MARK + (
        HEADER + '2026-11-28T12:00:00Z,王芳,"甲, 乙？",p1,1,"正""文"""\n'
    ).encode()
    assert [path.name for path in (tmp_path / "data/feedback").iterdir()] == ["2026-11.csv"]


def test_the_month_is_that_of_utc(tmp_path):
    late = datetime.fromisoformat("2026-12-01T02:30:00+08:00")
    Feedback(tmp_path).keep(Judgement("甲？", "p1", 1), late)
    assert kept(tmp_path) == [["2026-11-30T18:30:00Z", "", "甲？", "p1", "1", ""]]


def test_a_later_click_of_the_same_person_on_the_same_pair_replaces_the_row(tmp_path):
    feedback = Feedback(tmp_path)
    for question, passage, label, who in (
        ("甲？", "p1", 1, "a"),
        ("甲？", "p1", 1, "b"),
        ("甲？", "p2", 1, "a"),
        ("乙？", "p1", 1, "a"),
        ("甲？", "p1", 0, "a"),
    ):
        feedback.keep(Judgement(question, passage, label, who), NOON)
    assert [row[1:5] for row in kept(tmp_path)] == [
        ["b", "甲？", "p1", "1"],
        ["a", "甲？", "p2", "1"],
        ["a", "乙？", "p1", "1"],
        ["a", "甲？", "p1", "0"],
    ]


def test_a_click_replaces_a_row_of_an_earlier_month(tmp_path):
    feedback = Feedback(tmp_path)
    feedback.keep(Judgement("甲？", 'p"1', 1, "a"), datetime(2026, 10, 31, tzinfo=UTC))
    feedback.keep(Judgement("乙？", 'p"1', 1, "a"), datetime(2026, 10, 31, tzinfo=UTC))
    feedback.keep(Judgement("甲？", 'p"1', 0, "a"), NOON)
    assert [row[2:5] for row in kept(tmp_path, "2026-10.csv")] == [["乙？", 'p"1', "1"]]
    assert [row[2:5] for row in kept(tmp_path)] == [["甲？", 'p"1', "0"]]


def test_a_withdrawn_judgement_leaves_no_row_and_no_empty_table(tmp_path):
    feedback = Feedback(tmp_path)
    feedback.keep(Judgement("甲？", "p1", 1, "a"), NOON)
    feedback.keep(Judgement("甲？", "p1", None, "b"), NOON)
    assert len(kept(tmp_path)) == 1
    feedback.keep(Judgement("甲？", "p1", None, "a"), NOON)
    assert list(tmp_path.iterdir()) == []


def test_clicks_of_several_processes_and_threads_are_all_kept(tmp_path):
    script = (
        "import sys; from concurrent.futures import ThreadPoolExecutor as P\n"
        "from tunerank.serving.judgements import Feedback, Judgement as J\n"
        f"f = Feedback({str(tmp_path / 'kept')!r}); who = sys.argv[1]\n"
        "with P(4) as pool:\n"
        "    list(pool.map(lambda n: f.keep(J(f'q{n}', 'p', n % 2, who)), range(20)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    started = [
        subprocess.Popen([sys.executable, "-c", script, who], env=environment) for who in "ab"
    ]
    assert [process.wait() for process in started] == [0, 0]
    (path,) = (tmp_path / "kept").iterdir()
    found = sorted((row[1], row[2], row[4]) for row in kept(path.parent, path.name))
    assert found == sorted((who, f"q{n}", str(n % 2)) for who in "ab" for n in range(20))


def test_a_file_that_dvc_has_linked_into_its_cache_is_replaced_and_not_written(tmp_path):
    folder, cached = tmp_path / "feedback", tmp_path / "cached"
    feedback = Feedback(folder)
    feedback.keep(Judgement("甲？", "p1", 1), NOON)
    before = (folder / "2026-11.csv").read_bytes()
    os.link(folder / "2026-11.csv", cached)
    feedback.keep(Judgement("乙？", "p1", 1), NOON)
    assert cached.read_bytes() == before and len(kept(folder)) == 2
    linked = Path(cached).rename(tmp_path / "linked")
    (folder / "2026-11.csv").unlink()
    (folder / "2026-11.csv").symlink_to(linked)
    feedback.keep(Judgement("丙？", "p1", 1), NOON)
    assert linked.read_bytes() == before and len(kept(folder)) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"question;uuid;label\n",
        HEADER.encode() + b"a,b\n",
        HEADER.encode() + "甲".encode("gb18030") + b",,a,p1,1,\n",
        HEADER.encode() + b'"a,,a,p1,1,\n',
        b"",
    ],
)
def test_a_file_that_somebody_changed_is_left_and_named(tmp_path, content):
    path = tmp_path / "2026-11.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        Feedback(tmp_path).keep(Judgement("甲？", "p1", 1), NOON)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and message.endswith("or move it away")
    assert "\n" not in message and path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_month_takes_no_more_and_says_so(tmp_path, monkeypatch):
    feedback = Feedback(tmp_path)
    feedback.keep(Judgement("甲？", "p1", 1, doc="正文"), NOON)
    before = (tmp_path / "2026-11.csv").read_bytes()
    monkeypatch.setattr(judgements, "MONTH", len(before) + 20)
    with pytest.raises(Refused) as refused:
        feedback.keep(Judgement("乙？", "p1", 1), NOON)
    assert refused.value.status == 507
    assert "2026-11.csv is full" in refused.value.line
    assert (tmp_path / "2026-11.csv").read_bytes() == before


def test_a_lock_that_is_not_given_back_is_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr(judgements, "PATIENCE", 0.0)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(Refused) as refused:
        Feedback(tmp_path).keep(Judgement("甲？", "p1", 1), NOON)
    assert refused.value.status == 503 and list(tmp_path.iterdir()) == []
    os.close(handle)
    Feedback(tmp_path).keep(Judgement("甲？", "p1", 1), NOON)
    assert len(kept(tmp_path)) == 1


# cells

HARD = [
    '=HYPERLINK("http://x","y")',
    "-5度能用吗？",
    "+86 电话",
    "@SUM(1)",
    "＝1+1",
    "－5度",
    "it's 'so'; a,b|c",
    "第一行\n第二行",
    "回车\r\n换行\r也在",
    "😀 emoji 👨‍👩‍👧",
    "'=1",
    '"quoted"',
]


def test_questions_are_no_formulas_and_prepare_reads_them_as_they_were_asked(tmp_path):
    feedback = Feedback(tmp_path)
    for number, question in enumerate(HARD):
        feedback.keep(Judgement(question, f"-p{number}", 1, "=who", f"=文{number}\r\nb"), NOON)
    for row in kept(tmp_path):
        assert not any(cell.startswith(tuple("=+-@＝＋－＠")) for cell in row)
    found = prepared(tmp_path / "2026-11.csv", test_fraction=0.5)
    questions = [question for split in found.questions.values() for question in split]
    assert {question["question"] for question in questions} == set(HARD)
    assert {
        question["question"]: [item["passage"] for item in question["relevant"]]
        for question in questions
    } == {question: [f"-p{number}"] for number, question in enumerate(HARD)}
    assert {passage["id"]: passage["text"] for passage in found.passages} == {
        f"-p{number}": f"=文{number}\r\nb" for number in range(len(HARD))
    }


# the route


@pytest.fixture
def client(tmp_path):
    """Return a function from the arguments of `feedback_router` to a client of it."""

    def make(*arguments):
        app = FastAPI()
        app.include_router(feedback_router(tmp_path / "feedback", *arguments))
        return TestClient(app, raise_server_exceptions=False)

    return make


def rows(tmp_path: Path) -> list[list[str]]:
    paths = sorted((tmp_path / "feedback").iterdir())
    return [row[1:] for path in paths for row in kept(path.parent, path.name)]


def test_the_route_keeps_a_click(client, tmp_path):
    answer = client().post(
        "/feedback",
        json={"query": "甲？", "passage": {"id": "p1", "text": "正文"}, "label": 1, "who": "王"},
    )
    assert (answer.status_code, answer.json()) == (200, {"label": 1})
    assert rows(tmp_path) == [["王", "甲？", "p1", "1", "正文"]]


def test_the_text_is_the_servers_where_it_has_one(client, tmp_path):
    made = client({"p1": "真正文"}.get)
    given = {"query": "甲？", "passage": {"id": "p1", "text": "假"}, "label": 0}
    assert made.post("/feedback", json=given).status_code == 200
    assert rows(tmp_path) == [["", "甲？", "p1", "0", "真正文"]]
    refused = made.post("/feedback", json=given | {"passage": "p2"})
    assert refused.status_code == 404
    assert refused.json() == {"detail": "passage: the corpus has no such id"}
    assert len(rows(tmp_path)) == 1


def test_what_another_site_can_send_from_a_browser_is_refused(client, tmp_path):
    """A form can send these types to any address without the server's consent."""
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "",
    ):
        answer = client().post("/feedback", content=body(), headers={"Content-Type": kind})
        assert answer.status_code == 415, kind
    assert not (tmp_path / "feedback").exists()


def test_a_body_is_bounded_while_it_is_read(client, tmp_path):
    def parts():
        for _ in range(6):
            yield b" " * (1 << 20)

    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = client().post("/feedback", content=parts(), headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (413, "the body is longer than 4 MiB")
    assert client().post("/feedback", content=body(), headers=headers).status_code == 200


def test_a_folder_that_cannot_be_written_is_one_line(client, tmp_path):
    (tmp_path / "feedback").write_text("a file")
    answer = client().post("/feedback", json=json.loads(body()))
    assert answer.status_code == 500
    assert answer.json()["detail"].startswith(f"feedback: {tmp_path / 'feedback'}: ")


# beside a table


CORPUS = "uuid,title,doc\np1,手册,正文一\np2,手册,正文二\np3,手册,正文三\np4,手册,正文四\n"
QA = "uuid,question,answer,dataset\np1,甲？,-5℃,train\np2,乙？,,train\np3,丙？,,test\n"


def prepared(path: Path, **changes) -> Prepared:
    values = {"raw": "x", "columns": {}, "qa_types": [], "unicode": "NFC", "split_seed": 42}
    values |= {"valid_fraction": 0.0, "test_fraction": 0.25}
    params = Prepare(**values | changes)
    raw = read_raw(path, plain=bool(params.columns))
    return prepare(raw.qa, raw.corpus, params, raw.qa_name, raw.corpus_name)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a function that writes tables, feedback and parameters, and merges them."""
    monkeypatch.chdir(tmp_path)

    def merge(clicks, qa=QA, corpus=CORPUS, split=None, **changes) -> Prepared:
        table = Path("table")
        table.mkdir(exist_ok=True)
        (table / "qa.csv").write_text(qa, encoding="utf-8")
        if corpus:
            (table / "corpus.csv").write_text(corpus, encoding="utf-8")
        params = yaml.safe_load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"))
        changes = {"valid_fraction": 0.0} | changes
        params["prepare"] |= changes
        Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        for number, click in enumerate(clicks):
            Feedback(Path("data/feedback")).keep(
                Judgement(**{"who": "a", "doc": ""} | click), NOON.replace(second=number)
            )
        merge_feedback(table, Path("merged"), split=split)
        return prepared(Path("merged"), **changes)

    return merge


def click(question: str, uuid: str, label: int | None, who: str = "a", doc: str = "") -> dict:
    return {"question": question, "uuid": uuid, "label": label, "who": who, "doc": doc}


def judged(found: Prepared) -> dict[str, tuple[str, dict[str, int], list[str]]]:
    """Return question -> its split, grades and negatives."""
    return {
        question["question"]: (split, grades(question), question["negatives"])
        for split, questions in found.questions.items()
        for question in questions
    }


def test_feedback_comes_back_as_questions_with_right_and_wrong_passages(project, capsys):
    found = project(
        [
            click("=新问题？", "p1", 1, doc="正文一"),
            click("=新问题？", "p2", 0, doc="正文二"),
            click("甲？", "p4", 1, doc="正文四"),
            click("乙？", "p1", 0, doc="正文一"),
            click("丙？", "p2", 0, doc="正文二"),
        ]
    )
    assert judged(found) == {
        "甲？": ("train", {"p1": 1, "p4": 1}, []),
        "乙？": ("train", {"p2": 1}, ["p1"]),
        "=新问题？": ("train", {"p1": 1}, ["p2"]),
        "丙？": ("test", {"p3": 1}, ["p2"]),
    }
    assert found.dropped == [] and found.passages == prepared(Path("table")).passages
    assert Path("merged/qa.csv").read_text(encoding="utf-8") == (
        "uuid,question,answer,dataset,label\n"
        "p1,甲？,-5℃,train,1\np2,乙？,,train,1\np3,丙？,,test,1\n"
        "p1,\u200b=新问题？,,train,1\np2,\u200b=新问题？,,train,0\n"
        "p4,甲？,,,1\np1,乙？,,,0\np2,丙？,,,0\n"
    )
    assert capsys.readouterr().out == (
        "data/feedback: new pairs: 2 right, 3 wrong\n"
        "merged: questions: 2 -> 3 train, 0 -> 0 valid, 1 -> 1 test; "
        "dvc exp run -S prepare.raw=merged\n"
    )


def test_a_new_question_on_a_held_out_passage_is_held_out_unless_a_split_is_given(project):
    clicks = [
        click("新一？", "p3", 1),
        click("新二？", "p4", 1),
        click("新三？", "p2", 1),
        click("新三？", "p3", 1),
    ]
    found = judged(project(clicks))
    assert [found[f"新{n}？"][0] for n in "一二三"] == ["test", "train", "test"]
    found = judged(project([], split="valid"))
    assert [found[f"新{n}？"][0] for n in "一二三"] == ["valid"] * 3
    assert (found["甲？"][0], found["丙？"][0]) == ("train", "test")


def test_a_table_without_splits_goes_on_without_them(project):
    qa = "uuid,question\np1,甲？\np2,乙？\np3,丙？\n"
    found = project([click("新？", "p4", 1), click("甲？", "p2", 0)], qa)
    assert Path("merged/qa.csv").read_text().splitlines()[0] == "uuid,question,label"
    assert {q: (g, n) for q, (_, g, n) in judged(found).items()} == {
        "甲？": ({"p1": 1}, ["p2"]),
        "乙？": ({"p2": 1}, []),
        "丙？": ({"p3": 1}, []),
        "新？": ({"p4": 1}, []),
    }
    with pytest.raises(InputError, match="names no splits"):
        project([], qa, split="train")


def test_the_table_wins_and_the_majority_of_people_counts(project, capsys):
    found = project(
        [
            click("甲？", "p1", 0),  # the table calls it right
            click("甲？", "p1", 1, "b"),
            click("甲？", "p1", 0, "c"),
            click("乙？", "p2", 1),  # as the table
            click("乙？", "p3", 1),
            click("乙？", "p3", 0, "b"),
            click("乙？", "p3", 0, "c"),
            click("乙？", "p4", 0),
            click("乙？", "p4", 1, "b"),
            click("新？", "p1", 0),
        ]
    )
    assert judged(found) == {
        "甲？": ("train", {"p1": 1}, []),
        "乙？": ("train", {"p2": 1}, ["p3"]),
        "丙？": ("test", {"p3": 1}, []),
    }
    where = "left out data/feedback/2026-11.csv, row"
    assert capsys.readouterr().out.splitlines()[:5] == [
        f"{where} 10: as many people say right as say wrong",
        f"{where} 4: the table calls this passage right; correct it",
        "pairs that the table has already: 1",
        "data/feedback: new pairs: 0 right, 2 wrong",
        "questions with wrong passages alone, which prepare leaves out: 1",
    ]
    assert [(drop["question"], drop["reason"]) for drop in found.dropped] == [
        ("新？", "no relevant passage")
    ]


def test_grades_and_negatives_of_the_table_stay(project):
    qa = "uuid,question,dataset,label\np1,甲？,train,3\np2,甲？,train,0\np3,丙？,test,1\n"
    found = project([click("甲？", "p1", 1), click("甲？", "p2", 1), click("甲？", "p4", 1)], qa)
    assert judged(found)["甲？"] == ("train", {"p1": 3, "p4": 1}, ["p2"])


def test_a_judgement_follows_its_text_and_not_its_id(project, capsys):
    corpus = CORPUS + "p5,手册,正文五\np6,手册,正文五\n"
    found = project(
        [
            click("一？", "old", 1, doc="正文二"),  # now p2
            click("二？", "p4", 1, doc="旧正文四"),  # the text under this id is another one now
            click("三？", "gone", 1, doc="没有了"),
            click("四？", "p6", 1, doc="正文五"),  # merged into p5
            click("五？", "p4", 1),
        ],
        corpus=corpus,
    )
    found = judged(found)
    assert {q: set(found[q][1]) for q in found if q[0] in "一二三四五"} == {
        "一？": {"p2"},
        "四？": {"p5"},
        "五？": {"p4"},
    }
    where = "left out data/feedback/2026-11.csv, row"
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{where} 3: the table has no such passage now",
        f"{where} 4: the table has no such passage now",
    ]


@pytest.mark.parametrize(
    "qa",
    [
        "uuid,question,doc\np1,甲？,正文一\np2,乙？,正文二\np3,丙？,正文三\n",
        "question,doc\n甲？,正文一\n乙？,正文二\n丙？,正文三\n",
        "question,context\n甲？,正文一\n乙？,正文二\n丙？,正文三\n",
    ],
)
def test_a_table_with_its_own_texts_takes_feedback(project, qa):
    (ids,) = [
        {passage["text"]: passage["id"] for passage in found.passages}
        for found in [project([click("甲？", "none", 1, doc="没有")], qa, corpus=None)]
    ]
    assert sorted(ids) == ["正文一", "正文三", "正文二"]
    found = project(
        [
            click("新？", ids["正文一"], 1, doc="正文一"),
            click("甲？", ids["正文二"], 0, doc="正文二"),
            click("乙？", ids["正文三"], 1, doc="正文三"),
        ],
        qa,
        corpus=None,
    )
    assert {q: (g, n) for q, (_, g, n) in judged(found).items()} == {
        "甲？": ({ids["正文一"]: 1}, [ids["正文二"]]),
        "乙？": ({ids["正文二"]: 1, ids["正文三"]: 1}, []),
        "丙？": ({ids["正文三"]: 1}, []),
        "新？": ({ids["正文一"]: 1}, []),
    }
    assert len(found.passages) == 3


def test_columns_with_other_names_and_wanted_kinds_of_questions_stay(project):
    qa = (
        "编号,问题,类型,split\np1,甲？,detailed,train\np2,乙？,brief,train\np3,丙？,detailed,test\n"
    )
    mapping = {"uuid": "编号", "question": "问题", "qa_type": "类型", "dataset": "split"}
    changes = {"columns": {"qa": mapping}, "qa_types": ["detailed"]}
    found = project([click("新？", "p4", 1), click("甲？", "p2", 0)], qa, **changes)
    assert judged(found) == {
        "甲？": ("train", {"p1": 1}, ["p2"]),
        "新？": ("train", {"p4": 1}, []),
        "丙？": ("test", {"p3": 1}, []),
    }
    assert Path("merged/qa.csv").read_text().splitlines()[4:] == [
        "p4,新？,detailed,train,1",
        "p2,甲？,detailed,,0",
    ]


def test_data_in_another_form_takes_feedback(tmp_path, project):
    """The merged folder has plain tables, which say the same as BEIR's files."""
    raw = tmp_path / "beir"
    (raw / "qrels").mkdir(parents=True)
    (raw / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": f"d{n}", "title": "T", "text": f"text {n}"}) + "\n" for n in "123"
        )
    )
    (raw / "queries.jsonl").write_text(
        '{"_id": "1", "text": "one?"}\n{"_id": "2", "text": "two?"}\n'
    )
    for split, line in (("train", "1\td1\t2"), ("test", "2\td2\t1")):
        (raw / f"qrels/{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{line}\n")
    project([click("甲？", "p4", 1)])
    Feedback(Path("data/feedback")).keep(Judgement("one?", "d3", 0), NOON)
    Feedback(Path("data/feedback")).keep(Judgement("three?", "d3", 1), NOON)
    merge_feedback(raw, Path("from-beir"))
    found = prepared(Path("from-beir"))
    assert judged(found) == {
        "one?": ("train", {"d1": 2}, ["d3"]),
        "three?": ("train", {"d3": 1}, []),
        "two?": ("test", {"d2": 1}, []),
    }
    assert [question["id"] for question in found.questions["test"]] == ["2"]


def test_the_merged_folder_is_made_again_but_no_other_is_replaced(project):
    project([click("新？", "p4", 1)])
    first = Path("merged/qa.csv").read_bytes()
    assert sorted(path.name for path in Path("merged").iterdir()) == [
        "README.md",
        "corpus.csv",
        "qa.csv",
    ]
    project([click("新？", "p4", None), click("新新？", "p4", 1)])
    assert Path("merged/qa.csv").read_bytes() == first.replace("新？".encode(), "新新？".encode())
    for change in ("merged/qa.csv", "merged/README.md", "merged/more.csv"):
        project([])
        Path(change).open("a").write("我的\n")
        before = {path: path.read_bytes() for path in Path("merged").iterdir()}
        with pytest.raises(InputError, match="is not as tunerank feedback writes it"):
            project([])
        assert {path: path.read_bytes() for path in Path("merged").iterdir()} == before
        for path in before:
            path.unlink()
    for folder in (Path("table"), Path("./table/../table")):
        with pytest.raises(InputError, match="the table itself"):
            merge_feedback(Path("table"), folder)
    with pytest.raises(InputError, match="is a file; name a folder"):
        merge_feedback(Path("table"), Path("params.yaml"))


def test_feedback_that_is_missing_or_no_table_of_feedback_is_named(project):
    with pytest.raises(InputError, match=r"^data/feedback: no feedback \(\*\.csv\)"):
        project([])
    Path("data/feedback").mkdir(parents=True)
    Path("data/feedback/mine.csv").write_text("question,label\n甲？,1\n")
    with pytest.raises(InputError, match=r"^data/feedback/mine.csv: no column 'uuid' among"):
        project([])
    Path("data/feedback/mine.csv").write_text("question,uuid,label\n甲？,p4,ja\n")
    with pytest.raises(InputError, match=r"^data/feedback/mine.csv, row 2: label 'ja'"):
        project([])
    assert not Path("merged").exists()


def test_feedback_that_went_through_excel_is_read(project):
    Path("data/feedback").mkdir(parents=True)
    Path("data/feedback/2026-11.csv").write_bytes(
        "when;who;question;uuid;label;doc\n28.11.2026;王芳;新的问题？;p4;1;正文四\n".encode(
            "gb18030"
        )
    )
    assert judged(project([]))["新的问题？"] == ("train", {"p4": 1}, [])


def test_the_table_of_a_month_is_read_by_the_readers(tmp_path):
    Feedback(tmp_path).keep(Judgement("甲？", "p1", 1, "王", "正文"), NOON)
    table = read_table(tmp_path / "2026-11.csv")
    assert table.to_dict("records") == [
        {
            "when": "2026-11-28T12:00:00Z",
            "who": "王",
            "question": "甲？",
            "uuid": "p1",
            "label": "1",
            "doc": "正文",
        }
    ]
