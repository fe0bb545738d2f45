"""Test `source: hub`: src/fetch.py and the real huggingface_hub against a local Hub (hub.py)."""

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hub import Fault
from safetensors.numpy import save

from tunerank.core.errors import InputError
from tunerank.params.base import Source
from tunerank.sources import fetch as sources

REPO = "ann/base"
TWELVE_MEGABYTES = save(
    {"padding": np.arange(3 << 20, dtype=np.int32)}
)  # the client writes in pieces of 10 MiB


@pytest.fixture(scope="module")
def files(tiny_model) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tiny_model.iterdir()}


@pytest.fixture
def fetch(fetch_from_hub):
    """Return a function that runs the stage with a base from the Hub and a local retriever."""

    def run(
        revision: str, token: str | None = None, repo: str = REPO
    ) -> subprocess.CompletedProcess:
        done = fetch_from_hub(repo, revision, token)
        assert token is None or token not in done.stdout + done.stderr
        return done

    return run


def fetched(tmp_path: Path) -> dict[str, bytes]:
    folder = tmp_path / "models/base"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(done: subprocess.CompletedProcess, tmp_path: Path) -> str:
    """Return the error line. The stage must leave nothing of the checkpoint."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    last, log = done.stderr.splitlines()[-2:]
    assert (
        last.startswith("error: base: ")
        and done.stderr.count("error: ") == 1
        and log.startswith("log: .cache/logs/fetch-")
    )
    assert list((tmp_path / "models").iterdir()) == []
    return last.removeprefix("error: base: ")


def test_the_pinned_commit_is_fetched_and_not_a_newer_one(hub, fetch, files, tmp_path):
    pinned = hub.add(REPO, files)
    hub.add(REPO, files | {"config.json": b'{"newer": true}', "model.safetensors": b"newer"})
    done = fetch(pinned)
    assert done.returncode == 0, done.stderr
    assert fetched(tmp_path) == files
    assert f"models/base: {REPO}\n" in done.stdout
    assert {"/api/models/ann/base", "/api/models/ann/base/revision/main"}.isdisjoint(
        path for _, path, *_ in hub.requests
    )


def test_no_pickle_and_no_code_is_fetched(hub, fetch, files, tmp_path):
    pooling = {"1_Pooling/config.json": b"{}"}
    other = [
        "pytorch_model.bin",
        "training_args.bin",
        "modeling_x.py",
        "README.md",
        "onnx/model.onnx",
        "onnx/config.json",
        "a.pt",
        "search/search.json",  # of tunerank publish --search
        "search/retriever/model.safetensors",
    ]
    pinned = hub.add(REPO, files | pooling | dict.fromkeys(other, b"\x80\x04"))
    assert fetch(pinned).returncode == 0
    assert fetched(tmp_path) == files | pooling
    asked = {path.split(f"/{pinned}/")[-1] for _, path, *_ in hub.requests if "/resolve/" in path}
    assert asked == {*files, *pooling}


def test_a_checkpoint_with_only_pickled_weights_is_refused(hub, fetch, tmp_path):
    pinned = hub.add(REPO, {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04"})
    assert (
        refused(fetch(pinned), tmp_path)
        == f"{REPO} has no model.safetensors; pickled weights are not loaded, convert them"
    )
    assert not [path for _, path, *_ in hub.requests if path.endswith(".bin")]


# rights


def test_a_gated_repository_needs_a_token_with_access(hub, fetch, files, tmp_path):
    pinned = hub.add(REPO, files, gated=True, readers={"bob"})
    message = (
        f"{REPO} at {pinned} is gated: "
        f"accept its terms on the Hub, then set HF_TOKEN to a token that may read it"
    )
    assert refused(fetch(pinned), tmp_path) == message
    hub.repositories[REPO].readers.clear()
    assert refused(fetch(pinned, token="hf_bob"), tmp_path) == message
    hub.repositories[REPO].readers.add("bob")
    assert fetch(pinned, token="hf_bob").returncode == 0
    assert fetched(tmp_path) == files
    sent = {token for _, path, token, _ in hub.requests if path.startswith("/storage/")}
    assert sent == {None}  # large files come from a second host; it does not get the token


def test_a_private_repository_looks_missing_without_its_token(hub, fetch, files, tmp_path):
    pinned = hub.add(REPO, files, private=True)
    message = (
        f"{REPO} at {pinned} was not found; "
        f"check the name and the commit, or set HF_TOKEN if it is private"
    )
    for token in (None, "hf_bob"):
        assert refused(fetch(pinned, token=token), tmp_path) == message
    assert refused(fetch(pinned, repo="ann/none"), tmp_path) == message.replace(REPO, "ann/none")
    assert fetch(pinned, token="hf_reader").returncode == 0
    assert fetched(tmp_path) == files


def test_a_missing_commit_is_named(hub, fetch, files, tmp_path):
    hub.add(REPO, files)
    message = (
        f"{REPO} at {'0' * 40} was not found; "
        f"check the name and the commit, or set HF_TOKEN if it is private"
    )
    assert refused(fetch("0" * 40), tmp_path) == message


@pytest.mark.parametrize("gated", [False, True])
def test_a_wrong_token_is_reported_even_if_none_is_needed(hub, fetch, files, tmp_path, gated):
    """The Hub refuses an invalid token also for a public repository."""
    pinned = hub.add(REPO, files, gated=gated)
    message = (
        f"{REPO} at {pinned} could not be downloaded: the Hub refuses the token; "
        f"set HF_TOKEN to a valid one, or unset it for public models"
    )
    assert refused(fetch(pinned, token="hf_wrong"), tmp_path) == message


# connections


def test_a_download_resumes_after_the_connection_was_closed(hub, fetch, files, tmp_path):
    pinned = hub.add(REPO, files | {"padding.safetensors": TWELVE_MEGABYTES})
    hub.faults.append(
        Fault(f"GET /storage/{hashlib.sha256(TWELVE_MEGABYTES).hexdigest()}", cut=11 << 20)
    )
    assert fetch(pinned).returncode == 0
    assert fetched(tmp_path) == files | {"padding.safetensors": TWELVE_MEGABYTES}
    ranges = [
        asked
        for method, path, _, asked in hub.requests
        if method == "GET" and path.startswith("/storage/") and asked
    ]
    assert ranges == [f"bytes={10 << 20}-"]


def test_a_reset_connection_leaves_nothing_and_the_next_run_downloads_all(
    hub, fetch, files, tmp_path
):
    """huggingface_hub retries after a closed connection, but not after a reset one."""
    pinned = hub.add(REPO, files)
    hub.faults.append(Fault("GET /storage/", cut=1000, reset=True))
    message = refused(fetch(pinned), tmp_path)
    assert message.startswith(f"{REPO} at {pinned} could not be downloaded (")
    assert message.endswith("); check the network, HF_ENDPOINT and HF_HUB_OFFLINE")
    assert fetch(pinned).returncode == 0
    assert fetched(tmp_path) == files


def test_an_error_of_hf_xet_is_reported_in_one_line(monkeypatch, tmp_path):
    """The client hf_xet raises RuntimeError when nothing listens, after two minutes of retries.

    tests/hub.py does not serve it.
    """

    def unreachable(*_, **__):
        raise RuntimeError(
            "Task error: File reconstruction error: CAS Client Error: "
            "error sending request for url (http://127.0.0.1:9/)"
        )

    monkeypatch.setattr(sources, "snapshot_download", unreachable)
    source = Source(source="hub", repo=REPO, revision="0" * 40)
    with pytest.raises(
        InputError,
        match=(
            r"could not be downloaded \(Task error: .* url \(http://127.0.0.1:9/\)\); "
            r"check the network"
        ),
    ):
        sources.fetch(source, "base", tmp_path / "bundled", tmp_path / "out", 0)


def test_an_unexpected_answer_is_reported_in_one_line(hub, fetch, files, tmp_path):
    pinned = hub.add(REPO, files)
    hub.faults.append(Fault("GET .*/tree/", status=451, message="Not from here"))
    message = f"{REPO} at {pinned} could not be downloaded (Got: HfHubHTTPError: Client error '451 "
    assert refused(fetch(pinned), tmp_path).startswith(message)


def test_a_failed_fetch_leaves_the_old_checkpoint(hub, fetch, files, tmp_path):
    first = hub.add(REPO, files)
    second = hub.add(REPO, files | {"config.json": files["config.json"] + b"\n"})
    assert fetch(first).returncode == 0
    hub.faults.append(Fault("GET /storage/", cut=1000, reset=True))
    assert fetch(second).returncode == 1
    assert fetched(tmp_path) == files
    assert {path.name for path in (tmp_path / "models").iterdir()} == {
        "base",
        "retriever",
        "teacher",
        "compare",
    }
