import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ENVIRONMENT, ROOT, at_head, dvc, git, python, tunerank

from tunerank.commands.app import call
from tunerank.core.errors import InputError
from tunerank.evaluation.significance import compare, verdict

NO_NAME = "a revision is empty (an unset variable?); name one, for example main"
HEADER = "id,passage,qa_type,seen,bm25,reranker,fused\n"


def rows(ranks: list, column: str = "fused", prefix: str = "q") -> str:
    """Return a table with a question per rank; an empty rank is a passage that was not found."""
    cells = {"bm25": 1, "reranker": 1, "fused": 1}
    return HEADER + "".join(
        f"{prefix}{i},p{i},detailed,False,"
        + ",".join(str(v) for v in (cells | {column: rank}).values())
        + "\n"
        for i, rank in enumerate(ranks)
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Return a repository with these tags.

    plain; better: 12 of 40 questions are better; other: other questions; moved: one question has
    another passage; empty: no table.
    """
    folder = tmp_path_factory.mktemp("compared")
    git("init", "-q", cwd=folder)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=folder, check=True)
    (folder / "metrics").mkdir()
    plain = [2] * 14 + [1] * 24 + [3, ""]
    tables = {
        "empty": None,
        "plain": rows(plain),
        "better": rows([1] * 13 + [2] + [1] * 23 + [2] + [1, 12]),
        "other": rows(plain[:-1] + [1] * 5, prefix="r"),
        "moved": rows(plain).replace("q3,p3", "q3,p9"),
    }
    for tag, table in tables.items():
        if table:
            (folder / "metrics/per_query.csv").write_text(table, encoding="utf-8")
        git("add", "-A", cwd=folder)
        git("commit", "-q", "-m", tag, cwd=folder)
        git("tag", tag, cwd=folder)
    (folder / "metrics/per_query.csv").write_text(tables["plain"], encoding="utf-8")
    return folder


def link_code(folder: Path) -> None:
    """Link the code of this repository into a project that has only metrics."""
    for name in ("src", ".ci", "experiments"):
        (folder / name).exists() or (folder / name).symlink_to(ROOT / name)


def compared(repository: Path, *arguments: str) -> subprocess.CompletedProcess:
    return tunerank("compare", *arguments, cwd=repository)


def test_the_difference_of_two_revisions_is_paired_and_judged(repository):
    done = compared(repository, "plain", "better", "--json", "--require", "better")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["verdict"] == "better" and found["questions"] == 40
    hit, reciprocal = found["measures"]["hit@1"], found["measures"]["MRR@10"]
    assert (hit["a"], hit["b"]) == pytest.approx((24 / 40, 37 / 40)) and hit[
        "difference"
    ] == pytest.approx(13 / 40)
    # 13 questions gain 1/2, one loses 1/2, one gains 2/3, and rank 12 is beyond 10.
    assert reciprocal["difference"] == pytest.approx((13 / 2 - 1 / 2 + 2 / 3) / 40)
    assert (
        0 < reciprocal["low"] < reciprocal["difference"] < reciprocal["high"]
        and reciprocal["p"] < 0.01
    )
    assert found["won"] == [f"q{i}" for i in range(13)] + ["q38"] and found["lost"] == ["q37"]


def test_in_reverse_order_the_verdict_is_worse_and_a_gate_closes(repository):
    done = compared(repository, "better", "plain", "--require", "not-worse")
    assert done.returncode == 1
    assert done.stdout.startswith("plain against better, fused by MRR@10: worse\n")
    assert done.stderr == "error: plain is required to be not worse: worse by MRR@10\n"
    assert compared(repository, "better", "plain").returncode == 0


@pytest.mark.parametrize("options", [(), ("--system", "reranker"), ("--measure", "hit@3")])
def test_the_working_tree_is_compared_if_no_second_revision_is_named(repository, options):
    done = compared(repository, "plain", *options, "--json")
    found = json.loads(done.stdout)
    assert (
        found["b"] == "the working tree"
        and found["verdict"] == "no evidence"
        and found["won"] == found["lost"] == []
    )


def test_system_and_measure_decide_the_verdict(repository):
    assert (
        json.loads(
            compared(repository, "plain", "better", "--system", "reranker", "--json").stdout
        )["verdict"]
        == "no evidence"
    )
    deep = json.loads(
        compared(repository, "plain", "better", "--measure", "hit@3", "--json").stdout
    )
    assert deep["measures"]["hit@3"]["difference"] == 0 and deep["verdict"] == "no evidence"


def test_markdown_shows_the_worth_of_a_question_and_the_won_questions(repository):
    text = compared(repository, "plain", "better", "--md", "--shown", "2").stdout
    assert text.startswith(
        "**better against plain, fused by MRR@10: better**\n\n"
        "| fused | plain | better | difference | 95 % interval | p |\n|---|"
    )
    assert "40 questions; one is worth 0.0250 of hit@1." in text
    assert "- q0: rank 2 -> 1\n- q1: rank 2 -> 1\n- ... and 12 more (--shown)" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("plain", "other"),
            "error: plain was tested on 40 questions that other was not: q0, q1, q2, ...; "
            "compare runs on the same data",
        ),
        (("plain", "moved"), "error: 1 questions have another passage in moved than in plain: q3"),
        (
            ("plain", "nowhere"),
            "error: nowhere: no revision or experiment (unknown Git revision 'nowhere')\n",
        ),
        (
            ("empty", "plain"),
            "error: empty has no metrics/per_query.csv; "
            "run dvc repro there, and start in the project's folder\n",
        ),
        (
            ("plain", "HEAD^{tree}"),
            "error: HEAD^{tree}: not a commit; name a branch, a tag or an experiment\n",
        ),
        (
            ("HEAD:metrics", "plain"),
            "error: HEAD:metrics: not a commit; name a branch, a tag or an experiment\n",
        ),
        (("", "plain"), f"error: {NO_NAME}\n"),
        (("plain", ""), f"error: {NO_NAME}\n"),
        (("plain", " ", "--require", "not-worse"), f"error: {NO_NAME}\n"),
        (("--machine", ""), f"error: {NO_NAME}\n"),
        (("--machine", "plain", ""), f"error: {NO_NAME}\n"),
        (
            ("plain", "better", "--system", "teacher"),
            "error: plain: no system 'teacher' among bm25, reranker, fused",
        ),
        (
            ("plain", "better", "--system", "passage"),
            "error: plain: no system 'passage' among bm25, reranker, fused\n",
        ),
        (
            ("plain", "better", "--system", "seen"),
            "error: plain: no system 'seen' among bm25, reranker, fused\n",
        ),
        (
            ("plain", "better", "--measure", "MAP"),
            "error: --measure MAP: none of hit@k, MRR@k, nDCG@k, recall@k, MAP@k\n",
        ),
        (("plain", "better", "--measure", "recall@0"), "error: --measure recall@0: none of hit@k"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_one_line(repository, arguments, message):
    done = compared(repository, *arguments)
    assert (
        done.returncode == 1
        and done.stdout == ""
        and done.stderr.startswith(message)
        and done.stderr.count("\n") == 1
    )


@pytest.mark.parametrize(
    "options, message",
    [
        (("--resamples", "0"), "Invalid value for '--resamples'"),
        (("--resamples", "99"), "Invalid value for '--resamples'"),
        (("--seed", "-1"), "Invalid value for '--seed'"),
        (("--shown", "-1"), "Invalid value for '--shown'"),
        (("--require", "good"), "Invalid value for '--require'"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(repository, options, message):
    done = compared(repository, "plain", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


DAMAGED = "metrics/per_query.csv of the working tree is not a table of ranks ("


@pytest.mark.parametrize(
    "table, reason",
    [
        ("", "No columns to parse from file"),
        (HEADER, "no rows, or a row without passage, or a rank below 1"),
        (rows([1, 2]) + "q1,p1,detailed,False,1,1,2\n", "Index has duplicate keys: "),
        (rows([1]) + "=======\n", "no rows, or a row without passage, or a rank below 1"),
        (
            rows([1]) + "q0,p1,detailed,False,1,2,2\n",
            "two passages of a question at one rank of bm25",
        ),
        (rows([1]).replace("qa_type", "grade").replace("detailed", "0"), "a grade below 1"),
        (rows([1]).replace("qa_type", "grade"), "invalid literal for int()"),
        (rows([1, 0]), "no rows, or a row without passage, or a rank below 1"),
        (rows([1, "x"]), "could not convert string to float: 'x'"),
        ("id,fused\nq0,1\n", "'passage'"),
        ("question,passage,fused\nq0,p0,1\n", "\"None of ['id'] are in the columns\""),
    ],
)
def test_a_damaged_table_of_ranks_is_refused_in_one_line(tmp_path, monkeypatch, table, reason):
    committed(tmp_path, rows([1, 2])).write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        call("compare", "main")
    assert str(error.value).startswith(DAMAGED + reason) and "\n" not in str(error.value)


def committed(folder: Path, table: str) -> Path:
    """Commit a table of ranks in a new repository, and return its path."""
    path = folder / "metrics/per_query.csv"
    path.parent.mkdir(parents=True)
    path.write_text(table, encoding="utf-8")
    git("init", "-q", "-b", "main", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "before", cwd=folder)
    return path


@pytest.mark.parametrize("name", ["NA", "null"])
def test_ids_that_pandas_reads_as_missing_stay_ids(tmp_path, monkeypatch, capsys, name):
    committed(tmp_path, rows([1, 2]).replace("q1,p1", f"{name},{name}"))
    monkeypatch.chdir(tmp_path)
    call("compare", "main", "--json")
    assert json.loads(capsys.readouterr().out)["questions"] == 2


SEVERAL = """\
id,passage,grade,qa_type,seen,bm25,fused
q0,a,2,,False,1,2
q0,b,1,,False,4,1
q1,c,1,,True,3,3
q1,d,1,,True,,1
q1,e,1,,True,6,
"""
BEFORE = SEVERAL.replace("q0,b,1,,False,4,1", "q0,b,1,,False,4,7").replace("True,,1", "True,,")


def test_several_passages_a_question_are_compared_by_all_of_them(tmp_path, monkeypatch, capsys):
    """Before, q0 has a at rank 2 and b at rank 7, and q1 has c at rank 3 of three."""
    committed(tmp_path, BEFORE).write_text(SEVERAL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    call("compare", "main", "--json", "--measure", "recall@2")
    found = json.loads(capsys.readouterr().out)
    means = {name: (row["a"], row["b"]) for name, row in found["measures"].items()}
    log3, log4, log8 = np.log2(3), 2.0, 3.0
    ideal = (2 + 1 / log3, 1 + 1 / log3 + 1 / log4)
    assert means == {
        "recall@2": (pytest.approx(1 / 4), pytest.approx((1 + 1 / 3) / 2)),
        "hit@1": (0.0, 1.0),
        "MRR@10": (pytest.approx((1 / 2 + 1 / 3) / 2), 1.0),
        "nDCG@10": (
            pytest.approx(((2 / log3 + 1 / log8) / ideal[0] + 1 / log4 / ideal[1]) / 2),
            pytest.approx(((1 + 2 / log3) / ideal[0] + (1 + 1 / log4) / ideal[1]) / 2),
        ),
        "recall@10": (pytest.approx((1 + 1 / 3) / 2), pytest.approx((1 + 2 / 3) / 2)),
        "MAP@10": (
            pytest.approx(((1 / 2 + 2 / 7) / 2 + 1 / 3 / 3) / 2),
            pytest.approx((1 + (1 + 2 / 3) / 3) / 2),
        ),
    }
    assert found["questions"] == 2 and (found["won"], found["lost"]) == (["q0", "q1"], [])
    call("compare", "main", "--measure", "MAP@3")
    lines = capsys.readouterr().out
    assert "  q0: rank 2 -> 1\n  q1: rank 3 -> 1\n" in lines and "| MAP@3 | 0.181 |" in lines


def test_one_passage_a_question_shows_no_recall(tmp_path, monkeypatch, capsys):
    committed(tmp_path, rows([1, 2]))
    monkeypatch.chdir(tmp_path)
    call("compare", "main", "--json")
    found = json.loads(capsys.readouterr().out)
    assert list(found["measures"]) == ["MRR@10", "hit@1", "nDCG@10"]
    call("compare", "main", "--json", "--measure", "recall@1")
    found = json.loads(capsys.readouterr().out)["measures"]["recall@1"]
    assert (found["a"], found["b"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    "change, questions",
    [
        (("q1,d,1", "q1,z,1"), "q1"),  # another one of three
        (("q1,e,1,,True,6,\n", ""), "q1"),  # one less
        (("q0,a,2", "q0,a,3"), "q0"),  # another grade
    ],
)
def test_other_relevant_passages_are_other_questions(tmp_path, monkeypatch, change, questions):
    committed(tmp_path, SEVERAL).write_text(SEVERAL.replace(*change), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        call("compare", "main")
    assert str(error.value) == (
        "1 questions have other relevant passages in the working tree than in main: " + questions
    )


def test_the_order_of_rows_and_a_column_of_grades_1_make_no_difference(
    tmp_path, monkeypatch, capsys
):
    """A table of an older version has no grades; a row for each question all the same."""
    head, *lines = rows([2] * 8 + [1] * 4).splitlines(keepends=True)
    graded = head.replace("passage,", "passage,grade,") + "".join(
        line.replace(",detailed", ",1,detailed") for line in reversed(lines)
    )
    committed(tmp_path, head + "".join(lines)).write_text(graded, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    call("compare", "main", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "no evidence" and found["won"] == found["lost"] == []
    assert found["measures"]["MRR@10"]["a"] == found["measures"]["MRR@10"]["b"] == 8 / 12
    with pytest.raises(InputError, match="^main: no system 'grade' among bm25, reranker, fused$"):
        call("compare", "main", "--system", "grade")


NOT_A_LOCK = "; git checkout HEAD -- dvc.lock, then run dvc repro"


@pytest.mark.parametrize(
    "lock, message",
    [
        ("[]\n", "not a lock file of DVC ('list' object has no attribute 'get')" + NOT_A_LOCK),
        ("a\n", "not a lock file of DVC ('str' object has no attribute 'get')" + NOT_A_LOCK),
        (
            "stages: [train]\n",
            "not a lock file of DVC ('list' object has no attribute 'values')" + NOT_A_LOCK,
        ),
        (
            "stages: {train: {outs: [{path: [a]}]}}\n",
            "not a lock file of DVC (a path is not text)" + NOT_A_LOCK,
        ),
        (
            "stages: {a: &b {}, c: *b}\n",
            "not a lock file of DVC (it has YAML aliases, which DVC does not write)" + NOT_A_LOCK,
        ),
        (
            "stages:\n<<<<<<< HEAD\n  a: {}\n=======\n  b: {}\n>>>>>>> main\n",
            "merge conflict; take one side, git checkout --ours dvc.lock metrics (or --theirs), "
            "then run dvc repro",
        ),
    ],
)
def test_a_damaged_lock_is_refused_in_one_line(tmp_path, monkeypatch, lock, message):
    committed(tmp_path, rows([1, 2]))
    (tmp_path / "dvc.lock").write_text(lock, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        call("compare", "main")
    assert str(error.value) == f"dvc.lock of the working tree: {message}"


@pytest.mark.parametrize(
    "before, after, verdict",
    [
        ([2], [1], "no evidence"),  # [+0.500, +0.500], p = 1
        ([2] * 3, [1] * 3, "no evidence"),  # [+0.500, +0.500], p = 0.25
        ([2] * 5, [1] * 5, "no evidence"),  # p = 0.0625
        ([2] * 6, [1] * 6, "better"),  # p = 0.03125
        ([1] * 6, [2] * 6, "worse"),
        ([2] * 5 + [1] * 20, [1] * 25, "no evidence"),  # interval above 0, p = 0.0625
        ([2] * 6 + [1] * 19, [1] * 25, "better"),
    ],
)
def test_a_verdict_needs_six_questions_with_a_difference(
    tmp_path, monkeypatch, capsys, before, after, verdict
):
    committed(tmp_path, rows(before)).write_text(rows(after), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    required = "not-worse" if verdict == "worse" else "better"
    passes = nullcontext() if verdict == "better" else pytest.raises(InputError, match="required")
    with passes:
        call("compare", "HEAD", "--require", required)
    assert capsys.readouterr().out.splitlines()[0] == (
        f"the working tree against HEAD, fused by MRR@10: {verdict}"
    )


def test_the_help_states_the_rule_of_the_verdict(repository):
    text = " ".join(compared(repository, "--help").stdout.split())
    assert (
        "better or worse if the 95 % interval of the difference excludes 0 and p is below 0.05, "
        "which takes six questions that differ or more"
    ) in text


def test_the_committed_results_keep_their_verdicts():
    result = json.loads(at_head("metrics/eval.json"))
    for systems in result["against"].values():
        for rivals in systems.values():
            for measures in rivals.values():
                for row in measures.values():
                    side = "better" if row["low"] > 0 else "worse" if row["high"] < 0 else None
                    agreed = side if side and row["p"] < 0.05 else "no evidence"
                    assert verdict(row) == agreed
    rivals = {
        system: rivals["dense"]["MRR@10"] for system, rivals in result["against"]["all"].items()
    }
    assert {system: verdict(row) for system, row in rivals.items()} == {
        "reranker": "no evidence", "fused": "better",
        "reranker_whole": "no evidence", "fused_whole": "better",
    }  # fmt: skip


@pytest.mark.parametrize("gain", [0.0, 0.08])
def test_95_percent_of_the_intervals_contain_the_true_difference(gain):
    """120 questions are right with probability 0.6 in one run and 0.6 + gain in the other.

    95 % of 400 intervals are 380. Fewer than 364 or more than 395 occur by chance in one test of a
    thousand.
    """
    rng = np.random.default_rng(7)
    held = 0
    for seed in range(400):
        theirs, ours = rng.random(120) < 0.6, rng.random(120) < 0.6 + gain
        found = compare(ours, theirs, resamples=1000, seed=seed)
        held += found["low"] <= gain <= found["high"]
    assert 364 <= held <= 395


def test_a_pull_request_gets_the_verdict_and_the_changes(repository):
    link_code(repository)

    def commented(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [repository / ".ci/compare", *arguments],
            cwd=repository,
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
        )
        return done.returncode, done.stdout or done.stderr

    git("checkout", "-q", "-f", "better", cwd=repository)
    try:
        code, text = commented("plain")
        assert code == 0 and text.startswith(
            "**HEAD against plain, fused by MRR@10: better**\n\n| fused | plain | HEAD |"
        )
        assert "<details><summary>dvc metrics diff</summary>" in text and text.endswith(
            "</details>\n"
        )
        code, text = commented("better", "--require", "better")
        assert (
            code == 1
            and "error: HEAD is required to be better: no evidence by MRR@10" in text
            and text.endswith("</details>\n")
        )
        code, text = commented("other")
        assert code == 1 and "error: other was tested on 44 questions that HEAD was not" in text
        empty = "error: BASE is empty (an unset variable?): .ci/compare BASE\n"
        assert commented("", "--require", "not-worse") == commented() == (2, empty)
        git("checkout", "-q", "-f", "plain", cwd=repository)
        code, text = commented("better", "--require", "not-worse")
        assert code == 1 and "error: HEAD is required to be not worse: worse by MRR@10" in text
        code, text = commented("nowhere")
        assert code == 1 and text.startswith("error: nowhere: no revision or experiment (")
        assert text.endswith("</details>\n")
    finally:
        git("checkout", "-q", "-f", "moved", cwd=repository)


@pytest.mark.parametrize("prefix", ["", "ranker", "team a/ranker"])
def test_a_project_may_be_in_a_subfolder_of_its_repository(tmp_path, prefix):
    """Every program that reads a revision compares two runs and an experiment."""
    project = tmp_path / prefix
    write_run(project, rows([2] * 8 + [1] * 4), low=0.25)
    git("init", "-q", "-b", "main", cwd=tmp_path)
    subdirectory = ["--subdir"] if prefix else []
    dvc("init", "-q", *subdirectory, cwd=project)
    link_code(project)
    for name, ranks, low in (("main", [2] * 8 + [1] * 4, 0.25), ("HEAD", [1] * 12, 0.5)):
        write_run(project, rows(ranks), low)
        git("add", "-A", cwd=tmp_path)
        git("commit", "-q", "-m", name, cwd=tmp_path)
    git("checkout", "-q", "--detach", cwd=tmp_path)
    git("branch", "-q", "-f", "main", "HEAD~1", cwd=tmp_path)
    head = git("rev-parse", "HEAD", cwd=tmp_path).strip()
    base = git("rev-parse", "main", cwd=tmp_path).strip()
    git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/tried", head, cwd=tmp_path)

    assert compared(project, "main", "tried").stdout.startswith(
        "tried against main, fused by MRR@10: better\n"
    )
    assert compared(project, "main").stdout.startswith(
        "the working tree against main, fused by MRR@10: better\n"
    )
    line = compared(project, "--machine", "main", "HEAD").stdout
    assert line.startswith("metrics of HEAD: not those of main, and yet capability, threads ")
    done = subprocess.run(
        [project / ".ci/compare", "main", "--require", "better"],
        cwd="/", env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("**HEAD against main, fused by MRR@10")
    assert "| all.base.hit@1  | 0.25   | 0.5    | 0.25     |" in done.stdout

    def printed(script: str, *revisions: str) -> list[str]:
        done = python(f"experiments/{script}", *revisions, cwd=project)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert printed("seed_table.py", "main", "tried")[2:] == [
        "| all | base | 0.375 (0.250 to 0.500) |",
        "| all | fused | 0.375 (0.250 to 0.500) |",
    ]
    assert printed("validation_table.py", "main", "tried")[2:] == [
        "| main | 0.500 | 0.750 | 0.250 |  |",
        "| tried | 0.500 | 0.750 | 0.500 | +0.000 [+0.000, +0.000] |",
    ]
    for script in ("seed_table.py", "validation_table.py"):
        done = python(f"experiments/{script}", "main", "", cwd=project)
        assert (done.returncode, done.stderr) == (1, f"error: {NO_NAME}\n")


def write_run(project: Path, ranks: str, low: float) -> None:
    """Write metrics of a run split by passage, without seen passages, and validation questions."""
    questions = [{"id": f"v{i}", "relevant": [{"passage": f"p{i}", "grade": 1}]} for i in range(2)]
    scores = [
        {"id": "v0", "scores": {"p0": 2, "p1": 1}},
        {"id": "v1", "scores": {"p0": 2, "p1": 1}},
    ]
    group = {"questions": 12, "base": {"hit@1": low}, "fused": {"hit@1": low}}
    contents = {
        "metrics/per_query.csv": ranks,
        "metrics/eval.json": json.dumps({"all": group}),
        "metrics/train.json": json.dumps({"base": {"MRR@10": low}}),
        "data/prepared/valid.jsonl": "".join(json.dumps(row) + "\n" for row in questions),
        "data/validation/valid.jsonl": "".join(json.dumps(row) + "\n" for row in scores),
        "dvc.yaml": "metrics: [metrics/eval.json]\n",
    }
    for name, text in contents.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")


def test_ranks_of_another_checkpoint_are_refused(repository):
    lock = {
        "train": {"outs": [{"path": "models/reranker", "md5": "new"}]},
        "score": {
            "deps": [{"path": "models/reranker", "md5": "old"}],
            "outs": [{"path": "data/scores", "md5": "s"}],
        },
        "evaluate": {
            "deps": [{"path": "data/scores", "md5": "s"}],
            "outs": [{"path": "metrics/per_query.csv", "md5": "x"}],
        },
    }
    git("checkout", "-q", "-f", "better", cwd=repository)
    try:
        for digest in ("old", "new"):
            lock["score"]["deps"][0]["md5"] = digest
            (repository / "dvc.lock").write_text(yaml.safe_dump({"stages": lock}), encoding="utf-8")
            git("add", "dvc.lock", cwd=repository)
            git("commit", "-q", "-m", digest, cwd=repository)
            git("tag", f"trained-{digest}", cwd=repository)
        done = compared(repository, "plain", "trained-old")
        assert done.returncode == 1 and done.stderr == (
            "error: metrics/per_query.csv of trained-old is older than its models/reranker; "
            "run dvc repro there, to its end\n"
        )
        assert compared(repository, "plain", "trained-new").returncode == 0
    finally:
        git("checkout", "-q", "-f", "moved", cwd=repository)


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_workflows_pin_their_actions_and_call_existing_scripts():
    jobs = [
        job
        for path in WORKFLOWS
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    ]
    steps = [step for job in jobs for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert len(used) >= 4 and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) for name in used)
    called = re.findall(r"(?:^|\s)(\.ci/\w+)", "\n".join(step.get("run", "") for step in steps))
    assert set(called) == {".ci/run", ".ci/compare"} and all(
        os.access(ROOT / name, os.X_OK) for name in called
    )
    # A gate needs the exit code of a program in a pipe, so pipefail must be set.
    assert all(step.get("shell") == "bash" for step in steps if "|" in step.get("run", ""))
    # No expression, which may hold text of others, is inserted into a shell command.
    assert not [step["run"] for step in steps if "${{" in step.get("run", "")]
