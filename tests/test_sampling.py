import json
import random

import pytest
from conftest import ROOT, article

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl, write_jsonl
from tunerank.data.passages import Passage
from tunerank.params.data import Units
from tunerank.params.load import load
from tunerank.samples.build import build, evidence_shown, join_candidates
from tunerank.samples.negatives import (
    add_teacher_scores,
    hard_negatives,
    held_out_passages,
    lazy_shuffle,
    without_false_negatives,
)
from tunerank.samples.texts import paired_text
from tunerank.samples.units import Unit, draw_unit

FULL = load(ROOT / "tests/params.yaml")
PARAMS = FULL.samples


def asked(key: str, *relevant: str, negatives=(), grades=(), context="", answer="") -> dict:
    """Return a question about the relevant passages, all of grade 1 unless `grades` are given."""
    return {
        "id": key,
        "question": f"问{key}",
        "relevant": [
            {"passage": passage, "grade": grade, "context": context, "answer": answer}
            for passage, grade in zip(relevant, grades or [1] * len(relevant), strict=True)
        ],
        "negatives": list(negatives),
    }


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
        "train": [asked("1", "a", "e"), asked("2", "b")],
        "valid": [asked("3", "c", "e")],
        "test": [asked("4", "b"), asked("5", "d")],
    }
    assert held_out_passages(questions) == {"c", "d"}


QUESTION = asked("q1", "own")
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
    positives = {item["passage"]: ["positive"] for item in question["relevant"]}
    return hard_negatives(
        question, candidates, positives, TEXTS.get, allowed, {"held"}, params, seed
    )


def test_hard_negatives_are_allowed_candidates_other_than_the_positive():
    sample = mine()
    assert sorted(sample["neg_passages"]) == ["n1", "n2", "n3", "n4"]
    assert sample["neg"] == [TEXTS[key] for key in sample["neg_passages"]]
    assert (sample["query"], sample["pos"], sample["pos_passages"]) == (
        "问q1",
        ["positive"],
        ["own"],
    )


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
    corpus = {key: Passage(f"{key}题", key * 400) for key in "甲乙丙丁"}
    spans = [{"passage": key, "dense_score": 0.5, "nearest": (100, 164)} for key in corpus]
    rows = [asked(f"q{i}", "甲乙丙丁"[i % 4]) for i in range(60)]
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
    params = FULL.model_copy(
        update={
            "samples": PARAMS.model_copy(update=changes),
            "retrieve": FULL.retrieve.model_copy(update={"shown": 80}),
        }
    )
    found = list(build(params, corpus, ((row, spans) for row in rows), set(), {}, False))
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
    corpus = {
        "a": Passage("甲", "同文" * 9),
        "b": Passage("乙", "同文" * 9),
        "c": Passage("丙", "异文" * 9),
    }
    spans = [
        {"passage": key, "dense_score": 0.5, "nearest": (at, at + 4)}
        for at, key in enumerate(corpus)
    ]
    found = {}
    for untitled in (0.0, 1.0):
        changes = {"negatives": 3, "random_negatives": 2, "window": 3, "untitled": untitled}
        params = FULL.model_copy(
            update={
                "samples": PARAMS.model_copy(update=changes),
                "retrieve": FULL.retrieve.model_copy(update={"shown": 8}),
            }
        )
        (sample,) = build(params, corpus, [(asked("q", "a"), spans)], set(), {}, False)
        found[untitled] = sorted(sample["neg_passages"])
    assert found == {0.0: ["b", "c"], 1.0: ["c"]}


def test_samples_are_plain_json():
    assert json.loads(json.dumps(mine(), ensure_ascii=False)) == mine()


def test_both_positives_are_the_view_and_the_window_around_the_evidence():
    """The view of passage `a` is its start and its evidence is at its end; `b`'s view has it."""
    texts = {"a": "甲" * 40 + "证据在此", "b": "乙" * 10, "c": "丙" * 10, "d": "丁" * 10}
    corpus = {key: Passage("", text) for key, text in texts.items()}
    spans = {"a": (0, 8), "b": (0, 8), "c": (0, 8), "d": (0, 8)}
    candidates = [
        {"passage": key, "dense_score": 0.5, "nearest": span} for key, span in spans.items()
    ]
    rows = [asked("a", "a", context="证据在此"), asked("b", "b", context="乙乙")]
    settings = {
        "pair": "both",
        "negatives": 2,
        "random_negatives": 1,
        "skip_top": 0,
        "window": 3,
        "teacher": "retriever",
    }
    params = FULL.model_copy(
        update={
            "samples": PARAMS.model_copy(update=settings),
            "retrieve": FULL.retrieve.model_copy(update={"window": 8, "stride": 4, "shown": 8}),
        }
    )
    first, second = build(params, corpus, ((row, candidates) for row in rows), {"d"}, {}, False)
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
    candidates = [{"passage": "b", "views": [(0, 1)]}, {"passage": "a", "views": views}]
    corpus = {"a": Passage("title", "0123456789")}
    assert evidence_shown({"passage": "a", "context": context}, candidates, corpus) is expected


