"""Test that a stage reads only what it declares in dvc.yaml and writes only its outputs.

Every stage of the small run runs again in another folder, with another hash seed, locale and time
zone and an empty home. Its outputs must be the same. Two witnesses record the files that it opens:
Python's audit events and, if installed, `strace`, which also sees C and Rust code.
"""

import codecs
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import ENVIRONMENT, NOT_DEPS, ROOT, embedder_of, git

from tunerank.commands.verify import md5_of
from tunerank.core.files import read_jsonl

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
# Options that the small run does not use: a teacher, another reranker to compare with,
# pre-training, candidates of another search, and tokenisation in processes of their own. The stages
# they change run with them.
RICH_STAGES = ["fetch", "retrieve", "samples", "pretrain", "train", "baseline", "score", "evaluate"]
RICH = {
    "teacher": {"source": "bundled"},
    "retrieve": {"run": "own.trec"},
    "samples": {"teacher": "reranker"},
    "pretrain": {"epochs": 1, "lr": 0.003, "batch_size": 2, "group_size": 4},
    "train": {"workers": 2, "distill_weight": 1.0},
    "evaluate": {"compare": {"twin": {"source": "bundled"}}},
}
TRACE = ["strace", "-f", "--seccomp-bpf", "-y", "-e", "trace=?open,openat", "-o"]
STRACE = (
    shutil.which("strace")
    and not subprocess.run([*TRACE, os.devnull, "true"], capture_output=True).returncode
)
# The key of a training's checkpoints has a hash of all the library's code. It decides where a
# training starts, not what it gives.
KEYED = {"train": ["src/tunerank"], "pretrain": ["src/tunerank"]}
# How often `pretrain` saves a checkpoint and which process tokenises do not change its outputs
# (tests/test_training.py).
# `fetch` refuses lengths that a model cannot read.
WITHOUT_EFFECT = {
    "pretrain": {"train.workers", "train.save_steps", "train.save_total_limit"},
    "fetch": {
        "score.max_length",
        "retriever.max_length",
        "retriever.pooling",
        "train.query_max_length",
        "train.passage_max_length",
    },
}
SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/opt",
    "/bin",
    "/System",
    "/Library",
)


@dataclass
class Run:
    """The record of one run of a stage.

    Attributes:
        folder: the project.
        declared: the stage's entry in dvc.lock.
        opened: witness -> paths that were opened for reading.
        parameters: the parameters that were read.
        changed: files of the project that differ from before.
        left: files that the stage left in the home and the temporary folder.
        made: output -> md5.
    """

    stage: str
    folder: Path
    declared: dict
    opened: dict[str, set[Path]]
    parameters: set[str]
    changed: set[str]
    left: set[str]
    made: dict[str, str]

    def outputs(self) -> list[str]:
        return [out["path"] for out in self.declared["outs"]]


