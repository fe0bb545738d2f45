"""Test candidates from the user's own search: retrieve.run."""

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT, python

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl, write_jsonl
from tunerank.data.passages import Passage, select_views, windows
from tunerank.params.load import load
from tunerank.retrieval.fusion import fused_top_k
from tunerank.retrieval.own_search import OwnSearch
from tunerank.retrieval.retrievers import DenseEncoder
from tunerank.retrieval.runs import read_run

PARAMS = load(ROOT / "tests/params.yaml")
PASSAGES = {
    "p1": Passage("", "苹果手机的价格"),
    "p2": Passage("手册", "Phone P300 保修 两年"),
    "p 3": Passage("", "产地是海南"),
    "100%": Passage("", "纯棉"),
}
QUESTIONS = {
    "train": [{"id": "q1", "question": "手机多少钱？"}, {"id": "q2", "question": "保修几年？"}],
    "valid": [{"id": "q3", "question": "Where is it from?"}],
    "test": [{"id": "q 4", "question": "什么面料？"}],
}
MERGED = {"p1-copy": "p1"}


def read(path: Path, text: str | bytes) -> tuple[dict, list[str]]:
    """Write a run and read it; return it with its orders as lists, and the notes without name."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return listed(path)


def listed(path: Path) -> tuple[dict, list[str]]:
    run, notes = read_run(path, QUESTIONS, PASSAGES, MERGED)
    assert all(note.startswith(f"{path}: ") for note in notes)
    return {key: list(found.items()) for key, found in run.items()}, [
        note.removeprefix(f"{path}: ") for note in notes
    ]


def trec(*lines: str) -> str:
    """Return lines of a TREC run, of `query passage score` each, with their ranks."""
    ranks: dict[str, int] = {}
    made = []
    for line in lines:
        query, passage, score = line.split()
        ranks[query] = ranks.get(query, 0) + 1
        made.append(f"{query} Q0 {passage} {ranks[query]} {score} mine\n")
    return "".join(made)


def jsonl(*rows: tuple) -> str:
    names = ("query", "passage", "score")
    return "".join(json.dumps(dict(zip(names, row)), ensure_ascii=False) + "\n" for row in rows)


def refused(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        read_run(path, QUESTIONS, PASSAGES, MERGED)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    return str(error.value).removeprefix(str(path))


ALL = {"q1": [("p1", 3.5), ("p2", -1.0)], "q2": [("p2", 7.0)], "q3": [("p 3", 1.0)],
       "q 4": [("100%", 2.0)]}  # fmt: skip
FORMS = {
    "trec": "q1 Q0 p1 1 3.5 mine\nq1 Q0 p2 2 -1 mine\n\nq2 Q0 p2 1 7 mine\n"
    "q3 Q0 p%203 1 1e0 mine\nq%204 Q0 100%25 1 2 mine\n",
    "tabs, blanks in names": "q1\tQ0\tp1\t1\t3.5\tmine\r\nq1\tQ0\tp2\t2\t-1\tmine\r\n"
    "q2\tQ0\tp2\t1\t7\tmine\r\nq3\tQ0\tp 3\t1\t1\tmine\r\nq 4\tQ0\t100%\t1\t2\tmine\r\n",
    "not in order": "\ufeff  q1  Q0 p2   2 -1 a\nq 4\tQ0\t100%\t1\t2\ta\nq3\t0\tp 3\t1\t1\ta\n"
    "q2 Q0 p2 1.0 7 a\nq1 Q0 p1 1 3.5 a",
    "jsonl": jsonl(("q1", "p1", 3.5), ("q1", "p2", -1), ("q2", "p2", 7), ("q3", "p 3", "1"),
                   ("q 4", "100%", 2)),
    "jsonl of texts": jsonl(("手机多少钱？", "苹果手机的价格", 3.5),
                            ("手机多少钱? ", "ｐhone P300\n保修两年", -1),
                            ("保修 几年？", "Phone P300 保修 两年", 7),
                            ("WHERE is it  from？", "产地是海南", 1), ("什么面料？", "纯棉", 2)),
    "other ids of passages": jsonl(("q1", "p1-copy", 3.5), ("q1", "p2", -1), ("q2", "p2", 7),
                                   ("q3", "p%203", 1), ("q 4", "100%", 2)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_run_is_read_in_any_form_whatever_its_name(tmp_path, form):
    run, notes = read(tmp_path / "elastic.txt", FORMS[form])
    assert run == ALL and len(notes) == 1
    lines = len([line for line in FORMS[form].split("\n") if line.strip()])
    assert notes == [f"{lines} lines give 4 of 4 questions 1 to 2 candidates"]


def test_numbers_are_ids_too(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"query": 17, "passage": 4, "score": 1}')
    run, _ = read_run(
        tmp_path / "own.jsonl",
        {"test": [{"id": "17", "question": "?"}]},
        {"4": Passage("", "x")},
        {},
    )
    assert run == {"17": {"4": 1.0}}


def test_an_id_wins_over_a_text_and_an_equal_text_serves_all_its_questions(tmp_path):
    """`a` is the id of one question and the text of another; two questions are worded alike."""
    questions = {"test": [{"id": "a", "question": "b c"}, {"id": "x", "question": "a"},
                          {"id": "y", "question": "d"}, {"id": "z", "question": "d"}]}  # fmt: skip
    path = tmp_path / "own.jsonl"
    path.write_text(jsonl(("a", "p1", 1), ("bc", "p2", 2), ("d", "p1", 3), ("A", "p2", 4)))
    run, _ = read_run(path, questions, PASSAGES, {})
    assert run == {
        "a": {"p2": 2.0, "p1": 1.0},
        "x": {"p2": 4.0},
        "y": {"p1": 3.0},
        "z": {"p1": 3.0},
    }


def test_scores_decide_and_equal_ones_keep_the_order_of_the_file(tmp_path):
    run, notes = read(tmp_path / "r", trec("q1 p2 0.5", "q1 p1 0.9", "q1 100% 0.5", "q2 p1 -2"))
    assert run["q1"] == [("p1", 0.9), ("p2", 0.5), ("100%", 0.5)]
    assert notes[1:] == [
        "questions without candidates: 1 valid, 1 test; the first is 'q3', 'Where is it from?'",
        "queries with ranks that are repeated or contradict the scores: 1, such as 'q1'; "
        "the scores count",
    ]


@pytest.mark.parametrize(
    "ranks, wrong",
    [((1, 2, 3), False), ((0, 1, 2), False), ((2, 5, 9), False), ((1, 3, 2), True),
     ((3, 2, 1), True), ((1, 1, 1), True), ((0, 0, 0), True), ((2, 3, 2), True)],
)  # fmt: skip
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_ranks_that_do_not_say_what_the_scores_say_are_named(tmp_path, ranks, wrong, order):
    """Of equal scores either may come first. The order of the lines does not matter."""
    lines = [
        f"q1 Q0 {p} {rank} {s} m" for p, rank, s in zip(("p1", "p2", "100%"), ranks, (9, 8, 7))
    ]
    lines += ["q2 Q0 p1 2 5 m", "q2 Q0 p2 1 5 m"]
    _, notes = read(tmp_path / "r", "\n".join([lines[i] for i in (*order, 3, 4)]))
    assert [note for note in notes if "ranks" in note] == wrong * [
        "queries with ranks that are repeated or contradict the scores: 1, such as 'q1'; "
        "the scores count"
    ]


def test_what_cannot_be_used_is_counted_with_an_example(tmp_path):
    run, notes = read(
        tmp_path / "mine.trec",
        trec("q1 p1 9", "q1 nowhere 8", "q9 p1 7", "q1 p1-copy 6", "q2 nowhere 5", "q9 nowhere 4",
             "q2 100% 3", "q2 elsewhere 2", "q2 100% 4"),
    )  # fmt: skip
    assert run == {"q1": [("p1", 9.0)], "q2": [("100%", 4.0)]}
    assert notes == [
        "9 lines give 2 of 4 questions 1 to 1 candidates",
        "questions without candidates: 1 valid, 1 test; the first is 'q3', 'Where is it from?'",
        "queries that no split has: 1 in 2 lines, such as 'q9' (mine.trec, line 3)",
        "passages that the corpus lacks: 2 in 3 lines, such as 'nowhere' (mine.trec, line 2)",
        "passages that a query has twice: 2, such as 'p1-copy' (mine.trec, line 4); the higher "
        "score counts",
    ]


def test_a_passage_that_comes_again_higher_takes_the_place_of_its_higher_score(tmp_path):
    run, _ = read(tmp_path / "r", trec("q1 p1 1", "q1 p2 5", "q1 p1 5", "q1 p2 5"))
    assert run["q1"] == [("p2", 5.0), ("p1", 5.0)]


def test_all_files_of_a_folder_are_read_but_hidden_ones_and_dvcs(tmp_path):
    folder = tmp_path / "elastic"
    folder.mkdir()
    (folder / "train.trec").write_text(trec("q1 p1 1", "q2 p1 1"))
    (folder / "validation.jsonl").write_text(jsonl(("q3", "p2", 2)))
    (folder / "test").write_text(trec("q%204 p2 3"))
    (folder / "test.dvc").write_text("outs:\n- md5: 0\n")
    (folder / ".gitignore").write_text("/test\n")
    run, notes = listed(folder)
    assert run == {"q1": [("p1", 1.0)], "q2": [("p1", 1.0)], "q3": [("p2", 2.0)],
                   "q 4": [("p2", 3.0)]}  # fmt: skip
    assert notes == ["4 lines give 4 of 4 questions 1 to 1 candidates"]
    (folder / "train.trec").write_text(trec("q1 p1 1", "q2 p1 nan"))
    with pytest.raises(InputError, match=r"1, the first 'nan' \(train.trec, line 2\)"):
        listed(folder)


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "1,5", "0x1", "-"])
def test_a_score_of_a_trec_run_that_is_no_number_is_refused(tmp_path, bad):
    text = trec("q1 p1 1", f"q1 p2 {bad}", f"q9 p2 {bad}", "q2 p1 1")
    assert refused(tmp_path / "r.trec", text) == (
        f": scores that are no finite numbers: 2, the first {bad!r} (r.trec, line 2); correct them "
        "or delete their lines"
    )


@pytest.mark.parametrize(
    "bad, shown",
    [("NaN", "nan"), ("null", "None"), ("true", "True"), ('"high"', "high"), ("[1]", "[1]"),
     ("1" + "0" * 400, "1" + "0" * 38 + "…"), ('{"a": 1}', "{'a': 1}")],
)  # fmt: skip
def test_a_score_of_a_jsonl_run_that_is_no_number_is_refused(tmp_path, bad, shown):
    text = jsonl(("q1", "p1", 1)) + f'\n{{"query": "q1", "passage": "p2", "score": {bad}}}\n'
    assert refused(tmp_path / "r", text) == (
        f": scores that are no finite numbers: 1, the first {shown!r} (r, line 3); correct them "
        "or delete their lines"
    )


FORM = (
    "; a line is `query Q0 passage rank score tag`, with %20 for a blank in an id, or "
    '{"query": ..., "passage": ..., "score": ...}'
)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", ": no line; write the results of a search into it"),
        (" \n\n", ": no line; write the results of a search into it"),
        (trec("q1 p1 1") + "q2 Q0 p2 1 0.5\n", ", line 2: 5 columns where a run has 6" + FORM),
        ("q1 Q0 p 3 1 0.5 m\n", ", line 1: 7 columns where a run has 6" + FORM),
        ("query,passage,score\n", ", line 1: 1 column where a run has 6" + FORM),
        ("q1 Q0 p1 0.5 1 m\n", ", line 1: the rank '0.5' is no whole number" + FORM),
        ("q1 Q0 p1 - 1 m\n", ", line 1: the rank '-' is no whole number" + FORM),
        ("q1 Q0 p\xe9 1 0.5 m\n".encode("latin-1"), ", line 1: not UTF-8; save the file as UTF-8"),
        (trec("q1 p1 1").encode("utf-16"), ", line 1: not UTF-8; save the file as UTF-8"),
        (jsonl(("q1", "p1", 1), ("q1", ["p1"], 1)),
         ", line 2: 'passage' is of type list" + FORM),
        (jsonl((None, "p1", 1)), ", line 1: 'query' is of type NoneType" + FORM),
        ('{"qid": "q1", "passage": "p1", "score": 1}', ", line 1: 'query' is missing" + FORM),
        ('{"query": "q1", "passage": "p1"}',
         ": scores that are no finite numbers: 1, the first 'None' (r, line 1); correct them or "
         "delete their lines"),
        ('[{"query": "q1"}]', ", line 1: expected a JSON object, found list"),
        ('[\n{"query": "q1"}\n]', ": a JSON document, but jsonl has one object in each line; "
         "convert it"),
        (trec("x p1 1", "y p1 1"), ": no query is a question; write the question's id in "
         "data/prepared, such as 'q1', or its text, where 'x' (r, line 1) is"),
        (trec("q1 AV3 1", "x p1 1"), ": no passage is in the corpus; write its id in "
         "data/prepared, such as 'p1', or its text, where 'AV3' (r, line 1) is"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_usable_run_is_refused_in_one_line(tmp_path, text, message):
    assert refused(tmp_path / "r", text) == message


def test_a_missing_run_says_where_it_belongs_and_what_is_there(tmp_path):
    def message(name: str) -> str:
        with pytest.raises(InputError) as error:
            listed(tmp_path / "runs" / name)
        return str(error.value).replace(str(tmp_path), "")

    (tmp_path / "runs/folder").mkdir(parents=True)
    (tmp_path / "runs/.gitkeep").touch()
    said = "no such file; retrieve.run names one in /runs, which has folder"
    assert message("elastic.trec") == f"/runs/elastic.trec: {said}"
    (tmp_path / "runs/elastic.trec.dvc").touch()
    assert message("elastic.trec") == f"/runs/elastic.trec: {said}; run dvc pull"
    assert message("folder") == (
        "/runs/folder: no file in this folder; retrieve.run reads all files in it"
    )
    (tmp_path / "runs/folder").rmdir()
    assert message("other") == f"/runs/other: {said.replace('folder', 'nothing')}"


RETRIEVE = PARAMS.retrieve.model_copy(
    update={"run": "own.trec", "depth": 2, "window": 0, "stride": 0, "shown": 0}
)
CORPUS = {name: Passage("", name * 9) for name in "abcdef"}


def question(key: str, *relevant: str, negatives: tuple[str, ...] = ()) -> dict:
    judged = [{"passage": passage, "grade": 1} for passage in relevant]
    return {"id": key, "question": "?", "relevant": judged, "negatives": list(negatives)}


def candidates(run: dict, asked: list[dict], params=RETRIEVE, encoder=None, corpus=CORPUS) -> list:
    search = OwnSearch(corpus, encoder, params, run, asked)
    return [found for _, found in search.candidates(iter(asked), "test")]


def test_the_head_of_the_run_is_followed_by_judged_passages():
    """Each has its rank and score if it is deeper in the run, and else the lowest score."""
    run = {"q1": {"b": 9.0, "a": 7.5, "f": 7.0, "c": 3.0}, "q2": {"a": -4.0}}
    asked = [question("q1", "d", "c", "b", negatives=("e", "a")), question("q2", "a", "f")]
    found = candidates(run, [*asked, question("q3", "f")])
    assert [[(c["passage"], c["run"], c["run_score"]) for c in one] for one in found] == [
        [("b", 1, 9.0), ("a", 2, 7.5), ("d", None, 3.0), ("c", 4, 3.0), ("e", None, 3.0)],
        [("a", 1, -4.0), ("f", None, -4.0)],
        [("f", None, 0.0)],
    ]
    assert [fused_top_k(one, 2, RETRIEVE) for one in found] == [["b", "a"], ["a"], []]


def test_without_windows_nothing_dense_runs_and_whole_passages_are_read():
    (found,) = candidates({"q1": {"a": 1.0}}, [question("q1", "b")])
    assert not RETRIEVE.dense and found == [
        {"passage": "a", "run": 1, "run_score": 1.0, "dense_score": 0.0, "nearest": (0, 9),
         "views": [(0, 9)]},
        {"passage": "b", "run": None, "run_score": 1.0, "dense_score": 0.0, "nearest": (0, 9),
         "views": [(0, 9)]},
    ]  # fmt: skip


class Counting(DenseEncoder):
    """An encoder that remembers what it has encoded."""

    def encode(self, texts, prefix, what):
        self.encoded = [*getattr(self, "encoded", []), *texts]
        return super().encode(texts, prefix, what)


def test_with_windows_only_candidates_and_judged_passages_are_encoded(tiny_model):
    """Views, nearest windows and dense scores are as a plain loop finds them."""
    settings = PARAMS.retriever.model_copy(update={"precision": "fp32", "max_length": 64})
    encoder = Counting(str(tiny_model), settings)
    params = RETRIEVE.model_copy(
        update={"window": 6, "stride": 3, "shown": 6, "views": 2, "views_depth": 2}
    )
    texts = [
        "红色的车停在一号柜旁边",
        "车的价格是五元钱",
        "保修三年的灯放在柜子里",
        "短",
        "别的",
        "门",
    ]
    corpus = {f"p{i}": Passage("题" if i == 1 else "", text) for i, text in enumerate(texts)}
    asked = [question("q1", "p3"), question("q2", "p2", negatives=("p1",))]
    asked[0]["question"], asked[1]["question"] = "车卖多少元", "保修几年"
    run = {"q1": {"p1": 2.0, "p0": 1.0, "p5": 0.5}, "q2": {"p0": 1.0}}
    found = candidates(run, asked, params, encoder, corpus)
    assert {"别的", "门"} & set(encoder.encoded) == set() and len(encoder.encoded) < 20
    assert [[c["passage"] for c in one] for one in found] == [
        ["p1", "p0", "p3"],
        ["p0", "p2", "p1"],
    ]
    for row, one in zip(asked, found):
        query = encoder.encode([row["question"]], "query: ", "q")[0]
        for place, candidate in enumerate(one):
            passage = corpus[candidate["passage"]]
            spans = windows(passage.text, 6, 3)
            near = encoder.encode([passage.view(*span) for span in spans], "passage: ", "w") @ query
            whole = encoder.encode([passage.view()], "passage: ", "p")[0] @ query
            best = (float(whole) + float(near.max())) / 2
            assert candidate["dense_score"] == pytest.approx(best, abs=1e-4)
            assert candidate["nearest"] == spans[int(near.argmax())]
            views = select_views(spans, near, 6, len(passage.text), 2 if place < 2 else 1)
            assert candidate["views"] == views


@pytest.mark.parametrize(
    "name, stage",
    [("elastic", "elastic"), ("elastic.trec", "elastic"), ("elastic.jsonl", "elastic"),
     ("es.v2.run", "es.v2"), ("bge-v1.5", "bge-v1.5"), (None, None)],
)  # fmt: skip
def test_the_first_stage_is_named_as_the_file_is(name, stage):
    params = RETRIEVE.model_copy(update={"run": name})
    assert params.first_stage == stage
    if stage:
        assert params.parts == ((stage, "run_score"),) and params.lists == [("run", 2, 1.0)]


def test_the_stage_prints_what_is_wrong_and_writes_the_candidates(tmp_path):
    """BM25, jieba and the dense retriever are not needed: models/retriever does not exist."""
    text = (ROOT / "tests/params.yaml").read_text(encoding="utf-8")
    for name, value in {"run": "own.jsonl", "window": 0, "stride": 0, "shown": 0}.items():
        start = text.index("\nretrieve:")
        head, tail = text[:start], text[start:]
        line = next(line for line in tail.splitlines() if line.startswith(f"  {name}:"))
        text = head + tail.replace(line, f"  {name}: {value}", 1)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    corpus = [{"id": "a", "text": "甲", "also": ["b"]}, {"id": "c", "text": "丙"}]
    write_jsonl(tmp_path / "prepared/corpus.jsonl", corpus)
    rows = {
        "train": [question("q1", "c")],
        "valid": [],
        "test": [question("q2", "a", negatives=("c",))],
    }
    for split, questions in rows.items():
        write_jsonl(tmp_path / f"prepared/{split}.jsonl", questions)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/own.jsonl").write_text(jsonl(("q1", "b", 5), ("q1", "x", 4), ("q1", "c", 3)))
    command = [ROOT / "src/retrieve.py", "prepared", "none", "runs", "candidates"]
    done = python(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("runs/")] == [
        "runs/own.jsonl: 3 lines give 1 of 2 questions 2 to 2 candidates",
        "runs/own.jsonl: questions without candidates: 1 test; the first is 'q2', '?'",
        "runs/own.jsonl: passages that the corpus lacks: 1, such as 'x' (own.jsonl, line 2)",
    ]
    found = {
        split: [
            (row["id"], [(c["passage"], c["run"], c["run_score"]) for c in row["candidates"]])
            for row in read_jsonl(tmp_path / f"candidates/{split}.jsonl")
        ]
        for split in rows
    }
    assert found == {
        "train": [("q1", [("a", 1, 5.0), ("c", 2, 3.0)])],
        "valid": [],
        "test": [("q2", [("a", None, 0.0), ("c", None, 0.0)])],
    }
    rows["test"][0]["negatives"] = ["z"]
    write_jsonl(tmp_path / "prepared/test.jsonl", rows["test"])
    done = python(*command, cwd=tmp_path)
    assert (
        done.returncode == 1
        and (
            "error: prepared/test.jsonl: question 'q2' has the negative 'z', which is not in "
            "corpus.jsonl; run dvc repro prepare --force"
        )
        in done.stderr
    )


SERVER = '''
class Elasticsearch:
    """A stand-in for the client: it finds two passages for every question."""

    def __init__(self, hosts):
        assert hosts.startswith("http")

    def search(self, *, index, query, size, source):
        assert query["match"]["text"].endswith(("？", "?")) and size == 50 and source is False
        return {"hits": {"hits": [{"_id": "p1", "_score": 2.5}, {"_id": "p2", "_score": 1.5}]}}
'''


def test_the_lines_of_the_page_write_a_run_that_can_be_read(tmp_path):
    page = (ROOT / "docs/own-search.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "elasticsearch.py").write_text(SERVER, encoding="utf-8")
    for split, questions in QUESTIONS.items():
        write_jsonl(tmp_path / f"data/prepared/{split}.jsonl", questions)
    (tmp_path / "data/runs").mkdir()
    done = python("-c", f"import sys; sys.path.insert(0, '.')\n{code}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run, notes = listed(tmp_path / "data/runs/elastic.jsonl")
    assert run == dict.fromkeys(("q1", "q2", "q3", "q 4"), [("p1", 2.5), ("p2", 1.5)])
    assert notes == ["8 lines give 4 of 4 questions 2 to 2 candidates"]