@pytest.mark.parametrize("keys, share", [(["q1", "q2", "q3", "q4"], 0.5), (["q3", "q4"], None)])
def test_the_share_of_questions_with_evidence_in_a_view_is_reported(
    tmp_path, monkeypatch, keys, share
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
    rows = [asked(key, "a", context=contexts[key]) for key in keys]
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
            for key in keys
        ),
    )
    main("prepared", "candidates", "none", "samples", "samples.json")
    assert json.loads((tmp_path / "samples.json").read_text())["evidence_shown"] == share


# several relevant passages, and explicit negatives


NAMES = ("p00", "p00b", "p01", "p01b", "p02", "p03")
CORPUS = {key: Passage(f"{key}题", f"{key}的正文") for key in NAMES}


def several_built(rows, corpus=CORPUS, held_out=(), about=None, nearest=None, **changes):
    """Return the samples of the questions, all in whole passages. All passages are candidates.

    The earlier ones in the corpus score higher: 0.9, 0.8 and so on.
    """
    settings = {
        "strategy": "hard",
        "pair": "passage",
        "units": Units(view=0.0, window=0.0, whole=1.0),
        "negatives": 9,
        "random_negatives": 0,
        "skip_top": 0,
        "window": 9,
        "teacher": "none",
        "neg_batch_size": None,
        "n_neg_batch": 1,
    }
    params = FULL.model_copy(update={"samples": PARAMS.model_copy(update=settings | changes)})
    found = [
        {"passage": key, "dense_score": round(0.9 - at / 10, 1), "nearest": (0, 4)}
        for at, key in enumerate(corpus)
    ]
    several = any(len(row["relevant"]) > 1 for row in rows)
    asked_with = ((row, nearest(row, found) if nearest else found) for row in rows)
    return list(build(params, corpus, asked_with, set(held_out), about or {}, several))


def shown(*keys: str) -> list[str]:
    return [f"{key}题。{key}的正文" for key in keys]


PAIRS = [asked("0", "p00", "p00b"), asked("1", "p01", "p01b"), asked("2", "p02", "p00b")]


def test_both_right_passages_of_a_question_are_positives_and_no_negatives():
    first, second, third = several_built(PAIRS)
    assert (first["pos"], first["pos_passages"]) == (shown("p00", "p00b"), ["p00", "p00b"])
    assert sorted(first["neg_passages"]) == ["p01", "p01b", "p02", "p03"]
    assert first["neg"] == shown(*first["neg_passages"])
    assert sorted(second["neg_passages"]) == ["p00", "p00b", "p02", "p03"]
    assert sorted(third["neg_passages"]) == ["p00", "p01", "p01b", "p03"]


def test_in_the_articles_samples_a_right_passage_of_another_question_is_no_negative():
    """p00b answers the first and the last question. p03 answers none, and is in no sample."""
    weights = {"pos_weights": [1.0, 1.0]}
    assert several_built(PAIRS, strategy="all") == [
        {"query": "问0", "pos": shown("p00", "p00b"), "neg": shown("p01", "p01b", "p02")} | weights,
        {"query": "问1", "pos": shown("p01", "p01b"), "neg": shown("p00", "p00b", "p02", "p00b")}
        | weights,
        {"query": "问2", "pos": shown("p02", "p00b"), "neg": shown("p00", "p01", "p01b")} | weights,
    ]
    in_twos = several_built(PAIRS, strategy="all", neg_batch_size=2, n_neg_batch=32)
    assert [sample["neg"] for sample in in_twos[:2]] == [shown("p01", "p01b"), shown("p02")]


def test_one_text_in_two_relevant_passages_is_a_positive_of_both():
    """The question's answer is the same in both; as a negative it is left out by its text."""
    rows = [asked("0", "p00", "p00b", answer="三元"), asked("1", "p01", answer="三元")]
    about = {item["passage"]: [item] for row in rows for item in row["relevant"]}
    first, second = several_built(rows, about=about, pair="qa")
    assert (first["pos"], first["pos_passages"]) == (["三元", "三元"], ["p00", "p00b"])
    assert sorted(first["neg_passages"]) == ["p01b", "p02", "p03"]
    assert sorted(second["neg_passages"]) == ["p01b", "p02", "p03"]
    assert several_built(rows, about=about, pair="qa", strategy="all") == []


