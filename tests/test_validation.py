import copy
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, article, kill_training_at, table_rows
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunerank.core.files import write_jsonl
from tunerank.data.passages import Passage
from tunerank.models.checkpoint import draw_head, save
from tunerank.params.load import load
from tunerank.training.resume import latest_checkpoint
from tunerank.training.selection import choose_merge, merge_weights, select_best
from tunerank.training.trainer import run_training
from tunerank.training.validation import Validation, validation_curve

sys.path.append(str(ROOT / "src"))
import train

PARAMS = load(ROOT / "tests/params.yaml")
TRAIN = PARAMS.train.model_copy(
    update={
        "lr": 0.003, "epochs": 4.0, "batch_size": 2, "accumulation": 1, "group_size": 4,
        "precision": "fp32", "dropout": 0.0, "query_max_length": 16, "passage_max_length": 80,
        "logging_steps": 4, "save_steps": 1000, "warmup_ratio": 0.1, "evals_per_epoch": 1,
        "valid_depth": 6, "patience": None, "merge": [],
    }
)  # fmt: skip
DOCS = {row["uuid"]: Passage("", row["doc"]) for row in table_rows()}


def spans(passage: str, views: int) -> list[tuple[int, int]]:
    return [(0, len(DOCS[passage].text)), (0, 9), (5, 14)][:views]


def relevant(*passages: str) -> list[dict]:
    return [{"passage": passage, "grade": 1} for passage in passages]


def validation(views: int = 1, whole: bool = False, **changes) -> Validation:
    """Return a validation on the table's training and validation questions over its 12 passages.

    The candidates never start with the right passage. The first three have `views` views. With
    `whole` each candidate is also scored as a whole passage.
    """
    rows = [row for row in table_rows() if row["dataset"] != "test"]
    questions = [
        {"id": f"q{i}", "question": row["question"], "relevant": relevant(row["uuid"])}
        for i, row in enumerate(rows)
    ]
    candidates = {}
    for i, (question, row) in enumerate(zip(questions, rows)):
        order = [passage for passage in DOCS if passage != row["uuid"]]
        order.insert(3 if i % 3 else 8, row["uuid"])  # every third is beyond depth 6
        candidates[question["id"]] = [
            {
                "passage": passage,
                "dense": rank,
                "bm25": None,
                "views": spans(passage, views if rank < 4 else 1),
            }
            for rank, passage in enumerate(order, 1)
        ]
    retrieve = PARAMS.retrieve.model_copy(update={"shown": 64 if whole else 0})
    params = PARAMS.model_copy(
        update={"train": TRAIN.model_copy(update=changes), "retrieve": retrieve}
    )
    return Validation(questions, candidates, DOCS, params)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    rows = [row for row in table_rows() if row["dataset"] == "train"]
    path = tmp_path_factory.mktemp("samples") / "train.jsonl"
    write_jsonl(path, article([(row["question"], row["doc"]) for row in rows], 9, 1))
    return path


def guided(samples, base, folder, **changes):
    guide = validation(**changes)
    return run_training(guide.params.train, 3, samples, base, folder, guide)


def value(runner, measure="MRR@10") -> float:
    return measured(runner.validation, runner.model.model, runner.tokenizer)[measure]


def measured(guide, model, tokenizer) -> dict:
    return guide.measure(guide.score(model, tokenizer))


@pytest.mark.parametrize("views", [1, 3])
def test_the_measures_equal_those_of_a_plain_loop(tiny_model, views):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    guide = validation(views)
    keys, pairs = guide.task.pairs["scores"]
    assert len(pairs) == len(guide.gold) * (6 if views == 1 else 3 * 3 + 3)
    ranks = []
    for question in {key for key, _ in keys}:
        scored = {}
        for (key, passage), (text, doc) in zip(keys, pairs):
            if key == question:
                with torch.no_grad():
                    logit = model(**tokenizer(text, doc, return_tensors="pt")).logits.item()
                # A passage gets the score of its best view.
                scored[passage] = max(logit, scored.get(passage, logit))
        order = sorted(scored, key=lambda passage: -scored[passage])
        assert len(order) == 6
        (gold,) = guide.gold[question]
        ranks.append(order.index(gold) + 1 if gold in order else None)
    assert None in ranks
    found = measured(guide, model, tokenizer)
    assert found["hit@1"] == pytest.approx(sum(rank == 1 for rank in ranks) / len(ranks), abs=1e-6)
    assert found["MRR@10"] == pytest.approx(
        sum(1 / rank for rank in ranks if rank) / len(ranks), abs=1e-6
    )


