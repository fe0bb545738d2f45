import math
import random

import ir_measures
import numpy as np
import pytest
from conftest import ROOT
from ir_measures import RR, Success, nDCG

from tunerank.data.passages import Passage
from tunerank.evaluation.markdown import markdown_table
from tunerank.evaluation.measures import gold_rank, measure, per_question
from tunerank.evaluation.significance import compare_systems
from tunerank.evaluation.systems import (
    evaluate_systems,
    fit_fusion,
    rank_first_stages,
    rank_rerankers,
)
from tunerank.params.load import load
from tunerank.reranking.scores import (
    candidate_pool,
    prefers_another,
    sample_for_audit,
    score_labels,
)
from tunerank.retrieval.fusion import fused_top_k

PARAMS = load(ROOT / "tests/params.yaml")


def test_measures_equal_those_worked_out_by_hand():
    gold = {"q1": "a", "q2": "a", "q3": "a", "q4": "a"}
    rankings = {
        "q1": ["a", "b", "c"],
        "q2": ["b", "c", "a"],
        "q3": ["b", "c", "d"],
    }  # q4 has no hit
    found = measure(gold, rankings, [1, 2, 3], 10)
    assert found == {
        "hit@1": 0.25,
        "hit@2": 0.25,
        "hit@3": 0.5,
        "MRR@10": pytest.approx((1 + 1 / 3) / 4, abs=1e-6),
        "nDCG@10": pytest.approx((1 + 1 / math.log2(4)) / 4, abs=1e-6),
    }


def test_mrr_and_ndcg_have_a_cutoff():
    found = measure({"q": "z"}, {"q": [*"abcdefghij", "z"]}, [1], 10)
    assert found == {"hit@1": 0.0, "MRR@10": 0.0, "nDCG@10": 0.0}
    assert measure({"q": "z"}, {"q": [*"abcdefghij", "z"]}, [11], 11)["MRR@11"] == pytest.approx(
        1 / 11, abs=1e-6
    )


def test_measures_are_zero_without_any_hit():
    assert measure({"q": "z"}, {}, [1], 10) == {"hit@1": 0.0, "MRR@10": 0.0, "nDCG@10": 0.0}


def test_measures_are_given_per_question():
    gold = {"q2": "a", "q1": "a", "q3": "a"}
    found = per_question(
        gold, {"q1": ["a", "b"], "q2": ["b", "c", "a"]}, [1, 3], 10
    )  # q3 has no hit
    assert found == {
        "hit@1": {"q2": 0.0, "q1": 1.0, "q3": 0.0},
        "hit@3": {"q2": 1.0, "q1": 1.0, "q3": 0.0},
        "MRR@10": {"q2": pytest.approx(1 / 3), "q1": 1.0, "q3": 0.0},
        "nDCG@10": {"q2": 0.5, "q1": 1.0, "q3": 0.0},
    }
    assert [list(values) for values in found.values()] == [list(gold)] * 4


def test_the_mean_over_questions_equals_ir_measures_aggregate():
    generator = random.Random(3)
    gold = {f"q{i}": "a" for i in range(97)}
    rankings = {q: generator.sample("abcdefghijklmno", generator.randint(1, 15)) for q in gold}
    qrels = [ir_measures.Qrel(q, "a", 1) for q in gold]
    run = [
        ir_measures.ScoredDoc(q, p, -float(rank))
        for q, ranking in rankings.items()
        for rank, p in enumerate(ranking)
    ]
    wanted = ir_measures.calc_aggregate([Success @ 1, Success @ 5, RR @ 10, nDCG @ 10], qrels, run)
    assert measure(gold, rankings, [1, 5], 10) == {
        "hit@1": round(wanted[Success @ 1], 6),
        "hit@5": round(wanted[Success @ 5], 6),
        "MRR@10": round(wanted[RR @ 10], 6),
        "nDCG@10": round(wanted[nDCG @ 10], 6),
    }


def test_the_gold_rank_is_a_position_or_none():
    assert gold_rank(["a", "b"], "b") == 2
    assert gold_rank(["a", "b"], "c") is None


RETRIEVE = PARAMS.retrieve.model_copy(
    update={"bm25_depth": 1, "dense_weight": 1.0, "bm25_weight": 0.1, "rrf_k": 60}
)
EVALUATE = PARAMS.evaluate.model_copy(update={"ks": [1, 2], "cutoff": 10, "multiplier": 3})
CANDIDATES = [
    {
        "passage": key,
        "dense": rank,
        "bm25": 1 if key == "f" else None,
        "dense_score": 1 - rank / 10,
        "bm25_score": 2.0 if key == "f" else 0.0,
    }
    for rank, key in enumerate("abcdef", 1)
]
SCORES = {
    "base": dict(zip("abcdef", [0, 1, 2, 3, 4, 5])),
    "reranker": dict(zip("abcdef", [1, 1, 9, 1, 1, 1])),
}


