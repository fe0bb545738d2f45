"""Test that `Searcher` ranks as `evaluate` did, and what it keeps, refuses and says."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, error_of, python
from searched import evaluated, own_results, questions, ranks

from tunerank import Searcher
from tunerank.core.files import read_jsonl
from tunerank.data.passages import Passage, windows
from tunerank.evaluation.systems import fused_names
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.params.load import load
from tunerank.retrieval.retrievers import DenseEncoder

SYSTEMS = (
    *("bm25", "dense", "retriever", "base", "twin", "reranker", "fused"),
    *("base_whole", "twin_whole", "reranker_whole", "fused_whole"),
)
QUERY = "船是什么颜色？"


@pytest.fixture(scope="module")
def searcher(home) -> Searcher:
    return Searcher(home)


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Return a list that gets the texts that any dense encoder encodes."""
    texts: list[str] = []
    encode = DenseEncoder.encode

    def remembering(self, given, prefix, what):
        texts.extend(given)
        return encode(self, given, prefix, what)

    monkeypatch.setattr(DenseEncoder, "encode", remembering)
    return texts


def copied(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home, tmp_path / "copy", symlinks=True))


# The same ranks


def test_the_systems_are_those_of_the_table_in_its_order(searcher, home):
    result = json.loads((home / "metrics/eval.json").read_text(encoding="utf-8"))
    assert (
        searcher.systems == SYSTEMS == tuple(name for name in result["all"] if name != "questions")
    )


def test_every_ranking_of_every_system_is_that_of_evaluate(searcher, home):
    """Query by query, all together, and in the batches of the stages."""
    asked, wanted = questions(home), evaluated(home)
    texts = [row["question"] for row in asked]
    together = searcher.rankings(texts)
    assert set(wanted) == set(SYSTEMS) == set(together) and len(asked) == 9
    for system in SYSTEMS:
        expected = [wanted[system][row["id"]] for row in asked]
        many = searcher.search_many(texts, 8, system)
        one_by_one = [searcher.search(text, 8, system) for text in texts]
        for found in (many, one_by_one):
            assert [[one.passage for one in of_query] for of_query in found] == expected, system
        assert together[system] == expected, system
    assert len({json.dumps(wanted[system]) for system in SYSTEMS}) > 5


def test_the_ranks_are_those_of_per_query_csv(searcher, home):
    texts = {row["id"]: row["question"] for row in questions(home)}
    rows = ranks(home)
    for system in SYSTEMS:
        for row in rows:
            found = searcher.search(texts[row["id"]], 8, system)
            places = {one.passage: str(one.rank) for one in found}
            assert places.get(row["passage"], "") == row[system]
    assert len(rows) == 9 and {row["fused"] for row in rows} != {""}


def test_fewer_results_are_the_head_of_more(searcher):
    all_of_them = searcher.search(QUERY, 100)
    assert [one.rank for one in all_of_them] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert searcher.search(QUERY, 3) == all_of_them[:3] == searcher.search(f" {QUERY}\n", 3)
    assert len(searcher.search(QUERY)) == 5
    assert len(searcher.search(QUERY, 100, "fused_whole")) == 5  # score.whole_depth


def test_a_query_that_no_word_of_the_corpus_has_is_answered(searcher):
    found = searcher.search("🙂 zyx", 3)
    assert len(found) == 3 and {one.scores["bm25"] for one in found} == {0.0}
    assert searcher.search("🙂", 3, "bm25") == []
    assert searcher.search_many([]) == []


def test_a_search_of_ones_own_is_ranked_as_its_run_was(own):
    searcher, asked, listed = Searcher(own), questions(own), own_results(own)
    wanted = evaluated(own)
    assert searcher.systems[:3] == ("own", "base", "twin") and set(searcher.systems) == set(wanted)
    texts = [row["question"] for row in asked]
    # The scores decide; of equal ones the first one given comes first.
    shuffled = [sorted(one, key=lambda pair: pair[1]) for one in listed]
    assert shuffled != listed
    together = searcher.rankings(texts, shuffled)
    for system in searcher.systems:
        expected = [wanted[system][row["id"]] for row in asked]
        many = searcher.search_many(texts, 8, system, shuffled)
        assert [[one.passage for one in found] for found in many] == expected, system
        one = searcher.search(texts[4], 8, system, candidates=iter(listed[4]))
        assert [found.passage for found in one] == expected[4]
        assert together[system] == expected
    (best,) = searcher.search(texts[0], 1, "own", listed[0])
    assert best.scores == {"own": best.score} and (best.passage, best.score) in listed[0]


