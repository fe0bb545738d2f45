"""Test that a killed training continues from its own last checkpoint.

tests/faults has more tests, which use DVC.
"""

import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml
from conftest import started

from tunerank.commands.verify import md5_of

CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


def stage(folder: Path) -> dict:
    return yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["train"]


def start(folder: Path):
    return started(
        stage(folder)["cmd"].replace("${train.launcher}", "python").split()[1:],
        folder,
        together=True,
    )


def outputs(folder: Path) -> dict[str, str]:
    paths = [out if isinstance(out, str) else next(iter(out)) for out in stage(folder)["outs"]]
    return {path: md5_of(folder / path) for path in paths}


def set_train(folder: Path, **values) -> None:
    path = folder / "params.yaml"
    parameters = yaml.safe_load(path.read_text(encoding="utf-8"))
    parameters["train"] |= values
    path.write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")


def points(folder: Path) -> dict[str, set[int]]:
    """Return key of the run -> steps of its checkpoints."""
    found: dict[str, set[int]] = {}
    for path in (folder / ".cache/train").glob("*/checkpoint-*"):
        found.setdefault(path.parent.name, set()).add(int(path.name.split("-")[1]))
    return found


def killed(folder: Path, number: signal.Signals = signal.SIGKILL) -> str:
    """Train, and send the signal after a new checkpoint of at least 4 steps; return the output."""
    before, process = points(folder), start(folder)
    while process.poll() is None and not any(
        max(new) >= 4 for key, new in points(folder).items() if key not in before
    ):
        time.sleep(0.01)
    process.send_signal(number)
    text, _ = process.communicate()
    assert process.returncode == CODES[number], text
    return text


def finished(folder: Path) -> str:
    process = start(folder)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    return text


@pytest.fixture(scope="module")
def fresh(project, tmp_path_factory) -> Path:
    """Return the small run with a longer training to do; its outputs are of the shorter one."""
    folder = tmp_path_factory.mktemp("fresh") / "run"
    shutil.copytree(project, folder, symlinks=True, ignore=shutil.ignore_patterns(".git", "cache"))
    set_train(folder, epochs=4, patience=None, save_steps=2, evals_per_epoch=1)
    return folder


@pytest.fixture(scope="module")
def expected(fresh, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    shutil.copytree(fresh, folder, symlinks=True)
    assert "resuming from" not in finished(folder)
    assert outputs(folder) != outputs(fresh)
    return outputs(folder)


@pytest.fixture
def run(fresh, tmp_path) -> Path:
    return shutil.copytree(fresh, tmp_path / "run", symlinks=True)


@pytest.mark.parametrize(
    "number, said", [(signal.SIGKILL, None), (signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]
)
def test_a_killed_training_resumes_and_ends_with_the_same_bytes(fresh, expected, run, number, said):
    text = killed(run, number)
    lines = [f"error: train: stopped by {said}; run dvc repro to continue"] if said else []
    assert [
        line for line in text.splitlines() if line.startswith("error: ")
    ] == lines and "Traceback" not in text
    assert outputs(run) == outputs(fresh)  # the old outputs are complete; nothing looks finished
    assert "resuming from .cache/train/" in finished(run)
    assert outputs(run) == expected
    assert [path.name for path in (run / ".cache/train").iterdir()] == ["tokens"]


def test_a_run_with_another_learning_rate_does_not_resume_and_old_checkpoints_are_limited(
    expected, run
):
    own = yaml.safe_load((run / "params.yaml").read_text(encoding="utf-8"))["train"]["lr"]
    keys = set()
    for lr in (0.001, 0.002, 0.004, 0.005, own):
        set_train(run, lr=lr)
        assert "resuming from" not in killed(run)
        assert len(points(run)) <= 2 and all(len(steps) <= 3 for steps in points(run).values())
        keys |= set(points(run))
    assert len(keys) == 5
    assert "resuming from .cache/train/" in finished(run)
    assert outputs(run) == expected
    assert len(points(run)) == 1