@pytest.fixture(scope="module")
def plain(project, tmp_path_factory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("plain") / "另一个 folder"
    git("clone", "-q", str(project), str(folder), cwd=folder.parent)
    return {stage: record(folder, stage) for stage in STAGES}


@pytest.fixture(scope="module")
def rich(project, tmp_path_factory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("rich") / "另一个 folder"
    shutil.copytree(project, folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    parameters = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for group, values in RICH.items():
        parameters[group] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    write_run(folder)
    return {stage: record(folder, stage) for stage in RICH_STAGES}


def write_run(folder: Path) -> None:
    """Write the dense retriever's results as those of another search."""
    lines = [
        f"{row['id']} Q0 {found['passage']} {found['dense']} {found['dense_score']} own\n"
        for path in sorted((folder / "data/candidates").glob("*.jsonl"))
        for row in read_jsonl(path)
        for found in row["candidates"]
    ]
    (folder / "data/runs/own.trec").write_text("".join(lines), encoding="utf-8")


@pytest.fixture(
    params=[
        *(pytest.param(("plain", stage), id=f"plain-{stage}") for stage in STAGES),
        *(
            pytest.param(("rich", stage), id=f"rich-{stage}", marks=pytest.mark.slow)
            for stage in RICH_STAGES
        ),
    ]
)
def run(request, project) -> Run:
    kind, stage = request.param
    return request.getfixturevalue(kind)[stage]


def record(folder: Path, stage: str) -> Run:
    declared = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"][stage]
    aside = folder.parent / "aside"
    shutil.rmtree(aside, ignore_errors=True)
    for name in ("home", "tmp"):
        (aside / name).mkdir(parents=True)
    for out in declared["outs"]:  # DVC also removes them before a run
        path = folder / out["path"]
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    kept = ("HF_", "XDG_", "LANG", "LC_")
    environment = {
        name: value for name, value in ENVIRONMENT.items() if not name.startswith(kept)
    } | {
        "HOME": str(aside / "home"),
        "TMPDIR": str(aside / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "PYTHONHASHSEED": "1",
        "LC_ALL": "C",
        "TZ": "Pacific/Kiritimati",
    }
    command = [
        sys.executable,
        str(ROOT / "tests/recorded.py"),
        str(aside / "reads.json"),
        *declared["cmd"].split()[1:],
    ]
    if STRACE:
        command = [*TRACE, str(aside / "log"), *command]
    before = contents(folder)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    after = contents(folder)
    found = json.loads((aside / "reads.json").read_text(encoding="utf-8"))
    opened = {"audit": {Path(path) for path in found["files"]}}
    if STRACE:
        opened["strace"] = traced((aside / "log").read_text(encoding="utf-8"))
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    left = {name for name in contents(aside) if name.startswith(("home/", "tmp/"))}
    made = {out["path"]: md5_of(folder / out["path"]) for out in declared["outs"]}
    return Run(stage, folder, declared, opened, set(found["parameters"]), changed, left, made)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in files
    }


def traced(log: str) -> set[Path]:
    """Return the paths that were opened for reading, from a log of `strace -f -y`.

    A call is one line, `7 openat(AT_FDCWD</a>, "b", O_RDONLY) = 3</a/b>`, or two lines,
    `... <unfinished ...>` and `7 <... openat resumed>) = 3</a/b>`.
    """
    paths, waiting = set(), {}
    for line in log.splitlines():
        process, rest = line.split(maxsplit=1)
        if rest.endswith("<unfinished ...>"):
            waiting[process] = rest
            continue
        if rest.startswith("<... open"):
            rest = waiting.pop(process) + rest
        opened = re.search(r", (O_\w[\w|]*).* = \d+<(.+?)>(?:\(deleted\))?$", rest)
        if opened and not {"O_WRONLY", "O_CREAT"} & set(opened[1].split("|")):
            paths.add(Path(codecs.escape_decode(opened[2].encode())[0].decode()))
    return paths


def inside(path: str, places: list[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def test_a_stage_reads_what_it_declares(run):
    own = [out + suffix for out in run.outputs() for suffix in ("", ".partial", ".former")]
    declared = (
        [dep["path"] for dep in run.declared["deps"]]
        + [".cache"]
        + ["params.yaml"] * ("params" in run.declared)
    )
    for witness, opened in run.opened.items():
        read = {
            path.relative_to(run.folder).as_posix()
            for path in opened
            if path.is_relative_to(run.folder)
        }
        # Imports list folders of src.
        read -= {name for name in read if (run.folder / name).is_dir() and inside(name, ["src"])}
        # These files are empty (test_rooms.py).
        read -= {name for name in read if name.startswith("src/") and name.endswith("/__init__.py")}
        # The folder of an output is opened to flush the output's name to the disk.
        read -= {Path(out).parent.as_posix() for out in run.outputs()}
        assert len(read) > 5, witness
        assert {
            name
            for name in read
            if not inside(name, [*declared, *own, *NOT_DEPS, *KEYED.get(run.stage, [])])
        } == set(), witness


def test_outside_the_project_a_stage_reads_only_installed_files_and_leaves_nothing(run, tiny_model):
    places = [
        *SYSTEM,
        sys.prefix,
        sys.base_prefix,
        os.path.realpath(sys.executable),
        str(ROOT / "tests"),
    ]
    places.append(os.path.realpath(sys.prefix))  # an environment may be a link
    # The temporary folder was empty. The last line checks what is left in it.
    places.append(str(run.folder.parent / "aside/tmp"))
    places += [str(embedder_of(tiny_model))] * (run.stage == "fetch")  # retriever.path
    for witness, opened in run.opened.items():
        outside = {str(path) for path in opened if not path.is_relative_to(run.folder)}
        # Python lists the folders of its path. An editable installation adds src/, and none of its
        # files may be read.
        outside -= set(sys.path)
        assert {path for path in outside if not inside(path, places)} == set(), witness
    assert run.left == set()


def test_a_stage_reads_the_parameters_that_it_declares(run):
    declared = set(run.declared.get("params", {}).get("params.yaml", {}))
    read = run.parameters - WITHOUT_EFFECT.get(run.stage, set())
    assert {
        name for name in read if name not in declared and name.split(".")[0] not in declared
    } == set()
    assert run.parameters or not declared


def test_a_stage_writes_only_its_outputs(run):
    assert {name for name in run.changed if not inside(name, [*run.outputs(), ".cache"])} == set()
    assert [
        out for out in run.outputs() if not any(inside(name, [out]) for name in run.changed)
    ] == []


@pytest.mark.parametrize("stage", STAGES)
def test_another_folder_hash_seed_locale_and_time_zone_give_the_same_bytes(plain, stage):
    assert plain[stage].made == {out["path"]: out["md5"] for out in plain[stage].declared["outs"]}


@pytest.mark.skipif(not STRACE, reason="strace is not installed, or may not trace")
def test_strace_sees_all_that_python_sees_and_more(run):
    audited, traced = (
        {path for path in run.opened[name] if path.is_relative_to(run.folder)}
        for name in ("audit", "strace")
    )
    assert audited - traced == set()
    if run.stage == "retrieve":
        assert {
            run.folder / f"models/retriever/{name}"
            for name in ("model.safetensors", "tokenizer.json")
        } <= traced