def test_a_question_that_finds_nothing_counts_as_wrong(tiny_model):
    """With BM25 only, a question may share no word with any passage.

    Its own passage is among the candidates, but the first stage does not return it.
    """
    rows = table_rows()[:2]
    questions = [
        {"id": f"q{i}", "question": row["question"], "relevant": relevant(row["uuid"])}
        for i, row in enumerate(rows)
    ]
    listed = {"passage": rows[0]["uuid"], "dense": None, "views": spans(rows[0]["uuid"], 1)}
    candidates = {"q0": [listed | {"bm25": 1}], "q1": [listed | {"bm25": None}]}
    params = PARAMS.model_copy(
        update={"train": TRAIN, "retrieve": PARAMS.retrieve.model_copy(update={"shown": 0})}
    )
    guide = Validation(questions, candidates, DOCS, params)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    found = guide.score(model, AutoTokenizer.from_pretrained(tiny_model))
    assert list(found["scores"]["q0"]) == [rows[0]["uuid"]] and found["scores"]["q1"] == {}
    assert guide.measure(found)["hit@1"] == 0.5 and guide.worse(found, found) == []


def test_measuring_keeps_the_mode_of_the_model(tiny_model):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    for mode in (True, False):
        model.train(mode)
        validation().score(model, AutoTokenizer.from_pretrained(tiny_model))
        assert model.training == mode


def test_the_curve_starts_with_the_base_and_the_best_checkpoint_is_kept(
    samples, tiny_model, tmp_path
):
    runner = guided(samples, tiny_model, tmp_path / "run")
    points = validation_curve(runner.trainer.state.log_history)
    assert [point["step"] for point in points] == [0, 9, 18, 27, 36]
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    assert points[0]["eval_MRR@10"] == measured(runner.validation, base, runner.tokenizer)["MRR@10"]
    summary, scores = select_best(runner)
    tuned = points[1:]
    assert summary["valid"]["best"] == max(point["eval_MRR@10"] for point in tuned) == value(runner)
    assert summary["best_step"] == next(
        p["step"] for p in tuned if p["eval_MRR@10"] == summary["valid"]["best"]
    )
    # The gain is larger than that of one question.
    assert summary["valid"]["best"] > summary["valid"]["base"] + 0.02
    assert scores == runner.validation.score(runner.model.model, runner.tokenizer)


def test_the_first_point_uses_known_scores(samples, tiny_model, tmp_path):
    guide = validation()
    guide.start = {"scores": known(guide)}
    runner = run_training(
        guide.params.train.model_copy(update={"epochs": 1.0}),
        3,
        samples,
        tiny_model,
        tmp_path / "run",
        guide,
    )
    first, last = validation_curve(runner.trainer.state.log_history)
    assert first["eval_hit@1"] == pytest.approx(
        sum(set(gold) <= set(guide.start["scores"][q]) for q, gold in guide.gold.items())
        / len(guide.gold)
    )
    assert first["eval_hit@1"] > 0.6 and last["eval_MRR@10"] == value(runner)
    assert select_best(runner)[0]["valid"]["base"] == first["eval_MRR@10"]


def test_training_in_bf16_has_plain_attention_and_validation_keeps_it(
    samples, tiny_model, tmp_path
):
    found = {}
    for precision, attention in (("bf16", "eager"), ("fp32", "sdpa")):
        runner = guided(samples, tiny_model, tmp_path / precision, precision=precision)
        assert runner.model.model.config._attn_implementation == attention
        found[precision] = [
            entry["loss"] for entry in runner.trainer.state.log_history if "loss" in entry
        ]
        assert len(validation_curve(runner.trainer.state.log_history)) == 5
    # bf16 has 8 bits of mantissa: the losses differ from the first steps on, later ones more.
    assert found["bf16"] != found["fp32"] and found["bf16"][0] == pytest.approx(
        found["fp32"][0], rel=0.05
    )


