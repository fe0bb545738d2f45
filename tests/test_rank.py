"""Ranking from the shell and from Python, by a checkpoint alone."""

import gc
import io
import json
import subprocess
import sys

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from conftest import ROOT, table_rows
from reranker.checkpoints import save
from reranker.errors import InputError
from reranker.packed import pack
from reranker.passages import Passage
from reranker.ranking import Ranker
from reranker.scoring import CrossEncoder

sys.path.insert(0, str(ROOT / "src"))
import rank

DOCS = list(dict.fromkeys(row["doc"] for row in table_rows()))
QUERY = "船是什么颜色？"


@pytest.fixture(scope="module")
def viewing(tiny_model, tmp_path_factory):
    """The tiny model as a fine-tuned one that has learned from views of 10 characters."""
    model, folder = AutoModelForSequenceClassification.from_pretrained(tiny_model), tmp_path_factory.mktemp("viewing")
    model.config.reranker = {"max_length": 40, "shown": 10, "window": 8, "stride": 4, "views": 2, "views_depth": 1, "title": True}
    save(model, AutoTokenizer.from_pretrained(tiny_model), folder)
    return folder


def test_whole_passages_are_ranked_by_a_checkpoint_that_says_nothing_of_views(tiny_model):
    scores = CrossEncoder(tiny_model, 512, "fp32").score([(QUERY, doc) for doc in DOCS])
    found = Ranker(tiny_model, "fp32").rank(QUERY, DOCS)
    assert [ranked.index for ranked in found] == sorted(range(len(DOCS)), key=lambda i: -scores[i])
    assert [ranked.score for ranked in found] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    assert found[0].view == DOCS[found[0].index]


def test_a_passage_is_as_good_as_its_best_view(viewing):
    """Every view of 10 characters, 5 apart, after the title; the last one where the text ends."""
    encoder, best = CrossEncoder(viewing, 40, "fp32"), {}
    for index, doc in enumerate(DOCS):
        starts = [*range(0, len(doc) - 10, 5), None]
        texts = [f"手册。{doc[start : start + 10] if start is not None else doc[5 * (len(starts) - 1) :]}" for start in starts]
        scores = encoder.score([(QUERY, text) for text in texts])
        best[index] = (max(scores), texts[scores.argmax()])
    found = Ranker(viewing, "fp32").rank(QUERY, [Passage("手册", doc) for doc in DOCS], top_k=5)
    assert [ranked.index for ranked in found] == sorted(best, key=lambda i: -best[i][0])[:5]
    assert [(ranked.score, ranked.view) for ranked in found] == [(pytest.approx(best[r.index][0], abs=1e-5), best[r.index][1]) for r in found]


def test_equal_scores_keep_the_order_given_and_many_queries_are_ranked_as_one_by_one(viewing):
    ranker = Ranker(viewing)
    assert [ranked.index for ranked in ranker.rank(QUERY, ["红色的车"] * 3)] == [0, 1, 2]
    queries = [QUERY, "车卖多少元？"]
    together, alone = ranker.rank_many(queries, DOCS, 3), [ranker.rank(query, DOCS, 3) for query in queries]
    assert [[r.index for r in found] for found in together] == [[r.index for r in found] for found in alone]
    assert together[0] != together[1]


def test_a_packed_reranker_is_ranked_by_as_it_is(tiny_model, tmp_path):
    pack(tiny_model, tmp_path / "packed", list(range(len(AutoTokenizer.from_pretrained(tiny_model)))))
    packed, plain = (Ranker(folder, "fp32").rank(QUERY, DOCS) for folder in (tmp_path / "packed", tiny_model))
    assert [ranked.score for ranked in packed] == pytest.approx([ranked.score for ranked in plain], abs=0.05)


def said(capsys, *arguments: str) -> str:
    rank.main(*map(str, arguments))
    return capsys.readouterr().out


