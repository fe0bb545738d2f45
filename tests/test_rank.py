"""Test ranking with a checkpoint from the shell and from Python."""

import gc
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, git, hears_ctrl_c, table_rows
from packing import pack
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunerank.commands.app import UsageError, call
from tunerank.core.errors import InputError
from tunerank.data.passages import Passage
from tunerank.evaluation.systems import rank_rerankers
from tunerank.models.checkpoint import save
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.params.load import load
from tunerank.ranker import Ranker
from tunerank.reranking import maxp
from tunerank.searching import weights as weights_module

DOCS = list(dict.fromkeys(row["doc"] for row in table_rows()))
QUERY = "船是什么颜色？"


@pytest.fixture(scope="module")
def viewing(tiny_model, tmp_path_factory):
    """Return the tiny model with the settings of a training on views of 10 characters."""
    model, folder = (
        AutoModelForSequenceClassification.from_pretrained(tiny_model),
        tmp_path_factory.mktemp("viewing"),
    )
    model.config.reranker = {
        "max_length": 40,
        "shown": 10,
        "window": 8,
        "stride": 4,
        "views": 2,
        "views_depth": 1,
        "title": True,
    }
    save(model, AutoTokenizer.from_pretrained(tiny_model), folder)
    return folder


def test_a_checkpoint_without_views_ranks_whole_passages(tiny_model):
    scores = CrossEncoder(tiny_model, 128, "fp32").score([(QUERY, doc) for doc in DOCS])
    found = Ranker(tiny_model, "fp32").rank(QUERY, DOCS)
    assert [ranked.index for ranked in found] == sorted(range(len(DOCS)), key=lambda i: -scores[i])
    assert [ranked.score for ranked in found] == pytest.approx(
        sorted(scores, reverse=True), abs=1e-5
    )
    assert found[0].view == DOCS[found[0].index]


def test_a_passage_has_the_score_of_its_best_view(viewing):
    """Views have the title and 10 characters and start every 5 characters.

    The last view ends with the text.
    """
    encoder, best = CrossEncoder(viewing, 40, "fp32"), {}
    for index, doc in enumerate(DOCS):
        starts = [*range(0, len(doc) - 10, 5), None]
        texts = [
            "手册。"
            f"{doc[start : start + 10] if start is not None else doc[5 * (len(starts) - 1) :]}"
            for start in starts
        ]
        scores = encoder.score([(QUERY, text) for text in texts])
        best[index] = (max(scores), texts[scores.argmax()])
    found = Ranker(viewing, "fp32").rank(QUERY, [Passage("手册", doc) for doc in DOCS], top_k=5)
    assert [ranked.index for ranked in found] == sorted(best, key=lambda i: -best[i][0])[:5]
    assert [(ranked.score, ranked.view) for ranked in found] == [
        (pytest.approx(best[r.index][0], abs=1e-5), best[r.index][1]) for r in found
    ]


def test_equal_scores_keep_their_order_and_many_queries_rank_like_one_by_one(viewing):
    ranker = Ranker(viewing)
    assert [ranked.index for ranked in ranker.rank(QUERY, ["红色的车"] * 3)] == [0, 1, 2]
    queries = [QUERY, "车卖多少元？"]
    together, alone = (
        ranker.rank_many(queries, DOCS, 3),
        [ranker.rank(query, DOCS, 3) for query in queries],
    )
    assert [[r.index for r in found] for found in together] == [
        [r.index for r in found] for found in alone
    ]
    assert together[0] != together[1]


def test_a_packed_reranker_can_rank(tiny_model, tmp_path):
    pack(
        tiny_model, tmp_path / "packed", list(range(len(AutoTokenizer.from_pretrained(tiny_model))))
    )
    packed, plain = (
        Ranker(folder, "fp32").rank(QUERY, DOCS) for folder in (tmp_path / "packed", tiny_model)
    )
    assert [ranked.score for ranked in packed] == pytest.approx(
        [ranked.score for ranked in plain], abs=0.05
    )


