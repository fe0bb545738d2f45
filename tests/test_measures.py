import math
import random

import ir_measures
import numpy as np
import pytest
from conftest import ROOT
from ir_measures import RR, Success, nDCG
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from tunerank.data.passages import Passage
from tunerank.evaluation.markdown import markdown_table
from tunerank.evaluation.measures import gold_rank, measure, per_question
from tunerank.evaluation.significance import compare_systems
from tunerank.evaluation.systems import (
    evaluate_systems,
    fit_fusion,
    fused_names,
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
    gold = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}, "q4": {"a": 1}}
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
    found = measure({"q": {"z": 1}}, {"q": [*"abcdefghij", "z"]}, [1], 10)
    assert found == {"hit@1": 0.0, "MRR@10": 0.0, "nDCG@10": 0.0}
    assert measure({"q": {"z": 1}}, {"q": [*"abcdefghij", "z"]}, [11], 11)[
        "MRR@11"
    ] == pytest.approx(1 / 11, abs=1e-6)


def test_measures_are_zero_without_any_hit():
    assert measure({"q": {"z": 1}}, {}, [1], 10) == {"hit@1": 0.0, "MRR@10": 0.0, "nDCG@10": 0.0}


def test_measures_are_given_per_question():
    gold = {"q2": {"a": 1}, "q1": {"a": 1}, "q3": {"a": 1}}
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
    gold = {f"q{i}": {"a": 1} for i in range(97)}
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


def test_several_relevant_passages_and_grades_by_hand():
    """q1 finds a at rank 2 and b at rank 3 of three, q2 its one passage first, q3 nothing."""
    gold = {"q1": {"a": 2, "b": 1, "c": 1}, "q2": {"a": 1}, "q3": {"a": 3, "b": 1}}
    rankings = {"q1": ["x", "a", "b", "y"], "q2": ["a"], "q3": ["x", "y"]}
    found = per_question(gold, rankings, [1, 2], 3, recall=[1, 2, 3])
    gain = (2 / math.log2(3) + 1 / 2) / (2 + 1 / math.log2(3) + 1 / 2)
    assert {name: list(values.values()) for name, values in found.items()} == {
        "hit@1": [0, 1, 0],
        "hit@2": [1, 1, 0],
        "MRR@3": [0.5, 1, 0],
        "nDCG@3": [pytest.approx(gain), 1, 0],
        "recall@1": [0, 1, 0],
        "recall@2": [pytest.approx(1 / 3), 1, 0],
        "recall@3": [pytest.approx(2 / 3), 1, 0],
        "MAP@3": [pytest.approx((1 / 2 + 2 / 3) / 3), 1, 0],
    }
    assert list(measure(gold, rankings, [1], 3)) == ["hit@1", "MRR@3", "nDCG@3"]


def directly(relevant: dict, ranking: list, k: int) -> dict[str, float]:
    """Return the measures at k of one question, from their definitions."""
    gains = [relevant.get(passage, 0) for passage in ranking]
    ideal = sorted(relevant.values(), reverse=True)
    at = [rank for rank, gain in enumerate(gains, 1) if gain]

    def dcg(values: list) -> float:
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(values[:k], 1))

    return {
        f"hit@{k}": float(any(gains[:k])),
        f"MRR@{k}": 1 / at[0] if at and at[0] <= k else 0.0,
        f"nDCG@{k}": dcg(gains) / dcg(ideal),
        f"recall@{k}": sum(rank <= k for rank in at) / len(relevant),
        f"MAP@{k}": sum(n / rank for n, rank in enumerate(at, 1) if rank <= k) / len(relevant),
    }


def test_several_relevant_passages_equal_the_definitions():
    draws = random.Random(5)
    names = "abcdefghijklmno"
    gold, rankings = {}, {}
    for i in range(150):
        chosen = draws.sample(names, draws.randint(1, 6))
        gold[f"q{i}"] = {name: draws.randint(1, 3) for name in chosen}
        rankings[f"q{i}"] = draws.sample(names, draws.randint(0, 15))
    for k in (1, 3, 10):
        found = per_question(gold, rankings, [k], k, recall=[k])
        for question, relevant in gold.items():
            wanted = directly(relevant, rankings[question], k)
            assert {name: values[question] for name, values in found.items()} == pytest.approx(
                wanted, abs=1e-9
            )


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
        gold[f"q{i}"] = {f"p{own}": 1}
        candidates[f"q{i}"] = [
            {"passage": f"p{j}", "dense_score": 0.8 + dense / 50, "bm25_score": 5 + sparse}
            for j, (_, dense, sparse) in enumerate(hints)
        ]
        scores[f"q{i}"] = {f"p{j}": row[0] for j, row in enumerate(hints)}
    return gold, candidates, scores


