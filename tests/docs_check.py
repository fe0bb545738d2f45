"""Run every command and example of the documentation: make docs-check.

They run in a small repository of the same pipeline, page by page in the order of the text.
`ELSEWHERE` names the tests of the other commands, or why they cannot run here.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from commands import PAGES, page_commands
from conftest import ENVIRONMENT, ROOT, dvc, git

from tunerank.core.files import read_jsonl
from tunerank.data.passages import SPLITS

ELSEWHERE = {
    r"make (repro|test)": ".ci/run, tests/test_committed.py",
    r"dvc exp run .*=hub|dvc exp run .*source: hub|experiments/article": "tests/test_hub_source.py",
    r"dvc exp run -S base.source=e5-small": "half a gigabyte: tests/test_sources.py",
    r"experiments/": "hours: tests/test_experiments.py checks what they set",
    r"python experiments/": "tests/test_experiments.py, tests/test_pipeline.py",
    r"dvc (remote|push|pull|import|update|gc|exp (push|pull|list))": "tests/test_team.py",
    r"git (clone|commit|checkout)": "tests/test_team.py",
    r"dvc exp run -S prepare.raw=data/raw/.*xlsx": "tests/test_team.py, tests/test_tables.py",
    r"HF_TOKEN=\.\.\. tunerank publish": "tests/test_publish.py",
    r"pip install|tensorboard|dvc exp run -S train.report_to": "tests/interop/test_trackers.py",
    r"python examples/(export|rank)|infinity_emb|curl": "tests/interop/test_examples.py",
    r"(?s)import torch\nfrom sentence|from (langchain|llama|FlagEmbedding)": "tests/interop",
    r"(?s)import json\nfrom elasticsearch": "tests/test_own_search.py",
    r"dvc queue (logs|status)": "they only print",
    r"TUNERANK_API_KEY|tunerank serve|import cohere": "tests/test_serve.py, tests/interop",
    r"tunerank feedback": "tests/test_feedback.py",
    r"ranker.rank\(query|tunerank rank .* hits": "tests/test_rank.py",
}
"""Start of a command -> the tests that run it, or why none does."""


@pytest.fixture(scope="module")
def site(project, tmp_path_factory):
    """Return a clone of the small repository, with files, branch and experiment of the pages."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    git("clone", "-q", str(project), str(folder), cwd=folder.parent)
    dvc("cache", "dir", "--local", str(project / ".dvc/cache"), cwd=folder)
    dvc("checkout", cwd=folder)
    shutil.copytree(ROOT / "data/raw/yunshan", folder / "data/raw/yunshan")
    for name in ("experiments", "examples"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(folder / "models/base", folder.parent / "my-reranker")
    texts = {
        "passages": "笔记本电脑坏了找信息部。\n食堂十二点开饭。\n",
        "queries": "笔记本电脑坏了找谁修？\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    passages = [row["id"] for row in read_jsonl(folder / "data/prepared/corpus.jsonl")]
    with open(folder / "data/runs/elastic.jsonl", "w", encoding="utf-8") as run:
        for split in SPLITS:
            for row in read_jsonl(folder / f"data/prepared/{split}.jsonl"):
                for place, passage in enumerate(passages):
                    found = {"query": row["id"], "passage": passage, "score": 9 - place}
                    run.write(json.dumps(found) + "\n")
    command = folder.parent / "bin/tunerank"  # runs the code of this repository
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tunerank "$@"\n')
    command.chmod(0o755)
    git("checkout", "-q", "-b", "my-branch", cwd=folder)
    dvc("exp", "run", "-n", "NAME", "-S", "evaluate.suspect_margin=2.5", cwd=folder)
    git("commit", "-q", "-a", "-m", "mine", cwd=folder)
    return folder


def cases():
    for page in PAGES:
        if page.name == "README.zh-CN.md":  # tests/test_docs.py: the same commands as README.md
            continue
        for number, command in enumerate(page_commands(page)):
            yield pytest.param(command, id=f"{page.name}:{number}:{command.split(chr(10))[0][:60]}")


@pytest.mark.parametrize("command", cases())
def test_a_command_of_the_documentation_works(site, command):
    for pattern, reason in ELSEWHERE.items():
        if re.match(pattern, command):
            pytest.skip(reason)
    command = command.replace("/models/my-reranker", str(site.parent / "my-reranker"))
    command = command.replace("dvc exp branch NAME my-branch", "true")  # the branch exists already
    shell = [sys.executable, "-c"] if "\n" in command else ["bash", "-ec"]
    path = os.pathsep.join([str(site.parent / "bin"), ENVIRONMENT["PATH"]])
    done = subprocess.run(
        [*shell, command],
        cwd=site,
        env=ENVIRONMENT | {"PATH": path, "PYTHONPATH": str(site / "src")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    # An experiment leaves its parameters and outputs. Restore ours for the next command.
    if git("status", "--porcelain", "--untracked-files=no", cwd=site):
        git("checkout", "-q", "--", ".", cwd=site)
        dvc("checkout", cwd=site)