def ranked(depth, weights=(1.0, 50.0, 0.0), whole_depth=3, **whole):
    """Return the systems' rankings with SCORES, and with other scores of whole passages."""
    scores = {"scores": SCORES} | ({"whole": whole} if whole else {})
    weights = dict.fromkeys(scores, weights)
    return rank_first_stages(CANDIDATES, depth, RETRIEVE) | rank_rerankers(
        CANDIDATES, scores, weights, depth, whole_depth, RETRIEVE
    )


def test_whole_passages_are_ranked_over_their_own_depth():
    whole = {"base": dict(zip("abc", [0, 1, 2])), "reranker": dict(zip("abc", [2, 30, 1]))}
    deep, shallow = ranked(6, **whole), ranked(2, **whole)
    assert list(deep)[3:] == [
        "base",
        "reranker",
        "fused",
        "base_whole",
        "reranker_whole",
        "fused_whole",
    ]
    assert deep["base_whole"] == ranked(3, **whole)["base_whole"] == ["c", "b", "a"]
    assert shallow["base_whole"] == ["b", "a"]
    assert deep["reranker_whole"] == ["b", "a", "c"]
    assert ranked(4, **whole)["reranker"] == ["c", "a", "b", "d"]
    # a: 2 + 50 * 0.9, b: 30 + 50 * 0.8, c: 1 + 50 * 0.7
    assert deep["fused_whole"] == ["b", "a", "c"]


def test_every_system_ranks_the_same_candidates():
    assert ranked(3) == {
        "bm25": ["f"],
        "dense": ["a", "b", "c"],
        "retriever": ["a", "b", "c"],
        "base": ["c", "b", "a"],
        "reranker": ["c", "a", "b"],  # equal scores keep the first stage's order
        "fused": ["a", "c", "b"],  # a: 1 + 50 * 0.9, b: 1 + 50 * 0.8, c: 9 + 50 * 0.7
    }
    assert ranked(4)["reranker"] == ["c", "a", "b", "d"]


@pytest.mark.parametrize(
    "weights, ranking",
    [
        (
            [1.0, 0.0, 0.0],
            ["c", "f", "a", "b", "d", "e"],
        ),  # equal sums keep the first stage's order
        ([0.0, 1.0, 0.0], ["a", "b", "c", "d", "e", "f"]),
        ([0.0, 0.0, 1.0], ["f", "a", "b", "c", "d", "e"]),
        ([0.0, 0.0, 0.0], ["f", "a", "b", "c", "d", "e"]),
        ([1.0, 10.0, 3.5], ["c", "f", "a", "b", "d", "e"]),  # c 9 + 7, f 1 + 4 + 7, a 1 + 9
    ],
)
def test_the_fused_row_orders_by_the_weighted_sum_of_three_scores(weights, ranking):
    assert ranked(6, weights)["fused"] == ranking


def drawn_for_fusion(questions=60, seed=0):
    """Return questions with 5 candidates.

    The reranker and the dense score are informative; BM25 prefers wrong passages.
    """
    rng, gold, candidates, scores = np.random.default_rng(seed), {}, {}, {}
    for i in range(questions):
        own = int(rng.integers(5))
        hints = rng.normal(size=(5, 3)) + np.outer(np.arange(5) == own, [1.5, 1.0, -1.0])
        gold[f"q{i}"] = f"p{own}"
        candidates[f"q{i}"] = [
            {"passage": f"p{j}", "dense_score": 0.8 + dense / 50, "bm25_score": 5 + sparse}
            for j, (_, dense, sparse) in enumerate(hints)
        ]
        scores[f"q{i}"] = {f"p{j}": row[0] for j, row in enumerate(hints)}
    return gold, candidates, scores


def penalized(weights, gold, candidates, scores):
    """Return the loss of the docstring of `fit_fusion`, computed directly."""
    rows = {
        q: {
            c["passage"]: [scores[q][c["passage"]], c["dense_score"], c["bm25_score"]]
            for c in candidates[q]
        }
        for q in gold
    }
    spread = []
    for i in range(3):
        apart = [
            row[i] - np.mean([r[i] for r in rows[q].values()])
            for q in gold
            for row in rows[q].values()
        ]
        spread.append(math.sqrt(sum(value**2 for value in apart) / len(apart)))
    loss = sum((weight * deviation) ** 2 for weight, deviation in zip(weights, spread)) / 2
    for q, passage in gold.items():
        sums = {
            name: sum(weight * value for weight, value in zip(weights, row))
            for name, row in rows[q].items()
        }
        loss -= sums[passage] - math.log(sum(math.exp(value) for value in sums.values()))
    return loss


