"""Cut the power: the disk keeps what had reached it, and what was only in memory is lost.

    python -m pytest tests/faults/power.py

The disk is an ext4 image. FS_IOC_SHUTDOWN stops it at once and without its journal, as xfstests
does to prove that a file system recovers. Each stage is cut at a random moment and as soon as its
`dvc repro` has ended, when the kernel still has to write what DVC calls done. Stages wait until
their outputs are on the disk (`tunerank.core.files.settle`). DVC does not wait for its cache and
dvc.lock. The tests need root.
"""

import fcntl
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, git, verify
from made import STAGES, at_work, made, outs, points, start, table, wait_until  # noqa: F401
from scarce import help_dvc

from tunerank.commands.verify import md5_of
from tunerank.provenance.lock import read_lock

SEED = 20251127
# _IOR('X', 125, __u32) of linux/fs.h; EXT4_GOING_FLAGS_NOLOGFLUSH
SHUTDOWN, WITHOUT_JOURNAL = 0x8004587D, 2
DAMAGED = re.compile("damaged in the cache: (.+?); delete what is named")

rows = table("power")


class Disk:
    """A disk with a project and with the files that DVC keeps elsewhere.

    The log `said` is outside the disk.
    """

    def __init__(self, folder: Path):
        self.image, self.path, self.said = folder / "image", folder / "disk", folder / "said"
        self.project = self.path / "project"
        self.environment = ENVIRONMENT | {"DVC_SITE_CACHE_DIR": str(self.path / "site")}
        self.path.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(512 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)
        self.mount()

    def mount(self) -> None:
        # Commit the journal every second instead of every five, because the runs of the small
        # pipeline are shorter than usual ones.
        command = ["mount", "-o", "loop,commit=1", str(self.image), str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk to cut off: {done.stderr.strip()}; run it as root")

    def unmount(self) -> None:
        wait_until(
            lambda: subprocess.run(["umount", str(self.path)], capture_output=True).returncode == 0,
            60,
            0.2,
        )

    def fill(self, made, stage: str) -> None:  # noqa: F811
        """Fill the disk with a project where only this stage has not run, and sync it."""
        self.project.mkdir()
        made.before(stage, where=self.project)
        shutil.copy(ROOT / "requirements.txt", self.project)
        os.sync()

    def dvc(self, *arguments: str) -> subprocess.Popen:
        with open(self.said, "a", encoding="utf-8") as out:
            return start(*arguments, cwd=self.project, out=out, env=self.environment)

    def cut(self, process: subprocess.Popen) -> None:
        """Cut the power and switch it on again."""
        at = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(at, SHUTDOWN, struct.pack("I", WITHOUT_JOURNAL))
        finally:
            os.close(at)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not at_work(self.project))
        self.unmount()
        self.mount()

    def verify(self) -> str:
        done = verify(self.project, env=self.environment)
        assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
        return done.stderr


@pytest.fixture
def disk(tmp_path):
    found = Disk(tmp_path)
    yield found
    found.unmount()


@pytest.fixture(scope="module")
def seen(rows):  # noqa: F811
    print(f"seed {SEED}")
    found = Counter()
    yield found
    for what in (
        "in training, at a random step",
        "in each stage, at a random moment",
        "in each stage, as soon as `dvc repro` ended",
    ):
        c = Counter({name: count for (where, name), count in found.items() if where == what})
        helped = ", ".join(
            f"`{name}` {count}"
            for name, count in c.items()
            if name not in ("cuts", "lost", "cache", "same")
        )
        rows.add(
            f"Power cut {what}",
            c["cuts"],
            f"{c['lost']} had outputs in `dvc.lock` that were not on the disk; "
            f"`dvc repro` made {c['same']} of {c['cuts']} the same bytes; "
            f"in {c['cache']} `make verify` named objects of DVC's cache, "
            "and `dvc commit` put them back" + (f"; needed besides: {helped}" if helped else ""),
        )


def recovers(made, disk: Disk, seen: Counter, what: str) -> None:  # noqa: F811
    """Recover as a user does after a power cut: `dvc repro`, then `make verify` for DVC's cache."""
    seen[what, "cuts"] += 1
    helped = help_dvc(disk.project)
    seen.update((what, name) for name in helped)
    if not helped:
        seen[what, "lost"] += bool(lost(made, disk.project))
    begun = disk.said.stat().st_size
    code = disk.dvc("repro").wait()
    text = disk.said.read_bytes()[begun:].decode()
    print(what, helped, text[-300:])
    assert code == 0 and "Traceback" not in text, text
    git("commit", "-q", "-a", "-m", "run", cwd=disk.project)
    said = disk.verify()
    seen[what, "cache"] += bool(said)
    for _ in range(2):  # the first pass restores a folder's list, the second its files
        if said:
            for name in DAMAGED.search(said)[1].split():
                Path(name).unlink()
            assert disk.dvc("commit").wait() == 0
            said = disk.verify()
    assert not said
    made.is_new(disk.project)
    seen[what, "same"] += 1


def lost(made, folder: Path) -> list[str]:  # noqa: F811
    """Return the outputs that dvc.lock lists as new and that are missing or incomplete."""
    named = [
        outs(entry)
        for name, entry in read_lock(folder / "dvc.lock").items()
        if entry == made.new_lock[name]
    ]
    return [
        path
        for made_anew in named
        for path, md5 in made_anew.items()
        if not (folder / path).exists() or md5_of(folder / path) != md5
    ]


@pytest.mark.parametrize("step", sorted(random.Random(SEED).sample(range(2, 106, 2), 4)))
def test_training_recovers_from_a_power_cut(made, disk, seen, step):  # noqa: F811
    disk.fill(made, "train")
    process = disk.dvc("repro")
    wait_until(
        lambda: process.poll() is not None or max(points(disk.project, "train"), default=0) >= step
    )
    assert process.poll() is None
    disk.cut(process)
    recovers(made, disk, seen, "in training, at a random step")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_recovers_from_a_power_cut(made, disk, seen, stage):  # noqa: F811
    disk.fill(made, stage)
    begun = time.monotonic()
    process = disk.dvc("repro")
    assert process.wait() == 0
    took = time.monotonic() - begun
    disk.cut(process)
    recovers(made, disk, seen, "in each stage, as soon as `dvc repro` ended")

    shutil.rmtree(disk.project)
    disk.fill(made, stage)
    process = disk.dvc("repro")
    with suppress(subprocess.TimeoutExpired):
        process.wait(random.Random(f"{SEED} {stage}").uniform(0.2, 1) * took)
    disk.cut(process)
    recovers(made, disk, seen, "in each stage, at a random moment")