def given(monkeypatch, content: bytes) -> None:
    """Put content on standard input, whose encoding is GBK as in a Chinese Windows."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="gbk"))


def said(capsys, *arguments: str) -> str:
    call("rank", *map(str, arguments))
    return capsys.readouterr().out


def test_files_of_every_kind_give_the_same_ranking(tiny_model, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text("\n\n".join(DOCS) + "\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text(
        "uuid,doc\n" + "".join(f"p{i},{doc}\n" for i, doc in enumerate(DOCS)), encoding="utf-8"
    )
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": doc}) + "\n" for doc in DOCS), encoding="utf-8"
    )
    results = [
        json.loads(said(capsys, tiny_model, QUERY, tmp_path / name, "--json"))
        for name in ("a.txt", "a.csv", "a.jsonl")
    ]
    for arguments in ((), ("-",)):
        given(monkeypatch, "\n".join(DOCS).encode())
        results.append(json.loads(said(capsys, tiny_model, QUERY, *arguments, "--json")))
    order = [ranked.index for ranked in Ranker(tiny_model).rank(QUERY, DOCS, 10)]
    names = ("a.txt:{}", "p{}", "a.jsonl:{}", "stdin:{}", "stdin:{}")
    for result, name in zip(results, names, strict=True):
        assert result["query"] == QUERY and [row["rank"] for row in result["ranked"]] == list(
            range(1, 11)
        )
        assert [row["passage"] for row in result["ranked"]] == [DOCS[i] for i in order]
        line = {"a.txt:{}": lambda i: 2 * i + 1, "p{}": lambda i: i}.get(name, lambda i: i + 1)
        assert [row["id"] for row in result["ranked"]] == [name.format(line(i)) for i in order]


def test_a_batch_of_queries_shows_the_requested_number_of_passages(tiny_model, tmp_path, capsys):
    (tmp_path / "queries.txt").write_text(f"{QUERY}\n\n车卖多少元？\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("\n".join(DOCS), encoding="utf-8")
    out = said(
        capsys, tiny_model, tmp_path / "queries.txt", tmp_path / "a.txt", "--batch", "--top-k", "2"
    ).splitlines()
    assert [line for line in out if line.startswith("#")] == [
        f"# {QUERY}",
        "# 车卖多少元？",
    ] and len(out) == 6
    assert out[1].split()[0] == "1" and out[2].split()[0] == "2"
    assert len(
        said(capsys, tiny_model, QUERY, tmp_path / "a.txt", "--top-k", "0").splitlines()
    ) == len(DOCS)


def test_a_passage_of_several_lines_is_shown_in_one_line(tiny_model, tmp_path, capsys):
    (tmp_path / "a.csv").write_text('uuid,doc\np1,"红色的车\n\n蓝色的船"\n', encoding="utf-8")
    (line,) = said(capsys, tiny_model, QUERY, tmp_path / "a.csv").splitlines()
    assert line.split(maxsplit=2)[2] == "p1  红色的车 蓝色的船"


def test_a_table_of_questions_lists_its_passages_once(tiny_model, tmp_path, capsys):
    rows = "uuid,question,doc\np1,甲,红色的车\np1,乙,红色的车\np2,丙,蓝色的船\np1,丁,红色的车\n"
    (tmp_path / "qa.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "more.txt").write_text("蓝色的船\n绿色的灯\n蓝色的船\n", encoding="utf-8")
    arguments = (tiny_model, QUERY, tmp_path / "qa.csv", tmp_path / "more.txt", "--json")
    ranked = json.loads(said(capsys, *arguments))["ranked"]
    assert sorted((row["id"], row["passage"]) for row in ranked) == [
        ("more.txt:2", "绿色的灯"),
        ("p1", "红色的车"),
        ("p2", "蓝色的船"),
    ]


@pytest.mark.parametrize(
    "query, options",
    [
        ("-5度能用吗", ()),
        ("-5度能用吗", ("--top-k", "1")),
        ("-20", ()),
        ("--5度", ()),
        ("-a股行情", ()),
        ("-v2 适配器", ()),
        ("-v2", ("--",)),
        ("--top-k", ("--",)),
    ],
)
def test_a_query_may_begin_with_a_hyphen(tiny_model, tmp_path, capsys, query, options):
    (tmp_path / "a.txt").write_text("红色的车\n蓝色的船\n", encoding="utf-8")
    found = json.loads(said(capsys, "--json", *options, tiny_model, query, tmp_path / "a.txt"))
    assert found["query"] == query and len(found["ranked"]) == (1 if "1" in options else 2)


@pytest.mark.parametrize("name", ["--topk", "--bach", "-k", "--jsn=1", "-json"])
def test_a_word_that_looks_like_an_option_must_be_one(tiny_model, name):
    with pytest.raises(UsageError) as error:
        call("rank", str(tiny_model), QUERY, name)
    wanted = f"no such option: {name.partition('=')[0]}; -- ends the options"
    assert error.value.format_message() == wanted


@pytest.mark.parametrize(
    "name, content",
    [
        ("q.csv", "question,answer\n车卖多少元？,3\n船是什么颜色？,蓝\n车卖多少元？,3\n"),
        ("q.csv", "id,query\n1,车卖多少元？\n2,船是什么颜色？\n"),
        ("q.jsonl", '{"query": "车卖多少元？"}\n{"query": ""}\n{"query": "船是什么颜色？"}\n'),
        ("q.txt", "车卖多少元？\n\n船是什么颜色？\n"),
    ],
)
def test_queries_of_a_table_are_ranked_too(tiny_model, tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "a.txt").write_text("红色的车\n蓝色的船\n", encoding="utf-8")
    out = said(capsys, tiny_model, "--batch", tmp_path / name, tmp_path / "a.txt", "--json")
    assert [json.loads(line)["query"] for line in out.splitlines()] == [
        "车卖多少元？",
        "船是什么颜色？",
    ]


def test_queries_may_come_from_standard_input(tiny_model, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text("红色的车\n蓝色的船\n", encoding="utf-8")
    given(monkeypatch, "车卖多少元？\n".encode())
    out = said(capsys, tiny_model, "--batch", "-", tmp_path / "a.txt", "--json")
    assert json.loads(out)["query"] == "车卖多少元？"


@pytest.mark.parametrize(
    "content, message",
    [
        ("红色的车".encode("gbk"), "standard input: not UTF-8; give a file, or convert it"),
        ("红色的车".encode("utf-16"), "standard input: not UTF-8; give a file, or convert it"),
        (b" \n\n", "standard input: there is no passage to rank"),
    ],
)
def test_standard_input_that_cannot_be_ranked_is_refused(tiny_model, monkeypatch, content, message):
    given(monkeypatch, content)
    with pytest.raises(InputError) as error:
        call("rank", str(tiny_model), QUERY)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("MODEL", QUERY, "none.txt"), "none.txt: no such file"),
        (
            ("MODEL", QUERY, "a.md"),
            "a.md: cannot read '.md' tables; use one of .csv, .xlsx, .jsonl, .parquet, .json, .txt",
        ),
        (
            ("MODEL", "q.doc", "a.txt", "--batch"),
            "q.doc: cannot read '.doc' tables; use one of .csv, .xlsx, .jsonl, .parquet, .json, "
            ".txt",
        ),
        (
            ("MODEL", "a.csv", "a.txt", "--batch"),
            "a.csv: no column question or query among 'uuid', 'words'; rename that of the queries",
        ),
        (
            ("MODEL", QUERY, "-", "-"),
            re.escape("standard input (-) can be read once; give a file for the other"),
        ),
        (
            ("MODEL", "-", "--batch"),
            re.escape("standard input (-) can be read once; give a file for the other"),
        ),
        (
            ("MODEL", QUERY, "a.csv"),
            "a.csv: no column doc or text or passage among 'uuid', 'words'",
        ),
        (("MODEL", QUERY, "empty.txt"), "empty.txt: there is no passage to rank"),
        (("MODEL", "  ", "a.txt"), "^the query is empty$"),
        (("MODEL", "empty.txt", "a.txt", "--batch"), "empty.txt: there is no query in it"),
        (
            ("FOLDER", QUERY, "a.txt"),
            "no config.json, so no checkpoint; give a folder such as models/reranker",
        ),
    ],
)
def test_files_and_queries_that_cannot_be_ranked_are_refused(
    tiny_model, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("红色的车", encoding="utf-8")
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "a.csv").write_text("uuid,words\n1,红色的车\n", encoding="utf-8")
    for name in ("a.md", "q.doc"):
        (tmp_path / name).write_text("红色的车\n", encoding="utf-8")
    names = {"MODEL": str(tiny_model), "FOLDER": str(tmp_path)}
    with pytest.raises(InputError, match=message):
        call("rank", *(names.get(argument, argument) for argument in arguments))


def test_garbage_collection_is_enabled_again_after_loading_or_a_failure(
    tiny_model, tmp_path, capsys
):
    (tmp_path / "a.csv").write_text("uuid,doc\n1,红色的车\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("红色的车\n", encoding="utf-8")
    said(capsys, tiny_model, QUERY, tmp_path / "a.csv")
    assert gc.isenabled()
    with pytest.raises(InputError):
        call("rank", str(tmp_path), QUERY, str(tmp_path / "a.txt"))
    assert gc.isenabled()


def test_an_error_is_one_line_and_a_result_goes_to_standard_output(tiny_model):
    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "tunerank", "rank", *arguments]
        return subprocess.run(
            command, cwd=ROOT / "src", input=given, capture_output=True, text=True
        )

    done = run(str(tiny_model), QUERY, given="红色的车\n蓝色的船\n")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2 and done.stderr == ""
    failed = run(str(tiny_model), QUERY)
    assert (
        failed.returncode == 1
        and failed.stderr == "error: standard input: there is no passage to rank\n"
    )


# Scores of a first stage


def logits(folder: Path, texts: list[str] = DOCS) -> list[float]:
    """Return the logits of whole passages, rounded as in the fused row."""
    return [round(float(one), 4) for one in CrossEncoder(folder, 128, "fp32").score(
        [(QUERY, text) for text in texts])]  # fmt: skip


SCORES = [((7 * place) % 12) / 10 for place in range(len(DOCS))]


def test_the_order_is_by_the_weighted_sum_of_logit_and_scores(tiny_model):
    ranker, own = Ranker(tiny_model, "fp32"), logits(tiny_model)
    for first, second in ((1.0, 0.0), (0.0, 1.0), (1.5, 2.25), (0.01, 100.0)):
        sums = [first * logit + second * score for logit, score in zip(own, SCORES)]
        wanted = sorted(range(len(DOCS)), key=lambda place: -sums[place])
        found = ranker.rank(QUERY, DOCS, None, SCORES, (first, second))
        assert [one.index for one in found] == wanted
        assert [one.score for one in found] == pytest.approx([sums[i] for i in wanted], abs=1e-3)
        assert [one.logit for one in found] == pytest.approx([own[i] for i in wanted], abs=1e-4)
        named = {"reranker": first, "elastic": second}
        assert ranker.rank(QUERY, DOCS, 3, SCORES, named) == found[:3]
        assert ranker.rank(QUERY, DOCS, 3, {"elastic": SCORES}, named) == found[:3]
    tied = ranker.rank(QUERY, ["红色的车"] * 3, None, [0.5, 0.5, 0.7], (1, 1))
    assert [one.index for one in tied] == [2, 0, 1]


def test_it_is_the_order_of_the_row_fused(tiny_model):
    """The oracle is the code of `evaluate`."""
    retrieve = load(ROOT / "tests/params.yaml").retrieve
    retrieve = retrieve.model_copy(update={"run": "own.trec", "shown": 0})
    own, ranker = logits(tiny_model), Ranker(tiny_model, "fp32")
    places = sorted(range(len(DOCS)), key=lambda place: -SCORES[place])
    candidates = [
        {"passage": str(place), "run": rank, "run_score": SCORES[place]}
        for rank, place in enumerate(places, 1)
    ]
    scores = {"scores": {"reranker": {str(i): logit for i, logit in enumerate(own)}}}
    for weights in ([1.0, 3.0], [0.2, 11.0]):
        ranked = rank_rerankers(candidates, scores, {"scores": weights}, 50, 50, retrieve)
        texts, mine = [DOCS[i] for i in places], [SCORES[i] for i in places]
        found = ranker.rank(QUERY, texts, None, mine, weights)
        assert [str(places[one.index]) for one in found] == ranked["fused"]


def test_logits_are_rounded_as_the_pipeline_rounds_them():
    assert weights_module.DIGITS == maxp.DIGITS


@pytest.fixture
def repository(tiny_model, tmp_path) -> Path:
    """Return a folder with models/reranker, and metrics with its weights: bm25 has none."""
    shutil.copytree(tiny_model, tmp_path / "models/reranker")
    shutil.copytree(tiny_model, tmp_path / "models/base")
    (tmp_path / "metrics").mkdir()
    weights = {"fusion_weights": {"reranker": 2.0, "dense": 3.0, "bm25": 0.0}}
    (tmp_path / "metrics/eval.json").write_text(json.dumps(weights), encoding="utf-8")
    return tmp_path


def test_the_weights_of_the_run_belong_to_its_checkpoint_alone(repository, monkeypatch):
    monkeypatch.chdir(repository / "models")
    ranker = Ranker("reranker", "fp32")
    assert ranker.weights == {"reranker": 2.0, "dense": 3.0, "bm25": 0.0}
    found = ranker.rank(QUERY, DOCS, 5, {"dense": SCORES})
    assert found == ranker.rank(QUERY, DOCS, 5, SCORES, (2, 3))
    both = {"bm25": list(reversed(SCORES)), "dense": SCORES}
    assert ranker.rank(QUERY, DOCS, 5, both) == found
    assert Ranker("base", "fp32").weights is None


@pytest.mark.parametrize(
    "first_stage, weights, said",
    [
        (SCORES, None, "the fusion weights are of dense, bm25: name the first stage's scores so "
         "(dense at least), or give other weights"),
        ({"elastic": SCORES}, None, "the fusion weights are of dense, bm25: name"),
        ({"bm25": SCORES}, None, "the fusion weights are of dense, bm25: name"),
        (SCORES[:-1], (1, 1), "first_stage: 11 scores for 12 passages; give one for each"),
        ({"dense": []}, None, "dense: 0 scores for 12 passages; give one for each"),
        ([*SCORES[:-1], float("nan")], (1, 1), "first_stage: score 12 is nan; give a finite"),
        ([None, *SCORES[1:]], (1, 1), "first_stage: score 1 is None; give a finite number"),
        (["0.5 ", "half", *SCORES[2:]], (1, 1), "first_stage: score 2 is 'half'; give a finite"),
        ([True, *SCORES[1:]], (1, 1), "first_stage: score 1 is True; give a finite number"),
        (SCORES, (1,), "1 weights for the reranker and first_stage; give 2, the reranker's first"),
        (SCORES, (1, float("inf")), "weight 2 is inf; give a finite number"),
        (SCORES, {"dense": 1}, "weights: 'reranker' is missing"),
        (SCORES, {"reranker": 1, "dense": "x"}, "weight of dense is 'x'; give a finite number"),
        (None, (1, 1), "weights are for scores of a first stage; pass first_stage too"),
    ],
)  # fmt: skip
def test_scores_and_weights_that_do_not_fit_are_refused(repository, first_stage, weights, said):
    ranker = Ranker(repository / "models/reranker", "fp32")
    with pytest.raises(InputError) as error:
        ranker.rank(QUERY, DOCS, 5, first_stage, weights)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_without_weights_a_checkpoint_says_what_to_give(tiny_model):
    with pytest.raises(InputError) as error:
        Ranker(tiny_model, "fp32").rank(QUERY, DOCS, first_stage=SCORES)
    assert str(error.value) == (
        "there are no fusion weights beside this checkpoint: give those of its logit and of the "
        "first stage's scores, or rank with a folder of tunerank export"
    )


@pytest.mark.parametrize("content", ["{}", "", '{"fusion_weights": {"dense": 1}}',
                                     '{"fusion_weights": {"reranker": "x"}}', "[]"])  # fmt: skip
def test_damaged_weights_are_an_error_where_they_are_needed(repository, capsys, content):
    (repository / "metrics/eval.json").write_text(content, encoding="utf-8")
    (repository / "a.csv").write_text("doc,dense\n红色的车,1\n", encoding="utf-8")
    arguments = (repository / "models/reranker", QUERY, repository / "a.csv")
    assert len(said(capsys, *arguments).splitlines()) == 1
    with pytest.raises(InputError, match="eval.json: no fusion weights"):
        said(capsys, *arguments, "--first-stage", "dense")


def hits(folder: Path, column: str = "score") -> Path:
    rows = "".join(f"p{i},{doc},{score}\n" for i, (doc, score) in enumerate(zip(DOCS, SCORES)))
    (folder / "hits.csv").write_text(f"id,doc,{column}\n{rows}", encoding="utf-8")
    return folder / "hits.csv"


def test_columns_of_a_table_are_added_by_the_command(repository, capsys):
    model = repository / "models/reranker"
    wanted = Ranker(model).rank(QUERY, DOCS, 4, {"dense": SCORES})
    for column, options in (
        ("dense", ("--first-stage", "dense")),
        ("dense", ("--first-stage", "dense", "--weights", "2,3")),
        ("score", ("--weights", "2, 3")),
        ("rank_score", ("--first-stage", "rank_score", "--weights", "2.0,3e0")),
    ):
        out = said(
            capsys, model, QUERY, hits(repository, column), "--json", "--top-k", "4", *options
        )
        rows = json.loads(out)["ranked"]
        assert [row["id"] for row in rows] == [f"p{one.index}" for one in wanted]
        assert [row["score"] for row in rows] == [round(one.score, 4) for one in wanted]
        assert [row["logit"] for row in rows] == [round(one.logit, 4) for one in wanted]
        assert [row["first_stage"] for row in rows] == [
            {column: SCORES[one.index]} for one in wanted
        ]
    plain = json.loads(said(capsys, model, QUERY, hits(repository), "--json"))["ranked"]
    assert set(plain[0]) == {"rank", "score", "id", "passage"}


def test_a_column_score_is_used_where_the_run_had_one_search_of_its_own(repository, capsys):
    weights = {"fusion_weights": {"reranker": 2.0, "elastic": 3.0}}
    (repository / "metrics/eval.json").write_text(json.dumps(weights), encoding="utf-8")
    model = repository / "models/reranker"
    wanted = Ranker(model).rank(QUERY, DOCS, 4, SCORES)
    call("rank", str(model), QUERY, str(hits(repository)), "--json", "--top-k", "4")
    out, err = capsys.readouterr()
    assert [row["id"] for row in json.loads(out)["ranked"]] == [f"p{one.index}" for one in wanted]
    assert "ordered by logit and column score, by the weights of the run" in err
    (repository / "more.txt").write_text("另一段\n", encoding="utf-8")
    files = (hits(repository), repository / "more.txt")
    plain = json.loads(said(capsys, model, QUERY, *files, "--json"))["ranked"]
    assert "logit" not in plain[0]


@pytest.mark.parametrize(
    "options, said_line",
    [
        (("--first-stage", "score"), "the fusion weights are of dense, bm25: name"),
        (("--first-stage", "none"), "p0: no column 'none' of a first stage's scores there"),
        (("--weights", "1,x"), "--weights is 'x'; give a finite number"),
        (("--weights", "1"), "1 weights for the reranker and score; give 2, the reranker's first"),
        (("--weights", ""), "--weights is ''; give a finite number"),
        (("--batch", "--weights", "1,1"), "--first-stage is for one query: a column has"),
        (("bad.csv", "--weights", "1,1"), "bad.csv, row 3: the cell of score is ''; give a finite"),
        (("more.txt", "--weights", "1,1"), "more.txt:1: no column 'score' of a first stage's"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_added_are_refused(repository, monkeypatch, options, said_line):
    monkeypatch.chdir(repository)
    hits(repository)
    (repository / "bad.csv").write_text("doc,score\n甲,1\n乙,\n", encoding="utf-8")
    (repository / "more.txt").write_text("另一段\n", encoding="utf-8")
    query = "more.txt" if "--batch" in options else QUERY
    with pytest.raises(InputError) as error:
        call("rank", "models/reranker", query, "hits.csv", *options)
    assert str(error.value).startswith(said_line) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config, said",
    [
        ({"architectures": ["XLMRobertaModel"]}, "no reranker, its config.json has the "
         "architecture XLMRobertaModel without a classification head; give a cross-encoder, or "
         "fine-tune this one as base"),
        ({"architectures": None}, "no reranker, its config.json has the architecture none"),
        ({"architectures": ["GemmaForCausalLM"]}, "no reranker, its config.json has the"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "a classifier of 3 labels; a reranker"),
        ({"id2label": None}, "a classifier of 2 labels; a reranker has one"),
    ],
)  # fmt: skip
def test_a_checkpoint_whose_head_would_be_drawn_at_random_is_refused(
    tiny_model, tmp_path, config, said
):
    folder = tmp_path / "other"
    shutil.copytree(tiny_model, folder)
    changed = json.loads((folder / "config.json").read_text(encoding="utf-8")) | config
    (folder / "config.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(InputError) as error:
        Ranker(folder, "fp32")
    assert str(error.value).startswith(f"{folder}: {said}") and "\n" not in str(error.value)


# Streams that end, are full, or have another encoding. Each command is a process of its own.

MANY = "".join(f"红色的车{number}号停在很长很长的街上\n" for number in range(4000))
"""A text that is larger than the buffer of a pipe."""


def process(*arguments: str, code: str = "", **options) -> subprocess.Popen:
    """Start the command as a process, which runs `code` first."""
    start = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); "
        "from tunerank.commands.app import main\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", f"{start}{code}\nmain()", *map(str, arguments)]
    return subprocess.Popen(command, **(pipes | {"env": ENVIRONMENT} | options))


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(tiny_model, tmp_path):
    (tmp_path / "many.txt").write_text(MANY, encoding="utf-8")
    command = f"{sys.executable} -m tunerank rank {tiny_model} {QUERY} many.txt --top-k 0 | head -1"
    done = subprocess.run(
        ["bash", "-c", f'{command}; echo "${{PIPESTATUS[*]}}"'],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    first, codes = done.stdout.splitlines()
    assert first.startswith("  1  ") and codes == "141 0"
    assert "error" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("rank", "--help"), ("compare", "main"), ("verify", "--help")]
)
def test_a_reader_that_is_gone_at_the_start_is_not_an_error(tmp_path, arguments):
    committed_ranks(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    started = process(*arguments, stdout=writer, cwd=tmp_path)
    os.close(writer)
    _, err = started.communicate()
    assert (started.returncode, err) == (141, b"")


@pytest.mark.parametrize("arguments", [("--help",), ("compare", "main"), ("compare", "--machine")])
def test_a_full_disk_at_the_output_is_reported_in_one_line(tmp_path, arguments):
    committed_ranks(tmp_path)
    with open("/dev/full", "wb") as full:
        started = process(*arguments, stdout=full, cwd=tmp_path)
        _, err = started.communicate()
    name = "tunerank" if arguments[0] == "--help" else "compare"
    line = f"error: {name}: the disk or its quota is full; free some space, then run it again\n"
    assert (started.returncode, err.decode()) == (1, line)


def test_a_result_comes_before_the_error_that_follows_it(tmp_path):
    committed_ranks(tmp_path)
    started = process(
        "compare", "main", "--require", "better", cwd=tmp_path, stderr=subprocess.STDOUT
    )
    out, _ = started.communicate()
    first, *_, last = out.decode().splitlines()
    assert started.returncode == 1
    assert first == "the working tree against main, fused by MRR@10: no evidence"
    assert last == "error: the working tree is required to be better: no evidence by MRR@10"


@pytest.mark.parametrize("arguments", [("--help",), ("compare", "main")])
def test_a_closed_output_is_not_an_error(tmp_path, arguments):
    committed_ranks(tmp_path)
    started = process(*arguments, cwd=tmp_path, preexec_fn=lambda: os.close(1), stdout=None)
    _, err = started.communicate()
    assert (started.returncode, err) == (0, b"")


@pytest.mark.parametrize("encoding, readable", [("gbk", "红色的车"), ("latin-1", "\\u7ea2")])
def test_characters_that_the_output_cannot_write_are_escaped(tiny_model, encoding, readable):
    env = ENVIRONMENT | {"PYTHONIOENCODING": encoding}
    for options in ((), ("--json",)):
        started = process("rank", tiny_model, QUERY, *options, env=env)
        out, err = started.communicate("红色的车😀ñ\n".encode())
        assert started.returncode == 0, err
        text = out.decode(encoding)
        assert readable in text and "\\ud83d\\ude00" in text
        if options:
            assert json.loads(text)["ranked"][0]["passage"] == "红色的车😀ñ"


@pytest.mark.parametrize(
    "name, patched",
    [
        ("rank", "tunerank.commands.rank.read_passages"),
        ("compare", "tunerank.commands.compare.run_of"),
        ("verify", "tunerank.commands.verify.read_lock"),
    ],
)
def test_ctrl_c_is_reported_in_one_line(tiny_model, name, patched):
    module, _, function = patched.rpartition(".")
    code = (
        f"import time, {module} as module\n"
        f"def wait(*_): print('at work', file=sys.stderr, flush=True); time.sleep(600)\n"
        f"module.{function} = wait"
    )
    arguments = {"rank": (tiny_model, QUERY), "compare": ("main",), "verify": ()}[name]
    started = process(name, *arguments, code=code, preexec_fn=hears_ctrl_c)
    assert started.stderr.readline() == b"at work\n"
    started.send_signal(signal.SIGINT)
    out, err = started.communicate()
    line = f"error: {name}: stopped by Ctrl-C; run it again\n"
    assert (started.returncode, out, err.decode()) == (130, b"", line)


def committed_ranks(folder: Path) -> None:
    """Create a repository with metrics that `compare` can read."""
    (folder / "metrics").mkdir()
    ranks = "id,passage,qa_type,seen,bm25,fused\nq0,p0,detailed,True,1,2\n"
    (folder / "metrics/per_query.csv").write_text(ranks, encoding="utf-8")
    git("init", "-q", "-b", "main", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "run", cwd=folder)
