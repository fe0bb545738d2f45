"""Check the files here against dvc.lock, byte by byte, and rerun stages to compare."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash import file_md5
from packaging.requirements import Requirement

from tunerank.core.errors import InputError
from tunerank.provenance.lock import (
    as_lock,
    git,
    md5_of,
    outputs,
    read_lock,
    refuse_other_inputs,
)
from tunerank.provenance.runs import first_few


def verify_run(again: Sequence[str]) -> None:
    """Check everything and report all differences in one line.

    Args:
        again: stages to rerun in a clone.

    Raises:
        InputError: all that differs, or a stage that dvc.lock does not have.
    """
    lock = read_lock(Path("dvc.lock"))
    if unknown := [stage for stage in again if stage not in lock]:
        raise InputError(f"--again {unknown[0]}: dvc.lock has only the stages {', '.join(lock)}")
    cache = Path(Repo().cache.local.path)
    wrong = [*in_workspace(lock)] or [*in_one_run(lock)]
    wrong += [*in_cache(lock, cache), *in_git(), *in_environment(Path("requirements.txt"))]
    for stage in again:
        wrong += rerun(stage, lock, cache)
    if wrong:
        raise InputError("; ".join(wrong))


def in_workspace(lock: dict[str, dict]) -> Iterator[str]:
    """Yield the inputs and outputs that differ from dvc.lock, and files in Git that are missing."""
    named = {
        entry["path"]: entry.get("md5")
        for kind in ("deps", "outs")
        for stage in lock.values()
        for entry in stage.get(kind, [])
    }
    here = {path: md5 for path, md5 in named.items() if Path(path).exists()}
    tracked = tracked_in_git()
    for path in named:
        if path not in here and any(
            name == path or name.startswith(f"{path}/") for name in tracked
        ):
            yield f"{path} is missing: git checkout HEAD -- {path}"
    for path, md5 in here.items():
        if md5_of(Path(path)) != md5:
            yield (
                f"{path} is not the one of dvc.lock: dvc checkout or git checkout brings that one "
                "back, dvc repro makes a new one"
            )
    print(
        f"workspace: {len(here)} of {len(named)} files and folders that dvc.lock names are here "
        "and were read"
    )


def in_one_run(lock: dict[str, dict]) -> Iterator[str]:
    """Yield an error if a stage ran with other parameters or code, or before its inputs."""
    try:
        refuse_other_inputs(lock)
    except InputError as error:
        yield str(error)


def in_cache(lock: dict[str, dict], cache: Path) -> Iterator[str]:
    """Yield the outputs of dvc.lock in the cache that do not have the content of their names."""
    names = set(filter(None, outputs(lock).values()))
    for name in sorted(name for name in names if name.endswith(".dir")):
        listing = cache / name[:2] / name[2:]
        if listing.is_file() and file_md5(str(listing)) == name.removesuffix(".dir"):
            names |= {entry["md5"] for entry in json.loads(listing.read_bytes())}
    here = [path for name in sorted(names) if (path := cache / name[:2] / name[2:]).is_file()]
    damaged = [
        str(path)
        for path in here
        if file_md5(str(path)) != (path.parent.name + path.name).removesuffix(".dir")
    ]
    if damaged:
        yield (
            f"damaged in the cache: {' '.join(damaged)}; delete these files, then dvc commit "
            "restores what the workspace has, dvc pull what a remote has, and dvc repro makes the "
            "rest"
        )
    print(f"cache: {len(here)} objects of dvc.lock's outputs were read")


def in_git() -> Iterator[str]:
    """Yield the outputs in Git that do not match the dvc.lock beside them."""
    committed = outputs(as_lock(git("show", "HEAD:./dvc.lock"), "HEAD:dvc.lock"))
    tracked = tracked_in_git()
    outs = {path: md5 for path, md5 in committed.items() if path in tracked}
    for path, md5 in outs.items():
        content = subprocess.run(
            ["git", "show", f"HEAD:./{path}"], capture_output=True, check=True
        ).stdout
        if hashlib.md5(content).hexdigest() != md5:
            yield f"{path} in Git's HEAD is not the one of its dvc.lock: commit both of one run"
    print(f"Git: {len(outs)} outputs in HEAD were compared with its dvc.lock")


def tracked_in_git() -> set[str]:
    """Return the files of the working folder in HEAD, relative to it."""
    return set(git("ls-tree", "-r", "--name-only", "-z", "HEAD").split("\0"))


def in_environment(locked: Path) -> Iterator[str]:
    """Yield an error if installed packages have other versions than requirements.txt.

    A build such as 2.13.0+cpu counts as that version (PEP 440).
    """
    wanted = [
        Requirement(line)
        for line in locked.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    wanted = [
        requirement
        for requirement in wanted
        if not requirement.marker or requirement.marker.evaluate()
    ]
    others = []
    for requirement in wanted:
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            have = "missing"
        if have == "missing" or not requirement.specifier.contains(have, prereleases=True):
            others.append(f"{requirement.name} {have}, not {requirement.specifier}")
    if others:
        yield (
            f"packages are not those of {locked}: {first_few(others)}; "
            f"python -m pip install -r {locked}"
        )
    print(
        f"environment: {len(wanted) - len(others)} of {len(wanted)} packages are those of {locked}"
    )


def rerun(stage: str, lock: dict[str, dict], cache: Path) -> Iterator[str]:
    """Rerun a stage of HEAD in a clone with this cache, and yield an error if outputs differ."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }
    with tempfile.TemporaryDirectory() as folder:
        # The project may lie in a subfolder of its repository.
        top, prefix = git("rev-parse", "--show-toplevel", "--show-prefix").splitlines()
        git("clone", "-q", top, str(Path(folder, "clone")))
        clone = Path(folder, "clone", prefix)
        for command in (
            ["cache", "dir", "--local", str(cache.parent.parent)],
            ["checkout", "-q", "--allow-missing"],
            ["repro", "--single-item", "--force", "--no-commit", stage],
        ):
            done = subprocess.run(["dvc", *command], cwd=clone, env=environment, stdout=sys.stderr)
            if done.returncode:
                yield f"{stage} could not be run again (dvc {command[0]} failed, see above)"
                return
        made = outputs({stage: read_lock(clone / "dvc.lock")[stage]})
    before = outputs({stage: lock[stage]})
    differ = [path for path, md5 in before.items() if made.get(path) != md5]
    if differ:
        yield f"{stage} made again gives another {', '.join(differ)}"
    print(f"again: {stage} gives the same {len(made) - len(differ)} of {len(made)} outputs")
