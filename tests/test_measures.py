import math
import random

import ir_measures
import pytest
from ir_measures import RR, Success, nDCG

from conftest import ROOT
from reranker.measures import gold_rank, measure, per_question
from reranker.evidence import against
from reranker.params import load
from reranker.reranking import best_fusion_weight, evaluate_systems, markdown_table, rankers, reach
from reranker.retrieval import first_stage

PARAMS = load(ROOT / "tests/params.yaml")


def test_measures_of_a_ranking_worked_by_hand():
    gold = {"q1": "a", "q2": "a", "q3": "a", "q4": "a"}
    rankings = {"q1": ["a", "b", "c"], "q2": ["b", "c", "a"], "q3": ["b", "c", "d"]}  # q4 found nothing
    found = measure(gold, rankings, [1, 2, 3], 10)
    assert found == {
        "hit@1": 0.25,
        "hit@2": 0.25,
        "hit@3": 0.5,
        "MRR@10": pytest.approx((1 + 1 / 3) / 4, abs=1e-6),
        "nDCG@10": pytest.approx((1 + 1 / math.log2(4)) / 4, abs=1e-6),
    }


def test_the_cutoff_of_mrr_and_ndcg():
    found = measure({"q": "z"}, {"q": [*"abcdefghij", "z"]}, [1], 10)
    assert found == {"hit@1": 0.0, "MRR@10": 0.0, "nDCG@10": 0.0}
    assert measure({"q": "z"}, {"q": [*"abcdefghij", "z"]}, [11], 11)["MRR@11"] == pytest.approx(1 / 11, abs=1e-6)


def test_nothing_found_at_all_is_zero():
    assert measure({"q": "z"}, {}, [1], 10) == {"hit@1": 0.0, "MRR@10": 0.0, "nDCG@10": 0.0}


def test_each_questions_own_measures():
    gold = {"q2": "a", "q1": "a", "q3": "a"}
    found = per_question(gold, {"q1": ["a", "b"], "q2": ["b", "c", "a"]}, [1, 3], 10)  # q3 found nothing
    assert found == {
        "hit@1": {"q2": 0.0, "q1": 1.0, "q3": 0.0},
        "hit@3": {"q2": 1.0, "q1": 1.0, "q3": 0.0},
        "MRR@10": {"q2": pytest.approx(1 / 3), "q1": 1.0, "q3": 0.0},
        "nDCG@10": {"q2": 0.5, "q1": 1.0, "q3": 0.0},
    }
    assert [list(values) for values in found.values()] == [list(gold)] * 4


def test_their_mean_is_ir_measures_own_aggregate():
    generator = random.Random(3)
    gold = {f"q{i}": "a" for i in range(97)}
    rankings = {q: generator.sample("abcdefghijklmno", generator.randint(1, 15)) for q in gold}
    qrels = [ir_measures.Qrel(q, "a", 1) for q in gold]
    run = [ir_measures.ScoredDoc(q, p, -float(rank)) for q, ranking in rankings.items() for rank, p in enumerate(ranking)]
    wanted = ir_measures.calc_aggregate([Success @ 1, Success @ 5, RR @ 10, nDCG @ 10], qrels, run)
    assert measure(gold, rankings, [1, 5], 10) == {
        "hit@1": round(wanted[Success @ 1], 6),
        "hit@5": round(wanted[Success @ 5], 6),
        "MRR@10": round(wanted[RR @ 10], 6),
        "nDCG@10": round(wanted[nDCG @ 10], 6),
    }


def test_gold_rank():
    assert gold_rank(["a", "b"], "b") == 2
    assert gold_rank(["a", "b"], "c") is None


RETRIEVE = PARAMS.retrieve.model_copy(update={"bm25_depth": 1, "dense_weight": 1.0, "bm25_weight": 0.1, "rrf_k": 60})
EVALUATE = PARAMS.evaluate.model_copy(update={"ks": [1, 2], "cutoff": 10, "multiplier": 3, "fusion_weight": 0.5, "fusion_k": 60})
CANDIDATES = [{"passage": key, "dense": rank, "bm25": 1 if key == "f" else None} for rank, key in enumerate("abcdef", 1)]
SCORES = {"base": dict(zip("abcdef", [0, 1, 2, 3, 4, 5])), "reranker": dict(zip("abcdef", [1, 1, 9, 1, 1, 1]))}


def test_every_system_ranks_the_same_candidates():
    systems = rankers(CANDIDATES, SCORES, RETRIEVE, EVALUATE)
    assert systems["dense"](3) == ["a", "b", "c"]
    assert systems["bm25"](3) == ["f"]
    assert systems["retriever"](3) == ["a", "b", "c"]
    assert systems["base"](3) == ["c", "b", "a"]
    assert systems["reranker"](4) == ["c", "a", "b", "d"]  # equal scores keep the first stage's order
    # c: 0.5/61 + 0.5/63, a: 0.5/62 + 0.5/61, b: 0.5/63 + 0.5/62
    assert systems["fused"](3) == ["a", "c", "b"]


def test_the_weight_of_the_fused_row():
    alone = EVALUATE.model_copy(update={"fusion_weight": 1.0})
    assert rankers(CANDIDATES, SCORES, RETRIEVE, alone)["fused"](4) == ["c", "a", "b", "d"]
    first = EVALUATE.model_copy(update={"fusion_weight": 0.0})
    assert rankers(CANDIDATES, SCORES, RETRIEVE, first)["fused"](4) == ["a", "b", "c", "d"]


