"""Test the findings of `tunerank verify` in a clone of the small run with its own cache."""

import os
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, dvc, git, verify


@pytest.fixture(scope="module")
def run(project, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "run"
    git("clone", "-q", str(project), str(folder), cwd=folder.parent)
    dvc("remote", "add", "--local", "-d", "theirs", str(project / ".dvc/cache"), cwd=folder)
    dvc("pull", cwd=folder)
    shutil.copy(ROOT / "requirements.txt", folder)
    return folder


def outputs(folder: Path) -> list[str]:
    stages = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return [out["path"] for stage in stages.values() for out in stage["outs"]]


def inputs(folder: Path) -> set[str]:
    stages = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {dep["path"] for stage in stages.values() for dep in stage["deps"]}


def changed(path: Path, folder: Path, options: tuple = ()) -> str:
    """Change one byte of a file, but not its time and size; return the error line of verify."""
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.chmod(0o644)
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(path, ns=times)
        done = verify(folder, *options)
    finally:
        path.write_bytes(content)
        os.utime(path, ns=times)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


def test_a_whole_run_passes(run):
    done = verify(run)
    assert done.returncode == 0, done.stderr
    workspace, cache, head, packages = done.stdout.splitlines()
    count = int(workspace.split()[1])
    read = f"{count} of {count} files and folders that dvc.lock names are here and were read"
    assert workspace == f"workspace: {read}" and count > 50
    assert int(cache.split()[1]) > 30
    metrics = [path for path in outputs(run) if re.fullmatch("metrics/.+\\..+", path)]
    assert (
        head == f"Git: {len(metrics)} outputs in HEAD were compared with its dvc.lock"
        and len(metrics) > 10
    )
    count = int(packages.split()[1])
    assert (
        packages == f"environment: {count} of {count} packages are those of requirements.txt"
        and count > 100
    )


@pytest.mark.parametrize(
    "name",
    [
        "models/bundled/model.packed.safetensors",
        "data/raw/tiny.csv",
        "src/tunerank/training/losses.py",
    ],
)
def test_a_damaged_input_is_found(run, name):
    (path,) = [path for path in inputs(run) if name == path or name.startswith(f"{path}/")]
    assert changed(run / name, run) == (
        f"error: {path} is not the one of dvc.lock: "
        "dvc checkout or git checkout brings that one back, dvc repro makes a new one"
    )


@pytest.mark.parametrize(
    "path", ["models/bundled", "data/raw/tiny.csv", "src/train.py", "metrics/eval.json"]
)
def test_a_missing_file_that_git_tracks_is_found(run, path, tmp_path):
    (run / path).rename(tmp_path / "aside")
    try:
        assert verify(run).stderr == f"error: {path} is missing: git checkout HEAD -- {path}\n"
    finally:
        (tmp_path / "aside").rename(run / path)


def test_parameters_of_another_run_are_found(run):
    assert changed(run / "params.yaml", run).startswith(
        "error: params.yaml is not the one of dvc.lock: "
    )


def test_a_stage_that_is_older_than_its_input_is_found(run):
    path = run / "dvc.lock"
    good = path.read_text(encoding="utf-8")
    lock = yaml.safe_load(good)
    (read,) = [dep for dep in lock["stages"]["score"]["deps"] if dep["path"] == "models/reranker"]
    read["md5"] = "0" * 32 + ".dir"
    path.write_text(yaml.safe_dump(lock), encoding="utf-8")
    try:
        assert verify(run).stderr == (
            "error: stage score in dvc.lock is older than models/reranker; run dvc repro\n"
        )
    finally:
        path.write_text(good, encoding="utf-8")


def test_packages_of_another_version_are_found_except_those_of_other_platforms(run):
    path = run / "requirements.txt"
    good = path.read_text(encoding="utf-8")
    lines = {
        "numpy==1.0 ; sys_platform == 'no such'": None,
        f"torch=={version('torch').split('+')[0]}": None,  # may be installed as 2.13.0+cpu
        "pyyaml==5.4": f"pyyaml {version('pyyaml')}, not ==5.4",
        "no-such-package==1.0 ; python_version >= '3'": "no-such-package missing, not ==1.0",
    }
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        done = verify(run)
    finally:
        path.write_text(good, encoding="utf-8")
    named = ", ".join(filter(None, lines.values()))
    remedy = "python -m pip install -r requirements.txt"
    assert done.stderr == f"error: packages are not those of requirements.txt: {named}; {remedy}\n"
    assert (
        done.stdout.splitlines()[-1] == "environment: 1 of 3 packages are those of requirements.txt"
    )


def test_one_changed_byte_is_found_although_time_and_size_are_the_same(run):
    line = changed(run / "models/reranker/model.safetensors", run)
    assert line.startswith("error: models/reranker is not the one of dvc.lock: dvc checkout")


def test_a_damaged_object_in_the_cache_is_found(run):
    (listed,) = [
        out
        for out in yaml.safe_load((run / "dvc.lock").read_text())["stages"]["prepare"]["outs"]
        if out["path"] == "data/prepared"
    ]
    path = run / ".dvc/cache/files/md5" / listed["md5"][:2] / listed["md5"][2:]
    assert changed(path, run) == (
        f"error: damaged in the cache: {path}; delete these files, "
        "then dvc commit restores what the workspace has, dvc pull what a remote has, "
        "and dvc repro makes the rest"
    )


def test_metrics_of_another_run_in_git_are_found(run):
    path = run / "metrics/data.json"
    good = path.read_text(encoding="utf-8")
    path.write_text(good.replace("passages", "passage"), encoding="utf-8")
    git("commit", "-q", "-a", "-m", "by hand", cwd=run)
    path.write_text(good, encoding="utf-8")
    try:
        assert verify(run).stderr == (
            "error: metrics/data.json in Git's HEAD is not the one of its dvc.lock: "
            "commit both of one run\n"
        )
    finally:
        git("reset", "-q", "--hard", "HEAD~1", cwd=run)


def test_data_that_was_not_pulled_is_not_an_error(run, tmp_path):
    clone = tmp_path / "clone"
    git("clone", "-q", str(run), str(clone), cwd=tmp_path)
    shutil.copy(ROOT / "requirements.txt", clone)
    done = verify(clone)
    assert done.returncode == 0
    workspace, cache, *_ = done.stdout.splitlines()
    assert int(workspace.split()[1]) < int(workspace.split()[3]) and cache.startswith("cache: 0 ")


def test_a_stage_that_does_not_give_the_same_bytes_again_is_named(run):
    done = verify(run, "--again", "prepare", "--again", "samples")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "again: prepare gives the same 2 of 2 outputs",
        "again: samples gives the same 2 of 2 outputs",
    ]
    script = run / "src/prepare.py"
    text = script.read_text(encoding="utf-8")
    assert text.count("summarise(prepared)") == 1
    script.write_text(
        text.replace(
            "summarise(prepared)", 'summarise(prepared) | {"passages": __import__("os").getpid()}'
        ),
        encoding="utf-8",
    )
    git("commit", "-q", "-a", "-m", "stray", cwd=run)
    try:
        done = verify(run, "--again", "prepare")
        assert (
            done.returncode == 1
            and "prepare made again gives another metrics/data.json" in done.stderr.splitlines()[-1]
        )
    finally:
        git("reset", "-q", "--hard", "HEAD~1", cwd=run)


