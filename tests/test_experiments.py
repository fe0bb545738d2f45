"""Test the named runs of experiments/: they set parameters that exist and are consistent."""

import importlib.util
import itertools
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hydra.core.override_parser.overrides_parser import OverridesParser

from tunerank.params.base import Loader
from tunerank.params.load import Params

SCRIPTS = sorted((ROOT / "experiments").glob("*.sh"))


def overrides(command: str) -> dict[str, list]:
    """Return parameter -> its values in a command, several if it queues several runs."""
    found = {}
    pattern = r"""-S ["']?(\+?[a-z_0-9.-]+)=(\{[^}]*\}|'\$\w+'|[^\s']+)["']?"""
    for name, text in re.findall(pattern, command):
        texts = (
            ["table.csv"]
            if text.startswith("'$")
            else [text]
            if text.startswith(("[", "{"))
            else text.split(",")
        )
        found[name] = [yaml.load(one, Loader) for one in texts]
    return found


def commands(script: Path) -> list[str]:
    """Return the commands of a script that set parameters; continued lines are joined."""
    lines = script.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [line for line in lines if "-S " in line and not line.startswith("#")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_parameters_of_a_named_run_are_accepted(script):
    runs = commands(script)
    assert runs
    for run in runs:
        changes = overrides(run)
        assert changes, run
        for values in itertools.zip_longest(*changes.values()):
            params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"), Loader)
            for (name, given), value in zip(changes.items(), values):
                *groups, key = name.removeprefix("+").split(".")
                group = params
                for each in groups:
                    group = group[each]
                assert (key in group) != name.startswith("+"), name
                group[key] = given[0] if value is None else value
            Params.model_validate(params)


def test_every_way_to_write_a_change_is_read():
    command = (
        "dvc exp run -S seed=1,2 -S 'a.b=[x,y]' -S a.c=1e-5,2 -S \"a.d='$raw'\" "
        "-S a.e=null -S '+a.f.g-h={i: j, k: 1}'"
    )
    assert overrides(command) == {
        "seed": [1, 2],
        "a.b": [["x", "y"]],
        "a.c": [1e-5, 2],
        "a.d": ["table.csv"],
        "a.e": [None],
        "+a.f.g-h": [{"i": "j", "k": 1}],
    }


@pytest.fixture
def project(tmp_path) -> Path:
    """Return a folder with the scripts and with a `dvc` and a `python` that log their arguments."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project/experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "bin").mkdir()
    for name in ("dvc", "python"):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >> "{tmp_path}/calls"\n')
        program.chmod(0o755)
    return tmp_path / "project"


def script(project: Path, name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PATH": f"{project.parent}/bin{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [project / "experiments" / name, *arguments],
        cwd=project.parent,
        env=environment | env,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ["article.sh", "zero-shot.sh"])
@pytest.mark.parametrize(
    "table", ["问答 (1).csv", "data/raw/it's [new], {a}=1: 50 %.xlsx", "plain.csv", "null", "1,2"]
)
def test_a_table_may_have_any_name(project, name, table):
    done = script(project, name, table, "-S", "train.epochs=1")
    assert done.returncode == 0, done.stderr
    calls = (project.parent / "calls").read_text(encoding="utf-8").splitlines()
    (override,) = [line for line in calls if line.startswith("prepare.raw=")]
    assert OverridesParser.create().parse_override(override).value() == table
    assert calls[:3] == ["dvc", "exp", "run"] and "train.epochs=1" in calls


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("article.sh", (), "error: name the table: experiments/article.sh TABLE\n"),
        ("article.sh", ("",), "error: name the table: experiments/article.sh TABLE\n"),
        ("zero-shot.sh", (), "error: name the data: experiments/zero-shot.sh FOLDER\n"),
        ("zero-shot.sh", ("",), "error: name the data: experiments/zero-shot.sh FOLDER\n"),
        (
            "general-base.sh",
            ("pairs.jsonl", ""),
            "error: name pairs and passages: experiments/general-base.sh PAIRS PASSAGES\n",
        ),
    ],
)
def test_a_missing_argument_is_reported_in_one_line(project, name, arguments, message):
    done = script(project, name, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
    assert not (project.parent / "calls").exists()


QUEUED = [path.name for path in SCRIPTS if "--queue" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", QUEUED)
def test_a_queue_without_a_git_identity_is_refused_in_one_line(project, name):
    nobody = {"HOME": str(project), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    nobody |= dict.fromkeys(("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"), "")
    done = script(project, name, **nobody)
    assert (done.returncode, done.stderr) == (
        1,
        "error: --queue commits to Git, which has no name and address here: "
        "git config --global user.name NAME, and user.email\n",
    )
    assert not (project.parent / "calls").exists()
    somebody = nobody | {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org"}
    assert script(project, name, **somebody).returncode == 0
    assert "--queue" in (project.parent / "calls").read_text().splitlines()


def test_every_script_that_queues_runs_is_tested():
    assert QUEUED == ["ablation.sh", "lr-sweep.sh", "never-worse.sh", "seeds.sh"]


def test_seeds_do_not_change_the_questions():
    """prepare draws the test and validation questions with prepare.split_seed, not with seed."""
    (first, second) = (overrides(run) for run in commands(ROOT / "experiments/seeds.sh"))
    assert (first, second) == ({"seed": [43]}, {"seed": [44]})
    stages = yaml.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"), Loader)["stages"]
    assert "seed" not in stages["prepare"]["params"]


def table_of(script: str):
    spec = importlib.util.spec_from_file_location(script, ROOT / f"experiments/{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.table


def test_experiments_are_compared_question_by_question():
    first = {"hit@1": {"q1": 1.0, "q2": 0.0}, "MRR@10": {"q1": 1.0, "q2": 0.5}}
    second = {"hit@1": {"q2": 1.0, "q1": 1.0}, "MRR@10": {"q2": 1.0, "q1": 1.0}}
    *_, one, other = table_of("validation_table")(
        {"main": (first, 0.25), "wider": (second, 0.375)}
    ).splitlines()
    assert one == "| main | 0.500 | 0.750 | 0.250 |  |"
    assert other == "| wider | 1.000 | 1.000 | 0.375 | +0.250 [+0.000, +0.500] |"


def test_experiments_on_other_validation_questions_are_refused():
    one, other = ({"hit@1": {q: 1.0}, "MRR@10": {q: 1.0}} for q in ("q1", "q2"))
    with pytest.raises(
        ValueError,
        match="^reseeded has other validation questions than main: their tables or prepare differ$",
    ):
        table_of("validation_table")({"main": (one, 0.5), "reseeded": (other, 0.5)})


def test_seeds_are_shown_by_their_mean_and_range():
    seeds = [
        {
            group: {
                system: {"hit@1": low + step} for system in ("dense", "base", "reranker", "fused")
            }
            for group, low in groups
        }
        for step in (0.0, 0.0625, 0.125)
        for groups in [(("all", 0.5), ("unseen", 0.25), ("seen", 0.75))]
    ]
    seeds[1]["all"]["fused"]["hit@1"] = 0.9375
    for seed in seeds:
        seed["unseen"]["base"]["hit@1"] = 0.375
    header, _, *rows = table_of("seed_table")(seeds, ["hit@1"]).splitlines()
    assert header == "| test questions | system | hit@1 |"
    assert rows[0] == "| all | dense | 0.562 (0.500 to 0.625) |"
    assert rows[3] == "| all | fused | 0.688 (0.500 to 0.938) |"
    assert rows[5] == "| unseen passages | base | 0.375 |"
    assert rows[8:] == [
        f"| seen passages | {system} | 0.812 (0.750 to 0.875) |"
        for system in ("dense", "base", "reranker", "fused")
    ]


def test_a_group_or_system_that_is_missing_for_a_seed_is_left_out():
    """After a split by passage no test question is about a passage of the training questions."""
    group = {"questions": 4, "dense": {"hit@1": 0.5}, "base": {"hit@1": 0.25}}
    by_passage = [{"all": group, "unseen": group}, {"all": group, "unseen": group}]
    expected = [
        "| all | dense | 0.500 |",
        "| all | base | 0.250 |",
        "| unseen passages | dense | 0.500 |",
        "| unseen passages | base | 0.250 |",
    ]
    assert table_of("seed_table")(by_passage, ["hit@1"]).splitlines()[2:] == expected
    without_dense = {"questions": 4, "base": {"hit@1": 0.75}}
    one_lacks = [{"all": group, "seen": group}, {"all": without_dense}]
    assert table_of("seed_table")(one_lacks, ["hit@1"]).splitlines()[2:] == [
        "| all | base | 0.500 (0.250 to 0.750) |"
    ]