def test_a_search_of_ones_own_has_to_be_passed_and_can_be_used(own, searcher):
    mine = Searcher(own)
    assert error_of(mine.search, QUERY) == (
        "the first stage of this run is own.jsonl, your own search: pass its results as "
        "candidates=[(passage, score), ...], or rank texts with Ranker.rank(first_stage=...)"
    )
    assert error_of(searcher.search, QUERY, candidates=[("p01", 1)]) == (
        "this run has a first stage of its own and takes no candidates; with scores of another "
        "search use Ranker.rank(first_stage=...)"
    )
    for bad, said in (
        ([("p01", 1), ("nowhere", 2)], "no passage 'nowhere' in the corpus; leave it out, or"),
        ([("p01", float("nan"))], "the score of 'p01' is nan; give a finite number"),
        ([("p01", "high")], "the score of 'p01' is 'high'; give a finite number"),
        ([(7, 1.0)], "no passage 7 in the corpus"),
        (["p01"], "give a list of pairs (id of a passage, score)"),
        ([("p01", 1, 2)], "give a list of pairs (id of a passage, score)"),
    ):
        assert error_of(mine.search, QUERY, candidates=bad).startswith(f"candidates: {said}")
    assert error_of(mine.search_many, [QUERY, QUERY], candidates=[[("p01", 1)]]) == (
        "candidates of 1 queries for 2 queries"
    )
    assert mine.search(QUERY, candidates=[]) == []
    doubled = [("p01", 1.0), ("p02", 2.0), ("p01", 3.0)]
    assert [one.passage for one in mine.search(QUERY, 5, "own", doubled)] == ["p01", "p02"]


# What a result says


def test_a_result_has_text_title_scores_and_the_span_that_decided(searcher, home):
    corpus = {row["id"]: row for row in read_jsonl(home / "data/prepared/corpus.jsonl")}
    encoder = CrossEncoder(home / "models/reranker", 100, "fp32")
    weights = json.loads((home / "metrics/eval.json").read_text())["fusion_weights"]
    retrieve = load(home / "params.yaml").retrieve
    for found in searcher.search(QUERY, 8):
        row = corpus[found.passage]
        assert (found.text, found.title) == (row["text"], row.get("title", ""))
        assert list(found.scores) == list(fused_names(retrieve.parts)) == list(weights)
        total = sum(weights[name] * found.scores[name] for name in weights)
        assert found.score == pytest.approx(total, abs=1e-6)
        start, end = found.span
        assert end - start == min(30, len(found.text))
        text = Passage(found.title, found.text).view(start, end)
        (logit,) = encoder.score([(QUERY, text)])
        assert found.scores["reranker"] == pytest.approx(logit, abs=2e-4)
    scores = [found.score for found in searcher.search(QUERY, 8)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("system", SYSTEMS)
def test_scores_fall_and_are_those_of_the_system(searcher, system):
    found = searcher.search("这件船的价格和保修", 8, system)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True) and len(found) > 1
    part = system.removesuffix("_whole")
    for one in found:
        if part in ("bm25", "dense"):
            assert one.score == one.scores[part] and set(one.scores) == {"bm25", "dense"}
        if part in ("base", "twin", "reranker"):
            assert one.score == one.scores[part]
        if system.endswith("whole") or system == "bm25":
            assert one.span == (0, len(one.text))
        elif system in ("dense", "retriever"):
            assert one.span in windows(one.text, 24, 12)
        else:
            assert one.span[1] - one.span[0] == 30


def test_the_ranker_is_the_same_model_with_its_weights(searcher, home):
    ranker = searcher.ranker
    assert ranker.encoder.model is searcher.ranker.encoder.model
    assert list(ranker.weights) == ["reranker", "dense", "bm25"]
    found = searcher.search(QUERY, 8)
    first_stage = {name: [one.scores[name] for one in found] for name in ("dense", "bm25")}
    texts = [Passage(one.title, one.text) for one in found]
    assert len(ranker.rank(QUERY, texts, first_stage=first_stage)) == 8


def test_a_search_prints_nothing(searcher, capfd):
    searcher.search(QUERY, 5, "base")
    searcher.ranker.rank(QUERY, ["红色的车"])
    assert capfd.readouterr() == ("", "")


def test_threads_have_their_own_answers(searcher, home):
    texts = [row["question"] for row in questions(home)] * 2
    alone = [searcher.search(text, 5) for text in texts]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda text: searcher.search(text, 5), texts)) == alone


# What is kept