PARTS = (("dense", "dense_score"), ("bm25", "bm25_score"))


def fitted(gold, candidates, scores):
    return fit_fusion(gold, candidates, scores, PARTS)


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
    for q, relevant in gold.items():
        sums = {
            name: sum(weight * value for weight, value in zip(weights, row))
            for name, row in rows[q].items()
        }
        others = sum(math.exp(value) for name, value in sums.items() if name not in relevant)
        for passage, grade in relevant.items():
            chosen = sums[passage] - math.log(others + math.exp(sums[passage]))
            loss -= grade / sum(relevant.values()) * chosen
    return loss


def test_fitted_fusion_weights_are_the_most_likely_ones_that_are_not_negative():
    drawn = drawn_for_fusion()
    weights = fitted(*drawn)
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
    reranker, dense, _ = fitted(gold, candidates, scores)
    for q, row in scores.items():
        for passage in row:
            row[passage] += len(q)
        for candidate in candidates[q]:
            candidate["dense_score"] *= 10
    assert fitted(gold, candidates, scores) == pytest.approx([reranker, dense / 10, 0.0], rel=2e-3)


def test_fusion_weights_stay_finite_where_the_reranker_is_always_right():
    gold, candidates, scores = drawn_for_fusion(4)
    scores = {
        q: {passage: float(passage in gold[q]) for passage in row} for q, row in scores.items()
    }
    assert 0 < fitted(gold, candidates, scores)[0] < 10


def test_fusion_weights_do_not_see_candidates_that_the_reranker_has_not_scored():
    gold, candidates, scores = drawn_for_fusion()
    more = {
        q: [*row, {"passage": "unscored", "dense_score": 0.9, "bm25_score": 9.0}]
        for q, row in candidates.items()
    }
    assert fitted(gold, more, scores) == fitted(gold, candidates, scores)


def test_without_a_question_to_learn_from_the_fused_row_is_the_first_stage():
    gold, candidates, scores = drawn_for_fusion(2)
    assert fitted({q: {"elsewhere": 1} for q in gold}, candidates, scores) == [0.0, 0.0, 0.0]
    assert fitted({}, {}, {}) == [0.0, 0.0, 0.0]


def fitted_to_one_passage(gold, candidates, scores):
    """Return the weights for questions with one passage each, as the first version fitted them."""

    def loss(weights, groups, answers, unit):
        loss, gradient = weights @ weights / 2, weights.copy()
        for group, answer in zip(groups, answers):
            logits = group / unit @ weights
            loss += logsumexp(logits) - logits[answer]
            gradient += (softmax(logits) @ group - group[answer]) / unit
        return loss, gradient

    groups, answers = [], []
    for question, passage in gold.items():
        logits = scores[question]
        features = {
            c["passage"]: (logits[c["passage"]], c["dense_score"], c["bm25_score"])
            for c in candidates[question]
            if c["passage"] in logits
        }
        if passage in features:
            groups.append(np.array(list(features.values())))
            answers.append(list(features).index(passage))
    spread = np.concatenate([group - group.mean(0) for group in groups]).std(0)
    unit = np.where(spread > 0, spread, np.inf)
    options = {"jac": True, "method": "L-BFGS-B", "bounds": [(0, None)] * 3}
    found = minimize(loss, np.zeros(3), args=(groups, answers, unit), **options).x / unit
    return [float(f"{weight:.4g}") for weight in found]


@pytest.mark.parametrize("seed", range(8))
def test_one_passage_a_question_gives_exactly_the_weights_of_the_first_version(seed):
    gold, candidates, scores = drawn_for_fusion(20 + 30 * seed, seed)
    gold["q3"] = {"elsewhere": 1}
    del scores["q4"]["p0"]
    single = {question: next(iter(relevant)) for question, relevant in gold.items()}
    assert fitted(gold, candidates, scores) == fitted_to_one_passage(single, candidates, scores)


def several_for_fusion():
    """Return questions of which each third has a second relevant passage, of grade 3."""
    gold, candidates, scores = drawn_for_fusion(90)
    for i in range(0, 90, 3):
        (own,) = gold[f"q{i}"]
        gold[f"q{i}"] = {own: 1, f"p{(int(own[1]) + 1) % 5}": 3}
    return gold, candidates, scores


