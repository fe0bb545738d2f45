"""Prove the origin of a checkpoint: Git's commit, dvc.lock, and that the files match it.

`dvc status` asks whether everything is present and up to date, data included. A checkpoint can be
published from a clone that pulled nothing else, so this checks only what the model card states: the
checkpoint itself, the metrics, the parameters and the code.
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

from tunerank.core.errors import InputError
from tunerank.core.inputs import files_in
from tunerank.params.base import Loader
from tunerank.provenance.runs import locked_stages

LOCKED = "models/reranker"
METRICS = ("data", "train", "eval", "environment")
# The files of a checkpoint. A pickle (.bin, .pt, .pkl) runs code when it is loaded.
SUFFIXES = (".safetensors", ".json", ".txt", ".model")


@dataclass(frozen=True)
class Origin:
    """`commit`: HEAD, 40 hexadecimal digits; `dirty`: the working tree has uncommitted changes;
    `md5`: DVC's, of the folder; `metrics`: name -> content of metrics/NAME.json."""

    commit: str
    dirty: bool
    md5: str
    metrics: dict[str, dict]


def proven(model: Path) -> Origin:
    """Return the origin of the checkpoint in `model`; the working folder is the project's.

    Raises:
        InputError: it is not the one in dvc.lock, or the metrics, parameters or code differ from
            dvc.lock.
    """
    lock = read_lock(Path("dvc.lock"))
    made = outputs(lock)
    for path in (LOCKED, *(f"metrics/{name}.json" for name in METRICS)):
        if path not in made:
            raise InputError(f"dvc.lock names no {path}; run dvc repro")
    md5 = folder_md5(model, checkpoint_files(model))
    if md5 != made[LOCKED]:
        raise InputError(
            f"{model} is not the checkpoint of dvc.lock (md5 {md5}, there {made[LOCKED]}): dvc "
            f"checkout {LOCKED} brings that one back, dvc repro makes a new one with its metrics"
        )
    refuse_other_inputs(lock)
    metrics = {}
    for name in METRICS:
        path = Path("metrics", f"{name}.json")
        if not path.is_file() or file_md5(str(path)) != made[path.as_posix()]:
            raise InputError(
                f"{path} is not the one of dvc.lock; git checkout it, or run dvc repro"
            )
        metrics[name] = json.loads(path.read_text(encoding="utf-8"))
    return Origin(git("rev-parse", "HEAD").strip(), bool(uncommitted()), md5, metrics)


def read_lock(path: Path) -> dict[str, dict]:
    """Return stage -> its entry in dvc.lock.

    Raises:
        InputError: it is missing, has no stages, or cannot be read.
    """
    try:
        return as_lock(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; run from the repository's folder, after dvc repro"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; git checkout HEAD -- {path}") from None


def as_lock(text: str, name: str) -> dict[str, dict]:
    """Return stage -> its entry in the text of a dvc.lock, numbers as params.yaml has them."""
    if not locked_stages(text, name):
        raise InputError(f"{name}: it has no stages; run dvc repro")
    return yaml.load(text, Loader)["stages"]


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint, sorted by name.

    Raises:
        InputError: it is not a checkpoint, or it has a file of another kind.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not (folder / "config.json").is_file() or not any(
        path.suffix == ".safetensors" for path in files
    ):
        raise InputError(
            f"{folder}: no checkpoint (config.json or safetensors are missing); "
            f"dvc pull {LOCKED}, or dvc repro"
        )
    if other := [path for path in files if path.suffix not in SUFFIXES]:
        raise InputError(
            f"{other[0]} is none of {', '.join(SUFFIXES)}: pickles and code are not published; "
            "move it out of there"
        )
    return files


def folder_md5(folder: Path, files: Iterable[Path]) -> str:
    """Return DVC's md5 of a folder with these files, from their content.

    DVC itself trusts sizes and modification times that it has seen before.
    """
    tree = Tree()
    for path in files:
        tree.add(path.relative_to(folder).parts, None, HashInfo("md5", file_md5(str(path))))
    tree.digest()
    return tree.hash_info.value


def md5_of(path: Path) -> str:
    """Return DVC's md5 of a file, or of a folder, which ends in `.dir`."""
    return file_md5(str(path)) if path.is_file() else folder_md5(path, files_in(path))


def outputs(lock: dict[str, dict]) -> dict[str, str | None]:
    """Return path -> md5 of all outputs of the stages."""
    return {out["path"]: out.get("md5") for stage in lock.values() for out in stage.get("outs", [])}


def refuse_other_inputs(lock: dict[str, dict]) -> None:
    """Check that parameters and code are those of dvc.lock, and that no stage is out of date.

    Raises:
        InputError: a stage ran with other parameters or code, or before a stage that it reads from.
    """
    made = outputs(lock)
    values = yaml.load(Path("params.yaml").read_text(encoding="utf-8"), Loader)
    for name, stage in lock.items():
        for key, locked in stage.get("params", {}).get("params.yaml", {}).items():
            group, _, rest = key.partition(".")
            value = values.get(group)
            if (value.get(rest) if rest and isinstance(value, dict) else value) != locked:
                raise InputError(
                    f"stage {name} of dvc.lock was run with another {key} than params.yaml has; "
                    "run dvc repro"
                )
        for dep in stage.get("deps", []):
            path = Path(dep["path"])
            if dep["path"].startswith("src/") and (not path.exists() or md5_of(path) != dep["md5"]):
                raise InputError(
                    f"stage {name} of dvc.lock was run with another {path} than there is; "
                    "run dvc repro"
                )
            if made.get(dep["path"], dep["md5"]) != dep["md5"]:
                raise InputError(f"stage {name} in dvc.lock is older than {path}; run dvc repro")


def uncommitted() -> list[str]:
    """Return the uncommitted changes to files that a checkpoint is made from."""
    sources = ("dvc.lock", "dvc.yaml", "params.yaml", "src")
    return [line[3:] for line in git("status", "--porcelain", "--", *sources).splitlines()]


def git(*arguments: str) -> str:
    """Return what a Git command prints.

    Raises:
        InputError: it failed.
    """
    done = subprocess.run(
        ["git", *arguments], capture_output=True, encoding="utf-8", errors="surrogateescape"
    )
    if done.returncode:
        raise InputError(
            f"git {arguments[0]}: {' '.join(done.stderr.split())}; run in a clone of the repository"
        )
    return done.stdout