def test_the_named_measure_decides(samples, tiny_model, tmp_path):
    runner = guided(samples, tiny_model, tmp_path / "run", best="hit@1")
    summary, _ = select_best(runner)
    assert (
        summary["valid"]["best"]
        == value(runner, "hit@1")
        == max(p["eval_hit@1"] for p in validation_curve(runner.trainer.state.log_history)[1:])
    )


def known(guide: Validation, right: float = 1.0) -> dict[str, dict[str, float]]:
    """Return scores that are `right` for a question's own passage and 0 for the others."""
    return {
        question: {passage: right * (passage in gold) for passage in found}
        for (question, gold), found in zip(guide.gold.items(), candidates_of(guide).values())
    }


def candidates_of(guide: Validation) -> dict[str, list[str]]:
    keys, _ = guide.task.pairs["scores"]
    return {
        question: list(dict.fromkeys(passage for key, passage in keys if key == question))
        for question in guide.gold
    }


def told(values: list[float], **changes) -> Validation:
    """Return a validation that reports these values, one per evaluation.

    The scores are the model's own. In a real training the best step depends on the CPU.
    """
    guide, left = validation(**changes), iter(values)
    guide.measure = lambda scores: dict.fromkeys(("hit@1", "MRR@10", "nDCG@10"), next(left, 0.7))
    return guide


def test_a_checkpoint_better_than_the_last_is_the_output(samples, tiny_model, tmp_path):
    guide = told([0.1, 0.2, 0.6, 0.4, 0.6])  # the first of two equal ones is the best
    runner = run_training(guide.params.train, 3, samples, tiny_model, tmp_path / "run", guide)
    last = copy.deepcopy(runner.model.model.state_dict())
    summary, scores = select_best(runner)
    kept = {"hit@1": 0.7, "MRR@10": 0.7, "nDCG@10": 0.7}
    assert summary == {
        "best_step": 18,
        "valid": {"measure": "MRR@10", "base": 0.1, "best": 0.6},
        "base": kept,
        "kept": kept,
        "worse": [],
    }
    kept, stored = (
        runner.model.model.state_dict(),
        load_file(tmp_path / "run/checkpoint-18/model.safetensors"),
    )
    assert all(torch.equal(kept[name], stored[name]) for name in stored)
    assert not all(torch.equal(kept[name], last[name]) for name in stored)
    assert scores == guide.score(runner.model.model, runner.tokenizer)


@pytest.mark.parametrize(
    "values, evaluations",
    [([0.1, 0.2, 0.5, 0.3, 0.5], 4), ([0.5, 0.2, 0.3], 2), ([0.1, 0.2, 0.1, 0.3, 0.2, 0.4], 5)],
)
def test_training_stops_after_patience_evaluations_without_a_new_best(
    samples, tiny_model, tmp_path, values, evaluations
):
    """The first value is the base's. An equal value is not a new best. Five is the maximum."""
    guide = told(values, epochs=5.0, patience=2)
    runner = run_training(guide.params.train, 3, samples, tiny_model, tmp_path / "run", guide)
    assert runner.trainer.state.global_step == 9 * evaluations
    assert [
        point["eval_MRR@10"] for point in validation_curve(runner.trainer.state.log_history)
    ] == values[: evaluations + 1]


def test_merged_weights_equal_those_worked_out_by_hand():
    base, tuned = {"a": torch.tensor([0.0, 4.0])}, {"a": torch.tensor([1.0, 2.0])}
    assert merge_weights(base, tuned, 0.25)["a"].tolist() == [0.25, 3.5]
    assert torch.equal(merge_weights(base, tuned, 0)["a"], base["a"]) and torch.equal(
        merge_weights(base, tuned, 1)["a"], tuned["a"]
    )


def mixed(guide, tiny_model):
    """Return a model, its tokenizer, base and tuned weights, and scores for each `train.merge`.

    The base and the tuned weights have different heads.
    """
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    base, other = (
        copy.deepcopy(model.state_dict()),
        AutoModelForSequenceClassification.from_pretrained(tiny_model),
    )
    draw_head(other, 11)
    tuned = other.state_dict()
    scores = {}
    for share in guide.params.train.merge:
        model.load_state_dict(
            {name: share * tuned[name] + (1 - share) * base[name] for name in tuned}
        )
        scores[share] = guide.score(model, tokenizer)
    return model, tokenizer, base, tuned, scores


