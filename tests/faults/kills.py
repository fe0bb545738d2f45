"""Kill the pipeline thirty times; `dvc repro` must then give the same bytes as without a kill.

    python -m pytest tests/faults/kills.py

Training is killed at random optimizer steps, the other stages at random moments of a `dvc repro`,
also while DVC itself reads and saves. Signals go to the whole process group, like a terminal's
Ctrl-C or a shutdown; to the stage only, like the kernel's out-of-memory killer; or to DVC only, and
its stage then keeps running. A signal cannot simulate a power cut: see power.py.
"""

import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from made import (  # noqa: F401
    at_work,
    heard,
    made,
    points,
    ran,
    stage_process,
    start,
    table,
    wait_until,
)

SEED = 20251126
TRAINING = ["train"] * 14 + ["pretrain"] * 4
OTHERS = [
    "fetch",
    "prepare",
    "prepare",
    "retrieve",
    "retrieve",
    "samples",
    "samples",
    "baseline",
    "score",
    "evaluate",
    "report",
    "train",
]
TARGETS = ["group", "stage", "dvc"]

rows = table("kills")


def draw() -> list[tuple]:
    """Return (number, stage, at a step, signal, target, place) of each kill, ten of each signal."""
    generator = random.Random(SEED)
    kills = []
    for number, stage in enumerate(TRAINING + OTHERS):
        name = ("SIGKILL", "SIGTERM", "SIGINT")[number % 3]
        target = "group" if name == "SIGINT" else TARGETS[number // 3 % 3]
        kills.append((number, stage, number < len(TRAINING), name, target, generator.random()))
    return kills


class Seen:
    """The counts over all kills, and how long an uninterrupted `dvc repro` of each stage takes."""

    def __init__(self, made):  # noqa: F811
        self.made, self.counts, self.durations = made, Counter(), {}

    def duration(self, stage: str) -> float:
        if stage not in self.durations:
            folder, began = self.made.before(stage), time.monotonic()
            assert start("repro", cwd=folder).wait() == 0
            self.durations[stage] = time.monotonic() - began
            self.made.is_new(folder)
            assert ran(folder) == [stage]
            self.counts["uninterrupted"] += 1
            shutil.rmtree(folder)
        return self.durations[stage]


@pytest.fixture(scope="module")
def seen(made, rows):  # noqa: F811
    found = Seen(made)
    print(f"seed {SEED}")
    yield found
    c = found.counts
    for name in ("SIGKILL", "SIGTERM", "SIGINT"):
        where = ", ".join(
            f"{c[name, target]} to {target}"
            for target in ("group", "stage", "dvc")
            if c[name, target]
        )
        rows.add(
            f"Interruption: {name} ({where}), then `dvc repro`",
            c[name],
            f"{c[name, 'same']} of {c[name]} the same bytes",
        )
    rows.add(
        "Interruption: of these, training killed at a random step",
        c["in training"],
        f"{c['resumed']} went on from a resume point, "
        f"{c['lived on']} lived on without DVC and ended",
    )
    rows.add(
        "Interruption: of these, `dvc repro` while the stage of a killed DVC lived on",
        c["orphans"],
        f"{c['refused']} refused in one line, {c['waited']} waited for its end",
    )
    rows.add(
        "Interruption: outputs half there, or named in dvc.lock and not there, after a kill",
        c["kills"],
        str(c["half"]),
    )


def kill(process, name: str, target: str) -> bool:
    """Send the signal; return whether there was a process to kill."""
    number = getattr(signal, name)
    stage = stage_process(process)
    if process.poll() is not None or (target == "stage" and not stage):
        return False
    if target == "group":
        os.killpg(process.pid, number)
    else:
        os.kill(stage.pid if target == "stage" else process.pid, number)
    return True


def interrupt(
    seen: Seen, stage: str, at_step: bool, name: str, target: str, place: float
) -> tuple[Path, bool]:
    """Run `dvc repro` and kill it; return the folder and whether training was running."""
    duration = None if at_step else seen.duration(stage)
    while True:
        folder = seen.made.before(stage)
        process = start("repro", cwd=folder)
        if at_step:
            last = {"train": 106, "pretrain": 8}[stage]
            step = 2 * round(place * last / 2)
            wait_until(
                lambda: (
                    process.poll() is not None
                    or max(points(folder, stage), default=0) >= step
                    and (step or stage_process(process))
                )
            )
            time.sleep(place * 0.1)
        else:
            until = time.monotonic() + place * duration
            # A signal to the stage only waits until the stage runs.
            wait_until(
                lambda: (
                    process.poll() is not None
                    or time.monotonic() >= until
                    and (target != "stage" or stage_process(process))
                )
            )
        training = bool(points(folder, stage)) and stage_process(process) is not None
        hit = kill(process, name, target)
        if process.wait() and hit:
            return folder, training
        place *= 0.7  # it had ended before the kill
        shutil.rmtree(folder)


@pytest.mark.parametrize("number, stage, at_step, name, target, place", draw())
def test_a_killed_run_ends_with_the_same_bytes(seen, number, stage, at_step, name, target, place):
    folder, training = interrupt(seen, stage, at_step, name, target, place)
    c = seen.counts
    c.update(["kills", name, (name, target)])
    c["in training"] += training
    begun = len(heard(folder))

    if target == "dvc" and at_work(folder):  # the stage is still running
        c["orphans"] += 1
        c["lived on"] += training
        code = start("repro", cwd=folder).wait()
        c["waited" if code == 0 else "refused"] += 1
        text = heard(folder)[begun:]
        if code:
            assert f"error: {stage} is already at work in this folder, as process " in text
        assert "Traceback" not in text
    wait_until(lambda: not at_work(folder))
    point = points(folder, stage)
    try:
        seen.made.nothing_half(folder)
    except AssertionError:
        c["half"] += 1
        raise
    begun = len(heard(folder))
    assert start("repro", cwd=folder).wait() == 0, heard(folder)[begun:]
    text = heard(folder)[begun:]
    seen.made.is_new(folder)
    c[name, "same"] += 1
    if training:
        resumed = f"resuming from .cache/{stage}/" in text
        assert resumed == bool(point), text
        c["resumed"] += resumed
    print(
        f"{number}: {stage} {name} to {target}, place {place:.2f}, points {point}, "
        f"ran {ran(folder)}"
    )
    shutil.rmtree(folder)
