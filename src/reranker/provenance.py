"""What a checkpoint was made from, proven: Git's commit, dvc.lock, and that the files on disk are those it names.

`dvc status` asks whether everything is there and up to date, the data too. A checkpoint can be published from a clone that pulled
nothing else, so that only what is said of it is checked here: the checkpoint itself, the metrics, the parameters and the code.
"""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from reranker.errors import InputError
from reranker.params import Loader

LOCKED = "models/reranker"
METRICS = ("data", "train", "eval", "environment")
# What a checkpoint is loaded from. A pickle (.bin, .pt, .pkl) runs code when it is loaded.
SUFFIXES = (".safetensors", ".json", ".txt", ".model")


@dataclass(frozen=True)
class Origin:
    """`commit`: HEAD, 40 hexadecimal digits; `dirty`: what the commit lacks is in the working tree; `md5`: DVC's, of the folder;
    `metrics`: name -> content of metrics/NAME.json."""

    commit: str
    dirty: bool
    md5: str
    metrics: dict[str, dict]


def proven(model: Path) -> Origin:
    """Where the checkpoint in `model` comes from; the working folder is the repository's.

    Raises:
        InputError: it is not the one that dvc.lock names, or the metrics, parameters or code are not those of dvc.lock.
    """
    lock = read_lock(Path("dvc.lock"))
    made = outputs(lock)
    for path in (LOCKED, *(f"metrics/{name}.json" for name in METRICS)):
        if path not in made:
            raise InputError(f"dvc.lock names no {path}; run dvc repro")
    md5 = folder_md5(model, checkpoint_files(model))
    if md5 != made[LOCKED]:
        raise InputError(
            f"{model} is not the checkpoint of dvc.lock (md5 {md5}, there {made[LOCKED]}): dvc checkout {LOCKED} brings that one "
            "back, dvc repro makes a new one with its metrics"
        )
    refuse_other_inputs(lock)
    metrics = {}
    for name in METRICS:
        path = Path("metrics", f"{name}.json")
        if not path.is_file() or file_md5(str(path)) != made[path.as_posix()]:
            raise InputError(f"{path} is not the one of dvc.lock; git checkout it, or run dvc repro")
        metrics[name] = json.loads(path.read_text(encoding="utf-8"))
    return Origin(git("rev-parse", "HEAD").strip(), bool(uncommitted()), md5, metrics)


def read_lock(path: Path) -> dict[str, dict]:
    """Stage -> its entry in dvc.lock."""
    try:
        return as_lock(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run from the repository's folder, after dvc repro") from None


def as_lock(text: str, name: str) -> dict[str, dict]:
    try:
        return yaml.load(text, Loader)["stages"]
    except (yaml.YAMLError, KeyError, TypeError):
        raise InputError(f"{name}: not a lock of DVC's (merge conflict?); take one side's and run dvc repro") from None


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a checkpoint, by name.

    Raises:
        InputError: there is none, or another kind of file is among them.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    if not (folder / "config.json").is_file() or not any(path.suffix == ".safetensors" for path in found):
        raise InputError(f"{folder}: no checkpoint (config.json or safetensors are missing); dvc pull {LOCKED}, or dvc repro")
    if other := [path for path in found if path.suffix not in SUFFIXES]:
        raise InputError(f"{other[0]} is none of {', '.join(SUFFIXES)}: pickles and code are not published; take it out of there")
    return found


def folder_md5(folder: Path, files: Iterable[Path]) -> str:
    """DVC's md5 of a folder with these files, of what is in them now: DVC itself trusts times and sizes that it has seen before."""
    tree = Tree()
    for path in files:
        tree.add(path.relative_to(folder).parts, None, HashInfo("md5", file_md5(str(path))))
    tree.digest()
    return tree.hash_info.value


def outputs(lock: dict[str, dict]) -> dict[str, str]:
    """path -> md5 of all that the stages made."""
    return {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}


def refuse_other_inputs(lock: dict[str, dict]) -> None:
    """
    Raises:
        InputError: a stage was run with other parameters or code than there are, or before another that it reads from ran again.
    """
    made, values = outputs(lock), yaml.load(Path("params.yaml").read_text(encoding="utf-8"), Loader)
    for name, stage in lock.items():
        for key, locked in stage.get("params", {}).get("params.yaml", {}).items():
            group, _, rest = key.partition(".")
            found = values.get(group)
            if (found.get(rest) if rest and isinstance(found, dict) else found) != locked:
                raise InputError(f"stage {name} of dvc.lock was run with another {key} than params.yaml has; run dvc repro")
        for dep in stage.get("deps", []):
            path = Path(dep["path"])
            if dep["path"].startswith("src/") and (not path.is_file() or file_md5(str(path)) != dep["md5"]):
                raise InputError(f"stage {name} of dvc.lock was run with another {path} than there is; run dvc repro")
            if made.get(dep["path"], dep["md5"]) != dep["md5"]:
                raise InputError(f"stage {name} in dvc.lock is older than {path}; run dvc repro")


def uncommitted() -> list[str]:
    """What a checkpoint is made by and HEAD lacks."""
    lines = git("status", "--porcelain", "--", "dvc.lock", "dvc.yaml", "params.yaml", "src").splitlines()
    return [line[3:] for line in lines]


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8")
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {' '.join(done.stderr.split())}; publish from a clone of the repository")
    return done.stdout