def test_only_the_mixture_with_the_best_mean_of_logits_is_scored(
    tiny_model,
):
    guide = validation(merge=[0.0, 0.25, 0.5, 0.75, 1.0])
    model, tokenizer, base, tuned, scores = mixed(guide, tiny_model)
    found = choose_merge(
        model, tokenizer, base, tuned, {share: scores[share] for share in (0.0, 1.0)}, guide
    )
    means = {
        share: {q: {p: share * one[q][p] + (1 - share) * zero[q][p] for p in zero[q]} for q in zero}
        for zero, one in [(scores[0.0]["scores"], scores[1.0]["scores"])]
        for share in (0.25, 0.5, 0.75)
    }
    assert found.predicted == {
        share: guide.measure({"scores": made})["MRR@10"] for share, made in means.items()
    }
    ends = {share: guide.measure(scores[share])["MRR@10"] for share in (0.0, 1.0)}
    likely = max((0.75, 0.5, 0.25), key=found.predicted.get)
    assert found.predicted[likely] > max(ends.values())  # otherwise no mixture is scored
    assert found.valid == ends | {
        likely: guide.measure(guide.score(mixture(model, base, tuned, likely), tokenizer))["MRR@10"]
    }
    assert (
        found.valid[found.chosen]
        == max(found.valid.values())
        == guide.measure(found.scores)["MRR@10"]
    )


def mixture(model, base, tuned, share):
    model.load_state_dict(merge_weights(base, tuned, share))
    return model


def test_the_model_ends_with_the_chosen_mixture(tiny_model):
    guide = validation(merge=[0.0, 0.25, 0.5, 0.75, 1.0])
    model, tokenizer, base, tuned, scores = mixed(guide, tiny_model)
    found = choose_merge(
        model, tokenizer, base, tuned, {share: scores[share] for share in (0.0, 1.0)}, guide
    )
    assert guide.score(model, tokenizer) == found.scores
    state = model.state_dict()
    assert all(
        torch.equal(state[name], weight)
        for name, weight in merge_weights(base, tuned, found.chosen).items()
    )


def test_no_mixture_is_scored_if_none_is_predicted_to_beat_both_ends(tiny_model):
    guide = validation(merge=[0.0, 0.5, 1.0])
    guide.score = None  # a call fails
    model, tokenizer, base, tuned, _ = mixed(validation(merge=[]), tiny_model)
    right, wrong = {"scores": known(guide)}, {"scores": known(guide, -2.0)}
    found = choose_merge(model, tokenizer, base, tuned, {0.0: right, 1.0: wrong}, guide)
    assert (found.chosen, list(found.valid), list(found.predicted)) == (0.0, [0.0, 1.0], [0.5])
    assert found.predicted[0.5] < found.valid[0.0] and found.scores is right
    assert all(torch.equal(weight, base[name]) for name, weight in model.state_dict().items())


def test_both_ways_are_measured_and_their_mean_decides(tiny_model):
    """The tokenizer truncates whole passages at the model's limit; the views are shorter."""
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(tiny_model).eval(),
        AutoTokenizer.from_pretrained(tiny_model),
    )
    guide = validation(views=3, whole=True)
    found = guide.score(model, tokenizer)
    assert list(found) == ["scores", "whole"] and found["scores"] != found["whole"]
    for question, passages in candidates_of(guide).items():
        assert list(found["whole"][question]) == passages
    (query, text), *_ = guide.task.pairs["whole"][1]
    with torch.no_grad():
        logit = model(**tokenizer(query, text, return_tensors="pt")).logits.item()
    (question, passage), *_ = guide.task.pairs["whole"][0]
    assert text == DOCS[passage].text and found["whole"][question][passage] == pytest.approx(
        logit, abs=1e-4
    )
    measured = guide.measure(found)
    assert list(measured) == [
        "hit@1",
        "MRR@10",
        "nDCG@10",
        "whole hit@1",
        "whole MRR@10",
        "whole nDCG@10",
    ]
    assert guide.value(measured) == (measured["MRR@10"] + measured["whole MRR@10"]) / 2


