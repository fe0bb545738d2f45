"""Make a pipeline in which faults are injected, and check that it stays complete.

`before(stage)` gives a folder where all other stages have run with new parameters and this stage
still has the outputs of the old ones. `dvc repro` then runs this stage only: with the right bytes,
no later stage is stale. So each fault costs one stage. A wrong byte makes the rest of the pipeline
run, and the comparison at the end shows it.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import psutil
import pytest
import yaml
from conftest import ENVIRONMENT, ROOT, dvc, git, hears_ctrl_c
from dvc_data.hashfile.hash import file_md5

from tunerank.commands.verify import md5_of
from tunerank.core.files import remove, write_text
from tunerank.provenance.lock import outputs, read_lock

STAGES = (
    "fetch",
    "prepare",
    "retrieve",
    "samples",
    "pretrain",
    "train",
    "baseline",
    "score",
    "evaluate",
    "report",
)
NEW = {"seed": 7, "prepare.unicode": "NFKC", "retrieve.rrf_k": 30}
"""The new parameters: they make every stage stale."""


def change(folder: Path, values: dict) -> None:
    path = folder / "params.yaml"
    parameters = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        (parameters[group] if group else parameters)[name] = value
    path.write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")


def outs(entry: dict) -> dict[str, str]:
    """Return path -> md5 of the outputs of one stage in dvc.lock."""
    return outputs({"": entry})


def cached(folder: Path, md5: str) -> Path:
    return folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


class Made:
    """The pipeline's folders with old and with new parameters; both are complete and not changed.

    Attributes:
        old, new: the folders.
    """

    def __init__(self, old: Path, new: Path, scratch: Path):
        self.old, self.new, self.scratch, self.count = old, new, scratch, 0
        self.old_lock, self.new_lock = (read_lock(path / "dvc.lock") for path in (old, new))

    def before(self, *stages: str, where: Path | None = None) -> Path:
        """Return a new folder with these stages run with old parameters, all others with new."""
        self.count += 1
        folder = where or self.scratch / f"{self.count:03d}-{'-'.join(stages[:1]) or 'whole'}"
        shutil.copytree(self.new, folder, symlinks=True, dirs_exist_ok=where is not None)
        lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
        kept = {md5 for entry in self.old_lock.values() for md5 in outs(entry).values()}
        kept |= {
            md5
            for name, entry in self.new_lock.items()
            if name not in stages
            for md5 in outs(entry).values()
        }
        for name in stages:
            lock["stages"][name] = self.old_lock[name]
            for path in outs(self.old_lock[name]):
                remove(folder / path)
                copy = shutil.copytree if (self.old / path).is_dir() else shutil.copy2
                copy(self.old / path, folder / path)
            for entry in (folder / ".dvc/cache/runs").glob("*/*/*"):
                if f"src/{name}.py" in entry.read_text(encoding="utf-8"):
                    entry.unlink()
                    entry.parent.rmdir()  # DVC fails on an empty folder: scarce.py
            for md5 in set(outs(self.new_lock[name]).values()) - kept:
                cached(folder, md5).unlink(missing_ok=True)
        if stages:
            (folder / "dvc.lock").write_text(
                yaml.safe_dump(lock, sort_keys=False), encoding="utf-8"
            )
        return folder

    def nothing_half(self, folder: Path) -> None:
        """Check that a fault has left nothing incomplete.

        Each output is missing or complete, old or new. dvc.lock is complete. An output that it
        lists as new is in the workspace and in the cache.
        """
        lock = read_lock(folder / "dvc.lock")
        assert set(lock) == set(STAGES)
        for name, entry in lock.items():
            assert entry in (self.old_lock[name], self.new_lock[name]), (
                f"{name} in dvc.lock is neither the old nor the new"
            )
            for path, md5 in outs(entry).items():
                here = md5_of(folder / path) if (folder / path).exists() else None
                assert here in (
                    None,
                    outs(self.old_lock[name])[path],
                    outs(self.new_lock[name])[path],
                ), f"{path} is half"
                if entry != self.old_lock[name]:
                    assert here in (None, md5), f"dvc.lock has another {path}"
        self.cache_is_whole(folder)

    def cache_is_whole(self, folder: Path) -> None:
        for path in (folder / ".dvc/cache/files/md5").glob("??/*"):
            if len(path.name.removesuffix(".dir")) == 30:  # skips temporary files
                assert file_md5(str(path)) == (path.parent.name + path.name).removesuffix(".dir"), (
                    f"{path} is half"
                )

    def is_new(self, folder: Path) -> None:
        """Check that the full new run is there, byte for byte, without other files."""
        assert (folder / "dvc.lock").read_bytes() == (self.new / "dvc.lock").read_bytes()
        for entry in self.new_lock.values():
            for path, md5 in outs(entry).items():
                assert md5_of(folder / path) == md5, path
        self.cache_is_whole(folder)
        assert [path.name for path in (folder / ".cache/train").iterdir()] == ["tokens"]
        assert not (folder / ".cache/pretrain").exists()
        left = [path for path in folder.rglob("*") if path.suffix in (".partial", ".former")]
        assert not left, left


@pytest.fixture(scope="session")
def made(project, tmp_path_factory) -> Made:
    scratch = tmp_path_factory.mktemp("made")
    old, new = scratch / "old", scratch / "new"
    shutil.copytree(project, old, symlinks=True)
    longer = {
        "train.epochs": 12,
        "train.evals_per_epoch": 1,
        "train.patience": None,
        "train.save_steps": 2,
    }
    change(old, longer | {"pretrain.epochs": 3})
    dvc("repro", cwd=old)
    git("commit", "-q", "-a", "-m", "old", cwd=old)
    shutil.copytree(old, new, symlinks=True)
    change(new, NEW)
    dvc("repro", cwd=new)
    return Made(old, new, scratch)


def said(folder: Path) -> Path:
    """Return the log of DVC and its stages. It is outside the folder, so no fault affects it."""
    return folder.with_name(f"{folder.name}.said")


def heard(folder: Path) -> str:
    return said(folder).read_text(encoding="utf-8") if said(folder).exists() else ""


def ran(folder: Path) -> list[str]:
    return [
        line.split("'")[1]
        for line in heard(folder).splitlines()
        if line.startswith("Running stage")
    ]


def start(*arguments: str, cwd: Path, out: TextIO | None = None, **more) -> subprocess.Popen:
    """Start DVC in its own process group, as a shell does.

    Its output goes to `out`, or by default to the log that `heard` reads.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    with open(said(cwd), "a", encoding="utf-8") as usual:
        options = {
            "env": ENVIRONMENT,
            "stdout": out or usual,
            "stderr": out or usual,
            "preexec_fn": hears_ctrl_c,
        } | more
        return subprocess.Popen(command, cwd=cwd, start_new_session=True, **options)


