"""Check that trackers follow a training in the expected place and do not change its result.

make interop        # an environment with all of them under .cache/interop, then these tests
"""

import csv
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from test_examples import program
from test_validation import samples  # noqa: F401, a fixture

SCRIPT = f"""
import hashlib, sys
sys.path[:0] = [{str(ROOT / "src")!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
import test_validation as t
from tunerank.core.errors import InputError
tracker, samples, model = sys.argv[1:]
try:
    runner = t.guided(
        Path(samples), Path(model), Path(".cache/train/key"),
        epochs=1.0, logging_steps=1, report_to=tracker,
    )
except InputError as error:
    sys.exit(f"error: {{error}}")
weights = hashlib.sha256()
for name, weight in sorted(runner.model.model.state_dict().items()):
    weights.update(weight.numpy().tobytes())
print("result", runner.trainer.state.global_step, weights.hexdigest())
"""


def trained(
    tracker: str,
    folder: Path,
    samples: Path,  # noqa: F811
    model: Path,
    fails: bool = False,
    **variables,
) -> str:
    """Return the steps and the hash of the weights; or the error."""
    hidden = {"PYTHONPATH", "WANDB_MODE", "WANDB_API_KEY"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "HOME": str(folder),
        **variables,
    }
    command = [program("trackers"), "-c", SCRIPT, tracker, str(samples), str(model)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert bool(done.returncode) == fails, done.stderr[-3000:]
    text = done.stderr if fails else done.stdout
    return next(
        line for line in text.splitlines() if line.startswith("error:" if fails else "result")
    )


@pytest.fixture(scope="module")
def untracked(tmp_path_factory, samples, tiny_model) -> str:  # noqa: F811
    return trained("none", tmp_path_factory.mktemp("none"), samples, tiny_model)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "dvc.yaml").write_text("stages: {}  # ours\n", encoding="utf-8")
    return tmp_path


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".config", ".local"}  # made in HOME


def test_tensorboard_records_a_loss_per_step(folder, samples, tiny_model, untracked):  # noqa: F811
    assert (
        trained("tensorboard", folder, samples, tiny_model, DVC_EXP_NAME="shy-otter") == untracked
    )
    read = (
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E; "
        "e = E('.cache/tensorboard/shy-otter'); e.Reload(); "
        "print(len(e.Scalars('train/loss')), e.Scalars('eval/MRR@10')[0].step)"
    )
    found = subprocess.run(
        [program("trackers"), "-c", read], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    # One loss per step. The base was evaluated at step 0.
    assert found.split() == [untracked.split()[1], "0"]
    assert left(folder) == {"dvc.yaml", ".cache"}


def test_wandb_records_offline(folder, samples, tiny_model, untracked):  # noqa: F811
    assert trained("wandb", folder, samples, tiny_model, WANDB_MODE="offline") == untracked
    (run,) = (folder / ".cache/wandb").glob("offline-run-*/run-*.wandb")
    content = run.read_bytes()
    assert b"eval/MRR@10" in content and b"train/loss" in content
    assert left(folder) == {"dvc.yaml", ".cache"}


def test_wandb_without_login_is_one_line(folder, samples, tiny_model):  # noqa: F811
    line = trained("wandb", folder, samples, tiny_model, fails=True)
    assert (
        line == "error: train.report_to: wandb has no login here: wandb login, "
        "or set WANDB_MODE=offline, or set it to none"
    )


def test_mlflow_records_the_training(folder, samples, tiny_model, untracked):  # noqa: F811
    assert trained("mlflow", folder, samples, tiny_model) == untracked
    with sqlite3.connect(folder / ".cache/mlflow.db") as database:
        counts = dict(database.execute("select key, count(*) from metrics group by key"))
        assert counts["loss"] == int(untracked.split()[1]) and counts["eval_MRR_10"] >= 2
        assert database.execute(
            "select name from experiments where name = 'reranker'"
        ).fetchall() == [("reranker",)]
        assert database.execute("select value from params where key = 'seed'").fetchall() == [
            ("3",)
        ]
    assert left(folder) == {"dvc.yaml", ".cache"}


def test_dvclive_leaves_dvc_yaml_alone(folder, samples, tiny_model, untracked):  # noqa: F811
    assert trained("dvclive", folder, samples, tiny_model) == untracked
    rows = list(
        csv.DictReader(
            (folder / ".cache/dvclive/key/plots/metrics/loss.tsv").open(), delimiter="\t"
        )
    )
    assert len(rows) == int(untracked.split()[1])
    assert (folder / "dvc.yaml").read_text(encoding="utf-8") == "stages: {}  # ours\n"
    assert left(folder) == {"dvc.yaml", ".cache"}