@pytest.mark.parametrize("untitled, alike", [(0.0, {"copy"}), (1.0, set())])
def test_without_titles_the_text_of_any_relevant_passage_is_no_negative(untitled, alike):
    """`copy` has the text of the question's second passage, and another window of it is shown."""
    corpus = {key: Passage(f"{key}题", f"{key}的正文") for key in ("a", "b", "c")}
    corpus["copy"] = Passage("题", "b的正文")

    def nearest(row, found):
        spans = {"a": (0, 2), "b": (0, 2), "c": (0, 2), "copy": (2, 4)}
        return [one | {"nearest": spans[one["passage"]]} for one in found]

    rows = [asked("0", "a", "b"), asked("1", "copy"), asked("2", "c")]
    changes = {"untitled": untitled, "units": Units(view=0.0, window=1.0, whole=0.0)}
    changes |= {"window_sizes": [2, 2], "nearest": nearest}
    sample = several_built(rows, corpus, **changes)[0]
    assert set(sample["neg_passages"]) == {"c"} | alike
    sample = several_built(rows, corpus, strategy="all", **changes)[0]
    assert sample["neg"] == (["c的"] if untitled else ["题。正文", "c题。c的"])


def test_a_passages_weight_is_its_grade_and_its_texts_share_it():
    corpus = {
        "a": Passage("", "甲" * 8 + "证据"),
        "b": Passage("", "乙" * 9),
        "c": Passage("", "丙"),
    }
    changes = {"pair": "both", "units": Units(view=0.0, window=1.0, whole=0.0)}
    changes |= {"window_sizes": [4, 4]}
    graded = asked("0", "b", "a", grades=(3, 1), context="证据")
    first, second = several_built([graded, asked("1", "c", grades=(2,))], corpus, **changes)
    assert first["pos"] == ["乙" * 4, "甲" * 4, "甲甲证据"]
    assert (first["pos_passages"], first["pos_weights"]) == (["b", "a", "a"], [3.0, 0.5, 0.5])
    # FlagEmbedding's loader refuses a file that has a key only in later rows.
    assert second["pos_weights"] == [2.0]
    (alone,) = several_built([asked("1", "c", grades=(2,))], corpus, **changes)
    assert "pos_weights" not in alone
    article_samples = several_built([graded, asked("1", "c")], corpus, strategy="all")
    assert [sample["pos_weights"] for sample in article_samples] == [[3.0, 1.0], [1.0]]


def test_margins_compare_with_the_relevant_passage_that_scores_highest():
    """The question's passages score 0.4 and 0.8; the others 0.9, 0.7, 0.6 and 0.5."""
    (sample,) = several_built([asked("0", "p02", "p00b")], absolute_margin=0.15)
    assert set(sample["neg_passages"]) == {"p01b", "p03"}
    (sample,) = several_built([asked("0", "p00b", "p02")], relative_margin=0.1)
    assert set(sample["neg_passages"]) == {"p01", "p01b", "p03"}


def test_explicit_negatives_come_first_and_no_margin_drops_them():
    row = asked("q1", "own", negatives=["r2", "held", "n1", "same", "own"])
    sample = mine(question=row, absolute_margin=0.0, negatives=9)
    assert sample["neg_passages"][:2] == ["r2", "n1"] and sample["explicit_negatives"] == 2
    assert sorted(sample["neg_passages"][2:]) == ["n2", "n3", "n4", "r1", "r3"]
    assert sample["neg"][:2] == ["text of r2", "text of n1"]
    assert mine(question=row, negatives=1)["neg_passages"] == ["r2"]


def test_explicit_negatives_count_as_hard_ones():
    """Two explicit, one mined and two random negatives; or only explicit and random ones."""
    row = asked("q1", "own", negatives=["n1", "n2"])
    for seed in range(20):
        sample = mine(seed, row, negatives=5, random_negatives=2, window=4)
        assert sample["neg_passages"][:2] == ["n1", "n2"]
        assert sample["neg_passages"][2] in ("n3", "n4")  # the window is below them
        sample = mine(seed, row, negatives=3, random_negatives=2, allowed=["r1", "n1"])
        assert sample["neg_passages"] == ["n1", "n2", "r1"]


def test_an_explicit_negative_has_the_retrievers_score():
    sample = mine(question=asked("q1", "own", negatives=["n3"]), teacher="retriever")
    assert sample["neg_scores"][0] == 50.0 and sample["neg_passages"][0] == "n3"


