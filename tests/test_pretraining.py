import json

import pytest
from conftest import ROOT

from tunerank.data.passages import Passage
from tunerank.params.load import load
from tunerank.pretraining import as_training, fragment_samples, fragments

PARAMS = load(ROOT / "tests/params.yaml")
FIRST, SECOND, THIRD = "红色的车停在一号柜旁边", "绿色的船停在二号柜旁边", "蓝色的灯挂在三号柜上面"
TEXT = f"{FIRST}。{SECOND}！短句。\n {THIRD}"


def test_a_fragment_is_a_sentence_with_its_position():
    found = fragments({"p": Passage("", TEXT)}, 9, seed=1)
    assert [one["question"] for one in found] == [
        FIRST,
        SECOND,
        THIRD,
    ]  # 短句 is too short
    assert [one["id"] for one in found] == ["p:0", "p:12", "p:29"]
    assert all(TEXT[one["start"] :].startswith(one["question"]) for one in found)
    own = [{"passage": "p", "grade": 1, "context": "", "answer": ""}]
    assert all((one["relevant"], one["negatives"]) == (own, []) for one in found)


def test_a_passage_of_one_sentence_gives_no_fragment():
    assert fragments({"p": Passage("", FIRST + "。")}, 9, seed=1) == []


def test_the_draw_depends_only_on_seed_and_passage():
    alone = fragments({"p": Passage("", TEXT)}, 1, seed=1)
    beside = fragments({"o": Passage("", TEXT), "p": Passage("", TEXT)}, 1, seed=1)
    assert len(alone) == 1 and beside[1:] == alone
    drawn = {fragments({"p": Passage("", TEXT)}, 1, seed=seed)[0]["id"] for seed in range(20)}
    assert drawn == {"p:0", "p:12", "p:29"}


def made(left_out=frozenset(), **changes):
    params = PARAMS.model_copy(
        update={"pretrain": PARAMS.pretrain.model_copy(update={"group_size": 3, **changes})}
    )
    texts = {"p": TEXT, "a": "甲" * 80, "b": "乙" * 80, "c": "丙" * 80}
    corpus = {key: Passage("题", text) for key, text in texts.items()}
    (asked, *_) = fragments({"p": Passage("", TEXT)}, 9, seed=1)
    found = [
        {"passage": name, "dense_score": score, "nearest": (0, 64)}
        for name, score in (("p", 0.9), ("a", 0.8), ("b", 0.7))
    ]
    return list(fragment_samples([asked], [found], corpus, set(left_out), params))


def test_the_positive_is_the_passage_without_the_sentence():
    (sample,) = made(random_negatives=0)
    assert sample["query"] == FIRST and FIRST not in sample["pos"][0] and SECOND in sample["pos"][0]
    assert (
        sample["pos"][0].startswith("题。")
        and sorted(sample["neg"]) == ["题。" + "乙" * 64, "题。" + "甲" * 64]
        and sample["pos_passages"] == ["p"]
    )
    assert sample["pos_scores"] == [90.0] and sorted(sample["neg_scores"]) == [70.0, 80.0]


def test_random_negatives_come_from_the_whole_corpus():
    (sample,) = made(random_negatives=2)
    assert len({*sample["neg_passages"]} & {"a", "b", "c"}) == 2
    (only,) = made(random_negatives=1, left_out={"a"})
    assert only["neg_passages"] == ["b", "c"]  # the last candidate, then the last passage


def test_an_excluded_passage_is_in_no_sample():
    (sample,) = made(left_out={"a", "c"}, random_negatives=1)
    assert sample["neg_passages"] == ["b"]


def test_pre_training_has_its_own_settings_and_shares_those_of_hardware_and_lengths():
    own = PARAMS.pretrain.model_copy(
        update={"lr": 0.001, "epochs": 3.0, "batch_size": 7, "group_size": 5, "distill_weight": 0.5}
    )
    train = PARAMS.train.model_copy(
        update={"lr": 0.5, "passage_max_length": 99, "precision": "fp32", "accumulation": 4}
    )
    settings = as_training(PARAMS.model_copy(update={"pretrain": own, "train": train}))
    assert (settings.lr, settings.epochs, settings.batch_size, settings.group_size) == (
        0.001,
        3.0,
        7,
        5,
    )
    assert (settings.distill_weight, settings.accumulation) == (0.5, 1)
    assert (settings.passage_max_length, settings.precision, settings.best) == (
        99,
        "fp32",
        PARAMS.train.best,
    )


@pytest.mark.parametrize(
    "change", ["lr", "warmup_ratio", "scheduler", "weight_decay", "merge", "patience"]
)
def test_a_parameter_that_the_stage_does_not_list_does_not_reach_it(change):
    other = {
        "lr": 0.3,
        "warmup_ratio": 0.9,
        "scheduler": "constant",
        "weight_decay": 0.7,
        "merge": [],
        "patience": 1,
    }
    train = PARAMS.train.model_copy(update={change: other[change]})
    assert as_training(PARAMS.model_copy(update={"train": train})) == as_training(PARAMS)


def test_samples_are_plain_json():
    assert json.loads(json.dumps(made())) == made()
