"""Test that a training that goes wrong is stopped.

Each case is a real training of the tiny model, or a simulation of its losses and gradients.
"""

import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_training import TRAIN, samples  # noqa: F401, a fixture
from transformers import TrainerState

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl, write_jsonl
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.training.resume import latest_checkpoint
from tunerank.training.trainer import run_training
from tunerank.training.watch import SKIPPED, STEPS, Watch, pass_statistics

SETTINGS = {"accumulation": 1, "epochs": 12.0, "save_steps": 20}


def stopped(samples, base, folder, **changes) -> str:  # noqa: F811
    with pytest.raises(InputError) as error:
        run_training(TRAIN.model_copy(update=SETTINGS | changes), 3, samples, base, folder)
    return str(error.value)


def altered(base: Path, folder: Path, change) -> Path:
    """Return a copy of the checkpoint; `change` edits its output layer's weights in place."""
    shutil.copytree(base, folder)
    state = load_file(folder / "model.safetensors")
    change(state["classifier.out_proj.weight"])
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_statistics_of_a_pass_equal_those_worked_out_by_hand():
    logits = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 4.0]])
    loss, cross_entropy, spread, first = pass_statistics(
        torch.tensor(3.0), torch.tensor(2.0), logits
    ).tolist()
    assert (loss, cross_entropy, spread) == (3.0, 2.0, 1.0) and first == pytest.approx(1 / 3)


def test_a_learning_rate_that_diverges_is_stopped(samples, tiny_model, tmp_path):  # noqa: F811
    """The losses depend on the CPU; the definition of a divergence does not."""
    line = stopped(samples, tiny_model, tmp_path / "run", lr=1.0)
    step, loss, began, chance, rest = re.fullmatch(
        r"train: step (\d+): diverged, "
        r"a loss of (\S+) over 50 steps where it began with (\S+) and chance is (\S+?)(;.*)",
        line,
    ).groups()
    assert STEPS == 50 and STEPS < int(step) <= 2 * STEPS
    assert float(chance) == pytest.approx(math.log(4), abs=5e-4)
    # All three are rounded to three decimals.
    assert float(loss) > max(2 * float(chance), 1.5 * float(began)) - 2e-3
    point = latest_checkpoint(tmp_path / "run")
    assert Path(point).name == f"checkpoint-{int(step) // 20 * 20}"
    assert rest == (
        f"; lower train.lr (1) or train.max_grad_norm, or raise train.warmup_ratio; "
        f"the last good weights are in {point}"
    )


@pytest.mark.parametrize(
    "began, later, stops_at", [(1.0, 6.0, 68), (2.5, 6.0, 68), (3.0, 4.4, None), (0.5, 2.7, None)]
)
def test_a_divergence_is_twice_chance_and_one_and_a_half_times_the_first_losses(
    began, later, stops_at
):
    """The loss is `began` for 50 steps and `later` for 60 more.

    Twice chance is 2.77 for 4 passages. A mean over 50 steps exceeds it with 18 losses of 6.0 and
    32 of 1.0. 1.5 times 2.5 is 3.75; 18 losses of 6.0 and 32 of 2.5 exceed it (3.76).
    """
    model = torch.nn.Linear(2, 2)
    model.statistics = []
    watch, state = Watch(model, 4, 1e-4, "train", scaled=False), TrainerState(global_step=0)
    watch.on_train_begin(None, state, None)
    stopped_at = None
    for step, loss in enumerate([began] * STEPS + [later] * 60, 1):
        model.statistics.append(
            pass_statistics(
                torch.tensor(loss), torch.tensor(loss), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
            )
        )
        watch.on_pre_optimizer_step(None, state, None)
        state.global_step = step
        try:
            watch.on_step_end(None, state, None)
        except InputError as error:
            stopped_at = step
            assert f"where it began with {began:.3f} and chance is 1.386" in str(error)
            break
    assert stopped_at == stops_at


def test_the_usual_learning_rate_is_not_stopped(
    samples,  # noqa: F811
    tiny_model,
    tmp_path,
    capsys,
):
    runner = run_training(
        TRAIN.model_copy(update=SETTINGS), 3, samples, tiny_model, tmp_path / "run"
    )
    assert runner.trainer.state.global_step > 4 * STEPS and "WARNING" not in capsys.readouterr().err


