"""Is what lies here what dvc.lock says, and can it be made again?

    python src/verify.py                            # inputs, outputs, parameters, the cache, metrics in Git, packages
    python src/verify.py --again prepare samples    # also: run these stages once more, elsewhere, and compare byte by byte

DVC trusts a file whose time and size it has seen before; here every byte is read. What was not pulled is no error; what Git
tracks has to be here.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash import file_md5
from packaging.requirements import Requirement

from reranker.errors import InputError, run
from reranker.provenance import as_lock, folder_md5, git, read_lock, refuse_other_inputs


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(prog="verify.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", nargs="+", default=[], metavar="STAGE", help="stages to run once more in a clone")
    options = parser.parse_args(arguments)
    lock = read_lock(Path("dvc.lock"))
    if unknown := [stage for stage in options.again if stage not in lock]:
        raise InputError(f"--again {unknown[0]}: dvc.lock has no such stage among {', '.join(lock)}")
    cache = Path(Repo().cache.local.path)
    wrong = [*in_workspace(lock)] or [*in_one_run(lock)]
    wrong += [*in_cache(lock, cache), *in_git(), *in_environment(Path("requirements.txt"))]
    for stage in options.again:
        wrong += made_again(stage, lock, cache)
    if wrong:
        raise InputError("; ".join(wrong))


def in_workspace(lock: dict[str, dict]) -> Iterator[str]:
    """What of the stages' inputs and outputs is here with another content than dvc.lock has."""
    named = {entry["path"]: entry["md5"] for kind in ("deps", "outs") for stage in lock.values() for entry in stage.get(kind, [])}
    here = {path: md5 for path, md5 in named.items() if Path(path).exists()}
    tracked = tracked_in_git()
    for path in named:
        if path not in here and any(name == path or name.startswith(f"{path}/") for name in tracked):
            yield f"{path} is missing: git checkout HEAD -- {path}"
    for path, md5 in here.items():
        if md5_of(Path(path)) != md5:
            yield f"{path} is not the one of dvc.lock: dvc checkout or git checkout brings that one back, dvc repro makes it anew"
    print(f"workspace: {len(here)} of {len(named)} files and folders that dvc.lock names are here and were read")


def in_one_run(lock: dict[str, dict]) -> Iterator[str]:
    """Whether a stage ran with other parameters than there are, or before another that it reads from ran again."""
    try:
        refuse_other_inputs(lock)
    except InputError as error:
        yield str(error)


def md5_of(path: Path) -> str:
    """DVC's md5 of a file, or of a folder, `.dir` at its end."""
    if path.is_file():
        return file_md5(str(path))
    return folder_md5(path, sorted(file for file in path.rglob("*") if file.is_file()))


def in_cache(lock: dict[str, dict], cache: Path) -> Iterator[str]:
    """Objects of dvc.lock's outputs in the cache whose content is not what their name says."""
    names = {out["md5"] for stage in lock.values() for out in stage.get("outs", [])}
    for name in sorted(name for name in names if name.endswith(".dir")):
        listing = cache / name[:2] / name[2:]
        if listing.is_file() and file_md5(str(listing)) == name.removesuffix(".dir"):
            names |= {entry["md5"] for entry in json.loads(listing.read_bytes())}
    here = [path for name in sorted(names) if (path := cache / name[:2] / name[2:]).is_file()]
    damaged = [str(path) for path in here if file_md5(str(path)) != (path.parent.name + path.name).removesuffix(".dir")]
    if damaged:
        yield (
            f"damaged in the cache: {' '.join(damaged)}; delete what is named, then dvc commit puts back what is whole in the "
            "workspace, dvc pull what a remote has, and dvc repro makes it anew"
        )
    print(f"cache: {len(here)} objects of dvc.lock's outputs were read")


def in_git() -> Iterator[str]:
    """Outputs in Git that are not those of the dvc.lock beside them."""
    stages = as_lock(git("show", "HEAD:dvc.lock"), "HEAD:dvc.lock")
    tracked = tracked_in_git()
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if out["path"] in tracked}
    for path, md5 in outs.items():
        content = subprocess.run(["git", "show", f"HEAD:{path}"], capture_output=True, check=True).stdout
        if hashlib.md5(content).hexdigest() != md5:
            yield f"{path} in Git's HEAD is not the one of its dvc.lock: commit both of one run"
    print(f"Git: {len(outs)} outputs in HEAD were compared with its dvc.lock")


def tracked_in_git() -> set[str]:
    return set(git("ls-tree", "-r", "--name-only", "-z", "HEAD").split("\0"))


def in_environment(locked: Path) -> Iterator[str]:
    """Installed packages of another version than requirements.txt has; a build such as 2.13.0+cpu is that version (PEP 440)."""
    wanted = [Requirement(line) for line in locked.read_text(encoding="utf-8").splitlines() if line.strip()]
    wanted = [requirement for requirement in wanted if not requirement.marker or requirement.marker.evaluate()]
    others = []
    for requirement in wanted:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "missing"
        if found == "missing" or not requirement.specifier.contains(found, prereleases=True):
            others.append(f"{requirement.name} {found}, not {requirement.specifier}")
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        yield f"packages are not those of {locked}: {', '.join(others[:3])}{more}; python -m pip install -r {locked}"
    print(f"environment: {len(wanted) - len(others)} of {len(wanted)} packages are those of {locked}")


def made_again(stage: str, lock: dict[str, dict], cache: Path) -> Iterator[str]:
    """Run a stage of HEAD in a clone that has this cache; outputs that come out otherwise than dvc.lock has them."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        git("clone", "-q", ".", str(clone))
        for command in (
            ["cache", "dir", "--local", str(cache.parent.parent)],
            ["checkout", "-q", "--allow-missing"],
            ["repro", "--single-item", "--force", "--no-commit", stage],
        ):
            done = subprocess.run(["dvc", *command], cwd=clone, env=environment, stdout=sys.stderr)
            if done.returncode:
                yield f"{stage} could not be run again (dvc {command[0]} failed, see above)"
                return
        made = {out["path"]: out["md5"] for out in read_lock(clone / "dvc.lock")[stage].get("outs", [])}
    differ = [out["path"] for out in lock[stage].get("outs", []) if made.get(out["path"]) != out["md5"]]
    if differ:
        yield f"{stage} made again gives another {', '.join(differ)}"
    print(f"again: {stage} gives the same {len(made) - len(differ)} of {len(made)} outputs")


if __name__ == "__main__":
    run(main)
