"""What a Git revision or the working tree has of a run: metrics, machine, and what dvc.lock says it was made from.

Files are read with `git show`: no data is pulled, and DVC, which takes a second to load, is not needed. No stage imports this
module, because dvc.yaml would have to name it.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from reranker.errors import InputError

EVALUATION, RANKS, MACHINE, LOCK = "metrics/eval.json", "metrics/per_query.csv", "metrics/environment.json", "dvc.lock"
HERE = "the working tree"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe like SafeLoader, and ten times as fast."""

NAMED = 3
"""Parameters and files that a line names; of others it gives the number."""


@dataclass(frozen=True)
class Run:
    """`evaluation` and `ranks` are the bytes of metrics/eval.json and metrics/per_query.csv. `machine` is the content of
    metrics/environment.json and `stages` is that of dvc.lock, each empty where the file is missing."""

    name: str
    evaluation: bytes
    ranks: bytes
    machine: dict
    stages: dict[str, dict]


def commit_of(revision: str) -> str | None:
    """The commit of a Git revision or of one of DVC's experiments, 40 hexadecimal digits; None: HEAD where nothing is committed.

    Raises:
        InputError: there is no such revision or experiment.
    """
    command = ["git", "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.returncode:
        return done.stdout.strip()
    if revision == "HEAD":
        return None
    from dvc.exceptions import DvcException  # DVC takes a second to load
    from dvc.repo import Repo
    from dvc.scm import resolve_rev

    try:
        return resolve_rev(Repo().scm, revision)
    except DvcException as error:
        raise InputError(f"{revision}: no revision or experiment ({' '.join(str(error).split())})") from None


def read_run(revision: str | None, name: str) -> Run:
    """The run of a Git revision; None: of the working tree. The working folder is the repository's.

    Raises:
        InputError: it has no metrics, they cannot be read, or they are older than what `evaluate` was made from.
    """

    def read(path: str) -> bytes | None:
        if revision is None:
            return Path(path).read_bytes() if Path(path).is_file() else None
        done = subprocess.run(["git", "show", "--end-of-options", f"{revision}:./{path}"], capture_output=True)
        return None if done.returncode else done.stdout

    evaluation, ranks, machine, lock = (read(path) for path in (EVALUATION, RANKS, MACHINE, LOCK))
    for path, content in ((EVALUATION, evaluation), (RANKS, ranks)):
        if content is None:
            raise InputError(f"{name} has no {path}; run dvc repro there")
    stages = locked_stages((lock or b"").decode("utf-8", "replace"), f"{LOCK} of {name}")
    if stale := not_evaluated(stages):
        raise InputError(f"{RANKS} of {name} is older than its {stale}; run dvc repro there, to its end")
    try:
        found = json.loads(machine or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("packages", {}), dict):
        raise InputError(f"{MACHINE} of {name} does not describe a machine (merge conflict?); run dvc repro there")
    return Run(name, evaluation, ranks, found, stages)


def locked_stages(text: str, name: str = LOCK) -> dict[str, dict]:
    """Stage -> its entry in the text of a dvc.lock; nothing where the text is empty.

    Raises:
        InputError: it is not a lock of DVC's, or has aliases, by which a few lines can stand for gigabytes.
    """
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader)):
            raise InputError(f"{name}: it has YAML aliases, which DVC does not write; run dvc repro")
        stages = (yaml.load(text, Loader) or {}).get("stages", {})
        for stage in stages.values():
            for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
                entry["path"]
            stage.get("params", {}).get("params.yaml", {}).items()
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{name}: not a lock of DVC's ({' '.join(str(error).split())}); run dvc repro") from None
    return stages


def not_evaluated(stages: dict[str, dict]) -> str | None:
    """An input of the stage `evaluate`, or of a stage before it, that was made again after that stage: an experiment may end with
    the stage `train`."""
    made = {out["path"]: (name, out.get("md5")) for name, stage in stages.items() for out in stage.get("outs", [])}
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
    """What `b` was made from and `a` was not, by their dvc.lock: parameters, then code and data. Empty where they are the same,
    or where either has no dvc.lock."""
    if not (a.stages and b.stages):
        return ""
    (old, new), (before, after) = ([of(run.stages) for run in (a, b)] for of in (parameters, files))
    changed = [f"{key} {shown(old, key)} -> {shown(new, key)}" for key in old | new if old.get(key) != new.get(key)]
    others = [path for path in before | after if before.get(path) != after.get(path)]
    said = [f"params.yaml differs from {a.name} ({some(changed)})"] if changed else []
    return "; ".join(said + ([f"{some(others)} differ{'s' * (len(others) == 1)} from {a.name}"] if others else []))


def parameters(stages: dict[str, dict]) -> dict[str, object]:
    """Dotted name -> value, of all parameters that the stages of a dvc.lock were run with."""

    def flat(values: dict, prefix: str) -> Iterator[tuple[str, object]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return dict(pair for stage in stages.values() for pair in flat(stage.get("params", {}).get("params.yaml", {}), ""))


def files(stages: dict[str, dict]) -> dict[str, str]:
    """path -> md5, of what no machine changes: inputs that no stage makes, and the outputs of stages that read nothing else.
    Another base model in the same folder shows in such an output alone."""
    made = {out["path"] for stage in stages.values() for out in stage.get("outs", [])}
    found = {dep["path"]: dep.get("md5") for stage in stages.values() for dep in stage.get("deps", []) if dep["path"] not in made}
    for stage in stages.values():
        if not any(dep["path"] in made for dep in stage.get("deps", [])):
            found |= {out["path"]: out.get("md5") for out in stage.get("outs", [])}
    return found


def shown(values: dict[str, object], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False, default=str) if key in values else "none"


def some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