def test_the_teachers_margin_keeps_explicit_negatives():
    sample = {"pos": ["p"], "neg": ["a", "b", "c"], "pos_scores": [1.0]}
    sample |= {"neg_scores": [5.0, 5.0, 0.0], "explicit_negatives": 1}
    kept = {"neg": ["a", "c"], "neg_scores": [5.0, 0.0]}
    assert without_false_negatives(sample, 0.0) == sample | kept
    assert without_false_negatives(sample, 9.0) == sample | {"neg": ["a"], "neg_scores": [5.0]}


def test_the_articles_samples_begin_with_explicit_negatives():
    """p03 answers no question; p02 is held out; p01 answers another question and comes twice."""
    rows = [asked("0", "p00", negatives=["p03", "p02", "p01", "p00"]), asked("1", "p01")]
    (sample, other) = several_built(rows, strategy="all", held_out={"p02"})
    assert sample["neg"] == shown("p03", "p01", "p01") and sample["explicit_negatives"] == 2
    assert other == {"query": "问1", "pos": shown("p01"), "neg": shown("p00")}
    in_ones = several_built(rows, strategy="all", held_out={"p02"}, neg_batch_size=1, n_neg_batch=3)
    assert [(sample["neg"], sample.get("explicit_negatives")) for sample in in_ones] == [
        (shown("p03"), 1),
        (shown("p01"), 1),
        (shown("p01"), None),
        (shown("p00"), None),
    ]


def test_in_a_table_of_single_passages_the_article_takes_other_evidence_of_the_same_passage():
    rows = [asked("0", "p00", context="一"), asked("1", "p00", context="二")]
    changes = {"strategy": "all", "pair": "qd"}
    assert [sample["neg"] for sample in several_built(rows, **changes)] == [["二"], ["一"]]
    rows += [asked("2", "p01", "p02", context="三")]
    found = several_built(rows, **changes)
    assert [sample["neg"] for sample in found] == [["三"] * 2, ["三"] * 2, ["一", "二"]]


@pytest.mark.parametrize(
    "left, problem",
    [
        ("p00b", "passage 'p00b' is not a candidate of its own question 0"),
        ("p03", "passage 'p03' is an explicit negative but not a candidate of its own question 0"),
    ],
)
def test_a_judged_passage_without_its_scores_is_refused(tmp_path, left, problem):
    write_jsonl(tmp_path / "train.jsonl", [asked("0", "p00", "p00b", negatives=["p03"])])
    found = [{"passage": key} for key in NAMES]
    write_jsonl(tmp_path / "all.jsonl", [{"id": "0", "candidates": found}])
    assert len(list(join_candidates(tmp_path / "train.jsonl", tmp_path / "all.jsonl", CORPUS))) == 1
    found = [one for one in found if one["passage"] != left]
    write_jsonl(tmp_path / "some.jsonl", [{"id": "0", "candidates": found}])
    with pytest.raises(InputError) as error:
        list(join_candidates(tmp_path / "train.jsonl", tmp_path / "some.jsonl", CORPUS))
    assert str(error.value) == (
        f"{tmp_path / 'some.jsonl'}: {problem}; run dvc repro retrieve --force"
    )


def test_the_stage_counts_explicit_negatives_and_the_evidence_of_each_passage(
    tmp_path, monkeypatch
):
    """The evidence of one of two passages is in a view. p02 answers only a test question."""
    from samples import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        (ROOT / "tests/params.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    for folder in ("prepared", "candidates"):
        (tmp_path / folder).mkdir()
    write_jsonl(
        tmp_path / "prepared/corpus.jsonl",
        ({"id": key, "text": passage.text} for key, passage in CORPUS.items()),
    )
    row = asked("0", "p00", "p01", negatives=["p03"], grades=(2, 1))
    for item, context in zip(row["relevant"], ("p00", "正文")):
        item["context"] = context
    write_jsonl(tmp_path / "prepared/train.jsonl", [row])
    write_jsonl(tmp_path / "prepared/valid.jsonl", [])
    write_jsonl(tmp_path / "prepared/test.jsonl", [asked("1", "p02", "p00")])
    candidates = [
        {"passage": key, "dense_score": 0.5, "nearest": (0, 4), "views": [(0, 4)]} for key in NAMES
    ]
    write_jsonl(tmp_path / "candidates/train.jsonl", [{"id": "0", "candidates": candidates}])
    main("prepared", "candidates", "none", "samples", "samples.json")
    (sample,) = read_jsonl(tmp_path / "samples/train.jsonl")
    assert sample["neg_passages"][0] == "p03"
    assert sorted(sample["neg_passages"]) == ["p00b", "p01b", "p03"]  # p02 is held out
    assert "explicit_negatives" not in sample
    found = json.loads((tmp_path / "samples.json").read_text())
    assert found == {
        "samples": 1,
        "negatives": 3,
        "explicit_negatives": 1,
        "questions": 1,
        "evidence_shown": 0.5,
    }