def test_the_fusion_weight_is_the_one_that_ranks_these_questions_best():
    """One question whose passage the reranker has first and the first stage third, or the other way round."""
    deep = [{"passage": key, "dense": rank, "bm25": None} for rank, key in enumerate("abc", 1)]
    settings = EVALUATE.model_copy(update={"fusion_weight": None, "fusion_k": 10})

    def weight(gold, scores):
        question = {"id": "q", "question": "?", "passage": gold}
        return best_fusion_weight([question], {"q": deep}, {"q": scores}, 3, RETRIEVE, settings)

    assert weight("c", {"a": 0.0, "b": 1.0, "c": 2.0}) == 1.0
    assert weight("a", {"a": 0.0, "b": 1.0, "c": 2.0}) == 0.4  # a leads where w / 13 + (1 - w) / 11 > w / 11 + (1 - w) / 13


def test_reach_holds_the_candidates_of_every_depth():
    candidates = [{"passage": f"d{i}", "dense": i, "bm25": None} for i in range(1, 10)]
    candidates += [{"passage": "s", "dense": 10, "bm25": 1}]
    params = RETRIEVE.model_copy(update={"bm25_weight": 0.99})
    for depth in (1, 4, 9):
        everything = {p for shallow in range(1, depth + 1) for p in first_stage(candidates, shallow, params)}
        assert set(reach(candidates, depth, params)) == everything
    assert len(reach(candidates, 9, params)) == 9  # nine of ten, the sparse one among them


def evaluated():
    questions = [
        {"id": "q1", "question": "?", "passage": "c", "qa_type": "detailed"},
        {"id": "q2", "question": "?", "passage": "f", "qa_type": "detailed"},
        {"id": "q3", "question": "?", "passage": "b", "qa_type": ""},
    ]
    candidates = {q["id"]: CANDIDATES for q in questions}
    scores = {name: {q["id"]: SCORES[name] for q in questions} for name in SCORES}
    return evaluate_systems(questions, candidates, scores, {"c"}, 6, RETRIEVE, EVALUATE)


def test_groups_and_both_protocols():
    result, rows, values = evaluated()
    assert list(result) == ["all", "detailed_seen", "detailed_unseen", "seen", "unseen", "article"]
    assert {name: group["questions"] for name, group in result.items()} == {
        "all": 3, "detailed_seen": 1, "detailed_unseen": 1, "seen": 1, "unseen": 2, "article": 3,
    }  # fmt: skip
    # fine-tuned over 6 candidates: c first, then a, b
    assert result["all"]["reranker"]["hit@1"] == pytest.approx(1 / 3, abs=1e-6)
    assert result["all"]["base"]["hit@1"] == pytest.approx(1 / 3, abs=1e-6)  # f is first of six
    # the article's: over 3 candidates for k = 1 the base finds c first, f is out of reach
    assert result["article"]["base"]["hit@1"] == pytest.approx(1 / 3, abs=1e-6)
    assert result["article"]["base"]["hit@2"] == pytest.approx(1 / 3, abs=1e-6)  # over 6: f, e
    assert result["article"]["dense"]["hit@2"] == pytest.approx(1 / 3, abs=1e-6)  # b alone
    assert set(result["article"]["reranker"]) == {"hit@1", "hit@2"}
    assert rows[0] == {
        "id": "q1", "passage": "c", "qa_type": "detailed", "seen": True,
        "bm25": None, "dense": 3, "retriever": 4, "base": 4, "reranker": 1, "fused": 2,
    }  # fmt: skip
    assert rows[1]["bm25"] == 1 and rows[2]["reranker"] == 4  # c, f, a, b
    assert list(values) == ["bm25", "dense", "retriever", "base", "reranker", "fused"]
    assert values["reranker"] == {
        "hit@1": {"q1": 1.0, "q2": 0.0, "q3": 0.0},
        "MRR@10": {"q1": 1.0, "q2": 0.5, "q3": 0.25},
        "nDCG@10": {"q1": 1.0, "q2": pytest.approx(1 / math.log2(3)), "q3": pytest.approx(1 / math.log2(5))},
    }


def test_the_table_shows_what_was_measured():
    result, _, values = evaluated()
    result["against"] = against(values, {"all": ["q1", "q2", "q3"]}, 500, 42)
    table = markdown_table(result, [1, 2], 10)
    assert "3 test questions, all" in table and "| reranker | 0.333 |" in table


def test_the_headline_is_against_the_best_first_stage_by_mrr():
    measures = {"hit@1": 0.5, "hit@2": 0.5, "MRR@10": 0.5, "nDCG@10": 0.5}
    result = {"all": {"questions": 250, **{name: measures for name in ("bm25", "retriever", "base", "reranker", "fused")}}}
    result["all"]["dense"] = measures | {"MRR@10": 0.51}
    better = {"hit@1": {"difference": 0.1, "low": -0.0254, "high": 0.2, "p": 0.01234}}
    worse = {"hit@1": {"difference": -0.138, "low": -0.19, "high": -0.09, "p": 2 / 10_001}}
    result["against"] = {"all": {"reranker": {"dense": worse}, "fused": {"dense": better}}}
    assert """| dense | 0.500 | 0.510 | 0.500 |

Against dense, the best first stage by MRR@10, with 95 % intervals; one question is worth 0.0040:

- reranker - dense: hit@1 -0.138 [-0.190, -0.090] p=0.0002
- fused - dense: hit@1 +0.100 [-0.025, +0.200] p=0.012
""" in markdown_table(result, [1, 2], 10)