def test_fitted_fusion_weights_are_the_most_likely_ones_that_are_not_negative():
    drawn = drawn_for_fusion()
    weights = fit_fusion(*drawn)
    assert weights[0] > 0 and weights[1] > 0 and weights[2] == 0.0
    least = penalized(weights, *drawn)
    for i in range(3):
        for step in (0.97, 1.03):
            assert (
                penalized([w * step if i == j else w for j, w in enumerate(weights)], *drawn)
                >= least - 1e-9
            )
    assert penalized([*weights[:2], 0.01], *drawn) > least
    assert least < penalized([weights[0], 0.0, 0.0], *drawn)


def test_fusion_weights_follow_a_score_to_another_scale_and_ignore_where_it_starts():
    gold, candidates, scores = drawn_for_fusion()
    reranker, dense, _ = fit_fusion(gold, candidates, scores)
    for q, row in scores.items():
        for passage in row:
            row[passage] += len(q)
        for candidate in candidates[q]:
            candidate["dense_score"] *= 10
    assert fit_fusion(gold, candidates, scores) == pytest.approx(
        [reranker, dense / 10, 0.0], rel=2e-3
    )


def test_fusion_weights_stay_finite_where_the_reranker_is_always_right():
    gold, candidates, scores = drawn_for_fusion(4)
    scores = {
        q: {passage: float(passage == gold[q]) for passage in row} for q, row in scores.items()
    }
    assert 0 < fit_fusion(gold, candidates, scores)[0] < 10


def test_fusion_weights_do_not_see_candidates_that_the_reranker_has_not_scored():
    gold, candidates, scores = drawn_for_fusion()
    more = {
        q: [*row, {"passage": "unscored", "dense_score": 0.9, "bm25_score": 9.0}]
        for q, row in candidates.items()
    }
    assert fit_fusion(gold, more, scores) == fit_fusion(gold, candidates, scores)


def test_without_a_question_to_learn_from_the_fused_row_is_the_first_stage():
    gold, candidates, scores = drawn_for_fusion(2)
    assert fit_fusion({q: "elsewhere" for q in gold}, candidates, scores) == [0.0, 0.0, 0.0]
    assert fit_fusion({}, {}, {}) == [0.0, 0.0, 0.0]


def test_the_candidate_pool_holds_the_candidates_of_every_depth():
    candidates = [{"passage": f"d{i}", "dense": i, "bm25": None} for i in range(1, 10)]
    candidates += [{"passage": "s", "dense": 10, "bm25": 1}]
    params = RETRIEVE.model_copy(update={"bm25_weight": 0.99})
    for depth in (1, 4, 9):
        everything = {
            p for shallow in range(1, depth + 1) for p in fused_top_k(candidates, shallow, params)
        }
        assert set(candidate_pool(candidates, depth, params)) == everything
    assert len(candidate_pool(candidates, 9, params)) == 9  # of ten, the sparse one is included


class Lengths:
    """A stand-in for a cross-encoder: a longer text has a higher score."""

    def score(self, pairs, what):
        return [float(len(text)) for _, text in pairs]


def test_labels_are_audited_with_all_views_of_the_own_passage_if_another_leads():
    corpus = {name: Passage("", "一二三四五六七八九十") for name in "abcdefgh"}
    found = [
        {"passage": name, "dense": i, "bm25": None, "views": [(0, i), (0, i + 1)]}
        for i, name in enumerate("abcdefgh", 1)
    ]
    questions = [
        {"id": f"q{n}", "question": "?", "passage": passage} for n, passage in enumerate("gbe", 1)
    ]
    scores = score_labels(
        Lengths(), questions, dict.fromkeys(("q1", "q2", "q3"), found), corpus, RETRIEVE, "labels"
    )
    # g is beyond the first 5 and leads with one view.
    assert scores["q1"] == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "g": 7}
    # c, d and e score above b's first view, so b gets all its views.
    assert scores["q2"] == {"a": 1, "b": 3, "c": 3, "d": 4, "e": 5}
    assert scores["q3"] == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert [prefers_another(question, scores) for question in questions] == [False, True, False]


def test_a_large_training_set_is_audited_at_even_distances():
    assert sample_for_audit(list(range(1000))) == list(range(1000))
    assert sample_for_audit(list(range(2500))) == list(range(0, 2500, 3))
    assert sample_for_audit([]) == []


