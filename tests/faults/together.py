"""Run two commands at once in one folder: the locks must hold, and the outputs come from one run.

python -m pytest tests/faults/together.py
"""

import signal
import time
from collections import Counter

import pytest
import yaml
from conftest import dvc, git
from made import (  # noqa: F401
    at_work,
    change,
    heard,
    made,
    outs,
    points,
    stage_process,
    start,
    table,
    wait_until,
)

rows = table("together")
BUSY = (
    "Unable to acquire lock",
    "is busy, it is being blocked by",
    "is already at work in this folder",
)
"""Two lines of DVC, and one of ours."""


def busy(text: str) -> str:
    """Return the message that refused a second run, or an empty text."""
    assert "Traceback" not in text, text
    return next((sign for sign in BUSY if sign in text), "")


@pytest.fixture(scope="module")
def twice(rows):  # noqa: F811
    found = Counter()
    yield found
    refused = "; ".join(f'{found[sign]} refused by "{sign}"' for sign in BUSY if found[sign])
    rows.add(
        "Two at once: a second `dvc repro` 0 to 2 s after the first",
        found["pairs"],
        f"{found['both']} times both ended well; {refused}; "
        f"then `dvc repro`: {found['same']} of {found['pairs']} the same bytes",
    )


@pytest.mark.parametrize(
    "stage, delay",
    [("fetch", 0.0), ("samples", 0.5), ("train", 1.0), ("train", 1.5), ("evaluate", 2.0)],
)
def test_two_repros_leave_one_complete_run(made, twice, stage, delay, tmp_path):  # noqa: F811
    folder = made.before(stage)
    first = start("repro", cwd=folder)
    time.sleep(delay)
    with open(tmp_path / "second", "w", encoding="utf-8") as out:
        second = start("repro", cwd=folder, out=out)
        codes = [first.wait(), second.wait()]
    texts = [heard(folder), (tmp_path / "second").read_text(encoding="utf-8")]
    assert codes.count(0) >= 1, texts
    twice["pairs"] += 1
    twice["both"] += codes == [0, 0]
    for code, text in zip(codes, texts):
        if code:
            assert busy(text), text
            twice[busy(text)] += 1
    made.nothing_half(folder)
    assert start("repro", cwd=folder).wait() == 0
    made.is_new(folder)
    twice["same"] += 1


def training(made, at: int = 10):  # noqa: F811
    folder = made.before("train")
    process = start("repro", cwd=folder)
    wait_until(lambda: process.poll() is not None or max(points(folder, "train"), default=0) >= at)
    assert process.poll() is None, heard(folder)
    return folder, process


@pytest.mark.parametrize(
    "arguments",
    [("checkout",), ("checkout", "--force"), ("commit", "--force"), ("gc", "-w", "-f")],
)
def test_another_command_does_not_disturb_training(made, rows, arguments, tmp_path):  # noqa: F811
    folder, process = training(made)
    with open(tmp_path / "other", "w", encoding="utf-8") as out:
        other = start(*arguments, cwd=folder, out=out)
        codes = [process.wait(), other.wait()]
    text = (tmp_path / "other").read_text(encoding="utf-8")
    print(arguments, codes, text[-600:])
    if codes[1]:
        assert busy(text), text
    assert codes[0] == 0, heard(folder)
    assert start("repro", cwd=folder).wait() == 0, heard(folder)
    made.is_new(folder)
    did = f'refused by "{busy(text)}"' if codes[1] else "ran"
    rows.add(
        f"Two at once: `dvc {' '.join(arguments)}` during training",
        1,
        f"{did}; then `dvc repro`: the same bytes",
    )


