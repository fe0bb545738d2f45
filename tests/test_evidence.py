import itertools

import numpy as np
import pytest

from tunerank.evaluation.per_query import hits_by_document, question_groups
from tunerank.evaluation.significance import (
    best_first_stage,
    compare,
    compare_systems,
    first_stage_title,
    suspect_labels,
)


def test_p_is_the_share_of_sign_flips_with_at_least_the_same_difference():
    ours, theirs = (
        [0.9, 0.5, 1.0, 0.25, 1.0, 0.5, 1.0, 1 / 3],
        [0.2, 0.7, 0.4, 0.1, 0.3, 0.45, 0.9, 0.5],
    )
    differences = np.subtract(ours, theirs)
    sums = np.array([np.dot(signs, differences) for signs in itertools.product((-1, 1), repeat=8)])
    expected = (np.abs(sums) >= abs(differences.sum()) - 1e-9).mean()
    assert 0.01 < expected < 0.2
    assert compare(ours, theirs, 1000, 0)["p"] == pytest.approx(expected, abs=1e-12)


def test_p_of_hits_equals_the_sign_test():
    """9 questions are won, 2 lost and 200 tied. P(X <= 2) for X ~ B(11, 1/2) is 67 / 2048."""
    ours, theirs = [1.0] * 9 + [0.0] * 2 + [1.0] * 200, [0.0] * 9 + [1.0] * 2 + [1.0] * 200
    assert compare(ours, theirs, 10_000, 0)["p"] == pytest.approx(2 * 67 / 2048, abs=1e-12)


def test_p_from_random_flips_is_near_the_sign_test():
    """30 questions are won and 14 lost: 2 P(X <= 14) for X ~ B(44, 1/2) is 0.0226."""
    ours, theirs = [1.0] * 30 + [0.0] * 14, [0.0] * 30 + [1.0] * 14
    assert compare(ours, theirs, 10_000, 1)["p"] == pytest.approx(0.0226, abs=0.006)


def test_no_flip_as_extreme_gives_the_smallest_p_of_the_resamples():
    assert compare([1.0] * 100, [0.0] * 100, 999, 0)["p"] == pytest.approx(2 / 1000, abs=1e-12)


def test_the_interval_matches_a_plain_bootstrap():
    generator = np.random.default_rng(11)
    ours, theirs = generator.choice([0.0, 1.0], 300, p=[0.4, 0.6]), generator.uniform(0, 1, 300)
    means = np.array(
        [(ours - theirs)[generator.integers(0, 300, 300)].mean() for _ in range(10_000)]
    )
    found = compare(ours, theirs, 10_000, 42)
    assert found["difference"] == pytest.approx((ours - theirs).mean(), abs=1e-12)
    assert found["low"] == pytest.approx(np.quantile(means, 0.025), abs=0.004)
    assert found["high"] == pytest.approx(np.quantile(means, 0.975), abs=0.004)
    assert 0.1 < found["high"] - found["low"] < 0.15  # 2 * 1.96 * 0.57 / sqrt(300)


def test_questions_are_paired():
    """A small gain on every question is certain, even if the questions differ a lot."""
    theirs = np.linspace(0, 0.75, 200)
    found = compare(theirs + 0.25, theirs, 500, 0)
    assert (found["difference"], found["low"], found["high"]) == pytest.approx(
        (0.25, 0.25, 0.25), abs=1e-12
    )
    assert found["p"] == pytest.approx(2 / 501, abs=1e-12)


def test_swapped_systems_have_the_mirrored_result():
    generator = np.random.default_rng(5)
    ours, theirs = generator.uniform(0, 1, 60), generator.uniform(0, 1, 60)
    there, back = compare(ours, theirs, 2000, 3), compare(theirs, ours, 2000, 3)
    assert (back["difference"], back["low"], back["high"]) == pytest.approx(
        (-there["difference"], -there["high"], -there["low"]), abs=1e-12
    )
    assert back["p"] == there["p"] and there["low"] < there["difference"] < there["high"]