def test_files_of_every_kind_give_the_same_ranking(tiny_model, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text("\n\n".join(DOCS) + "\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text("uuid,doc\n" + "".join(f"p{i},{doc}\n" for i, doc in enumerate(DOCS)), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": doc}) + "\n" for doc in DOCS), encoding="utf-8")
    results = [json.loads(said(capsys, tiny_model, QUERY, tmp_path / name, "--json")) for name in ("a.txt", "a.csv", "a.jsonl")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(DOCS)))
    results.append(json.loads(said(capsys, tiny_model, QUERY, "--json")))
    order = [ranked.index for ranked in Ranker(tiny_model).rank(QUERY, DOCS, 10)]
    for result, name in zip(results, ("a.txt:{}", "p{}", "a.jsonl:{}", "stdin:{}")):
        assert result["query"] == QUERY and [row["rank"] for row in result["ranked"]] == list(range(1, 11))
        assert [row["passage"] for row in result["ranked"]] == [DOCS[i] for i in order]
        line = {"a.txt:{}": lambda i: 2 * i + 1, "p{}": lambda i: i}.get(name, lambda i: i + 1)
        assert [row["id"] for row in result["ranked"]] == [name.format(line(i)) for i in order]


def test_a_batch_of_queries_and_the_number_of_passages_shown(tiny_model, tmp_path, capsys):
    (tmp_path / "queries.txt").write_text(f"{QUERY}\n\n车卖多少元？\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("\n".join(DOCS), encoding="utf-8")
    out = said(capsys, tiny_model, tmp_path / "queries.txt", tmp_path / "a.txt", "--batch", "--top-k", "2").splitlines()
    assert [line for line in out if line.startswith("#")] == [f"# {QUERY}", "# 车卖多少元？"] and len(out) == 6
    assert out[1].split()[0] == "1" and out[2].split()[0] == "2"
    assert len(said(capsys, tiny_model, QUERY, tmp_path / "a.txt", "--top-k", "0").splitlines()) == len(DOCS)


def test_a_passage_of_several_lines_is_shown_in_one(tiny_model, tmp_path, capsys):
    (tmp_path / "a.csv").write_text('uuid,doc\np1,"红色的车\n\n蓝色的船"\n', encoding="utf-8")
    (line,) = said(capsys, tiny_model, QUERY, tmp_path / "a.csv").splitlines()
    assert line.split(maxsplit=2)[2] == "p1  红色的车 蓝色的船"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("MODEL", QUERY, "none.txt"), "none.txt: no such file"),
        (("MODEL", QUERY, "a.csv"), "a.csv: no column doc or text or passage among 'uuid', 'words'"),
        (("MODEL", QUERY, "empty.txt"), "empty.txt: there is no passage to rank"),
        (("MODEL", "  ", "a.txt"), "there is no query in it"),
        (("MODEL", "empty.txt", "a.txt", "--batch"), "empty.txt: there is no query in it"),
        (("FOLDER", QUERY, "a.txt"), "no config.json, so no checkpoint; give a folder such as models/reranker"),
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_is_refused(tiny_model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("红色的车", encoding="utf-8")
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "a.csv").write_text("uuid,words\n1,红色的车\n", encoding="utf-8")
    names = {"MODEL": str(tiny_model), "FOLDER": str(tmp_path)}
    with pytest.raises(InputError, match=message):
        rank.main(*(names.get(argument, argument) for argument in arguments))


def test_garbage_is_collected_again_once_all_is_loaded_or_failed(tiny_model, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("uuid,doc\n1,红色的车\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("红色的车\n", encoding="utf-8")
    said(capsys, tiny_model, QUERY, tmp_path / "a.csv")
    assert gc.isenabled()
    with pytest.raises(InputError):
        rank.main(str(tmp_path), QUERY, str(tmp_path / "a.txt"))
    assert gc.isenabled()


def test_an_error_is_one_line_and_a_result_goes_to_standard_output(tiny_model):
    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "src/rank.py"), *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True)

    done = run(str(tiny_model), QUERY, given="红色的车\n蓝色的船\n")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2
    failed = run(str(tiny_model), QUERY)
    assert failed.returncode == 1 and failed.stderr == "error: standard input: there is no passage to rank\n"
