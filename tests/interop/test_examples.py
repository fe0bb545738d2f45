"""Check that the examples, which use other libraries, rank a checkpoint as plain transformers does.

    make interop        # all examples, in environments under .cache/interop
    make test           # only examples with packages in the lock; the others are skipped

Each example runs in its own process, in an empty folder, with a checkpoint and a text file, without
code of this project.
"""

import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
from conftest import ROOT, table_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunerank.models.checkpoint import save
from tunerank.ranker import Ranker

QUERY = "船是什么颜色？"
DOCS = list(dict.fromkeys(row["doc"] for row in table_rows()))
PASSAGES = DOCS + [f"{sentence}。" for doc in DOCS for sentence in doc.split("。") if sentence]
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}
SETTINGS = {
    "max_length": 128,
    "window": 8,
    "stride": 4,
    "views": 2,
    "views_depth": 1,
    "title": True,
}


def checkpoint(tiny_model: Path, folder: Path, shown: int) -> Path:
    """Save the tiny model as training does: with the settings for ranking in config.json."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    model.config.reranker = SETTINGS | {"shown": shown}
    save(model, AutoTokenizer.from_pretrained(tiny_model), folder)
    return folder


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory) -> Path:
    """Return a checkpoint where no passage exceeds `shown`, so all tools see the same text."""
    return checkpoint(tiny_model, tmp_path_factory.mktemp("model"), shown=100)


@pytest.fixture(scope="module")
def passages(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("passages") / "passages.txt"
    path.write_text("\n".join(PASSAGES) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def logits(model) -> dict[str, float]:
    """Return passage -> logit, best first, by plain transformers, one pair at a time."""
    tokenizer, classifier = (
        AutoTokenizer.from_pretrained(model),
        AutoModelForSequenceClassification.from_pretrained(model).eval(),
    )
    with torch.inference_mode():
        found = {
            text: classifier(**tokenizer(QUERY, text, return_tensors="pt")).logits.item()
            for text in PASSAGES
        }
    # The scores must differ: constant scores would match any order.
    assert len(found) == 48 and max(found.values()) - min(found.values()) > 0.1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def program(environment: str, name: str = "python") -> str:
    """Return a program of an environment made by `make interop`, or of the current one."""
    if environment == "project":
        return sys.executable
    folder = ROOT / ".cache/interop" / environment
    if not (folder / "installed").exists():
        pytest.skip(
            f"its packages are not in the lock: `make interop` installs {environment} and runs this"
        )
    return str(folder / "bin" / name)


def run(folder: Path, *command) -> str:
    """Run the command in `folder`, without this project on its path; return its output."""
    hidden = {"PYTHONPATH", "PYTEST_CURRENT_TEST"}
    environment = {
        name: value for name, value in os.environ.items() if name not in hidden
    } | OFFLINE
    command = [str(part) for part in command]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def example(environment: str, name: str, folder: Path, *arguments) -> str:
    return run(folder, program(environment), ROOT / "examples" / name, *arguments)


def scored(printed: str) -> dict[str, float]:
    """Return passage -> score, in the printed order."""
    rows = [line.split("\t", 1) for line in printed.splitlines() if "\t" in line]
    return {passage: float(score) for score, passage in rows}


def assert_same(
    found: dict[str, float], logits: dict[str, float], tolerance: float, sigmoid: bool = False
) -> None:
    """Check the scores within `tolerance`, and the order of logits that differ by over 1e-4."""
    expected = {
        text: 1 / (1 + math.exp(-value)) if sigmoid else value for text, value in logits.items()
    }
    assert found.keys() == expected.keys() and all(map(math.isfinite, found.values()))
    assert max(abs(found[text] - expected[text]) for text in expected) < tolerance
    assert_same_order(list(found), logits)


def assert_same_order(found: list[str], logits: dict[str, float]) -> None:
    assert sorted(found) == sorted(logits)
    assert all(logits[better] > logits[worse] - 1e-4 for better, worse in zip(found, found[1:]))


@pytest.mark.parametrize(
    ("environment", "name", "options", "sigmoid"),
    [
        ("project", "rank_transformers.py", [], False),
        ("project", "rank_sentence_transformers.py", [], False),
        ("project", "rank_flagembedding.py", [], False),
        ("apps", "rank_llamaindex.py", [], False),
        ("apps", "rank_llamaindex.py", ["--sentence-transformers"], True),
        ("optimum", "rank_transformers.py", [], False),
        ("optimum", "rank_sentence_transformers.py", [], False),
        ("optimum", "rank_sentence_transformers.py", ["--onnx"], False),
        ("optimum", "rank_optimum.py", [], False),
    ],
)
def test_an_example_gives_the_scores_and_order_of_transformers(
    environment, name, options, sigmoid, model, passages, logits, tmp_path
):
    before = {path.name: path.stat().st_mtime_ns for path in model.iterdir()}
    found = scored(example(environment, name, tmp_path, model, QUERY, passages, *options))
    assert_same(found, logits, 1e-3 if environment == "optimum" else 1e-4, sigmoid)
    # The example has written nothing into the checkpoint.
    assert {path.name: path.stat().st_mtime_ns for path in model.iterdir()} == before


def test_langchain_gives_the_order_of_transformers(model, passages, logits, tmp_path):
    printed = example("apps", "rank_langchain.py", tmp_path, model, QUERY, passages)
    assert_same_order(printed.splitlines(), logits)


def test_onnx_exported_by_torch_gives_the_same_scores(model, passages, logits, tmp_path):
    example("apps", "export_onnx.py", tmp_path, model, "exported")
    found = scored(example("apps", "rank_onnx.py", tmp_path, "exported", QUERY, passages))
    assert_same(found, logits, 1e-3)


def test_onnx_exported_by_optimum_gives_the_same_scores(model, passages, logits, tmp_path):
    """A checkpoint written by transformers 5 is exported under transformers 4."""
    command = program("optimum", "optimum-cli")
    run(
        tmp_path,
        command,
        "export",
        "onnx",
        "--model",
        model,
        "--task",
        "text-classification",
        "exported",
    )
    for name in ("rank_onnx.py", "rank_optimum.py"):
        assert_same(
            scored(example("optimum", name, tmp_path, "exported", QUERY, passages)), logits, 1e-3
        )


def test_long_passages_are_ranked_by_their_best_window(tiny_model, passages, tmp_path):
    """The checkpoint has learned from views of 10 characters; src/rank.py ranks the same way."""
    folder = checkpoint(tiny_model, tmp_path / "model", shown=10)
    best = {
        PASSAGES[ranked.index]: ranked.score
        for ranked in Ranker(folder, precision="fp32").rank(QUERY, PASSAGES)
    }
    assert_same(
        scored(example("project", "rank_transformers.py", tmp_path, folder, QUERY, passages)),
        best,
        1e-4,
    )


def test_infinity_gives_the_same_scores_over_http(model, passages, logits, tmp_path):
    server = program("infinity", "infinity_emb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--host", "127.0.0.1", "--port", str(port)]
    command = [
        server,
        "v2",
        "--model-id",
        str(model),
        "--engine",
        "torch",
        "--no-model-warmup",
        *where,
    ]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | OFFLINE, stdout=log, stderr=log
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, tmp_path / "log")
        printed = run(
            tmp_path,
            sys.executable,
            ROOT / "examples/rank_http.py",
            f"http://127.0.0.1:{port}",
            QUERY,
            passages,
        )
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert_same(scored(printed), logits, 1e-4, sigmoid=True)


def wait_for(address: str, process: subprocess.Popen, log: Path, seconds: int = 300) -> None:
    for _ in range(seconds):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urlopen(address):
                return
        except OSError:
            time.sleep(1)
    pytest.fail(f"no answer from {address}: {log.read_text()[-3000:]}")