def evaluated():
    questions = [
        {
            "id": "q1",
            "question": "?",
            "passage": "c",
            "qa_type": "detailed",
            "context": "why",
            "answer": "so",
        },
        {
            "id": "q2",
            "question": "?",
            "passage": "f",
            "qa_type": "detailed",
            "context": "",
            "answer": "so",
        },
        {"id": "q3", "question": "?", "passage": "b", "qa_type": "", "context": "", "answer": ""},
    ]
    candidates = {q["id"]: CANDIDATES for q in questions}
    scores = {name: {q["id"]: SCORES[name] for q in questions} for name in SCORES}
    params = PARAMS.model_copy(
        update={
            "retrieve": RETRIEVE,
            "evaluate": EVALUATE,
            "score": PARAMS.score.model_copy(update={"depth": 6}),
        }
    )
    return evaluate_systems(
        questions, candidates, {"scores": scores}, {"scores": [1.0, 50.0, 0.0]}, {"c"}, params
    )


def test_groups_are_evaluated_under_both_protocols():
    result, rows, first, values = evaluated()
    assert list(result) == ["all", "detailed_seen", "detailed_unseen", "seen", "unseen", "article"]
    assert {name: group["questions"] for name, group in result.items()} == {
        "all": 3, "detailed_seen": 1, "detailed_unseen": 1, "seen": 1, "unseen": 2, "article": 3,
    }  # fmt: skip
    # The fine-tuned model ranks c first of 6 candidates, then a, b.
    assert result["all"]["reranker"]["hit@1"] == pytest.approx(1 / 3, abs=1e-6)
    assert result["all"]["base"]["hit@1"] == pytest.approx(1 / 3, abs=1e-6)  # f is first of six
    # The article's protocol: of 3 candidates for k = 1 the base ranks c first; f is not among them.
    assert result["article"]["base"]["hit@1"] == pytest.approx(1 / 3, abs=1e-6)
    assert result["article"]["base"]["hit@2"] == pytest.approx(1 / 3, abs=1e-6)  # over 6: f, e
    assert result["article"]["dense"]["hit@2"] == pytest.approx(1 / 3, abs=1e-6)  # only b
    assert set(result["article"]["reranker"]) == {"hit@1", "hit@2"}
    assert rows[0] == {
        "id": "q1", "passage": "c", "qa_type": "detailed", "seen": True,
        "bm25": None, "dense": 3, "retriever": 4, "base": 4, "reranker": 1, "fused": 2,
    }  # fmt: skip
    assert rows[1]["bm25"] == 1 and rows[2]["reranker"] == 4  # c, f, a, b
    assert [row["evidence"] for row in first] == ["why", "so", ""]
    assert first[0] == {
        "id": "q1", "question": "?", "evidence": "why", "passage": "c",
        "bm25": "f", "dense": "a", "retriever": "f", "base": "f", "reranker": "c", "fused": "a",
    }  # fmt: skip
    assert list(values) == ["bm25", "dense", "retriever", "base", "reranker", "fused"]
    assert values["reranker"] == {
        "hit@1": {"q1": 1.0, "q2": 0.0, "q3": 0.0},
        "MRR@10": {"q1": 1.0, "q2": 0.5, "q3": 0.25},
        "nDCG@10": {
            "q1": 1.0,
            "q2": pytest.approx(1 / math.log2(3)),
            "q3": pytest.approx(1 / math.log2(5)),
        },
    }


def test_the_table_shows_the_measured_values():
    result, _, _, values = evaluated()
    result["against"] = compare_systems(values, {"all": ["q1", "q2", "q3"]}, 500, 42)
    table = markdown_table(result, [1, 2], 10)
    assert "3 test questions, all" in table and "| reranker | 0.333 |" in table


def test_the_headline_compares_with_the_best_first_stage_by_mrr():
    measures = {"hit@1": 0.5, "hit@2": 0.5, "MRR@10": 0.5, "nDCG@10": 0.5}
    result = {
        "all": {
            "questions": 250,
            **{name: measures for name in ("bm25", "retriever", "base", "reranker", "fused")},
        }
    }
    result["all"]["dense"] = measures | {"MRR@10": 0.51}
    better = {"hit@1": {"difference": 0.1, "low": -0.0254, "high": 0.2, "p": 0.01234}}
    worse = {"hit@1": {"difference": -0.138, "low": -0.19, "high": -0.09, "p": 2 / 10_001}}
    result["against"] = {"all": {"reranker": {"dense": worse}, "fused": {"dense": better}}}
    assert """| dense | 0.500 | 0.510 | 0.500 |

Against dense, the best first stage by MRR@10, with 95 % intervals; one question is worth 0.0040:

- reranker - dense: hit@1 -0.138 [-0.190, -0.090] p=0.0002
- fused - dense: hit@1 +0.100 [-0.025, +0.200] p=0.012
""" in markdown_table(result, [1, 2], 10)