@pytest.mark.parametrize("losing", ["scores", "whole"])
def test_weights_that_gain_one_way_and_lose_the_other_are_not_kept(tiny_model, losing):
    """The fine-tuned weights gain in one way of scoring and lose in the other.

    They rank all questions right where the base ranks all wrong, and wrong where it ranks like the
    first stage. Their mean is higher, and they are refused.
    """
    guide = validation(whole=True, merge=[0.0, 1.0])
    model, tokenizer, base, tuned, _ = mixed(validation(merge=[]), tiny_model)
    gaining = "whole" if losing == "scores" else "scores"
    before = {losing: known(guide, 0.0), gaining: known(guide, -1.0)}
    after = {losing: known(guide, -1.0), gaining: known(guide, 1.0)}
    value = {
        name: guide.value(guide.measure(found))
        for name, found in (("before", before), ("after", after))
    }
    assert value["after"] > value["before"]
    found = choose_merge(model, tokenizer, base, tuned, {0.0: before, 1.0: after}, guide)
    assert (found.chosen, found.worse) == (0.0, {1.0: [losing]})
    assert all(torch.equal(weight, base[name]) for name, weight in model.state_dict().items())


def test_a_loss_that_may_be_chance_does_not_refuse_the_weights(tiny_model):
    guide = validation(whole=True, merge=[0.0, 1.0])
    model, tokenizer, base, tuned, _ = mixed(validation(merge=[]), tiny_model)
    before = {"scores": known(guide, 0.0), "whole": known(guide, 0.0)}
    after = {"scores": known(guide, 1.0), "whole": known(guide, 0.0)}
    question = next(q for q, gold in guide.gold.items() if set(gold) <= set(after["whole"][q]))
    after["whole"][question] |= dict.fromkeys(guide.gold[question], -1.0)  # one of 27 questions
    found = choose_merge(model, tokenizer, base, tuned, {0.0: before, 1.0: after}, guide)
    assert (found.chosen, found.worse) == (1.0, {})


