"""Test that clients of other rerank servers get this project's scores from `tunerank serve`.

make interop        # the clients are in environments under .cache/interop
"""

import re
import signal
import subprocess
import sys

import pytest
from conftest import COMMAND, ENVIRONMENT, ROOT, started
from test_examples import (
    PASSAGES,
    QUERY,
    assert_same,
    logits,
    model,
    passages,
    program,
    run,
    scored,
)

__all__ = ["logits", "model", "passages"]  # fixtures
KEY = "a key of the tests"
CLIENTS = [
    ("cohere", "cohere_v2"),
    ("cohere", "cohere_v1"),
    ("cohere", "httpx_tei"),
    ("clients", "cohere_v2"),
    ("clients", "cohere_v1"),
    ("clients", "langchain_cohere"),
    ("clients", "langchain_jina"),
    ("clients", "langchain_infinity"),
    ("clients", "llamaindex_cohere"),
    ("clients", "llamaindex_jina"),
    ("clients", "llamaindex_tei"),
]


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    command = [sys.executable, "-c", COMMAND, "serve", str(model), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--precision", "fp32", "--name", "served"],
        cwd=tmp_path_factory.mktemp("served"),
        env=ENVIRONMENT | {"TUNERANK_API_KEY": KEY},
        stdout=subprocess.PIPE,
        text=True,
    )
    found = re.search(r"serving on (http://\S+),", process.stdout.readline())
    assert found
    yield found[1]
    process.terminate()
    process.communicate()


@pytest.mark.parametrize(("environment", "name"), CLIENTS)
def test_a_client_gets_the_sigmoid_of_transformers_logits(
    environment, name, address, passages, logits, tmp_path
):
    script = ROOT / "tests/interop/clients.py"
    printed = run(tmp_path, program(environment), script, name, address, KEY, QUERY, passages)
    assert printed.count("\t") == len(PASSAGES)  # one score a document, none twice
    assert_same(scored(printed), logits, 1e-4, sigmoid=True)


def test_a_wrong_key_is_told_to_whoever_reads_the_clients_error(address, passages, tmp_path):
    script = ROOT / "tests/interop/clients.py"
    name = "cohere_without_key"
    printed = run(tmp_path, program("cohere"), script, name, address, KEY, QUERY, passages)
    assert list(scored(printed)) == ["Authorization: Bearer and the key of this server are needed"]


def test_the_example_for_infinity_works_here_too(model, passages, logits, tmp_path):
    """Without a key, as examples/rank_http.py asks."""
    command = ["-c", COMMAND, "serve", str(model), "--port", "0", "--precision", "fp32"]
    process = started(command, tmp_path)
    found = re.search(r"serving on (http://\S+),", process.stdout.readline())
    script = ROOT / "examples/rank_http.py"
    printed = run(tmp_path, sys.executable, script, found[1], QUERY, passages)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert len(PASSAGES) == len(scored(printed))
    assert_same(scored(printed), logits, 1e-4, sigmoid=True)
