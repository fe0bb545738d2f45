"""Read a run from a Git revision or the working tree: metrics, machine, and its dvc.lock.

Files are read with `git show REVISION:./PATH`: the project may lie in any folder of a repository,
no data is pulled, and DVC, which takes a second to load, is not needed. No stage imports this
module: dvc.yaml would have to name it.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tunerank.core.errors import InputError

EVALUATION, RANKS = "metrics/eval.json", "metrics/per_query.csv"
MACHINE, LOCK = "metrics/environment.json", "dvc.lock"
HERE = "the working tree"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A safe loader; the C version is ten times as fast."""

NAMED = 3
"""Parameters and files that a line names; the rest are counted."""


@dataclass(frozen=True)
class Run:
    """`ranks` and `evaluation`: the bytes of metrics/per_query.csv and of metrics/eval.json, None
    where that is missing. `machine`: the content of metrics/environment.json. `stages`: that of
    dvc.lock. Both are empty where the file is missing."""

    name: str
    evaluation: bytes | None
    ranks: bytes
    machine: dict
    stages: dict[str, dict]


def commit_of(revision: str) -> str | None:
    """Return the commit of a Git revision or a DVC experiment, 40 hexadecimal digits.

    None: the revision is HEAD and nothing is committed.

    Raises:
        InputError: the name is empty, or there is no such revision or experiment.
    """
    if not revision.strip():
        raise InputError("a revision is empty (an unset variable?); name one, for example main")
    if commit := parsed(revision):
        return commit
    if revision == "HEAD":
        return None
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import resolve_rev

    try:
        commit = parsed(resolve_rev(Repo().scm, revision))
    except DvcException as error:
        raise InputError(
            f"{revision}: no revision or experiment ({' '.join(str(error).split())})"
        ) from None
    if commit is None:
        raise InputError(f"{revision}: not a commit; name a branch, a tag or an experiment")
    return commit


def parsed(revision: str) -> str | None:
    """Return the commit that Git finds under a name, None if it finds none."""
    command = ["git", "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode else done.stdout.strip()


def run_of(revision: str | None) -> Run:
    """Return the run of a revision or an experiment; None: of the working tree.

    Raises:
        InputError: there is no such revision, or it has no metrics of its own.
    """
    if revision is None:
        return read_run(None, HERE)
    commit = commit_of(revision)
    if commit is None:
        raise InputError(f"{revision}: nothing is committed yet")
    return read_run(commit, revision)


def read_run(revision: str | None, name: str) -> Run:
    """Return the run of a commit, or of the working tree if that is None.

    The working folder is the project's.

    Args:
        name: what messages call the run.

    Raises:
        InputError: metrics that are missing, damaged, or older than the inputs of `evaluate`.
    """

    def read(path: str) -> bytes | None:
        if revision is None:
            return Path(path).read_bytes() if Path(path).is_file() else None
        command = ["git", "show", "--end-of-options", f"{revision}:./{path}"]
        done = subprocess.run(command, capture_output=True)
        return None if done.returncode else done.stdout

    evaluation, ranks, machine, lock = (read(path) for path in (EVALUATION, RANKS, MACHINE, LOCK))
    if ranks is None:
        raise InputError(
            f"{name} has no {RANKS}; run dvc repro there, and start in the project's folder"
        )
    stages = locked_stages((lock or b"").decode("utf-8", "replace"), f"{LOCK} of {name}")
    if stale := not_evaluated(stages):
        raise InputError(
            f"{RANKS} of {name} is older than its {stale}; run dvc repro there, to its end"
        )
    try:
        described = json.loads(machine or b"{}")
    except (ValueError, RecursionError):
        described = None
    if not isinstance(described, dict) or not isinstance(described.get("packages", {}), dict):
        raise InputError(
            f"{MACHINE} of {name} does not describe a machine (merge conflict?); "
            "run dvc repro there"
        )
    return Run(name, evaluation, ranks, described, stages)


def locked_stages(text: str, name: str = LOCK) -> dict[str, dict]:
    """Return stage -> its entry in the text of a dvc.lock, nothing if the text is empty.

    Raises:
        InputError: it has a merge conflict, is not a lock file of DVC, or has aliases, with which a
            few lines can stand for gigabytes.
    """
    if re.search(r"^<{7}( |$)", text, re.MULTILINE):
        raise InputError(
            f"{name}: merge conflict; take one side, git checkout --ours dvc.lock metrics "
            "(or --theirs), then run dvc repro"
        )
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader)):
            raise TypeError("it has YAML aliases, which DVC does not write")
        document = yaml.load(text, Loader)
        stages = {} if document is None else document.get("stages", {})
        for stage in stages.values():
            for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
                if not isinstance(entry["path"], str):
                    raise TypeError("a path is not text")
            stage.get("params", {}).get("params.yaml", {}).items()
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{name}: not a lock file of DVC ({' '.join(str(error).split())}); "
            "git checkout HEAD -- dvc.lock, then run dvc repro"
        ) from None
    return stages


def not_evaluated(stages: dict[str, dict]) -> str | None:
    """Return an input of `evaluate`, or of a stage before it, that was made after that stage ran.

    An experiment may end with the stage `train`.
    """
    made = {
        out["path"]: (name, out.get("md5"))
        for name, stage in stages.items()
        for out in stage.get("outs", [])
    }
    before = ["evaluate"]
    for name in before:
        for dep in stages.get(name, {}).get("deps", []):
            maker, digest = made.get(dep["path"], (None, dep.get("md5")))
            if digest != dep.get("md5"):
                return dep["path"]
            if maker and maker not in before:
                before.append(maker)
    return None


def other_inputs(a: Run, b: Run) -> str:
    """Return how the inputs of `b` differ from those of `a`: parameters, then code and data.

    Both dvc.lock say it. Empty if nothing differs, or if either run has no dvc.lock.
    """
    if not (a.stages and b.stages):
        return ""
    old, new = parameters(a.stages), parameters(b.stages)
    before, after = files(a.stages), files(b.stages)
    changed = [
        f"{key} {as_json(old, key)} -> {as_json(new, key)}"
        for key in old | new
        if old.get(key) != new.get(key)
    ]
    others = [path for path in before | after if before.get(path) != after.get(path)]
    parts = []
    if changed:
        parts.append(f"params.yaml differs from {a.name} ({first_few(changed)})")
    if others:
        parts.append(f"{first_few(others)} differ{'s' * (len(others) == 1)} from {a.name}")
    return "; ".join(parts)


def parameters(stages: dict[str, dict]) -> dict[str, object]:
    """Return dotted name -> value of all parameters that the stages of a dvc.lock ran with."""

    def flat(values: dict, prefix: str) -> Iterator[tuple[str, object]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return dict(
        pair
        for stage in stages.values()
        for pair in flat(stage.get("params", {}).get("params.yaml", {}), "")
    )


def files(stages: dict[str, dict]) -> dict[str, str]:
    """Return path -> md5 of the files that do not depend on the machine.

    These are inputs that no stage makes, and the outputs of stages that read nothing else. Another
    base model in the same folder shows only in such an output.
    """
    made = {out["path"] for stage in stages.values() for out in stage.get("outs", [])}
    digests = {
        dep["path"]: dep.get("md5")
        for stage in stages.values()
        for dep in stage.get("deps", [])
        if dep["path"] not in made
    }
    for stage in stages.values():
        if not any(dep["path"] in made for dep in stage.get("deps", [])):
            digests |= {out["path"]: out.get("md5") for out in stage.get("outs", [])}
    return digests


def as_json(values: dict[str, object], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False, default=str) if key in values else "none"


def first_few(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