def placed(guide: Validation, place: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return scores, both ways, that rank a question's passage at `place`, from 0."""
    scores = {}
    for question, found in candidates_of(guide).items():
        others = [passage for passage in found if passage not in guide.gold[question]]
        if len(others) < len(found):
            others.insert(place, *guide.gold[question])
        scores[question] = {passage: -float(rank) for rank, passage in enumerate(others)}
    return {"scores": scores, "whole": scores}


BOTH = ["scores", "whole"]


@pytest.mark.parametrize(
    "base_place, tuned_place, chosen, worse, behind",
    [
        # The first stage has the passage at place 3, of 6.
        (0, 1, 0.0, {1.0: BOTH}, {}),
        (4, 1, 1.0, {}, {0.0: BOTH}),
        (1, 5, 0.0, {1.0: BOTH}, {1.0: BOTH}),
        (3, 2, 1.0, {}, {}),
        # All are behind: the best of those that are not worse than the base.
        (5, 4, 1.0, {}, {0.0: BOTH, 1.0: BOTH}),
        (4, 5, 0.0, {1.0: BOTH}, {0.0: BOTH, 1.0: BOTH}),
    ],
)
def test_weights_behind_the_first_stage_are_not_kept_if_others_are_not_behind(
    tiny_model, base_place, tuned_place, chosen, worse, behind
):
    guide = validation(whole=True, merge=[0.0, 1.0])
    model, tokenizer, base, tuned, _ = mixed(validation(merge=[]), tiny_model)
    known = {0.0: placed(guide, base_place), 1.0: placed(guide, tuned_place)}
    found = choose_merge(model, tokenizer, base, tuned, known, guide)
    assert (found.chosen, found.worse, found.behind) == (chosen, worse, behind)
    assert guide.first_stage() == {"measure": "MRR@10", "value": round(18 / 27 / 4, 6)}


def beside(guide: Validation, others: list[float]) -> dict[str, dict[str, float]]:
    """Return scores: 0 for a question's passage, and these for the others in their order."""
    scores = {}
    for question, found in candidates_of(guide).items():
        rest = iter([*others, 9.0])  # six others where the passage is not found
        gold = guide.gold[question]
        scores[question] = {passage: 0.0 if passage in gold else next(rest) for passage in found}
    return scores


def test_better_weights_are_refused_where_a_mixture_is_not_behind(tiny_model):
    """The base is behind both ways, the fine-tuned weights on whole passages, their mixture not.

    The fine-tuned weights are not worse than the base, and have the highest mean.
    """
    guide = validation(whole=True, merge=[0.0, 0.5, 1.0])
    model, tokenizer, base, tuned, _ = mixed(validation(merge=[]), tiny_model)
    last = beside(guide, [1.0] * 5)
    before = {"scores": beside(guide, [1.0, 1.0, 1.0, 1.0, -9.0]), "whole": last}
    after = {"scores": beside(guide, [-9.0, -9.0, -9.0, -9.0, 1.0]), "whole": last}
    mixture = placed(guide, 3)
    guide.score = lambda model, tokenizer: mixture
    found = choose_merge(model, tokenizer, base, tuned, {0.0: before, 1.0: after}, guide)
    assert found.valid == {
        0.0: pytest.approx((1 / 5 + 1 / 6) / 2 * 18 / 27, abs=1e-6),
        0.5: pytest.approx(1 / 4 * 18 / 27, abs=1e-6),
        1.0: pytest.approx((1 / 2 + 1 / 6) / 2 * 18 / 27, abs=1e-6),
    }
    assert (found.chosen, found.worse) == (0.5, {})
    assert found.behind == {0.0: BOTH, 1.0: ["whole"]} and found.scores is mixture


def test_several_relevant_passages_are_ranked_by_the_first_and_by_grade(tiny_model):
    passages = list(DOCS)
    graded = {passages[2]: 2, passages[4]: 1}
    questions = [
        {
            "id": "q",
            "question": "?",
            "relevant": [{"passage": key, "grade": grade} for key, grade in graded.items()],
        },
        {"id": "none", "question": "?", "relevant": relevant(passages[0])},
    ]
    listed = [{"passage": key, "run": i, "views": [(0, 9)]} for i, key in enumerate(passages, 1)]
    retrieve = PARAMS.retrieve.model_copy(update={"shown": 0, "run": "own.trec"})
    params = PARAMS.model_copy(update={"train": TRAIN, "retrieve": retrieve})
    guide = Validation(questions, {"q": listed, "none": []}, DOCS, params)
    assert guide.first == {"q": passages[:6], "none": []}
    scores = {"q": {key: float(-i) for i, key in enumerate(passages[:6])}, "none": {}}
    found = guide.measure({"scores": scores})
    assert (found["hit@1"], found["MRR@10"]) == (0.0, round(1 / 3 / 2, 6))
    gain, ideal = 2 / math.log2(4) + 1 / math.log2(6), 2 + 1 / math.log2(3)
    assert found["nDCG@10"] == pytest.approx(gain / ideal / 2, abs=1e-6)
    assert guide.behind({"scores": scores}) == []


CHOICE = {
    "best_step": 9,
    "valid": {"measure": "MRR@10", "base": 0.2, "best": 0.3},
    "base": {"MRR@10": 0.2, "whole MRR@10": 0.1},
    "kept": {"MRR@10": 0.3, "whole MRR@10": 0.25},
    "worse": [],
}
APART = {"scores": {"q": {"a": 1.0, "b": 0.0}}}
BEHIND = {"first_stage": {"measure": "MRR@10", "value": 0.5}}


@pytest.mark.parametrize(
    "changes, scores, warned",
    [
        ({}, APART, []),
        (
            BEHIND | {"behind": {"1.0": ["scores", "whole"]}},
            APART,
            [
                "models/reranker ranks the validation questions significantly worse than elastic "
                "alone: MRR@10 0.300 ranked as retrieve.shown says and 0.250 on whole passages, "
                "where elastic has 0.500. Deploy the fused row or elastic as it is; more questions "
                "or another retrieve.shown may help"
            ],
        ),
        (
            BEHIND | {"behind": {"0.0": ["scores"], "0.5": ["whole"]}, "merge": {"chosen": 1.0}},
            APART,
            [
                "a share of 0.5 of the fine-tuned weights was not kept: it ranks the validation "
                "questions significantly worse than elastic alone, on whole passages"
            ],
        ),
        (
            {},
            {"scores": {"q": {"a": 0.1234, "b": 0.1236}, "r": {"a": 2.0}, "s": {}}},
            [
                "models/reranker scores all candidates of a question alike, for nearly all "
                "validation questions: it has collapsed. Try a lower train.lr, other negatives "
                "(samples.*), or another base"
            ],
        ),
        ({}, {"scores": {"q": {"a": 0.1234}, "r": {}}}, []),
    ],
)
def test_training_warns_of_weights_behind_the_first_stage_or_collapsed(
    capsys, changes, scores, warned
):
    train.report(CHOICE | changes, scores, "elastic")
    assert capsys.readouterr().err.splitlines() == [f"WARNING: {line}" for line in warned]


def test_without_a_mixture_the_weights_behind_are_named(samples, tiny_model, tmp_path):
    """The first stage has the passage at place 3 in two of three questions."""
    guide = told([0.1, 0.2, 0.6, 0.4, 0.5])
    last = placed(guide, 5)["scores"]
    guide.score = lambda model, tokenizer: {"scores": last}
    runner = run_training(guide.params.train, 3, samples, tiny_model, tmp_path / "run", guide)
    summary, _ = select_best(runner)
    assert summary["behind"] == {"1.0": ["scores"]}
    assert summary["first_stage"] == {"measure": "MRR@10", "value": round(18 / 27 / 4, 6)}


@pytest.mark.parametrize("lr", [1e-6, 1e-3, 0.5])
def test_the_result_is_never_worse_than_the_base_on_validation(samples, tiny_model, tmp_path, lr):
    taught = guided(samples, tiny_model, tmp_path / "first")  # a base that ranks well
    select_best(taught)
    save(taught.model.model, taught.tokenizer, tmp_path / "base")
    runner = guided(
        samples,
        tmp_path / "base",
        tmp_path / "run",
        lr=lr,
        epochs=1.0,
        merge=[0.0, 0.25, 0.5, 0.75, 1.0],
        warmup_ratio=0.0,
    )
    summary, _ = select_best(runner)
    assert summary["valid"]["base"] == value(taught) > 0.4
    assert value(runner) == max(summary["merge"]["valid"].values()) >= summary["valid"]["base"]
    if lr == 0.5:
        # Without the mixture the result would be worse than the base.
        assert summary["valid"]["best"] < summary["valid"]["base"]


def test_a_base_in_several_files_is_mixed_like_one_in_a_single_file(samples, tiny_model, tmp_path):
    base = tmp_path / "shards"
    shutil.copytree(tiny_model, base)
    (base / "model.safetensors").unlink()
    AutoModelForSequenceClassification.from_pretrained(tiny_model).save_pretrained(
        base, max_shard_size="20KB"
    )
    assert (
        len(list(base.glob("model-*.safetensors"))) > 1
        and not (base / "model.safetensors").exists()
    )
    found = [
        select_best(
            guided(
                samples,
                folder,
                tmp_path / f"run-{folder.name}",
                epochs=1.0,
                merge=[0.0, 0.25, 0.5, 0.75, 1.0],
            )
        )
        for folder in (tiny_model, base)
    ]
    assert found[0] == found[1] and found[0][0]["merge"]["predicted"].keys() == {
        "0.25",
        "0.5",
        "0.75",
    }


def test_weights_are_not_mixed_with_an_untrained_head(samples, tiny_model, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    draw_head(model, 1)
    save(model, AutoTokenizer.from_pretrained(tiny_model), tmp_path / "base")
    assert (
        "merge"
        not in select_best(
            guided(samples, tmp_path / "base", tmp_path / "run", epochs=1.0, merge=[0.0, 1.0])
        )[0]
    )
    assert (
        "merge"
        in select_best(
            guided(samples, tiny_model, tmp_path / "other", epochs=1.0, merge=[0.0, 1.0])
        )[0]
    )


def test_a_guided_run_that_was_killed_ends_with_the_same_curve_and_weights(
    samples, tiny_model, tmp_path
):
    kill_training_at(
        31,
        "test_validation",
        f"t.guided(Path({str(samples)!r}), Path({str(tiny_model)!r}), "
        f"Path({str(tmp_path / 'killed')!r}))",
    )
    assert Path(latest_checkpoint(tmp_path / "killed")).name == "checkpoint-27"
    whole, resumed = (
        guided(samples, tiny_model, tmp_path / "whole"),
        guided(samples, tiny_model, tmp_path / "killed"),
    )
    curves = [validation_curve(runner.trainer.state.log_history) for runner in (whole, resumed)]
    assert curves[0] == curves[1] and len(curves[0]) == 5
    assert select_best(whole) == select_best(resumed)
    one, other = (runner.model.model.state_dict() for runner in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