def test_resampling_depends_on_the_seed_and_not_on_the_global_generator():
    ours, theirs = np.random.default_rng(5).uniform(0, 1, (2, 60))
    np.random.seed(1)
    first = compare(ours, theirs, 500, 3)
    np.random.seed(2)
    state = np.random.get_state()[1].tolist()
    assert compare(ours, theirs, 500, 3) == first != compare(ours, theirs, 500, 4)
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize(
    "ours, theirs, expected",
    [
        (  # all are equal
            [1.0, 0.0, 0.5],
            [1.0, 0.0, 0.5],
            {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0},
        ),
        ([1.0], [0.5], {"difference": 0.5, "low": 0.5, "high": 0.5, "p": 1.0}),  # one question
        ([1.0], [1.0], {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}),
        (  # one question differs
            [1.0, 0.0],
            [0.0, 0.0],
            {"difference": 0.5, "low": 0.0, "high": 1.0, "p": 1.0},
        ),
    ],
)
def test_too_few_questions_give_no_evidence(ours, theirs, expected):
    assert compare(ours, theirs, 500, 0) == expected


def test_each_system_is_compared_with_each_rival_in_each_group():
    hits = {
        "bm25": [0, 0, 0],
        "dense": [1, 0, 0],
        "retriever": [1, 1, 0],
        "base": [0, 0, 0],
        "reranker": [1, 1, 1],
        "fused": [0, 1, 0],
    }
    values = {name: {"hit@1": dict(zip(("q1", "q2", "q3"), row))} for name, row in hits.items()}
    found = compare_systems(
        values, {"all": ["q1", "q2", "q3"], "unseen": ["q1"], "none": []}, 500, 0
    )
    assert list(found) == ["all", "unseen"]
    differences = {
        (group, system, rival): measures["hit@1"]["difference"]
        for group, systems in found.items()
        for system, rivals in systems.items()
        for rival, measures in rivals.items()
    }
    third = pytest.approx(1 / 3)
    assert differences == {
        ("all", "reranker", "bm25"): 1, ("all", "reranker", "dense"): pytest.approx(2 / 3),
        ("all", "reranker", "retriever"): third, ("all", "reranker", "base"): 1,
        ("all", "fused", "bm25"): third, ("all", "fused", "dense"): 0,
        ("all", "fused", "retriever"): pytest.approx(-1 / 3), ("all", "fused", "base"): third,
        ("unseen", "reranker", "bm25"): 1, ("unseen", "reranker", "dense"): 0,
        ("unseen", "reranker", "retriever"): 0, ("unseen", "reranker", "base"): 1,
        ("unseen", "fused", "bm25"): 0, ("unseen", "fused", "dense"): -1,
        ("unseen", "fused", "retriever"): -1, ("unseen", "fused", "base"): 0,
    }  # fmt: skip


def test_hits_are_counted_by_document():
    rows = [
        {"id": "q1", "passage": "p1", "bm25": 1, "reranker": 2},
        {"id": "q2", "passage": "p3", "bm25": None, "reranker": 1},
        {"id": "q3", "passage": "p2", "bm25": 3, "reranker": 1},
        {"id": "q4", "passage": "p1", "bm25": 1, "reranker": 1},
    ]
    assert hits_by_document(
        rows, ["bm25", "reranker"], {"p1": "手册", "p2": "手册", "p3": "faq", "p4": "no question"}
    ) == [
        {"document": "faq", "questions": 1, "bm25": 0.0, "reranker": 1.0},
        {"document": "手册", "questions": 3, "bm25": 0.666667, "reranker": 0.666667},
    ]


def test_a_question_counts_in_each_document_of_its_passages():
    rows = [
        {"id": "q1", "passage": "p1", "bm25": 2, "reranker": None},
        {"id": "q1", "passage": "p2", "bm25": 7, "reranker": 3},
        {"id": "q1", "passage": "p3", "bm25": 1, "reranker": 2},
        {"id": "q2", "passage": "p1", "bm25": 4, "reranker": 1},
    ]
    assert hits_by_document(rows, ["bm25", "reranker"], {"p1": "a", "p2": "a", "p3": "b"}) == [
        {"document": "a", "questions": 2, "bm25": 0.5, "reranker": 0.5},
        {"document": "b", "questions": 1, "bm25": 1.0, "reranker": 0.0},
    ]


def test_the_first_stage_is_the_users_search_where_there_is_one():
    measured = {"bm25": {"MRR@10": 0.5}, "dense": {"MRR@10": 0.75}, "retriever": {"MRR@10": 0.25}}
    result = {"all": measured}
    assert best_first_stage(result, "MRR@10") == "dense"
    assert first_stage_title(result, "MRR@10") == "dense, the best first stage by MRR@10"
    own = {"first_stages": ["elastic"], "all": {"elastic": {"MRR@10": 0.5}}}
    assert best_first_stage(own, "MRR@10") == "elastic"
    assert first_stage_title(own, "MRR@10") == "elastic, the first stage"