def test_an_experiment_is_refused_during_training(made, rows, tmp_path):  # noqa: F811
    """`dvc exp run` is refused, but it has changed params.yaml.

    DVC would record the new value in dvc.lock for a model that was trained with the old one.
    """
    folder, process = training(made)
    kept = (folder / "params.yaml").read_text(encoding="utf-8")
    with open(tmp_path / "other", "w", encoding="utf-8") as out:
        other = start("exp", "run", "-S", "train.lr=0.002", cwd=folder, out=out)
        codes = [process.wait(), other.wait()]
    assert all(codes) and busy((tmp_path / "other").read_text(encoding="utf-8"))
    lines = [line for line in heard(folder).splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith(
        "error: train: params.yaml: train.lr changed while it ran, so that dvc.lock "
    )
    (folder / "params.yaml").write_text(kept, encoding="utf-8")
    made.nothing_half(folder)
    begun = len(heard(folder))
    assert start("repro", cwd=folder).wait() == 0
    assert "resuming from .cache/train/" in heard(folder)[begun:]
    made.is_new(folder)
    rows.add(
        "Two at once: `dvc exp run -S train.lr=0.002` in the workspace during training",
        1,
        f'refused by "{busy((tmp_path / "other").read_text())}"; '
        "the training ends with one line that train.lr changed; "
        "put back, `dvc repro` goes on from its last resume point: the same bytes",
    )


def test_a_stage_that_outlives_dvc_blocks_a_second_run(made, rows):  # noqa: F811
    """The stage is suspended until the second run gives up and names its process."""
    folder, process = training(made)
    stage = stage_process(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stage.suspend()
    begun = len(heard(folder))
    code = start("repro", cwd=folder).wait()
    text = heard(folder)[begun:]
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert code != 0 and "Traceback" not in text
    assert lines == [
        f"error: train is already at work in this folder, as process {stage.pid}: "
        f"wait until it ends, or end it with kill {stage.pid}"
    ]
    made.nothing_half(folder)
    stage.resume()
    wait_until(lambda: not at_work(folder))
    assert start("repro", cwd=folder).wait() == 0
    made.is_new(folder)
    rows.add(
        "Two at once: DVC killed alone, `dvc repro` while its stage lives",
        1,
        "refused in one line with the process's number; after its end the same bytes",
    )


def test_a_queue_with_two_workers_gives_the_same_bytes(made, rows):  # noqa: F811
    rates = ["0.001", "0.002", "0.004", "0.005"]
    folder = made.before("report")
    assert start("repro", cwd=folder).wait() == 0
    git("commit", "-q", "-a", "-m", "new", cwd=folder)
    lock = (folder / "dvc.lock").read_bytes()
    for rate in rates:
        dvc("exp", "run", "--queue", "-n", f"rate-{rate[2:]}", "-S", f"train.lr={rate}", cwd=folder)
    dvc("queue", "start", "-j", "2", cwd=folder)
    wait_until(
        lambda: all(
            word not in dvc("queue", "status", cwd=folder) for word in ("Queued", "Running")
        ),
        600,
        pause=5,
    )
    status = dvc("queue", "status", cwd=folder)
    assert status.count("Success") == 4, status
    found = {}
    for rate in rates:
        made_lock = yaml.safe_load(git("show", f"{name_of(folder, rate)}:dvc.lock", cwd=folder))[
            "stages"
        ]
        found[rate] = outs(made_lock["train"])
        assert made_lock["train"]["params"]["params.yaml"]["train"]["lr"] == float(rate)
    assert len({entry["metrics/train.csv"] for entry in found.values()}) == 4
    assert (folder / "dvc.lock").read_bytes() == lock
    made.is_new(folder)

    alone = made.before("train")
    change(alone, {"train.lr": float(rates[1])})
    assert start("repro", "train", cwd=alone).wait() == 0
    by_itself = yaml.safe_load((alone / "dvc.lock").read_text(encoding="utf-8"))["stages"]["train"]
    assert outs(by_itself) == found[rates[1]]
    rows.add(
        "Two at once: a queue of 4 learning rates, `dvc queue start -j 2`",
        1,
        "4 of 4 ended well, one repeated alone gave the same bytes; the workspace as before",
    )


def name_of(folder, rate: str) -> str:
    refs = git("for-each-ref", "--format=%(refname)", "refs/exps", cwd=folder).split()
    (found,) = [ref for ref in refs if ref.endswith(f"/rate-{rate[2:]}")]
    return found