def stage_process(process: subprocess.Popen) -> psutil.Process | None:
    """Return the stage that this DVC process is running."""
    try:
        for child in psutil.Process(process.pid).children(recursive=True):
            if (
                any(word.startswith("src/") for word in child.cmdline())
                and "python" in child.name()
            ):
                return child
    except psutil.NoSuchProcess:
        pass
    return None


def points(folder: Path, stage: str) -> list[int]:
    """Return the optimizer steps of the checkpoints in the folder."""
    return [
        int(path.name.split("-")[1]) for path in (folder / ".cache" / stage).glob("*/checkpoint-*")
    ]


def at_work(folder: Path) -> list[psutil.Process]:
    """Return the processes that run in this folder, also a stage that outlived its DVC."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            pass
    return found


def wait_until(true, seconds: float = 300, pause: float = 0.02) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(pause)


class Table:
    """Table rows for docs/reliability.md: the fault, how often, the result.

    They are written to .cache/faults/NAME.md.
    """

    def __init__(self, name: str):
        self.name, self.rows = name, []

    def add(self, done: str, times: int, result: str) -> None:
        self.rows.append(f"| {done} | {times} | {result} |")

    def write(self) -> None:
        write_text(ROOT / f".cache/faults/{self.name}.md", "\n".join(self.rows) + "\n")
        print("\n" + "\n".join(self.rows))


def table(name: str):
    @pytest.fixture(scope="module", name="rows")
    def rows() -> Iterator[Table]:
        found = Table(name)
        yield found
        found.write()

    return rows


def counted(done: str, result: str):
    """Return a fixture that counts results over the tests of a module and adds a row to `rows`.

    Args:
        done: the fault; the count "runs" says how often it was injected.
        result: a template, formatted with the counts.
    """

    @pytest.fixture(scope="module")
    def counts(rows) -> Iterator[Counter]:
        found = Counter()
        yield found
        rows.add(done, found["runs"], result.format(found))

    return counts
