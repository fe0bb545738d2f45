"""Runs of the small project to search in, for test_searcher.py and test_export.py.

They are in fp32 from end to end: in bf16 a query alone has other last digits than in a batch.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import dvc, git, once

from tunerank.core.files import read_jsonl

SPLITS = ("train", "valid", "test")


def rerun(folder: Path, changes: dict[str, dict]) -> None:
    """Reproduce a copy of the project with other parameters, and commit it."""
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for group, changed in changes.items():
        values[group] |= changed
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    dvc("repro", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "in fp32", cwd=folder)


@pytest.fixture(scope="session")
def searched(project, tmp_path_factory) -> Path:
    """Return a run with another reranker to compare with; do not change it."""

    def make(folder: Path) -> None:
        shutil.copytree(project, folder, symlinks=True)
        compare = {"twin": {"source": "bundled"}}
        rerun(folder, {"retriever": {"precision": "fp32"}, "evaluate": {"compare": compare}})

    return once(tmp_path_factory, "searched", make)


@pytest.fixture(scope="session")
def own(searched, tmp_path_factory) -> Path:
    """Return a run that reranks the results of another search; do not change it."""

    def make(folder: Path) -> None:
        shutil.copytree(searched, folder, symlinks=True)
        rows = []
        for split in SPLITS:
            for row in read_jsonl(folder / f"data/candidates/{split}.jsonl"):
                for found in row["candidates"]:
                    score = round(found["bm25_score"] + 3 * found["dense_score"], 3)
                    rows.append({"query": row["id"], "passage": found["passage"], "score": score})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data/runs/own.jsonl").write_text(lines, encoding="utf-8")
        git("add", "-f", "data/runs/own.jsonl", cwd=folder)
        rerun(folder, {"retrieve": {"run": "own.jsonl"}})

    return once(tmp_path_factory, "own search", make)


@pytest.fixture(scope="module")
def home(searched, tmp_path_factory) -> Path:
    """Return a copy of the run, with its own .cache/search."""
    return Path(shutil.copytree(searched, tmp_path_factory.mktemp("home") / "repo", symlinks=True))


def questions(folder: Path) -> list[dict]:
    return list(read_jsonl(folder / "data/prepared/test.jsonl"))


def own_results(folder: Path) -> list[list[tuple[str, float]]]:
    """Return what the own search found for each test question, as the file has it."""
    found: dict[str, list[tuple[str, float]]] = {row["id"]: [] for row in questions(folder)}
    for row in read_jsonl(folder / "data/runs/own.jsonl"):
        if row["query"] in found:
            found[row["query"]].append((row["passage"], row["score"]))
    return list(found.values())


def evaluated(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Return system -> question -> passages, best first, as `evaluate` wrote them."""
    rankings = {}
    for path in sorted((folder / "metrics/runs").glob("*.trec")):
        if path.stem != "qrels":
            ranking = rankings.setdefault(path.stem, {row["id"]: [] for row in questions(folder)})
            for line in path.read_text(encoding="utf-8").splitlines():
                question, _, passage, *_ = line.split()
                ranking[question].append(passage)
    return rankings


def ranks(folder: Path) -> list[dict[str, str]]:
    """Return the rows of metrics/per_query.csv."""
    with open(folder / "metrics/per_query.csv", encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))