def test_several_relevant_passages_are_chosen_from_what_is_not_relevant_and_weigh_by_grade():
    gold, candidates, scores = several_for_fusion()
    weights = fitted(gold, candidates, scores)
    least = penalized(weights, gold, candidates, scores)
    for i in range(3):
        for step in (0.97, 1.03):
            changed = [w * step if i == j else w for j, w in enumerate(weights)]
            assert penalized(changed, gold, candidates, scores) >= least - 1e-9
    for grade in (1, 9):
        other = {
            q: {p: grade if g > 1 else g for p, g in found.items()} for q, found in gold.items()
        }
        assert fitted(other, candidates, scores) != weights


def test_a_relevant_passage_that_leads_another_one_gains_nothing():
    """Both passages of every question are relevant: no order of them is better."""
    gold, candidates, scores = drawn_for_fusion(30)
    gold = {q: {f"p{j}": 1 for j in range(5)} for q in gold}
    assert fitted(gold, candidates, scores) == [0.0, 0.0, 0.0]


def test_a_relevant_passage_without_a_score_changes_no_weight():
    gold, candidates, scores = drawn_for_fusion(30)
    more = {q: relevant | {"unscored": 3} for q, relevant in gold.items()}
    assert fitted(more, candidates, scores) == fitted(gold, candidates, scores)


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
        asked(f"q{number}", passage, {passage: 1}) for number, passage in enumerate("gbe", 1)
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


def asked(key: str, first: str, relevant: dict, **about: str) -> dict:
    """Return a question; `about` is of its `first` relevant passage, or its qa_type."""
    texts = {name: about.get(name, "") for name in ("context", "answer")}
    return {
        "id": key,
        "question": "?",
        "relevant": [
            {"passage": passage, "grade": grade}
            | (texts if passage == first else {"context": "another", "answer": ""})
            for passage, grade in relevant.items()
        ],
        "negatives": [],
        "qa_type": about.get("qa_type", ""),
    }


ONE_EACH = (
    asked("q1", "c", {"c": 1}, qa_type="detailed", context="why", answer="so"),
    asked("q2", "f", {"f": 1}, qa_type="detailed", answer="so"),
    asked("q3", "b", {"b": 1}),
)


def evaluated(questions=ONE_EACH, trained=("c",)):
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
        questions,
        candidates,
        {"scores": scores},
        {"scores": [1.0, 50.0, 0.0]},
        set(trained),
        params,
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


def test_several_relevant_passages_have_a_row_each_and_recall_and_map():
    """The fine-tuned model ranks c, f, a, b, d, e; the base f, e, d, c, b, a."""
    questions = (
        asked("q1", "b", {"b": 2, "c": 1}, qa_type="detailed", answer="so"),
        asked("q2", "f", {"f": 1}),
    )
    result, rows, first, values = evaluated(questions)
    assert rows == [
        {
            "id": "q1", "passage": "b", "grade": 2, "qa_type": "detailed", "seen": True,
            "bm25": None, "dense": 2, "retriever": 3, "base": 5, "reranker": 4, "fused": 3,
        },
        {
            "id": "q1", "passage": "c", "grade": 1, "qa_type": "detailed", "seen": True,
            "bm25": None, "dense": 3, "retriever": 4, "base": 4, "reranker": 1, "fused": 2,
        },
        {
            "id": "q2", "passage": "f", "grade": 1, "qa_type": "", "seen": False,
            "bm25": 1, "dense": 6, "retriever": 1, "base": 1, "reranker": 2, "fused": 6,
        },
    ]  # fmt: skip
    assert [row["passage"] for row in first] == ["b", "f"]
    assert [row["evidence"] for row in first] == ["so", ""]
    assert {name: group["questions"] for name, group in result.items()} == {
        "all": 2, "detailed_seen": 1, "seen": 1, "unseen": 1, "article": 2,
    }  # fmt: skip
    gain = (1 + 2 / math.log2(5)) / (2 + 1 / math.log2(3))
    assert result["all"]["reranker"] == {
        "hit@1": 0.5,
        "hit@2": 1.0,
        "MRR@10": 0.75,
        "nDCG@10": pytest.approx((gain + 1 / math.log2(3)) / 2, abs=1e-6),
        "recall@1": 0.25,
        "recall@2": 0.75,
        "MAP@10": pytest.approx(((1 + 2 / 4) / 2 + 1 / 2) / 2, abs=1e-6),
    }
    # A group of questions with one passage has the same measures.
    assert list(result["unseen"]["base"]) == list(result["all"]["base"])
    assert set(result["article"]["reranker"]) == {"hit@1", "hit@2"}
    assert list(values["base"]) == ["hit@1", "MRR@10", "nDCG@10", "recall@2", "MAP@10"]
    assert values["reranker"]["recall@2"] == {"q1": 0.5, "q2": 1.0}