def test_a_collapsed_model_is_stopped_after_a_window(samples, tiny_model, tmp_path):  # noqa: F811
    flat = altered(tiny_model, tmp_path / "flat", lambda weight: weight.zero_())
    line = stopped(samples, flat, tmp_path / "run", lr=1e-9)
    assert line.startswith(
        f"train: step {STEPS}: collapsed, "
        f"every passage of a group has had the same score for {STEPS} steps, "
        "loss 1.386 where chance is 1.386; lower train.lr (1e-09) or raise train.warmup_ratio; "
        "the last good weights are in "
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_stopped_at_the_first_step(
    samples,  # noqa: F811
    tiny_model,
    tmp_path,
    value,
):
    broken = altered(tiny_model, tmp_path / "broken", lambda weight: weight[0, :2].fill_(value))
    line = stopped(samples, broken, tmp_path / "run")
    assert line == (
        "train: step 1: the loss (nan) or its gradient is not finite; "
        "lower train.lr (0.005), or look for teacher scores or weights that are not finite; "
        "no checkpoint had been saved yet"
    )


def test_a_teachers_infinity_is_stopped_before_it_reaches_the_weights(
    samples,  # noqa: F811
    tiny_model,
    tmp_path,
):
    """The last checkpoint has the same bytes as that of the same training without it.

    The score is finite in the file, and infinite in the loss's 32 bits.
    """
    rows = [
        row | {"pos_scores": [1.0], "neg_scores": [0.0] * len(row["neg"])}
        for row in read_jsonl(samples)
    ]
    settings = SETTINGS | {"save_steps": 1, "distill_weight": 1.0}
    write_jsonl(tmp_path / "good.jsonl", rows)
    rows[7]["pos_scores"] = [1e308]
    write_jsonl(tmp_path / "bad.jsonl", rows)
    line = stopped(tmp_path / "bad.jsonl", tiny_model, tmp_path / "bad", **settings)
    step = int(line.split("step ")[1].split(":")[0])
    assert (
        1 < step <= len(rows) / 2
        and Path(latest_checkpoint(tmp_path / "bad")).name == f"checkpoint-{step - 1}"
    )

    epochs = 2 * (step - 1) / len(rows)
    run_training(
        TRAIN.model_copy(
            update=settings | {"epochs": epochs, "scheduler": "constant", "warmup_ratio": 0.0}
        ),
        3,
        tmp_path / "good.jsonl",
        tiny_model,
        tmp_path / "good",
    )
    line = stopped(
        tmp_path / "bad.jsonl",
        tiny_model,
        tmp_path / "again",
        **settings | {"scheduler": "constant", "warmup_ratio": 0.0},
    )
    good, bad = (
        load_file(Path(latest_checkpoint(tmp_path / name), "model.safetensors"))
        for name in ("good", "again")
    )
    assert all(torch.equal(good[name], bad[name]) for name in good)


def test_fp16s_scaler_may_skip_only_a_limited_number_of_steps():
    """fp16's scaler overflows for a few steps until it finds a scale. More steps are an error."""
    model = torch.nn.Linear(2, 2)
    model.statistics = []
    watch = Watch(model, 2, 1e-4, "train", scaled=True)
    state = TrainerState(global_step=0)
    watch.on_train_begin(None, state, None)

    def step(gradient: float) -> None:
        model.statistics.append(
            pass_statistics(torch.tensor(1.0), torch.tensor(1.0), torch.tensor([[1.0, 0.0]]))
        )
        for weight in model.parameters():
            weight.grad = torch.full_like(weight, gradient)
        watch.on_pre_optimizer_step(None, state, None)

    for gradient in [math.inf] * SKIPPED + [1.0] + [math.inf] * SKIPPED:
        step(gradient)
    with pytest.raises(
        InputError,
        match=(
            r"not finite 21 times in a row; "
            r"lower train.lr \(0.0001\), set train.precision to bf16 or fp32,"
        ),
    ):
        step(math.inf)


def test_labels_that_contradict_the_base_are_reported_and_trained_on(
    samples,  # noqa: F811
    tiny_model,
    tmp_path,
    capsys,
):
    """Every positive is the passage of its group with the base's lowest score."""
    encoder, rows = CrossEncoder(str(tiny_model), 80, "fp32", 4096), []
    for row in read_jsonl(samples):
        texts = [*row["pos"], *row["neg"]]
        scores = encoder.score([(row["query"], text) for text in texts], "")
        worst = min(range(len(texts)), key=lambda i: scores[i])
        rows.append(row | {"pos": [texts[worst]], "neg": texts[:worst] + texts[worst + 1 :]})
    write_jsonl(tmp_path / "fight.jsonl", rows)
    capsys.readouterr()
    run_training(
        TRAIN.model_copy(update=SETTINGS | {"lr": 1e-9, "dropout": 0.0}),
        3,
        tmp_path / "fight.jsonl",
        tiny_model,
        tmp_path / "run",
    )
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING")]
    assert line == (
        f"WARNING: train: in the first {STEPS} steps the positive came first in 0.0% "
        "of the groups, by chance it would in 25%; "
        "are the labels right (prepare.columns, metrics/suspects.csv)?"
    )
