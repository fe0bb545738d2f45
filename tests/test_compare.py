import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import ENVIRONMENT, ROOT, python
from reranker.evidence import compare

HEADER = "id,passage,qa_type,seen,bm25,reranker,fused\n"


def rows(ranks: list, column: str = "fused", prefix: str = "q") -> str:
    """A table of as many questions; an empty rank is a passage that was not found."""
    cells = {"bm25": 1, "reranker": 1, "fused": 1}
    return HEADER + "".join(
        f"{prefix}{i},p{i},detailed,False," + ",".join(str(v) for v in (cells | {column: rank}).values()) + "\n" for i, rank in enumerate(ranks)
    )


def git(*command: str, cwd: Path) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *command], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Tags: plain; better, by 12 questions of 40; other, with other questions; moved, with another passage; empty, without a table."""
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


def compared(repository: Path, *arguments: str) -> subprocess.CompletedProcess:
    return python(ROOT / "src/compare.py", *arguments, cwd=repository)


def test_the_difference_of_two_revisions_is_paired_and_judged(repository):
    done = compared(repository, "plain", "better", "--json", "--require", "better")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["verdict"] == "better" and found["questions"] == 40
    hit, reciprocal = found["measures"]["hit@1"], found["measures"]["MRR@10"]
    assert (hit["a"], hit["b"]) == pytest.approx((24 / 40, 37 / 40)) and hit["difference"] == pytest.approx(13 / 40)
    # 13 questions gain a half, one loses it, one gains two thirds, and rank 12 is beyond 10
    assert reciprocal["difference"] == pytest.approx((13 / 2 - 1 / 2 + 2 / 3) / 40)
    assert 0 < reciprocal["low"] < reciprocal["difference"] < reciprocal["high"] and reciprocal["p"] < 0.01
    assert found["won"] == [f"q{i}" for i in range(13)] + ["q38"] and found["lost"] == ["q37"]


def test_the_other_way_round_it_is_worse_and_a_gate_closes(repository):
    done = compared(repository, "better", "plain", "--require", "not-worse")
    assert done.returncode == 1
    assert done.stdout.startswith("plain against better, fused by MRR@10: worse\n")
    assert done.stderr == "error: plain is required to be not worse: worse by MRR@10\n"
    assert compared(repository, "better", "plain").returncode == 0


@pytest.mark.parametrize("options", [(), ("--system", "reranker"), ("--measure", "hit@3")])
def test_the_working_tree_is_compared_where_no_second_is_named(repository, options):
    done = compared(repository, "plain", *options, "--json")
    found = json.loads(done.stdout)
    assert found["b"] == "the working tree" and found["verdict"] == "no evidence" and found["won"] == found["lost"] == []


def test_system_and_measure_decide_what_is_judged(repository):
    assert json.loads(compared(repository, "plain", "better", "--system", "reranker", "--json").stdout)["verdict"] == "no evidence"
    deep = json.loads(compared(repository, "plain", "better", "--measure", "hit@3", "--json").stdout)
    assert deep["measures"]["hit@3"]["difference"] == 0 and deep["verdict"] == "no evidence"


def test_markdown_says_what_one_question_is_worth_and_which_were_won(repository):
    text = compared(repository, "plain", "better", "--md", "--shown", "2").stdout
    assert text.startswith("**better against plain, fused by MRR@10: better**\n\n| fused | plain | better | difference | 95 % interval | p |\n|---|")
    assert "40 test questions; one is worth 0.0250 of hit@1." in text
    assert "- q0: rank 2 -> 1\n- q1: rank 2 -> 1\n- ... and 12 more (--shown)" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("plain", "other"), "error: plain was tested on 40 questions that other was not: q0, q1, q2, ...; compare runs on the same data"),
        (("plain", "moved"), "error: 1 questions have another passage in moved than in plain: q3"),
        (("plain", "nowhere"), "error: nowhere: no revision or experiment that has metrics/per_query.csv"),
        (("empty", "plain"), "error: empty: no revision or experiment that has metrics/per_query.csv"),
        (("plain", "better", "--system", "teacher"), "error: plain: no system 'teacher' among bm25, reranker, fused"),
        (("plain", "better", "--measure", "MAP"), "error: --measure MAP: none of hit@k, MRR@k, nDCG@k"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(repository, arguments, message):
    done = compared(repository, *arguments)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith(message) and done.stderr.count("\n") == 1


@pytest.mark.parametrize("gain", [0.0, 0.08])
def test_intervals_hold_the_true_difference_at_their_rate(gain):
    """120 questions, each right with probability 0.6 under the one and 0.6 + gain under the other; 95 % of 400 intervals are 380,
    and fewer than 364 or more than 395 would come of one such test in a thousand."""
    rng = np.random.default_rng(7)
    held = 0
    for seed in range(400):
        theirs, ours = rng.random(120) < 0.6, rng.random(120) < 0.6 + gain
        found = compare(ours, theirs, resamples=1000, seed=seed)
        held += found["low"] <= gain <= found["high"]
    assert 364 <= held <= 395


def test_a_pull_request_gets_the_verdict_and_what_changed(repository):
    (repository / "src").exists() or (repository / "src").symlink_to(ROOT / "src")

    def commented(base: str, *options: str) -> tuple[int, str]:
        done = subprocess.run(
            [ROOT / ".ci/compare", base, *options], cwd=repository, capture_output=True, text=True, env=ENVIRONMENT
        )
        return done.returncode, done.stdout

    git("checkout", "-q", "-f", "better", cwd=repository)
    try:
        code, text = commented("plain")
        assert code == 0 and text.startswith("**HEAD against plain, fused by MRR@10: better**\n\n| fused | plain | HEAD |")
        assert "<details><summary>dvc metrics diff</summary>" in text and text.endswith("</details>\n")
        code, text = commented("better", "--require", "better")
        assert code == 1 and "error: HEAD is required to be better: no evidence by MRR@10" in text and text.endswith("</details>\n")
        code, text = commented("other")
        assert code == 1 and "error: other was tested on 44 questions that HEAD was not" in text
    finally:
        git("checkout", "-q", "-f", "moved", cwd=repository)


def test_ranks_of_another_checkpoint_are_refused(repository):
    lock = {
        "train": {"outs": [{"path": "models/reranker", "md5": "new"}]},
        "score": {"deps": [{"path": "models/reranker", "md5": "old"}], "outs": [{"path": "data/scores", "md5": "s"}]},
        "evaluate": {"deps": [{"path": "data/scores", "md5": "s"}], "outs": [{"path": "metrics/per_query.csv", "md5": "x"}]},
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
            "error: trained-old: metrics/per_query.csv is older than models/reranker; run dvc repro there, to its end\n"
        )
        assert compared(repository, "plain", "trained-new").returncode == 0
    finally:
        git("checkout", "-q", "-f", "moved", cwd=repository)


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_workflows_pin_what_they_use_and_call_what_is_there():
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()]
    steps = [step for job in jobs for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert len(used) >= 4 and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) for name in used)
    called = re.findall(r"(?:^|\s)(\.ci/\w+)", "\n".join(step.get("run", "") for step in steps))
    assert set(called) == {".ci/run", ".ci/compare"} and all(os.access(ROOT / name, os.X_OK) for name in called)
    # What is written by others is never pasted into a shell.
    assert not [step["run"] for step in steps if "${{" in step.get("run", "")]
