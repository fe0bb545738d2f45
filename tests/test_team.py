"""Test that two people can share a remote as docs/experiments.md says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ENVIRONMENT, dvc, git


@pytest.fixture
def shared(project, tmp_path):
    """Return a clone with a folder as remote for data and a bare repository as remote for code.

    The data is pushed.
    """
    code, mine = tmp_path / "code.git", tmp_path / "mine"
    git("clone", "-q", "--bare", str(project), str(code), cwd=tmp_path)
    git("clone", "-q", str(code), str(mine), cwd=tmp_path)
    # The cache has the results, so nothing runs again.
    dvc("cache", "dir", "--local", str(project / ".dvc/cache"), cwd=mine)
    dvc("checkout", cwd=mine)
    dvc("remote", "add", "-d", "team", str(tmp_path / "remote"), cwd=mine)
    git("commit", "-q", "-a", "-m", "remote", cwd=mine)
    git("push", "-q", "origin", "HEAD", cwd=mine)
    dvc("push", cwd=mine)
    return mine


def test_pushed_results_can_be_pulled_and_need_no_new_run(shared, tmp_path):
    other = tmp_path / "other"
    git("clone", "-q", str(tmp_path / "code.git"), str(other), cwd=tmp_path)
    dvc("pull", cwd=other)
    name = "models/reranker/model.safetensors"
    assert (other / name).read_bytes() == (shared / name).read_bytes()
    assert (other / "report/index.html").read_bytes() == (shared / "report/index.html").read_bytes()
    said = dvc("repro", cwd=other)
    assert "Data and pipelines are up to date." in said and "Running stage" not in said


def test_the_committed_run_can_replace_a_run_of_another_machine(shared, tmp_path):
    other = tmp_path / "other"
    git("clone", "-q", str(tmp_path / "code.git"), str(other), cwd=tmp_path)
    dvc("pull", cwd=other)
    names = ("models/reranker/config.json", "metrics/table.md")
    for name in names:  # another machine gives other bytes
        text = (other / name).read_text(encoding="utf-8")
        (other / name).unlink()
        (other / name).write_text(text + "\n", encoding="utf-8")
    dvc("commit", "-f", cwd=other)
    assert set(git("status", "--porcelain", cwd=other).split()[1::2]) == {
        "dvc.lock",
        "metrics/table.md",
    }
    git("checkout", "--", "dvc.lock", "metrics", cwd=other)
    dvc("pull", cwd=other)
    assert all((other / name).read_bytes() == (shared / name).read_bytes() for name in names)
    assert git("status", "--porcelain", cwd=other) == ""
    assert "Data and pipelines are up to date." in dvc("repro", cwd=other)


def test_an_experiment_is_pushed_and_applied_elsewhere(shared, tmp_path):
    dvc("exp", "run", "-n", "wider", "-S", "evaluate.suspect_margin=2.5", cwd=shared)
    dvc("exp", "push", "origin", "wider", cwd=shared)
    other = tmp_path / "other"
    git("clone", "-q", str(tmp_path / "code.git"), str(other), cwd=tmp_path)
    dvc("exp", "pull", "origin", "wider", cwd=other)
    dvc("exp", "apply", "wider", cwd=other)
    assert (
        yaml.safe_load((other / "params.yaml").read_text(encoding="utf-8"))["evaluate"][
            "suspect_margin"
        ]
        == 2.5
    )
    name = "models/reranker/model.safetensors"
    assert (other / name).read_bytes() == (shared / name).read_bytes()
    assert (other / "metrics/suspects.csv").read_bytes() == (
        shared / "metrics/suspects.csv"
    ).read_bytes()
    assert json.loads(dvc("status", "--json", cwd=other)) == {}


@pytest.mark.parametrize("installed", ["workspace", "elsewhere"])
def test_a_temporary_experiment_runs_its_own_code(project, tmp_path, installed):
    """The package may be installed in editable mode, from this folder or from another one.

    An editable installation is a .pth file in a folder of site-packages. A script's own folder
    comes before it, and it has the code of the experiment.
    """
    folder, site, other = (tmp_path / name for name in ("mine", "site", "elsewhere"))
    git("clone", "-q", str(project), str(folder), cwd=tmp_path)
    (other / "tunerank").mkdir(parents=True)
    (other / "tunerank/__init__.py").write_text("raise ImportError('another folder')\n")
    site.mkdir()
    source = folder / "src" if installed == "workspace" else other
    (site / "tunerank.pth").write_text(f"{source}\n", encoding="utf-8")
    (site / "sitecustomize.py").write_text(f"import site; site.addsitedir({str(site)!r})\n")
    script = folder / "src/prepare.py"
    text = script.read_text(encoding="utf-8")
    assert text.count("summarise(prepared)") == 1
    told = 'summarise(prepared) | {"code": __import__("tunerank").__file__}'
    script.write_text(text.replace("summarise(prepared)", told), encoding="utf-8")
    git("commit", "-q", "-a", "-m", "tell", cwd=folder)
    environment = ENVIRONMENT | {"PYTHONPATH": str(site)}
    run = {"env": environment, "capture_output": True, "text": True}
    paths = subprocess.run([sys.executable, "-c", "import sys; print(sys.path)"], **run).stdout
    assert repr(str(source)) in paths
    command = ["dvc", "exp", "run", "--temp", "--name", "aside", "-S", "prepare.split_seed=7"]
    done = subprocess.run([sys.executable, "-m", *command, "prepare"], cwd=folder, **run)
    assert done.returncode == 0, done.stdout + done.stderr
    names = git("for-each-ref", "--format=%(refname)", "refs/exps", cwd=folder).split()
    (experiment,) = [name for name in names if name.endswith("/aside")]
    code = json.loads(git("show", f"{experiment}:metrics/data.json", cwd=folder))["code"]
    assert Path(code).is_relative_to(folder / ".dvc/tmp/exps")
    assert code.endswith("/src/tunerank/__init__.py")


def test_a_table_is_imported_from_another_repository_at_a_commit(shared, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    git("init", "-q", cwd=source)
    table = (shared / "data/raw/tiny.csv").read_text(encoding="utf-8")
    (source / "question_answer.csv").write_text(table, encoding="utf-8")
    git("add", "-A", cwd=source)
    git("commit", "-q", "-m", "table", cwd=source)
    commit = git("rev-parse", "HEAD", cwd=source).strip()
    dvc("import", str(source), "question_answer.csv", "-o", "data/raw/imported.csv", cwd=shared)
    pinned = yaml.safe_load((shared / "data/raw/imported.csv.dvc").read_text(encoding="utf-8"))
    assert pinned["deps"][0]["repo"]["rev_lock"] == commit
    said = dvc(
        "exp",
        "run",
        "--name",
        "imported",
        "-S",
        "prepare.raw=data/raw/imported.csv",
        "prepare",
        cwd=shared,
    )
    assert "Running stage 'prepare'" in said
    assert json.loads((shared / "metrics/data.json").read_text())["questions"] == {
        "train": 18,
        "valid": 9,
        "test": 9,
    }

    (source / "question_answer.csv").write_text(table.replace("修3年", "修4年"), encoding="utf-8")
    git("commit", "-q", "-a", "-m", "corrected", cwd=source)
    dvc("update", "data/raw/imported.csv.dvc", cwd=shared)
    assert "修4年" in (shared / "data/raw/imported.csv").read_text(encoding="utf-8")
    assert "prepare" in json.loads(dvc("status", "--json", cwd=shared))


def test_gc_keeps_the_files_that_branches_need(shared, tmp_path):
    kept = (shared / "models/reranker/model.safetensors").stat().st_size
    dvc("cache", "dir", "--local", "--unset", cwd=shared)
    dvc("pull", cwd=shared)
    stray = shared / "data/raw/stray.bin"
    stray.write_bytes(b"x" * 5000)
    dvc("add", "data/raw/stray.bin", cwd=shared)
    for path in (stray, shared / "data/raw/stray.bin.dvc"):
        path.unlink()
    cache = shared / ".dvc/cache/files/md5"

    def sizes() -> list[int]:
        return [path.stat().st_size for path in cache.rglob("*") if path.is_file()]

    assert 5000 in sizes()
    dvc("gc", "--workspace", "--all-branches", "--force", cwd=shared)
    assert 5000 not in sizes() and kept in sizes()


def test_two_branches_with_runs_are_merged_and_only_changed_stages_run(shared):
    def run(branch: str, parameter: str) -> None:
        git("checkout", "-q", "-b", branch, "main", cwd=shared)
        dvc("exp", "run", "-S", parameter, cwd=shared)
        git("commit", "-q", "-a", "-m", parameter, cwd=shared)

    run("mine", "evaluate.suspect_margin=2.5")
    run("theirs", "evaluate.cutoff=5")
    git("checkout", "-q", "mine", cwd=shared)
    with pytest.raises(subprocess.CalledProcessError):
        git("merge", "theirs", cwd=shared)
    assert "dvc.lock" in git("diff", "--name-only", "--diff-filter=U", cwd=shared).split()
    git("checkout", "--theirs", "dvc.lock", "metrics", cwd=shared)
    said = dvc("repro", cwd=shared)
    assert [
        line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")
    ] == ["evaluate", "report"]
    git("commit", "-q", "-a", "-m", "merged", cwd=shared)
    locked = yaml.safe_load((shared / "dvc.lock").read_text(encoding="utf-8"))["stages"][
        "evaluate"
    ]["params"]["params.yaml"]["evaluate"]
    assert (locked["suspect_margin"], locked["cutoff"]) == (2.5, 5)
    assert "MRR@5" in json.loads((shared / "metrics/eval.json").read_text())["all"]["fused"]
