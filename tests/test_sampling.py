import json
import random

import pytest
from conftest import ROOT, article

from tunerank.core.files import write_jsonl
from tunerank.data.passages import Passage
from tunerank.params.data import Units
from tunerank.params.load import load
from tunerank.samples.negatives import (
    add_teacher_scores,
    hard_negatives,
    held_out_passages,
    lazy_shuffle,
    paired_text,
    without_false_negatives,
)
from tunerank.samples.units import Unit, draw_unit

PARAMS = load(ROOT / "tests/params.yaml").samples


def plain_build_qa_samples(rows, neg_batch_size, n_neg_batch):
    """Return the samples of the article's function, rewritten literally as a reference."""
    data = []
    for question, answer in rows:
        others = [
            other_answer for other_question, other_answer in rows if other_question != question
        ]
        count = min(n_neg_batch, -(-(len(rows) - 1) // neg_batch_size))
        for batch in range(count):
            negatives = [
                a
                for a in others[batch * neg_batch_size : (batch + 1) * neg_batch_size]
                if a != answer
            ]
            data.append({"query": question, "pos": [answer], "neg": negatives})
    return data


def test_241_questions_give_3615_samples_with_negatives_in_table_order():
    rows = [(f"问题{i}", f"文本{i}") for i in range(241)]
    samples = article(rows, 16, 32)
    assert len(samples) == 3615
    assert samples[0] == {
        "query": "问题0",
        "pos": ["文本0"],
        "neg": [f"文本{i}" for i in range(1, 17)],
    }
    assert samples[14]["neg"] == [f"文本{i}" for i in range(225, 241)]
    assert samples[-1]["neg"] == [f"文本{i}" for i in range(224, 240)]


@pytest.mark.parametrize("rows", [2, 3, 17, 33, 34, 50])
@pytest.mark.parametrize("size, batches", [(16, 32), (16, 1), (5, 3), (1, 2)])
def test_the_articles_construction_is_reproduced(rows, size, batches):
    table = [(f"q{i}", f"t{i % 40}") for i in range(rows)]  # some texts are repeated
    expected = [sample for sample in plain_build_qa_samples(table, size, batches) if sample["neg"]]
    assert article(table, size, batches) == expected


def test_a_sample_can_hold_all_negatives():
    assert article([("a", "1"), ("b", "2"), ("c", "1")], None, 5) == [
        {"query": "a", "pos": ["1"], "neg": ["2"]},
        {"query": "b", "pos": ["2"], "neg": ["1", "1"]},
        {"query": "c", "pos": ["1"], "neg": ["2"]},
    ]


def test_passages_of_held_out_questions_are_negatives_only_if_trained_on():
    questions = {
        "train": [{"passage": "a"}, {"passage": "b"}],
        "valid": [{"passage": "c"}],
        "test": [{"passage": "b"}, {"passage": "d"}],
    }
    assert held_out_passages(questions) == {"c", "d"}


QUESTION = {"id": "q1", "question": "问", "passage": "own"}
CANDIDATES = [
    {"passage": key, "dense_score": score}
    for key, score in [
        ("n1", 0.95),
        ("own", 0.9),
        ("n2", 0.89),
        ("held", 0.88),
        ("same", 0.87),
        ("n3", 0.5),
        ("n4", 0.4),
    ]
]
TEXTS = {
    key: f"text of {key}" for key in ("n1", "own", "n2", "same", "n3", "n4", "r1", "r2", "r3")
} | {"same": "positive"}
ALLOWED = list(TEXTS)


def mine(seed=1, question=QUESTION, candidates=CANDIDATES, allowed=ALLOWED, **changes):
    params = PARAMS.model_copy(
        update={"negatives": 4, "random_negatives": 0, "skip_top": 0, "window": 6} | changes
    )
    return hard_negatives(
        question, candidates, ["positive"], TEXTS.__getitem__, allowed, {"held"}, params, seed
    )


def test_hard_negatives_are_allowed_candidates_other_than_the_positive():
    sample = mine()
    assert sorted(sample["neg_passages"]) == ["n1", "n2", "n3", "n4"]
    assert sample["neg"] == [TEXTS[key] for key in sample["neg_passages"]]
    assert (sample["query"], sample["pos"], sample["pos_passages"]) == ("问", ["positive"], ["own"])


def test_hard_negatives_come_from_a_window_below_the_skipped_top():
    assert set(mine(skip_top=1, window=1, negatives=1)["neg_passages"]) == {"n2"}
    assert set(mine(skip_top=0, window=2, negatives=2)["neg_passages"]) == {"n1", "n2"}


def test_margins_drop_candidates_that_score_too_close_to_the_positive():
    others = {"n3", "n4", "r1", "r2", "r3", "own"}
    assert "n1" not in mine(absolute_margin=0.0)["neg_passages"]
    assert "n2" in mine(absolute_margin=0.0)["neg_passages"]
    assert set(mine(absolute_margin=0.05)["neg_passages"]) <= others
    assert set(mine(relative_margin=0.05)["neg_passages"]) <= others  # at most 0.855
    assert "n2" in mine(relative_margin=0.01)["neg_passages"]  # at most 0.891
    assert "n1" in mine(absolute_margin=-0.06)["neg_passages"]


def test_random_negatives_fill_up_without_repeating_the_hard_ones():
    sample = mine(negatives=7, random_negatives=3)
    assert len(sample["neg_passages"]) == 7 == len(set(sample["neg_passages"]))
    assert {"n1", "n2", "n3", "n4"} <= set(sample["neg_passages"]) | {"r1", "r2", "r3"}
    assert not {"own", "held", "same"} & set(sample["neg_passages"])
    assert {"r1", "r2", "r3"} == set(
        mine(negatives=7, random_negatives=7, window=1, skip_top=0)["neg_passages"]
    ) & {"r1", "r2", "r3"}


def test_the_draw_depends_only_on_seed_and_question():
    assert mine(negatives=2) == mine(negatives=2)
    draws = {tuple(mine(seed=seed, negatives=2)["neg_passages"]) for seed in range(20)}
    assert len(draws) > 3
    others = {
        tuple(mine(question=QUESTION | {"id": f"q{i}"}, negatives=2)["neg_passages"])
        for i in range(20)
    }
    assert len(others) > 3


def test_samples_carry_the_teachers_scores_as_logits():
    sample = mine(teacher="retriever", negatives=6, random_negatives=2, window=4)
    scores = {c["passage"]: c["dense_score"] for c in CANDIDATES}
    assert sample["pos_scores"] == [90.0]
    # A passage that is not a candidate gets the score of the last candidate: 0.4.
    assert sample["neg_scores"] == [
        pytest.approx(100 * scores.get(key, 0.4)) for key in sample["neg_passages"]
    ]
    assert 40.0 in sample["neg_scores"] and "pos_scores" not in mine()


def test_a_reranker_scores_each_text_in_its_place():
    made = [
        {"query": "q", "pos": ["aaa"], "neg": ["b", "cc"]},
        {"query": "r", "pos": ["dddd", "e"], "neg": ["ff"]},
    ]
    asked = []

    def score(pairs):
        asked.extend(pairs)
        return [len(text) + 0.12344 for _, text in pairs]

    first, second = add_teacher_scores(made, score)
    assert first == made[0] | {"pos_scores": [3.1234], "neg_scores": [1.1234, 2.1234]}
    assert second == made[1] | {"pos_scores": [4.1234, 1.1234], "neg_scores": [2.1234]}
    assert asked[:3] == [("q", "aaa"), ("q", "b"), ("q", "cc")] and len(asked) == 6


def test_a_passage_that_the_teacher_prefers_is_not_a_negative():
    sample = {
        "query": "q",
        "pos": ["p", "o"],
        "neg": ["a", "b", "c"],
        "neg_passages": ["A", "B", "C"],
    }
    sample |= {"pos_scores": [1.0, 2.0], "neg_scores": [1.6, 1.5, 0.0]}
    assert without_false_negatives(sample, 0.5) == sample | {
        "neg": ["b", "c"],
        "neg_passages": ["B", "C"],
        "neg_scores": [1.5, 0.0],
    }
    assert without_false_negatives(sample, -1.0) == sample
    assert without_false_negatives(sample, 5.0) is None


def test_a_random_order_holds_every_item_once():
    items = [str(i) for i in range(50)]
    order = list(lazy_shuffle(items, random.Random(3)))
    assert sorted(order) == sorted(items) and order != items
    assert list(lazy_shuffle([], random.Random(3))) == []


def test_a_question_without_negatives_gives_no_sample():
    assert (
        mine(
            allowed=["own", "same"],
            candidates=[c for c in CANDIDATES if c["passage"] in ("own", "same")],
        )
        is None
    )


DOC = "前" * 50 + "证据在这里" + "后" * 50
ROW = {"question": "q", "answer": "答案", "context": "证据在这里"}


@pytest.mark.parametrize(
    "pair, row, size, expected",
    [
        ("passage", ROW, 20, "前" * 20),
        ("qd", ROW, 20, "证据在这里"),
        ("qa", ROW, 20, "答案"),
        ("evidence", ROW, 20, "前" * 8 + "证据在这里" + "后" * 7),
        ("evidence", ROW, 0, DOC),
        ("passage", ROW, 30, "前" * 30),  # the nearest span of 20 characters and its surroundings
        ("evidence", ROW | {"context": "不在文中"}, 20, "前" * 20),
        ("qd", ROW | {"context": ""}, 20, "前" * 20),
        ("qa", ROW | {"answer": ""}, 20, "前" * 20),
    ],
)
def test_a_unit_of_a_passage_has_the_expected_text(pair, row, size, expected):
    assert paired_text(row, pair, Passage("", DOC), (0, 20), Unit(size, True)) == expected


def test_a_window_around_evidence_at_the_end_stays_inside_the_passage():
    row = ROW | {"context": "后后后"}
    passage = Passage("题", "前" * 60 + "后后后")
    assert (
        paired_text(row, "evidence", passage, (0, 20), Unit(20, True))
        == "题。" + "前" * 17 + "后后后"
    )
    assert paired_text(row, "evidence", passage, (0, 20), Unit(20, False)) == "前" * 17 + "后后后"


def drawn(questions=400, shown=80, **changes) -> list[Unit]:
    units = {f"units_{name}": 0.0 for name in ("view", "window", "whole")} | changes
    shares = Units(
        **{
            name.removeprefix("units_"): units.pop(name)
            for name in list(units)
            if name.startswith("units_")
        }
    )
    return [
        draw_unit(PARAMS.model_copy(update={"units": shares} | units), shown, 42, f"q{i}")
        for i in range(questions)
    ]


def test_units_are_drawn_with_their_shares():
    found = drawn(
        units_view=1.0, units_window=2.0, units_whole=1.0, window_sizes=[64, 320], untitled=0.25
    )
    sizes = [unit.size for unit in found]
    # A quarter of 400 texts is 100. Windows of 80 characters are rare.
    assert 70 < sizes.count(80) < 130 and 70 < sizes.count(0) < 130
    windows = [size for size in sizes if size not in (0, 80)]
    assert min(windows) >= 64 and max(windows) <= 320 and len(set(windows)) > 100
    assert 70 < sum(not unit.titled for unit in found) < 130


@pytest.mark.parametrize("shown, sizes", [(80, {80}), (0, {0})])
def test_a_view_has_the_length_that_the_reranker_sees(shown, sizes):
    assert {unit.size for unit in drawn(shown=shown, units_view=1.0)} == sizes


def test_a_unit_depends_only_on_the_question():
    many = drawn(units_view=1.0, units_whole=1.0)
    assert drawn(questions=7, units_view=1.0, units_whole=1.0) == many[:7] and len(set(many)) == 2


@pytest.mark.parametrize("strategy", ["hard", "all"])
def test_all_texts_of_a_group_have_one_unit(strategy):
    """Each passage has 400 characters that no other passage has.

    So the characters of a text identify its passage, and their number identifies its unit.
    """
    from tunerank.samples.build import build

    corpus = {key: Passage(f"{key}题", key * 400) for key in "甲乙丙丁"}
    spans = [{"passage": key, "dense_score": 0.5, "nearest": (100, 164)} for key in corpus]
    rows = [
        {"id": f"q{i}", "question": "问", "passage": "甲乙丙丁"[i % 4], "context": "", "answer": ""}
        for i in range(60)
    ]
    full = load(ROOT / "tests/params.yaml")
    units = Units(view=1.0, window=1.0, whole=1.0)
    changes = {
        "strategy": strategy,
        "units": units,
        "untitled": 0.5,
        "negatives": 2,
        "random_negatives": 1,
        "window": 3,
        "n_neg_batch": 1,
    }
    params = full.model_copy(
        update={
            "samples": PARAMS.model_copy(update=changes),
            "retrieve": full.retrieve.model_copy(update={"shown": 80}),
        }
    )
    found = list(build(params, corpus, ((row, spans) for row in rows), held_out=set(), about={}))
    assert len(found) == 60
    kinds = set()
    for row, sample in zip(rows, found):
        unit = draw_unit(params.samples, 80, params.seed, row["id"])
        for text in sample["pos"] + sample["neg"]:
            assert (
                len(text) == (unit.size or 400) + 3 * unit.titled
                and ("题。" in text) == unit.titled
            )
        kinds.add(({0: "whole", 80: "view"}.get(unit.size, "window"), unit.titled))
    assert len(kinds) == 6


def test_without_titles_a_passage_with_the_same_text_is_not_a_negative():
    from tunerank.samples.build import build

    corpus = {
        "a": Passage("甲", "同文" * 9),
        "b": Passage("乙", "同文" * 9),
        "c": Passage("丙", "异文" * 9),
    }
    spans = [
        {"passage": key, "dense_score": 0.5, "nearest": (at, at + 4)}
        for at, key in enumerate(corpus)
    ]
    row = {"id": "q", "question": "问", "passage": "a", "context": "", "answer": ""}
    full = load(ROOT / "tests/params.yaml")
    found = {}
    for untitled in (0.0, 1.0):
        changes = {"negatives": 3, "random_negatives": 2, "window": 3, "untitled": untitled}
        params = full.model_copy(
            update={
                "samples": PARAMS.model_copy(update=changes),
                "retrieve": full.retrieve.model_copy(update={"shown": 8}),
            }
        )
        (sample,) = build(params, corpus, [(row, spans)], held_out=set(), about={})
        found[untitled] = sorted(sample["neg_passages"])
    assert found == {0.0: ["b", "c"], 1.0: ["c"]}


def test_samples_are_plain_json():
    assert json.loads(json.dumps(mine(), ensure_ascii=False)) == mine()


def test_both_positives_are_the_view_and_the_window_around_the_evidence():
    """The view of passage `a` is its start and its evidence is at its end; `b`'s view has it."""
    from tunerank.samples.build import build

    texts = {"a": "甲" * 40 + "证据在此", "b": "乙" * 10, "c": "丙" * 10, "d": "丁" * 10}
    corpus = {key: Passage("", text) for key, text in texts.items()}
    spans = {"a": (0, 8), "b": (0, 8), "c": (0, 8), "d": (0, 8)}
    candidates = [
        {"passage": key, "dense_score": 0.5, "nearest": span} for key, span in spans.items()
    ]
    rows = [
        {"id": f"q{key}", "question": f"问{key}", "passage": key, "context": context, "answer": ""}
        for key, context in (("a", "证据在此"), ("b", "乙乙"))
    ]
    settings = {
        "pair": "both",
        "negatives": 2,
        "random_negatives": 1,
        "skip_top": 0,
        "window": 3,
        "teacher": "retriever",
    }
    full = load(ROOT / "tests/params.yaml")
    params = full.model_copy(
        update={
            "samples": PARAMS.model_copy(update=settings),
            "retrieve": full.retrieve.model_copy(update={"window": 8, "stride": 4, "shown": 8}),
        }
    )
    first, second = build(
        params, corpus, ((row, candidates) for row in rows), held_out={"d"}, about={}
    )
    assert (
        first["pos"] == ["甲" * 8, "甲甲甲甲证据在此"]
        and first["pos_scores"] == [50.0, 50.0]
        and first["pos_passages"] == ["a", "a"]
    )
    assert second["pos"] == ["乙" * 8]
    for sample in (first, second):
        assert not {"d", *sample["pos_passages"]} & set(sample["neg_passages"])
        assert sample["neg"] == [texts[key][:8] for key in sample["neg_passages"]]


@pytest.mark.parametrize(
    "views, context, expected",
    [
        ([(0, 4), (2, 6)], "2345", True),
        ([(2, 6)], "3456", False),  # one character beyond the view
        ([(2, 6)], "", None),
        ([(0, 10)], "not there", None),
    ],
)
def test_evidence_counts_as_shown_if_a_view_contains_it(views, context, expected):
    from tunerank.samples.build import evidence_shown

    candidates = [{"passage": "b", "views": [(0, 1)]}, {"passage": "a", "views": views}]
    corpus = {"a": Passage("title", "0123456789")}
    assert evidence_shown({"passage": "a", "context": context}, candidates, corpus) is expected


@pytest.mark.parametrize("asked, share", [(["q1", "q2", "q3", "q4"], 0.5), (["q3", "q4"], None)])
def test_the_share_of_questions_with_evidence_in_a_view_is_reported(
    tmp_path, monkeypatch, asked, share
):
    """The evidence is inside a view, one character beyond, missing, or not in the passage.

    The share counts only questions that have evidence in their passage.
    """
    from samples import main

    shown = {"q1": [(0, 4), (2, 6)], "q2": [(2, 6)], "q3": [(2, 6)], "q4": [(0, 10)]}
    contexts = {"q1": "2345", "q2": "3456", "q3": "", "q4": "not there"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        (ROOT / "tests/params.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (tmp_path / "prepared").mkdir()
    write_jsonl(
        tmp_path / "prepared/corpus.jsonl",
        ({"id": key, "text": text} for key, text in (("a", "0123456789"), ("b", "another"))),
    )
    rows = [
        {"id": key, "question": key, "answer": "", "context": contexts[key], "passage": "a"}
        for key in asked
    ]
    for split, found in (("train", rows), ("valid", []), ("test", [])):
        write_jsonl(tmp_path / f"prepared/{split}.jsonl", found)
    other = {"passage": "b", "dense_score": 0.1, "nearest": (0, 7), "views": [(0, 7)]}
    (tmp_path / "candidates").mkdir()
    write_jsonl(
        tmp_path / "candidates/train.jsonl",
        (
            {
                "id": key,
                "candidates": [
                    {
                        "passage": "a",
                        "dense_score": 0.5,
                        "nearest": shown[key][0],
                        "views": shown[key],
                    },
                    other,
                ],
            }
            for key in asked
        ),
    )
    main("prepared", "candidates", "none", "samples", "samples.json")
    assert json.loads((tmp_path / "samples.json").read_text())["evidence_shown"] == share
