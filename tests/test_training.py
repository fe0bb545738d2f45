import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, article, kill_training_at, python, table_rows
from FlagEmbedding.abc.finetune.reranker import AbsRerankerDataArguments, AbsRerankerTrainDataset
from FlagEmbedding.finetune.reranker.encoder_only.base import CrossEncoderModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl, write_jsonl
from tunerank.models.checkpoint import save
from tunerank.params.load import load
from tunerank.training.groups import GroupCollator, GroupDataset, sub_batches
from tunerank.training.losses import GroupModel, distillation
from tunerank.training.resume import latest_checkpoint, run_key
from tunerank.training.selection import save_reranker
from tunerank.training.trainer import Runner, run_training

TRAIN = load(ROOT / "tests/params.yaml").train.model_copy(
    update={
        "lr": 0.005, "epochs": 2.0, "batch_size": 2, "accumulation": 2, "group_size": 4,
        "precision": "fp32", "dropout": 0.1, "query_max_length": 16, "passage_max_length": 64,
        "logging_steps": 1, "save_steps": 1000, "scheduler": "cosine", "warmup_ratio": 0.25,
        "weight_decay": 0.0,
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    rows = [row for row in table_rows() if row["dataset"] == "train"]
    path = tmp_path_factory.mktemp("samples") / "train.jsonl"
    write_jsonl(path, article([(row["question"], row["context"]) for row in rows], 5, 2))
    return path


def dataset(
    samples, tiny_model, folder, epochs=2.0, seed=1, group_size=4, **changes
) -> GroupDataset:
    args = AbsRerankerDataArguments(
        train_data=[str(samples)],
        train_group_size=group_size,
        **({"query_max_len": 16, "passage_max_len": 64} | changes),
    )
    return GroupDataset(
        args, AutoTokenizer.from_pretrained(tiny_model), epochs, seed, folder / "tokens"
    )


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_epoch_holds_every_sample_once_in_its_own_order(samples, tiny_model, tmp_path):
    data = dataset(samples, tiny_model, tmp_path)
    rows = len(data.samples)
    assert len(data) == 2 * rows == 72
    assert sorted(data.order(0)) == sorted(data.order(1)) == list(range(rows))
    assert data.order(0) != data.order(1)
    assert len(dataset(samples, tiny_model, tmp_path, epochs=0.5)) == rows // 2


def test_a_rows_negatives_are_drawn_in_turn(samples, tiny_model, tmp_path):
    data = dataset(samples, tiny_model, tmp_path, group_size=3)
    drawn = [index for epoch in range(5) for index in data.draw(0, epoch, 1, 5)[1]]
    assert sorted(drawn) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]  # 10 draws of 5 negatives: each twice
    # The positive is any of the three.
    assert {data.draw(0, epoch, 3, 5)[0] for epoch in range(20)} == {0, 1, 2}


def test_a_positive_is_drawn_in_proportion_to_its_weight(samples, tiny_model, tmp_path):
    """Expected of 4000 draws: 3000 and 1000; and 2400, 800 and 800."""
    data = dataset(samples, tiny_model, tmp_path)

    def counts(*weights: float) -> list[int]:
        drawn = [data.draw(5, i, len(weights), 4, weights)[0] for i in range(4000)]
        return [drawn.count(index) for index in range(len(weights))]

    assert counts(3.0, 1.0) == [2977, 1023]
    assert counts(3.0, 1.0, 1.0) == [2412, 757, 831]
    # The negatives do not depend on the weights.
    plain, weighted = (data.draw(5, 7, 2, 4, weights)[1] for weights in (None, (3.0, 1.0)))
    assert plain == weighted


@pytest.fixture(scope="module")
def graded(samples, tmp_path_factory) -> Path:
    """Return the samples, each with a second positive of grade 3, and the first one of grade 1."""
    rows = [
        row | {"pos": [row["pos"][0], "另一段" + row["pos"][0]], "pos_weights": [1.0, 3.0]}
        for row in read_jsonl(samples)
    ]
    path = tmp_path_factory.mktemp("graded") / "train.jsonl"
    write_jsonl(path, rows)
    return path


def test_a_resumed_run_draws_the_same_graded_positives(graded, tiny_model, tmp_path):
    """The second dataset begins in the third epoch, in reverse, as after an interruption."""
    whole = dataset(graded, tiny_model, tmp_path, epochs=4.0)
    groups = [whole[i] for i in range(len(whole))]
    resumed = dataset(graded, tiny_model, tmp_path, epochs=4.0)
    start = 2 * len(resumed.samples)
    rest = [resumed[i] for i in reversed(range(start, len(resumed)))]
    assert rest[::-1] == groups[start:]
    for row in range(len(whole.samples)):  # the weights of a row reach the draw
        item = whole.order(3).index(row) + 3 * len(whole.samples)
        positive, _ = whole.draw(row, 3, 2, 5, [1.0, 3.0])
        sample = whole.samples.row(row)
        query, text = whole.samples.ids(sample["query"]), whole.samples.ids(sample["pos"][positive])
        assert groups[item][0][0] == whole.template.join(query, text, whole.pair_limit)


def test_flag_embedding_reads_samples_with_weights(graded, tiny_model, tmp_path):
    args = AbsRerankerDataArguments(
        train_data=[str(graded)], train_group_size=3, cache_path=str(tmp_path / "cache")
    )
    data = AbsRerankerTrainDataset(args, AutoTokenizer.from_pretrained(tiny_model))
    assert len(data) == 36 and len(data[0][0]) == 3


def test_a_group_larger_than_the_negatives_repeats_them(samples, tiny_model, tmp_path):
    _, drawn = dataset(samples, tiny_model, tmp_path, group_size=9).draw(0, 0, 1, 5)
    assert sorted(drawn.count(index) for index in range(5)) == [1, 1, 2, 2, 2]


def test_groups_do_not_depend_on_the_global_generator_or_on_call_order(
    samples, tiny_model, tmp_path
):
    import random

    first, second = (dataset(samples, tiny_model, tmp_path) for _ in range(2))
    random.seed(1)
    forwards = [first[i] for i in range(len(first))]
    random.seed(2)
    backwards = [second[i] for i in reversed(range(len(second)))]
    assert forwards == backwards[::-1]
    other = dataset(samples, tiny_model, tmp_path, seed=2)
    assert [other[i] for i in range(4)] != forwards[:4]


def test_a_smaller_last_batch_is_grouped_correctly(samples, tiny_model, tmp_path):
    """A model for batches of 4 groups gets 3: the loss is the mean of the three groups' losses."""
    data = dataset(samples, tiny_model, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    grouped = GroupModel(model, tokenizer=tokenizer, train_batch_size=4)
    grouped.params = TRAIN
    items = [data[i] for i in range(3)]
    grouped.train()
    model.eval()
    with torch.no_grad():
        loss = grouped(**GroupCollator(tokenizer, 4096, 8)(items)).loss
        logits = model(**padded(tokenizer, items)).logits.view(3, 4)
    plain = -(logits[:, 0] - logits.logsumexp(dim=1)).mean()
    # The order of the float32 sums differs.
    assert loss.item() == pytest.approx(plain.item(), abs=1e-5)


def padded(tokenizer, items):
    """Return all pairs of some groups in one batch, like FlagEmbedding's collator."""
    return tokenizer.pad(
        {"input_ids": [pair["input_ids"] for group, _ in items for pair in group]},
        return_tensors="pt",
    )


def test_sub_batches_without_repeats_give_the_plain_loss_and_gradient(
    samples, tiny_model, tmp_path
):
    """Groups of 9 with 5 negatives have 3 repeated pairs, which are scored once.

    FlagEmbedding's own model scores all 9.
    """
    data = dataset(samples, tiny_model, tmp_path, group_size=9)
    tokenizer, items = AutoTokenizer.from_pretrained(tiny_model), [data[i] for i in range(3)]
    ours, theirs = (
        kind(
            AutoModelForSequenceClassification.from_pretrained(tiny_model).eval(),
            tokenizer=tokenizer,
            train_batch_size=3,
        )
        for kind in (GroupModel, CrossEncoderModel)
    )
    ours.params = TRAIN.model_copy(update={"group_size": 9})
    ours.training, theirs.training = True, True  # computes the loss, without dropout
    collated = GroupCollator(tokenizer, 4096, 8)(items)
    batches = collated["pair"]["batches"]
    assert len(batches) > 1 and sum(len(batch["input_ids"]) for batch in batches) == 3 * 6
    loss, plain = ours(**collated).loss, theirs(padded(tokenizer, items)).loss
    # The order of the float32 sums differs.
    assert loss.item() == pytest.approx(plain.item(), abs=1e-5)
    loss.backward()
    plain.backward()
    gradients = [
        {name: weight.grad for name, weight in model.named_parameters()} for model in (ours, theirs)
    ]
    assert max(gradient.abs().max() for gradient in gradients[0].values()) > 0.01
    for name in gradients[0]:
        torch.testing.assert_close(
            *(gradient[name] for gradient in gradients), rtol=1e-4, atol=1e-6
        )


def test_a_collated_step_counts_its_tokens_and_its_padding(samples, tiny_model, tmp_path):
    tokenizer, items = (
        AutoTokenizer.from_pretrained(tiny_model),
        [dataset(samples, tiny_model, tmp_path)[i] for i in range(4)],
    )
    lengths = [len(pair["input_ids"]) for group, _ in items for pair in group]
    assert len(set(lengths)) > 3
    alone, together = (
        GroupCollator(tokenizer, 4096, overhead)(items)["pair"] for overhead in (0, 10**6)
    )
    assert len(together["batches"]) == 1 and together["tokens"][1] == max(lengths) * len(
        together["batches"][0]["input_ids"]
    )
    assert alone["tokens"] == [together["tokens"][0]] * 2  # no padding
    for batch in alone["batches"]:
        assert batch["attention_mask"].all()


def test_sub_batches_are_the_cheapest_of_all_cuts():
    """The result is compared with every way to cut 9 sequences."""
    lengths, most, overhead = [40, 39, 30, 30, 29, 12, 12, 11, 3], 120, 20
    costs = {}
    for cuts in range(2**8):
        bounds = [0, *(i + 1 for i in range(8) if cuts >> i & 1), 9]
        spans = list(zip(bounds, bounds[1:]))
        tokens = [lengths[start] * (end - start) for start, end in spans]
        if all(count <= most or end - start == 1 for count, (start, end) in zip(tokens, spans)):
            costs[tuple(spans)] = sum(tokens) + overhead * len(spans)
    found = tuple(sub_batches(lengths, most, overhead))
    assert costs[found] == min(costs.values()) and 1 < len(found) < 9
    # A sequence over the limit has a batch of its own.
    assert sub_batches([500, 400], 120, 0) == [(0, 1), (1, 2)]


def test_distillation_equals_the_formula():
    """The formula for two groups of three: temperature^2 * KL = t^2 * sum p log(p / q)."""
    logits, teacher = [[0.3, -1.2, 2.0], [1.0, 1.0, 1.0]], [[90.0, 88.5, 87.0], [80.0, 81.0, 79.0]]

    def softmax(row, t):
        powers = [math.exp((x - max(row)) / t) for x in row]
        return [power / sum(powers) for power in powers]

    for t in (1.0, 3.0):
        expected = 0.0
        for student, wanted in zip(logits, teacher):
            p, q = softmax(wanted, t), softmax(student, t)
            expected += t**2 * sum(a * math.log(a / b) for a, b in zip(p, q)) / 2
        assert distillation(torch.tensor(logits), torch.tensor(teacher), t).item() == pytest.approx(
            expected, rel=1e-5
        )
    assert distillation(torch.tensor(teacher), torch.tensor(teacher), 2.0).item() == pytest.approx(
        0.0, abs=1e-6
    )


def test_at_weight_and_temperature_1_the_gradient_equals_flag_embeddings(tiny_model):
    """FlagEmbedding's loss differs from KL by the entropy of the targets, which is constant."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = ["红色的车", "船", "灯", "门", "窗子", "桌"]
    pair = tokenizer(["红车"] * 6, texts, padding=True, return_tensors="pt")
    group = [{"input_ids": ids} for ids in tokenizer(["红车"] * 6, texts)["input_ids"]]
    collated = GroupCollator(tokenizer, 4096, 8)([(group[:3], None), (group[3:], None)])["pair"]
    teacher = [3.0, 2.5, -1.0, 0.5, 1.0, 2.0]
    gradients = []
    for kind in (GroupModel, CrossEncoderModel):
        model = kind(
            AutoModelForSequenceClassification.from_pretrained(tiny_model).eval(),
            tokenizer=tokenizer,
            train_batch_size=2,
        )
        model.training = True  # computes the loss, without dropout
        model.params = TRAIN.model_copy(update={"group_size": 3, "distill_weight": 1.0})
        model(collated if kind is GroupModel else pair, teacher).loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    ours, theirs = gradients
    assert max(gradient.abs().max() for gradient in ours.values()) > 0.01
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def taught(samples, tmp_path_factory) -> Path:
    """Return the samples with scores of a teacher that prefers the last negatives."""
    rows = [
        row | {"pos_scores": [2.0], "neg_scores": [float(i) for i in range(len(row["neg"]))]}
        for row in read_jsonl(samples)
    ]
    path = tmp_path_factory.mktemp("taught") / "train.jsonl"
    write_jsonl(path, rows)
    return path


def test_scores_go_with_their_passages(taught, tiny_model, tmp_path):
    data = dataset(taught, tiny_model, tmp_path, knowledge_distillation=True)
    rows, tokenizer = list(read_jsonl(taught)), AutoTokenizer.from_pretrained(tiny_model)
    for item, row in enumerate(data.order(0)):
        group, scores = data[item]
        texts = [rows[row]["pos"][0], *rows[row]["neg"]]
        ids = tokenizer([rows[row]["query"]] * len(texts), texts)["input_ids"]
        known = dict(zip(map(tuple, ids), [2.0, *rows[row]["neg_scores"]]))
        assert scores == [known[tuple(pair["input_ids"])] for pair in group]


def test_distillation_parameters_have_an_effect(taught, tiny_model, tmp_path, reference):
    # Teacher scores without distillation change nothing.
    assert equal(reference, weights(run(taught, tiny_model, tmp_path, "off").model.model))
    once = weights(run(taught, tiny_model, tmp_path, "on", distill_weight=1.0).model.model)
    assert not equal(reference, once)
    assert not equal(
        once,
        weights(
            run(
                taught, tiny_model, tmp_path, "t", distill_weight=1.0, distill_temperature=2.0
            ).model.model
        ),
    )


@pytest.fixture(scope="module")
def trained(samples, tiny_model, tmp_path_factory):
    params = TRAIN.model_copy(update={"lr": 0.003, "epochs": 6.0, "dropout": 0.0})
    return run_training(params, 3, samples, tiny_model, tmp_path_factory.mktemp("scratch") / "run")


def test_training_lowers_the_loss_and_follows_the_schedule(trained):
    log = [entry for entry in trained.trainer.state.log_history if "loss" in entry]
    losses = [entry["loss"] for entry in log]
    assert sum(losses[-9:]) < 0.5 * sum(losses[:9])
    # 18 questions with 2 samples each, six epochs, steps of 4.
    assert trained.trainer.state.global_step == len(log) == 54
    rates = [entry["learning_rate"] for entry in log]
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(
        rates[peak:], reverse=True
    )
    assert max(rates) == pytest.approx(0.003) and rates[-1] < 0.0003


def test_frozen_embeddings_stay_and_other_weights_change(trained, tiny_model):
    before = weights(AutoModelForSequenceClassification.from_pretrained(tiny_model))
    after = weights(trained.model.model)
    name = "roberta.embeddings.word_embeddings.weight"
    assert torch.equal(before[name], after[name])
    assert not torch.equal(
        before["classifier.out_proj.weight"], after["classifier.out_proj.weight"]
    )


def run(samples, model, tmp_path, name="run", seed=3, **changes):
    return run_training(
        TRAIN.model_copy(update={"epochs": 1.0} | changes), seed, samples, model, tmp_path / name
    )


def test_the_same_run_gives_the_same_bytes_whatever_the_workers(samples, tiny_model, tmp_path):
    one = weights(run(samples, tiny_model, tmp_path, "a").model.model)
    assert equal(one, weights(run(samples, tiny_model, tmp_path, "b", workers=2).model.model))
    assert not equal(one, weights(run(samples, tiny_model, tmp_path, "c", seed=4).model.model))


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.002}, {"epochs": 0.5}, {"batch_size": 1}, {"accumulation": 1}, {"group_size": 3},
        {"warmup_ratio": 0.0}, {"scheduler": "linear"}, {"weight_decay": 0.5},
        {"max_grad_norm": 0.01}, {"dropout": 0.0}, {"freeze_embeddings": False},
        {"drop_last": False, "batch_size": 5, "accumulation": 1},
        {"precision": "bf16"},
    ],
    ids=lambda change: ",".join(change),
)  # fmt: skip
def test_each_parameter_has_an_effect(samples, tiny_model, tmp_path, change, reference):
    reference_weights = reference if "drop_last" not in change else weights(
        run(samples, tiny_model, tmp_path, "dropped", **(change | {"drop_last": True})).model.model
    )  # fmt: skip
    assert not equal(
        reference_weights, weights(run(samples, tiny_model, tmp_path, **change).model.model)
    )


@pytest.mark.parametrize(
    "query, passage, query_tokens, pair_tokens",
    [(8, 16, 12, 24), (12, 16, 16, 28), (8, 24, 14, 32)],
)
def test_query_and_passage_are_cut_at_flag_embeddings_limits(
    tiny_model, tmp_path, query, passage, query_tokens, pair_tokens
):
    """A query has up to query + passage // 4 tokens, a pair (with special ones) query + passage."""
    write_jsonl(
        tmp_path / "long.jsonl", [{"query": "车" * 40, "pos": ["船" * 90], "neg": ["灯" * 90]}]
    )
    params = TRAIN.model_copy(
        update={"query_max_length": query, "passage_max_length": passage, "batch_size": 1}
    )
    for item in Runner(
        params, 1, tmp_path / "long.jsonl", tiny_model, tmp_path / "run"
    ).train_dataset[0][0]:
        assert item["input_ids"].index(2) == 1 + query_tokens  # <s> query </s></s> passage </s>
        assert len(item["input_ids"]) == pair_tokens


def test_the_share_of_padding_is_reported_at_the_end(samples, tiny_model, tmp_path, capsys):
    model = run(samples, tiny_model, tmp_path).model
    real, padded = model.tokens
    assert 36 * 4 * 9 < real < padded  # 36 groups of 4 pairs
    assert (
        f"padding: {1 - real / padded:.1%} of the {padded} tokens that were trained on"
        in capsys.readouterr().out
    )


def test_too_little_memory_gives_a_warning(samples, tiny_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tunerank.training.preflight.free_memory", lambda: 0.0)
    run(samples, tiny_model, tmp_path, epochs=0.1)
    said = capsys.readouterr()
    assert "memory: about 0.0" in said.out and "for 2 groups of up to" in said.out
    assert (
        "WARNING: training needs about 0.0 GB and 0.0 GB are free; lower train.batch_size"
        in said.err
    )


LIMITED = """
import json, psutil, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tunerank.core.errors import InputError
from tunerank.params.train import Train
from tunerank.training import trainer as training
report = training.report_memory
def limit(*given):
    report(*given)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[6]), resource.RLIM_INFINITY))
training.report_memory = limit
params = Train.model_validate_json(sys.argv[2])
try:
    training.run_training(params, 1, *map(Path, sys.argv[3:6]))
except InputError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
def test_running_out_of_memory_names_the_parameters_to_change(samples, tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = AutoConfig.from_pretrained(
        tiny_model, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_labels=1
    )
    save(AutoModelForSequenceClassification.from_config(config), tokenizer, tmp_path / "wide")
    params = TRAIN.model_copy(
        update={"batch_size": 32, "group_size": 6, "accumulation": 1, "epochs": 1.0}
    )
    given = [str(samples), str(tmp_path / "wide"), str(tmp_path / "scratch")]
    said = {}
    for spare in (16 << 20, 4 << 30):  # training needs about 250 MB
        said[spare] = python(
            "-c",
            LIMITED,
            str(ROOT / "src"),
            params.model_dump_json(),
            *given,
            str(spare),
            cwd=tmp_path,
        ).stdout
    assert (
        "refused: train: memory ran out; lower train.batch_size (and raise train.accumulation"
        in said[16 << 20]
    )
    assert "refused" not in said[4 << 30] and "memory: about 0.3" in said[4 << 30]


def test_a_run_shorter_than_logging_steps_has_a_curve(samples, tiny_model, tmp_path):
    log = run(
        samples, tiny_model, tmp_path, epochs=0.25, logging_steps=50
    ).trainer.state.log_history
    assert [entry["step"] for entry in log if "loss" in entry] == [2]  # 9 samples, two steps of 4


def test_fewer_samples_than_a_batch_are_refused_with_the_remedy(tiny_model, tmp_path):
    write_jsonl(tmp_path / "one.jsonl", [{"query": "车", "pos": ["船"], "neg": ["灯"]}])
    with pytest.raises(
        InputError,
        match="train.epochs 2.0 of 1 samples do not fill one batch of 8: lower train.batch_size",
    ):
        run_training(
            TRAIN.model_copy(update={"batch_size": 8}),
            1,
            tmp_path / "one.jsonl",
            tiny_model,
            tmp_path / "run",
        )


@pytest.fixture(scope="module")
def reference(samples, tiny_model, tmp_path_factory):
    return weights(run(samples, tiny_model, tmp_path_factory.mktemp("reference")).model.model)


def test_without_a_dropout_parameter_the_checkpoints_dropout_is_used(
    samples, tiny_model, tmp_path, reference
):
    assert equal(
        reference, weights(run(samples, tiny_model, tmp_path, dropout=None).model.model)
    )  # the tiny model has 0.1


def test_gradient_checkpointing_does_not_change_the_result(samples, tiny_model, tmp_path):
    runs = [
        run(samples, tiny_model, tmp_path, str(on), dropout=0.0, gradient_checkpointing=on)
        for on in (False, True)
    ]
    plain, recomputed = (weights(runner.model.model) for runner in runs)
    assert all(torch.allclose(plain[name], recomputed[name], atol=1e-5) for name in plain)
    assert (
        runs[1].model.model.is_gradient_checkpointing
        and not runs[0].model.model.is_gradient_checkpointing
    )


def test_a_half_precision_checkpoint_is_trained_in_float32(samples, tiny_model, tmp_path):
    half = tmp_path / "half"
    AutoModelForSequenceClassification.from_pretrained(
        tiny_model, dtype=torch.float16
    ).save_pretrained(half)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(half)
    assert json.loads((half / "config.json").read_text())["dtype"] == "float16"
    trained = run(samples, half, tmp_path)
    assert {value.dtype for value in weights(trained.model.model).values()} == {torch.float32}


def test_the_output_has_no_pickle_and_carries_what_inference_needs(trained, tmp_path):
    save_reranker(trained, tmp_path / "reranker", {"max_length": 77, "window": 5, "stride": 2})
    names = {path.name for path in (tmp_path / "reranker").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    config = json.loads((tmp_path / "reranker" / "config.json").read_text())
    assert config["reranker"] == {"max_length": 77, "window": 5, "stride": 2}
    assert config["hidden_dropout_prob"] == 0.1 and config["dtype"] == "float32"
    assert AutoTokenizer.from_pretrained(tmp_path / "reranker").model_max_length == 77


def test_an_interrupted_run_resumes_and_ends_with_the_same_bytes(samples, tiny_model, tmp_path):
    """A process is killed during training; the next one continues from its last checkpoint."""
    kill_training_at(
        6,
        "test_training",
        "training.run_training(t.TRAIN.model_copy(update={'epochs': 1.0, 'accumulation': 1, "
        "'save_steps': 2, 'logging_steps': 3}), 3, "
        f"Path({str(samples)!r}), Path({str(tiny_model)!r}), Path({str(tmp_path / 'killed')!r}))",
    )
    point = latest_checkpoint(tmp_path / "killed")
    assert Path(point).name == "checkpoint-4"
    assert not list((tmp_path / "killed").rglob("training_args.bin"))

    whole = run(
        samples, tiny_model, tmp_path, "whole", accumulation=1, save_steps=2, logging_steps=3
    )
    resumed = run(
        samples, tiny_model, tmp_path, "killed", accumulation=1, save_steps=2, logging_steps=3
    )
    assert resumed.trainer.state.global_step == whole.trainer.state.global_step == 18
    assert equal(weights(whole.model.model), weights(resumed.model.model))
    curves = [
        [entry["loss"] for entry in r.trainer.state.log_history if "loss" in entry]
        for r in (whole, resumed)
    ]
    assert curves[0] == curves[1]


def point(scratch: Path, step: int, best: int | None = None) -> Path:
    folder = scratch / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(b"moments")
    (folder / "digests.json").write_text(json.dumps({"optimizer.pt": DIGEST}))
    (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    return folder


DIGEST = hashlib.sha256(b"moments").hexdigest()


@pytest.mark.parametrize(
    "name, content",
    [
        ("trainer_state.json", None),  # killed before it was written
        ("trainer_state.json", b'{"best_glo'),
        ("digests.json", None),
        ("digests.json", b""),  # a power cut leaves empty files
        ("optimizer.pt", b""),
        ("optimizer.pt", b"momentS"),
        ("optimizer.pt", None),
    ],
)
def test_an_incomplete_checkpoint_is_skipped(tmp_path, name, content):
    whole, newer = point(tmp_path, 2), point(tmp_path, 10)
    assert latest_checkpoint(tmp_path) == str(newer)
    if content is None:
        (newer / name).unlink()
    else:
        (newer / name).write_bytes(content)
    assert latest_checkpoint(tmp_path) == str(whole)
    (whole / name).write_bytes(b"")
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path / "none") is None


def test_a_checkpoint_with_an_incomplete_best_one_is_skipped(tmp_path):
    best, last = point(tmp_path, 4, best=4), point(tmp_path, 10, best=4)
    assert latest_checkpoint(tmp_path) == str(last)
    (best / "optimizer.pt").write_bytes(b"")
    assert latest_checkpoint(tmp_path) is None


def test_only_a_run_with_the_same_inputs_resumes(samples, tiny_model, tmp_path):
    key = run_key(TRAIN, 3, [samples], tiny_model)
    assert key == run_key(
        TRAIN.model_copy(update={"workers": 2, "launcher": "torchrun"}), 3, [samples], tiny_model
    )
    assert key != run_key(TRAIN.model_copy(update={"lr": 0.1}), 3, [samples], tiny_model)
    assert key != run_key(TRAIN, 4, [samples], tiny_model)
    other = tmp_path / "other.jsonl"
    other.write_text(samples.read_text() + samples.read_text().splitlines()[0] + "\n")
    assert key != run_key(TRAIN, 3, [other], tiny_model)


@pytest.mark.slow
def test_two_processes_train_like_one(samples, tiny_model, tmp_path):
    """Two processes of torchrun with half the accumulation see the same samples in each step."""
    script = tmp_path / "two.py"
    script.write_text(
        f"""
import json, sys; sys.path[:0] = [{str(ROOT / "src")!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
import test_training as t
from tunerank.training.trainer import run_training
params = t.TRAIN.model_copy(update={{"epochs": 1.0, "accumulation": 1, "dropout": 0.0}})
runner = run_training(params, 3, Path({str(samples)!r}),
               Path({str(tiny_model)!r}), Path({str(tmp_path / "two")!r}))
if runner.trainer.is_world_process_zero():
    Path({str(tmp_path / "losses.json")!r}).write_text(json.dumps(
        [entry["loss"] for entry in runner.trainer.state.log_history if "loss" in entry]))
"""
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        str(script),
    ]
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    one = run(samples, tiny_model, tmp_path, "one", dropout=0.0)
    losses = [entry["loss"] for entry in one.trainer.state.log_history if "loss" in entry]
    assert json.loads((tmp_path / "losses.json").read_text()) == pytest.approx(losses, abs=1e-4)


TRACKERS = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "dvclive": "dvclive",
}


@pytest.mark.parametrize(
    "tracker",
    [name for name, package in TRACKERS.items() if importlib.util.find_spec(package) is None],
)
def test_a_tracker_that_is_not_installed_is_named_before_training(
    samples, tiny_model, tmp_path, tracker
):
    with pytest.raises(
        InputError,
        match=(
            f"^train.report_to: {tracker} needs the package {tracker}: "
            f"pip install {tracker}.*, or set it to none$"
        ),
    ):
        run_training(
            TRAIN.model_copy(update={"report_to": tracker}),
            3,
            samples,
            tiny_model,
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_another_tracker_resumes_the_same_training(samples, tiny_model):
    keys = {
        run_key(TRAIN.model_copy(update={"report_to": name}), 3, [samples], tiny_model)
        for name in ("none", "tensorboard")
    }
    assert len(keys) == 1
