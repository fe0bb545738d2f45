"""What src/verify.py finds, in a clone of the small run with a cache of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ENVIRONMENT, ROOT, dvc, git


@pytest.fixture(scope="module")
def run(project, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "run"
    git("clone", "-q", str(project), str(folder), cwd=folder.parent)
    dvc("remote", "add", "--local", "-d", "theirs", str(project / ".dvc/cache"), cwd=folder)
    dvc("pull", cwd=folder)
    return folder


def verify(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "src/verify.py"), *options]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def outputs(folder: Path) -> list[str]:
    stages = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return [out["path"] for stage in stages.values() for out in stage["outs"]]


def changed(path: Path, folder: Path, options: tuple = ()) -> str:
    """The error's line with one byte of a file changed, its time and size as they were."""
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


def test_a_whole_run_is_what_its_lock_says(run):
    done = verify(run)
    assert done.returncode == 0, done.stderr
    workspace, cache, head = done.stdout.splitlines()
    count = int(workspace.split()[1])
    assert (
        workspace == f"workspace: {count} of {count} files and folders that dvc.lock names are here and were read" and count > 50
    )
    assert int(cache.split()[1]) > 30
    metrics = [path for path in outputs(run) if path.startswith("metrics/")]
    assert head == f"Git: {len(metrics)} outputs in HEAD were compared with its dvc.lock" and len(metrics) > 10


def test_one_byte_in_a_checkpoint_is_found_though_time_and_size_are_as_before(run):
    line = changed(run / "models/reranker/model.safetensors", run)
    assert line.startswith("error: models/reranker is not the one of dvc.lock: dvc checkout")


def test_a_damaged_object_in_the_cache_is_found(run):
    (listed,) = [
        out
        for out in yaml.safe_load((run / "dvc.lock").read_text())["stages"]["prepare"]["outs"]
        if out["path"] == "data/prepared"
    ]
    path = run / ".dvc/cache/files/md5" / listed["md5"][:2] / listed["md5"][2:]
    assert changed(path, run) == f"error: {path} in the cache is damaged: delete it, then dvc pull, or dvc repro"


def test_metrics_of_another_run_in_git_are_found(run):
    path = run / "metrics/data.json"
    good = path.read_text(encoding="utf-8")
    path.write_text(good.replace("passages", "passage"), encoding="utf-8")
    git("commit", "-q", "-a", "-m", "by hand", cwd=run)
    path.write_text(good, encoding="utf-8")
    try:
        assert (
            verify(run).stderr
            == "error: metrics/data.json in Git's HEAD is not the one of its dvc.lock: commit both of one run\n"
        )
    finally:
        git("reset", "-q", "--hard", "HEAD~1", cwd=run)


def test_what_was_not_pulled_is_no_error(run, tmp_path):
    clone = tmp_path / "clone"
    git("clone", "-q", str(run), str(clone), cwd=tmp_path)
    done = verify(clone)
    assert done.returncode == 0
    workspace, cache, _ = done.stdout.splitlines()
    assert int(workspace.split()[1]) < int(workspace.split()[3]) and cache.startswith("cache: 0 ")


def test_a_stage_made_again_gives_the_same_bytes_and_one_that_does_not_is_named(run):
    done = verify(run, "--again", "prepare", "samples")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "again: prepare gives the same 2 of 2 outputs",
        "again: samples gives the same 2 of 2 outputs",
    ]
    script = run / "src/prepare.py"
    text = script.read_text(encoding="utf-8")
    assert text.count("summarise(prepared)") == 1
    script.write_text(
        text.replace("summarise(prepared)", 'summarise(prepared) | {"passages": __import__("os").getpid()}'), encoding="utf-8"
    )
    git("commit", "-q", "-a", "-m", "stray", cwd=run)
    try:
        done = verify(run, "--again", "prepare")
        assert done.returncode == 1 and "prepare made again gives another metrics/data.json" in done.stderr.splitlines()[-1]
    finally:
        git("reset", "-q", "--hard", "HEAD~1", cwd=run)


def test_an_unknown_stage_is_refused(run):
    assert verify(run, "--again", "prepair").stderr.startswith(
        "error: --again prepair: dvc.lock has no such stage among fetch, prepare,"
    )