def test_vectors_and_index_are_kept_and_only_new_texts_are_encoded(home, tmp_path, encoded):
    folder = copied(home, tmp_path)
    shutil.rmtree(folder / ".cache/search", ignore_errors=True)
    first = Searcher(folder).search(QUERY, 8)
    corpus = list(read_jsonl(folder / "data/prepared/corpus.jsonl"))
    kept = np.load(folder / ".cache/search/vectors/passages.npy")
    windows = np.load(folder / ".cache/search/vectors/windows.npy")
    assert kept.dtype == np.float32 and len(kept) == len(corpus) == 12
    assert len(encoded) == 12 + len(windows) + 1
    encoded.clear()
    assert Searcher(folder).search(QUERY, 8) == first
    assert encoded == [QUERY]
    encoded.clear()
    with open(folder / "data/prepared/corpus.jsonl", "a", encoding="utf-8") as out:
        out.write(json.dumps({"id": "a new one", "text": "宝石是透明的"}) + "\n")
    assert Searcher(folder).search("宝石", 1, "bm25")[0].passage == "a new one"
    assert encoded == ["宝石是透明的", "宝石是透明的", "宝石"]  # a passage, its window, the query
    encoded.clear()
    corpus[3]["text"] += "它很新。"
    lines = [json.dumps(row) + "\n" for row in corpus]
    (folder / "data/prepared/corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    searcher = Searcher(folder)
    assert encoded[0] == corpus[3]["text"] and all(text in corpus[3]["text"] for text in encoded)
    assert len(encoded) < 5 and searcher.search("宝石", 1, "bm25") == []


def test_another_retriever_or_prefix_encodes_all_again(home, tmp_path, encoded):
    folder = copied(home, tmp_path)
    Searcher(folder)
    encoded.clear()
    config = folder / "models/retriever/tokenizer_config.json"
    content = config.read_text(encoding="utf-8")
    config.unlink()  # it may be a hard link into DVC's cache
    config.write_text(content + "\n", encoding="utf-8")
    Searcher(folder)
    assert len(encoded) > 12


@pytest.mark.parametrize(
    "name", ["vectors/windows.npy", "bm25/data.csc.index.npy", "bm25/vocab.index.json", "kept.json"]
)
def test_a_damaged_store_is_made_again(home, tmp_path, name):
    folder = copied(home, tmp_path)
    before = Searcher(folder).search(QUERY, 8)
    (folder / ".cache/search" / name).write_bytes(b"{")
    assert Searcher(folder).search(QUERY, 8) == before
    (folder / ".cache/search" / name).unlink()
    assert Searcher(folder).search(QUERY, 8) == before


def test_update_encodes_new_passages_alone_and_gives_the_same_as_a_new_start(
    home, tmp_path, encoded
):
    folder = copied(home, tmp_path)
    searcher = Searcher(folder)
    old = searcher.search(QUERY, 8)
    encoded.clear()
    new = [
        {"id": "n1", "text": "飞船是银色的，停在火星。", "title": "飞船手册"},
        {"id": "n2", "text": "飞船保修九年。"},
        {"id": "p00", "text": next(read_jsonl(folder / "data/prepared/corpus.jsonl"))["text"]},
    ]
    assert searcher.update(new) == 2
    assert set(encoded) == {"飞船手册。飞船是银色的，停在火星。", "飞船保修九年。"}
    (best,) = searcher.search("火星飞船", 1, "bm25")
    assert (best.passage, best.title) == ("n1", "飞船手册")
    with open(folder / "data/prepared/corpus.jsonl", "a", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in new[:2])
    again = Searcher(folder)
    for system in SYSTEMS:
        assert [one.passage for one in searcher.search("飞船是什么颜色？", 8, system)] == [
            one.passage for one in again.search("飞船是什么颜色？", 8, system)
        ]
    assert searcher.update(new) == 0
    assert searcher.update([{"id": "n2", "text": "飞船保修十年。"}]) == 1
    assert [one.text for one in searcher.search("十年", 1, "bm25")] == ["飞船保修十年。"]
    assert Searcher(home).search(QUERY, 8) == old


@pytest.mark.parametrize(
    "passage, said",
    [
        ({"text": "x"}, "the id of passage 2 is of type NoneType; give text"),
        ({"id": "x"}, "the text of passage 2 is of type NoneType; give text"),
        ({"id": "x", "text": " "}, "the text of passage 2 is empty"),
        ({"id": 7, "text": "x"}, "the id of passage 2 is of type int; give text"),
        ({"id": "x", "text": "\ud83d"}, "the text of passage 2 has half a character (a lone"),
        ({"id": "x", "text": "x", "title": ["t"]}, "the title of passage 2 is of type list"),
        ("x", "passage 2 is no mapping; give {'id': ..., 'text': ...}"),
    ],
)
def test_a_passage_that_cannot_be_added_changes_nothing(searcher, passage, said):
    good = {"id": "good", "text": "宝石"}
    assert error_of(searcher.update, [good, passage]).startswith(said)
    assert searcher.search("宝石", 1, "bm25") == []


# What is refused


@pytest.mark.parametrize(
    "query, said",
    [
        ("", "the query is empty"),
        (" \n\t", "the query is empty"),
        ("电池\ud83d", "the query has half a character (a lone surrogate); give Unicode"),
        (None, "the query is of type NoneType; give text"),
        (7, "the query is of type int; give text"),
        (b"query", "the query is of type bytes; give text"),
    ],
)
def test_a_query_that_is_none_is_refused(searcher, query, said):
    assert error_of(searcher.search, query) == said
    assert error_of(searcher.search_many, [QUERY, query]) == said
    assert error_of(searcher.rankings, [query]) == said


def test_a_list_of_queries_is_no_text(searcher):
    said = "search_many takes a list of queries; search takes one"
    assert error_of(searcher.search_many, QUERY) == said


@pytest.mark.parametrize("top_k", [0, -1, 2.5, "3", None, True])
def test_a_number_of_results_that_is_none_is_refused(searcher, top_k):
    assert error_of(searcher.search, QUERY, top_k) == f"top_k {top_k!r}: give an integer from 1"


@pytest.mark.parametrize("system", ["", "Fused", "questions", "fused_whole ", None, 3])
def test_an_unknown_system_is_refused_and_those_known_are_named(searcher, system):
    assert error_of(searcher.search, QUERY, 5, system) == (
        f"system {str(system)!r}: there is none; take one of {', '.join(SYSTEMS)}"
    )


@pytest.mark.parametrize(
    "query", ["a" * 50_000, "\0\x1b[31m", "%s {0} \\", "‮电池", "𠮷野家😀", "is\u0301"]
)
def test_any_other_text_is_answered(searcher, query):
    assert len(searcher.search(query, 3)) == 3


def test_a_repository_without_its_run_is_refused_in_one_line(home, tmp_path):
    folder = copied(home, tmp_path)
    for name in ("models/reranker/config.json", "data/prepared/corpus.jsonl", "metrics/eval.json"):
        (folder / name).rename(tmp_path / "away")
        assert error_of(Searcher, folder) == (
            f"{folder / name}: no such file; run dvc repro there, or dvc pull"
        )
        (tmp_path / "away").rename(folder / name)
    (folder / "dvc.lock").rename(tmp_path / "away")
    assert error_of(Searcher, folder) == f"{folder}/dvc.lock: no whole run is in it; run dvc repro"


@pytest.mark.parametrize(
    "group, key, value, named",
    [
        ("retrieve", "bm25_depth", 5, "retrieve"),
        ("score", "depth", 7, "score"),
        ("retriever", "query_prefix", "Q: ", "retriever.query_prefix"),
    ],
)
def test_parameters_of_another_run_are_refused(home, tmp_path, group, key, value, named):
    folder = copied(home, tmp_path)
    values = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    values[group][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    assert error_of(Searcher, folder) == (
        f"{folder}/params.yaml: another {named} than the run in dvc.lock had; run dvc repro, or "
        "git checkout params.yaml"
    )


def test_a_run_that_was_not_evaluated_to_its_end_is_refused(home, tmp_path):
    folder = copied(home, tmp_path)
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    for stage, path in (("evaluate", "data/scores"), ("score", "models/reranker")):
        (dep,) = (dep for dep in lock["stages"][stage]["deps"] if dep["path"] == path)
        dep["md5"] = "0" * 32 + ".dir"
        (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
        assert error_of(Searcher, folder) == (
            f"{folder}/dvc.lock: stage {stage} is older than {path}; run dvc repro"
        )


def test_rerankers_that_are_not_there_are_no_systems(home, tmp_path):
    folder = copied(home, tmp_path)
    shutil.rmtree(folder / "models/base")
    shutil.rmtree(folder / "models/compare/twin")
    without = tuple(name for name in SYSTEMS if not name.startswith(("base", "twin")))
    searcher = Searcher(folder)
    assert searcher.systems == without == tuple(searcher.rankings([QUERY]))


@pytest.mark.parametrize(
    "source, options, said",
    [
        ("nowhere", {}, "nowhere: no such folder; give a repository after dvc repro, a folder of"),
        ("", {"revision": "v1"}, ".: no such folder"),
        ("a/b/c", {}, "a/b/c: no such folder"),
        ("../a b", {"revision": "v1"}, "../a b: no such folder"),
        (
            "acme/search",
            {},
            "acme/search: no such folder; a repository of the Hub needs revision=,",
        ),
        (".", {"precision": "int8"}, "precision 'int8': set auto, fp32, bf16, fp16"),
    ],
)
def test_a_source_that_is_none_is_refused(home, tmp_path, monkeypatch, source, options, said):
    monkeypatch.chdir(home if source == "." else tmp_path)
    assert error_of(Searcher, source or Path("."), **options).startswith(said)


def test_the_example_prints_what_it_found(home, tmp_path):
    example = ROOT / "examples/search.py"
    done = python(example, home, QUERY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    best = Searcher(home).search(QUERY, 1)[0]
    first = done.stdout.splitlines()[0]
    assert best.passage in first and best.text[slice(*best.span)] in done.stdout