def test_grades_have_a_column_only_where_one_is_not_1():
    _, rows, _, _ = evaluated((asked("q1", "b", {"b": 1, "c": 1}), ONE_EACH[1]))
    assert list(rows[0])[:4] == ["id", "passage", "qa_type", "seen"] and len(rows) == 3
    result, rows, _, _ = evaluated((asked("q1", "b", {"b": 3}), ONE_EACH[1]))
    assert [row["grade"] for row in rows] == [3, 1]
    assert "recall@2" in result["all"]["base"] and "MAP@10" in result["unseen"]["base"]


@pytest.mark.parametrize("trained, seen", [("c", True), ("b", True), ("bc", True), ("f", False)])
def test_a_question_is_seen_if_any_of_its_passages_has_training_questions(trained, seen):
    _, rows, _, _ = evaluated((asked("q1", "b", {"b": 1, "c": 1}),), trained)
    assert [row["seen"] for row in rows] == [seen, seen]


def test_with_a_run_the_first_stage_is_the_users_search():
    own = RETRIEVE.model_copy(update={"run": "elastic.trec"})
    found = [
        {"passage": key, "run": rank, "run_score": score}
        for key, rank, score in (("a", 1, 9.0), ("b", 2, 8.5), ("c", 3, 8.0), ("d", None, 8.0))
    ]
    assert rank_first_stages(found, 2, own) == {"elastic": ["a", "b"]}
    scores = {
        "scores": {"base": dict(zip("abc", (1, 3, 2))), "reranker": dict(zip("abc", (1, 1, 3)))}
    }
    assert rank_rerankers(found, scores, {"scores": [1.5, 4.0]}, 3, 3, own) == {
        "base": ["b", "c", "a"],
        "reranker": ["c", "a", "b"],
        "fused": ["a", "c", "b"],  # 1.5 + 36, 4.5 + 32, 1.5 + 34
    }
    assert fused_names(own.parts) == ("reranker", "elastic")
    weights = fit_fusion(
        {"q": {"c": 1}}, {"q": found}, {"q": scores["scores"]["reranker"]}, own.parts
    )
    assert len(weights) == 2 and weights[0] > 0 and weights[1] == 0.0
    assert fit_fusion({}, {}, {}, own.parts) == [0.0, 0.0]


def test_the_headline_names_the_users_search():
    measures = {"hit@1": 0.5, "MRR@10": 0.5, "nDCG@10": 0.5, "recall@2": 0.75, "MAP@10": 0.25}
    systems = dict.fromkeys(("elastic", "base", "reranker", "fused"), measures)
    cell = {"hit@1": {"difference": 0.1, "low": -0.0254, "high": 0.2, "p": 0.01234}}
    result = {
        "split": "test",
        "first_stages": ["elastic"],
        "all": {"questions": 250, **systems},
        "against": {"all": {"reranker": {"elastic": cell}}},
    }
    assert """
| system | hit@1 | MRR@10 | nDCG@10 | recall@2 | MAP@10 |
|---|---|---|---|---|---|
| elastic | 0.500 | 0.500 | 0.500 | 0.750 | 0.250 |
""" in markdown_table(result, [1, 2], 10)
    assert (
        "Against elastic, the first stage, with 95 % intervals; one question is worth 0.0040:\n\n"
        "- reranker - elastic: hit@1 +0.100 [-0.025, +0.200] p=0.012\n"
    ) in markdown_table(result, [1, 2], 10)


def test_the_table_shows_the_measured_values():
    result, _, _, values = evaluated()
    result["split"] = "test"
    result["against"] = compare_systems(values, {"all": ["q1", "q2", "q3"]}, 500, 42)
    table = markdown_table(result, [1, 2], 10)
    assert "3 test questions, all" in table and "| reranker | 0.333 |" in table
    of_validation = markdown_table(result | {"split": "valid"}, [1, 2], 10)
    assert of_validation == table.replace("test questions", "validation questions")


def test_the_headline_compares_with_the_best_first_stage_by_mrr():
    measures = {"hit@1": 0.5, "hit@2": 0.5, "MRR@10": 0.5, "nDCG@10": 0.5}
    result = {
        "split": "test",
        "all": {
            "questions": 250,
            **{name: measures for name in ("bm25", "retriever", "base", "reranker", "fused")},
        },
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