def own(*passages: str) -> list[dict]:
    return [{"passage": passage, "grade": 1} for passage in passages]


def test_suspects_are_beaten_clearly_under_both_models_by_the_same_passage():
    names = ("both", "stronger", "one model", "two rivals", "small", "exact", "unscored", "right")
    questions = [{"id": name, "question": f"{name}?", "relevant": own("own")} for name in names]
    base = {
        "both": {"own": 0.0, "a": 1.5, "b": 4.0},
        "stronger": {"own": -1.0, "a": 2.0},
        "one model": {"own": 0.0, "a": 0.5},
        "two rivals": {"own": 0.0, "a": 5.0, "b": -5.0},
        "small": {"own": 0.0, "a": 0.75},
        "exact": {"own": 0.0, "a": 1.0},
        "unscored": {"a": 5.0},
        "right": {"own": 2.0, "a": 0.0},
    }
    tuned = {
        "both": {"own": 1.0, "a": 3.0, "b": 1.25},
        "stronger": {"own": 0.0, "a": 2.5},
        "one model": {"own": 0.0, "a": 5.0},
        "two rivals": {"own": 0.0, "a": -5.0, "b": 5.0},
        "small": {"own": 0.0, "a": 0.75},
        "exact": {"own": 0.0, "a": 3.0},
        "unscored": {"a": 5.0},
        "right": {"own": 2.0, "a": 0.0},
    }
    assert [tuple(row.values()) for row in suspect_labels("test", questions, base, tuned, 1.0)] == [
        ("test", "stronger", "stronger?", "own", "a", 3.0, 2.5),
        (
            "test",
            "both",
            "both?",
            "own",
            "a",
            1.5,
            2.0,
        ),  # b is ahead by 4 under the base, but by 0.25 under the fine-tuned
        ("test", "exact", "exact?", "own", "a", 1.0, 3.0),
    ]
    assert suspect_labels("test", questions, base, tuned, 2.6) == []


def test_a_relevant_passage_is_no_rival_and_the_best_one_is_the_measure():
    questions = [
        {"id": "led by another relevant one", "question": "?", "relevant": own("r1", "r2")},
        {"id": "beaten", "question": "?", "relevant": own("r1", "r2", "unscored")},
        {"id": "one is better", "question": "?", "relevant": own("r1", "r2")},
        {"id": "nothing else", "question": "?", "relevant": own("r1", "r2")},
        {"id": "unscored", "question": "?", "relevant": own("r3", "r4")},
    ]
    base = {
        "led by another relevant one": {"r1": 0.0, "r2": 9.0, "a": 5.0},
        "beaten": {"r1": 2.0, "r2": 1.0, "a": 5.0},
        "one is better": {"r1": 0.0, "r2": 5.0, "a": 5.0},
        "nothing else": {"r1": 0.0, "r2": 5.0},
        "unscored": {"a": 1.0},
    }
    tuned = base | {
        "led by another relevant one": {"r1": 0.0, "r2": 9.0, "a": 9.5},
        "beaten": {"r1": -1.0, "r2": 0.5, "a": 2.0},
        "one is better": {"r1": 0.0, "r2": 0.0, "a": 5.0},
    }
    assert [tuple(row.values()) for row in suspect_labels("test", questions, base, tuned, 1.0)] == [
        ("test", "beaten", "?", "r2", "a", 3.0, 1.5),  # 5 - 2 under the base, 2 - 0.5
    ]


def test_questions_are_grouped_by_seen_passages_and_by_kind():
    rows = [
        {"id": "q1", "seen": True, "qa_type": "detailed"},
        {"id": "q2", "seen": False, "qa_type": "detailed"},
        {"id": "q3", "seen": False, "qa_type": ""},
    ]
    assert question_groups(rows) == {
        "all": ["q1", "q2", "q3"],
        "seen": ["q1"],
        "unseen": ["q2", "q3"],
        "detailed_seen": ["q1"],
        "detailed_unseen": ["q2"],
    }


def test_a_question_with_several_rows_is_in_a_group_once():
    rows = [
        {"id": key, "seen": seen, "qa_type": "kind"}
        for key, seen in (("q2", True), ("q2", True), ("q1", False), ("q2", True))
    ]
    assert question_groups(rows) == {
        "all": ["q2", "q1"],
        "seen": ["q2"],
        "kind_seen": ["q2"],
        "unseen": ["q1"],
        "kind_unseen": ["q1"],
    }