@pytest.mark.parametrize("prefix", ["ranker", "team a/ranker"])
def test_a_project_in_a_subfolder_is_checked_and_rerun(run, tmp_path, prefix):
    folder = tmp_path / "repository" / prefix
    shutil.copytree(run, folder, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    (tmp_path / "repository/notes.txt").write_text("another project", encoding="utf-8")
    git("init", "-q", "-b", "main", cwd=tmp_path / "repository")
    git("add", "-A", cwd=tmp_path / "repository")
    git("commit", "-q", "-m", "both", cwd=tmp_path / "repository")
    done = verify(folder, "--again", "prepare")
    assert done.returncode == 0, done.stderr
    lines = verify(run).stdout.splitlines()
    assert done.stdout.splitlines() == [*lines, "again: prepare gives the same 2 of 2 outputs"]
    metrics = folder / "metrics/eval.json"
    metrics.rename(tmp_path / "aside")
    expected = "error: metrics/eval.json is missing: git checkout HEAD -- metrics/eval.json\n"
    assert verify(folder).stderr == expected


@pytest.mark.parametrize("content", ["[]\n", "stages: [train]\n", "a\n"])
def test_a_lock_that_is_not_a_mapping_is_reported_in_one_line(run, content):
    path = run / "dvc.lock"
    good = path.read_text(encoding="utf-8")
    path.write_text(content, encoding="utf-8")
    try:
        done = verify(run)
    finally:
        path.write_text(good, encoding="utf-8")
    assert done.stderr.startswith("error: dvc.lock: not a lock file of DVC (")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_an_unknown_stage_is_refused(run):
    assert verify(run, "--again", "prepair").stderr.startswith(
        "error: --again prepair: dvc.lock has only the stages fetch, prepare,"
    )
