"""Every command and example of the documentation, run: make docs-check.

They run in a small repository of the same pipeline, page by page in the order of the text, unless ELSEWHERE names the test that runs
one, or why it cannot be run here. What is neither fails, so that no page keeps a command that does not work.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from commands import PAGES, shown
from conftest import ENVIRONMENT, ROOT, dvc, git

ELSEWHERE = {
    r"make (repro|test|docs-check|interop|lock|faults|audit)": ".ci/run, tests/test_committed.py, docs/reliability.md",
    r"dvc exp run .*=hub|experiments/(bge|others|article)|.*source: hub": "the Hub: tests/test_hub_source.py, against one on this machine",
    r"dvc exp run -S base.source=e5-small": "half a gigabyte: tests/test_sources.py",
    r"experiments/(ablation|seeds|never-worse|general-base|zero-shot|bundled|lr-sweep)": "hours: tests/test_experiments.py checks what they set",
    r"python benchmarks/": "hours, and other packages: docs/performance.md is their output",
    r"python experiments/": "tests/test_experiments.py, tests/test_pipeline.py",
    r"dvc remote (add|modify)|dvc push|dvc pull|git clone|git commit|dvc exp (push|pull|list)|dvc import|dvc update|git checkout --theirs|git checkout -- dvc.lock|dvc gc":
        "tests/test_team.py",
    r"dvc exp run -S prepare.raw=data/raw/(question_answer|mine).xlsx": "tests/test_team.py and tests/test_tables.py",
    r"HF_TOKEN=\.\.\. python src/publish.py": "tests/test_publish.py",
    r"pip install|tensorboard --logdir|dvc exp run -S train.report_to": "tests/interop/test_trackers.py",
    r"python examples/|infinity_emb|docker|vllm|curl": "tests/interop/test_examples.py, and docs/interop.md has what was not run",
    r"(?s)import torch\nfrom sentence_transformers|from (langchain|llama_index|FlagEmbedding|optimum|transformers)": "tests/interop, tests/test_interop.py",
    r"dvc queue (logs|status)": "they only print",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(project, tmp_path_factory):
    """A clone of the small repository, with the files, a branch and an experiment that the pages speak of."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    git("clone", "-q", str(project), str(folder), cwd=folder.parent)
    dvc("cache", "dir", "--local", str(project / ".dvc/cache"), cwd=folder)
    dvc("checkout", cwd=folder)
    shutil.copytree(ROOT / "data/raw/yunshan", folder / "data/raw/yunshan")
    for name in ("experiments", "examples"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(folder / "models/base", folder.parent / "my-reranker")
    (folder / "passages.txt").write_text("笔记本电脑坏了找信息部。\n食堂十二点开饭。\n", encoding="utf-8")
    git("checkout", "-q", "-b", "my-branch", cwd=folder)
    dvc("exp", "run", "-n", "NAME", "-S", "evaluate.suspect_margin=2.5", cwd=folder)
    git("commit", "-q", "-a", "-m", "mine", cwd=folder)
    return folder


def cases():
    for page in PAGES:
        if page.name == "README.zh-CN.md":  # the commands of README.md: tests/test_docs.py
            continue
        for number, command in enumerate(shown(page)):
            yield pytest.param(command, id=f"{page.name}:{number}:{command.split(chr(10))[0][:60]}")


@pytest.mark.parametrize("command", cases())
def test_a_command_of_the_documentation_works(site, command):
    if reason := next((why for pattern, why in ELSEWHERE.items() if re.match(pattern, command)), None):
        pytest.skip(reason)
    command = command.replace("/models/my-reranker", str(site.parent / "my-reranker"))
    python = "\n" in command
    done = subprocess.run(
        [sys.executable, "-c", command] if python else ["bash", "-ec", command.replace("dvc exp branch NAME my-branch", "true")],
        cwd=site, env=ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(site / "src")])}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if git("status", "--porcelain", "--untracked-files=no", cwd=site):  # an experiment leaves its parameters: the next starts from ours
        git("checkout", "-q", "--", ".", cwd=site)
        dvc("checkout", cwd=site)
