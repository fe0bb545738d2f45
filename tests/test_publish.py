"""Test `tunerank publish` with a local Hub (tests/hub.py) and a project with a real dvc.lock."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import COMMAND, ENVIRONMENT, ROOT, git
from hub import Fault, Hub
from huggingface_hub import ModelCard

from tunerank.params.base import Loader

REPO = "ann/my-reranker"
VALUES = {"hit@1": 0.5, "hit@3": 0.75, "MRR@10": 0.640625, "nDCG@10": 0.703125}
DIFFERENCE = {"difference": 0.125, "low": -0.0625, "high": 0.3125, "p": 0.25}


RIVALS = ("bm25", "dense", "retriever", "base")


def metrics() -> dict[str, dict]:
    """Return made-up contents of the files in metrics/."""
    lower = {measure: value - 0.125 for measure, value in VALUES.items()}
    systems = dict.fromkeys(RIVALS, lower) | {"reranker": VALUES, "fused": VALUES}
    groups = {
        name: {"questions": count} | systems
        for name, count in (("all", 16), ("unseen", 12), ("seen", 4))
    }
    against = {name: dict.fromkeys(("hit@1", "MRR@10", "nDCG@10"), DIFFERENCE) for name in RIVALS}
    return {
        "data": {
            "passages": 12,
            "questions": {"train": 18, "valid": 9, "test": 16},
            "test_seen": 4,
            "test_unseen": 12,
            "dropped": {"empty": 2},
        },
        "train": {
            "samples": 18,
            "optimizer_steps": 4,
            "best_step": 3,
            "valid": {"measure": "MRR@10", "base": 0.5, "best": 0.625},
            "merge": {"chosen": 0.75, "valid": {"0.0": 0.5, "0.75": 0.65625, "1.0": 0.625}},
        },
        "eval": {
            "split": "test",
            "fusion_weights": {"reranker": 2.5, "dense": 40.0, "bm25": 0.0},
            **groups,
        }
        | {"against": {"all": {"reranker": against, "fused": against}}},
        "environment": {
            "device": "cpu (x86_64)",
            "instructions": ["avx2"],
            "threads": 2,
            "precision": "fp32",
            "python": "3.11.7",
            "packages": {"torch": "2.13.0+cpu"},
        },
    }


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory) -> Path:
    """Return a committed project after `dvc repro`.

    Its two stages are stand-ins for training and evaluation.
    """
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_model, folder / "given/model")
    config = folder / "given/model/config.json"
    views = {
        "max_length": 128,
        "window": 64,
        "stride": 32,
        "shown": 64,
        "views": 1,
        "views_depth": 0,
        "title": True,
    }
    config.write_text(json.dumps(json.loads(config.read_text()) | {"reranker": views}))
    for name, value in metrics().items():
        (folder / f"given/{name}.json").write_text(json.dumps(value))
    for name in ("src", "models", "metrics"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "models/LICENSE", folder / "models")
    shutil.copy(ROOT / "tests/params.yaml", folder / "params.yaml")
    (folder / "src/put.py").write_text(
        "import shutil, sys\nfor source, target in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    (shutil.copy if '.' in source else shutil.copytree)(source, target)\n"
    )
    outs = {"train": ["data", "train"], "evaluate": ["eval", "environment"]}
    stages = {
        stage: {
            "cmd": f"{sys.executable} src/put.py "
            + " ".join(f"given/{name}.json metrics/{name}.json" for name in names),
            "deps": ["src/put.py"],
            "params": ["seed"],
            "outs": [{f"metrics/{name}.json": {"cache": False}} for name in names],
        }
        for stage, names in outs.items()
    }
    stages["train"]["cmd"] += " given/model models/reranker"
    stages["train"]["outs"].append("models/reranker")
    stages["train"]["params"] += ["train", "samples.pair"]
    stages["evaluate"]["deps"].append("models/reranker")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    git("init", "-q", "-b", "main", cwd=folder)
    for command in (("init", "-q"), ("config", "core.analytics", "false"), ("repro", "-q")):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, check=True)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "made", cwd=folder)
    return folder


@pytest.fixture
def project(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project"))


@pytest.fixture
def publish(project, client):
    def run(
        *options: str, token: str | None = "hf_ann", repo: str = REPO
    ) -> subprocess.CompletedProcess:
        done = client.run("tunerank", "publish", "--repo", repo, *options, cwd=project, token=token)
        assert token is None or token not in done.stdout + done.stderr
        return done

    return run


@pytest.mark.parametrize("options", [(), ("--license", "mit")])
def test_a_dry_run_ends_quietly_if_its_reader_is_gone(project, options):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", COMMAND, "publish", "--repo", REPO, "--dry-run", *options]
    done = subprocess.run(
        command, cwd=project, env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def refused(done: subprocess.CompletedProcess) -> str:
    assert (
        done.returncode == 1
        and done.stdout == ""
        and done.stderr.count("\n") == 1
        and done.stderr.startswith("error: ")
    ), done
    return done.stderr.removeprefix("error: ").rstrip()


def writes(hub: Hub) -> list[str]:
    return [f"{method} {path}" for method, path, *_ in hub.requests if method in ("POST", "PUT")]


def checkpoint(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project / "models/reranker").iterdir()}


# what is published


def test_one_commit_with_checkpoint_card_and_licence_is_tagged_and_recorded(project, hub, publish):
    done = publish("--private", "--tag", "v1")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories[REPO]
    # The Hub itself made the first commit, with .gitattributes.
    assert repository.private and len(repository.commits) == 2
    head = repository.commits[-1]
    files = checkpoint(project)
    assert set(head.files) == {*files, "README.md", "LICENSE", ".gitattributes"}
    assert {name: head.files[name] for name in files} == files
    assert head.files["LICENSE"] == (ROOT / "models/LICENSE").read_bytes()
    assert repository.tags == {"v1": head.oid}

    locked = yaml.load((project / "dvc.lock").read_text(), Loader)["stages"]["train"]["outs"]
    md5 = next(out["md5"] for out in locked if out["path"] == "models/reranker")
    commit = git("rev-parse", "HEAD", cwd=project).strip()
    record = {
        "repo": REPO,
        "revision": head.oid,
        "tag": "v1",
        "git_commit": commit,
        "checkpoint_md5": md5,
    }
    assert [
        json.loads(line) for line in (project / "models/published.jsonl").read_text().splitlines()
    ] == [record]
    assert git("status", "--porcelain", cwd=project) == "?? models/published.jsonl\n"
    assert f'CrossEncoder("{REPO}", revision="{head.oid}")' in done.stdout
    assert f"base.repo={REPO} -S base.revision={head.oid}" in done.stdout
    card = head.files["README.md"].decode()
    assert commit in card and md5 in card and "uncommitted" not in card


def test_publishing_again_adds_a_line_and_a_commit_with_only_the_changes(project, hub, publish):
    publish("--tag", "v1")
    first = hub.repositories[REPO].commits[-1]
    git("add", "models", cwd=project)
    git("commit", "-q", "-m", "published", cwd=project)
    assert publish("--tag", "v2").returncode == 0
    second = hub.repositories[REPO].commits[-1]
    assert second.parent == first.oid and hub.repositories[REPO].tags == {
        "v1": first.oid,
        "v2": second.oid,
    }
    assert {name for name in first.files if first.files[name] != second.files[name]} == {
        "README.md"
    }
    revisions = [
        json.loads(line)["revision"]
        for line in (project / "models/published.jsonl").read_text().splitlines()
    ]
    assert revisions == [first.oid, second.oid]


def test_files_of_another_checkpoint_are_deleted_in_the_same_commit(project, hub, publish):
    before = {
        "pytorch_model.bin": b"pickle",
        "model-00001-of-00002.safetensors": b"x",
        "figure.png": b"png",
        ".gitattributes": b"",
    }
    hub.add(REPO, before)
    assert publish().returncode == 0
    assert len(hub.repositories[REPO].commits) == 2
    kept = {"figure.png", ".gitattributes"}
    assert set(hub.repositories[REPO].commits[-1].files) == {
        *checkpoint(project),
        "README.md",
        "LICENSE",
        *kept,
    }


def test_the_passages_of_another_checkpoint_are_deleted_too(project, hub, publish):
    """Publishing without --search: what is in search/ belongs to other weights."""
    names = (
        "search.json",
        "corpus.jsonl",
        "vectors/windows.npy",
        "LICENSE",
        "reranker/config.json",
    )
    hub.add(REPO, {f"search/{name}": b"old" for name in names} | {"search.md": b"about"})
    done = publish()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "search/ will be removed; earlier commits keep it, passages included\n"
    )
    wanted = {*checkpoint(project), "README.md", "LICENSE", "search.md"}
    assert set(hub.repositories[REPO].commits[-1].files) == wanted


def test_the_published_checkpoint_and_the_cards_examples_work(
    project, hub, publish, client, tmp_path
):
    """The real client downloads it. The card's code must give the scores of the local files."""
    assert publish("--private", "--tag", "v1").returncode == 0
    revision = hub.repositories[REPO].commits[-1].oid
    hub.add(REPO, {"config.json": b"{}"})  # main has another commit
    card = hub.repositories[REPO].at(revision).files["README.md"].decode()
    blocks = re.findall(r"(?s)```python\n(.*?)```", card)
    assert [block.splitlines()[0] for block in blocks] == [
        "from tunerank import Searcher",  # tests/test_card.py runs that of a search
        "from FlagEmbedding import FlagReranker",
        "from sentence_transformers import CrossEncoder",
        "from transformers import AutoConfig",
    ]
    examples = "\n".join(blocks[1:])
    script = tmp_path / "use.py"
    script.write_text(f"""
import json, sys
sys.path[:0] = [{str(ROOT / "src")!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from huggingface_hub import snapshot_download
folder = Path(snapshot_download({REPO!r}, revision={revision!r}))
local = Path({str(project / "models/reranker")!r})
for path in local.iterdir():
    assert (folder / path.name).read_bytes() == path.read_bytes(), path
{examples}
from conftest import table_rows
from tunerank.data.passages import Passage
from tunerank.data.passages import windows
from tunerank.models.cross_encoder import CrossEncoder as Ours
pairs = [(row["question"], row["doc"]) for row in table_rows()[:6]]
text = "".join(row["doc"] for row in table_rows()[::3])
for title, length in (("", 63), ("", 64), ("说明", 65), ("说明", 300)):
    spans = windows(text[:length], 64, 32)
    passage = Passage(title, text[:length])
    assert views(title, passage.text) == [passage.view(*span) for span in spans], length
assert views("", "短") == ["短"] and -99 < max(reranker.compute_score([("问题", "短")])) < 99
ours = list(map(float, Ours(local, 128, "fp32").score(pairs)))
sentence = list(map(float, model.predict(pairs, show_progress_bar=False)))
print(json.dumps([ours, reranker.compute_score(pairs), sentence]))
""")
    done = client.run(script, cwd=tmp_path, token="hf_ann")
    assert done.returncode == 0, done.stderr[-3000:]
    ours, flag, sentence = map(np.array, json.loads(done.stdout.splitlines()[-1]))
    assert np.abs(ours - flag).max() < 1e-4 and ours.std() > 0.01
    assert np.abs(1 / (1 + np.exp(-ours)) - sentence).max() < 1e-4
    away = [token for method, path, token, _ in hub.requests if path.startswith("/storage/")]
    assert away and set(away) == {None}  # the second host does not get the token


def test_the_card_has_the_runs_numbers_as_model_index(project, hub, publish):
    publish("--language", "zh", "--language", "en", "--license", "apache-2.0")
    (project / "README.md").write_bytes(hub.repositories[REPO].commits[-1].files["README.md"])
    card = ModelCard.load(project / "README.md")
    about = card.data.to_dict()
    results = about.pop("model-index")
    assert about == {
        "base_model": "intfloat/multilingual-e5-small",
        "language": ["zh", "en"],
        "library_name": "sentence-transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-ranking",
        "tags": ["cross-encoder", "reranker"],
    }
    assert results[0]["name"] == "my-reranker" and len(results) == len(results[0]["results"]) == 1
    assert results[0]["results"][0]["dataset"] == {
        "name": "yunshan",
        "type": "yunshan",
        "split": "test",
    }
    assert [(m["name"], m["value"]) for m in results[0]["results"][0]["metrics"]] == [
        ("hit@1", 0.5),
        ("MRR@10", 0.640625),
        ("nDCG@10", 0.703125),
    ]
    assert "| **this model** | 0.500 | 0.641 | 0.703 |\n" in card.text
    assert "| this model - base | +0.125 [-0.062, +0.312] |" in card.text
    # The base's licence is always published.
    assert "LICENSE" in hub.repositories[REPO].commits[-1].files


def test_a_dry_run_prints_card_and_files_without_the_hub(project, hub, publish):
    (project / "src/new.py").write_text("# not committed\n")
    done = publish("--tag", "v1", "--dry-run", token=None)
    assert done.returncode == 0 and done.stderr == "" and hub.requests == []
    assert done.stdout.startswith("---\nbase_model: intfloat/multilingual-e5-small\n")
    assert (
        "`, with uncommitted changes |" in done.stdout and f'"{REPO}", revision="v1"' in done.stdout
    )
    sizes = re.findall(r"(?m)^ +([\d,]+)  (\S+)$", done.stdout)
    assert {
        name: int(size.replace(",", ""))
        for size, name in sizes
        if name not in ("README.md", "LICENSE")
    } == {name: len(content) for name, content in checkpoint(project).items()}
    assert {name for _, name in sizes} == {*checkpoint(project), "README.md", "LICENSE"}
    assert not (project / "models/published.jsonl").exists()


# what is refused before anything is sent


def altered(project: Path) -> None:
    path = project / "models/reranker/model.safetensors"
    stat = path.stat()
    os.chmod(path, 0o644)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # keeps size and time


def renamed(project: Path) -> None:
    (project / "models/reranker/tokenizer.json").rename(project / "models/reranker/tokenizer2.json")


def pickled(project: Path) -> None:
    (project / "models/reranker/pytorch_model.bin").write_bytes(b"\x80\x04")


def other_metrics(project: Path) -> None:
    path = project / "metrics/eval.json"
    path.write_text(path.read_text().replace("0.5", "0.9"))


def other_params(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("  lr: 2e-4", "  lr: 3e-4"))
    git("commit", "-q", "-a", "-m", "not run", cwd=project)


def other_code(project: Path) -> None:
    (project / "src/put.py").write_text("# not run\n")
    git("commit", "-q", "-a", "-m", "not run", cwd=project)


def trained_alone(project: Path) -> None:
    lock = yaml.load((project / "dvc.lock").read_text(), Loader)
    next(dep for dep in lock["stages"]["evaluate"]["deps"] if dep["path"] == "models/reranker")[
        "md5"
    ] = "0" * 32 + ".dir"
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    git("commit", "-q", "-a", "-m", "evaluate was not run", cwd=project)


def dirty(project: Path) -> None:
    (project / "src/new.py").write_text("# not committed\n")


def conflict(project: Path) -> None:
    (project / "dvc.lock").write_text("<<<<<<< HEAD\nstages: {}\n=======\n")


@pytest.mark.parametrize(
    "change, message",
    [
        (altered, "models/reranker is not the checkpoint of dvc.lock (md5 "),
        (renamed, "models/reranker is not the checkpoint of dvc.lock (md5 "),
        (
            pickled,
            "models/reranker/pytorch_model.bin is none of .safetensors, .json, .txt, .model: "
            "pickles and code are not",
        ),
        (
            other_metrics,
            "metrics/eval.json is not the one of dvc.lock; git checkout it, or run dvc repro",
        ),
        (
            other_params,
            "stage train of dvc.lock was run with another train than params.yaml has; "
            "run dvc repro",
        ),
        (
            other_code,
            "stage train of dvc.lock was run with another src/put.py than there is; run dvc repro",
        ),
        (trained_alone, "stage evaluate in dvc.lock is older than models/reranker; run dvc repro"),
        (
            dirty,
            "uncommitted changes, so nobody can reproduce it: src/new.py; commit them first",
        ),
        (
            conflict,
            "dvc.lock: merge conflict; take one side, git checkout --ours dvc.lock metrics "
            "(or --theirs), then run dvc repro",
        ),
        (
            lambda project: shutil.rmtree(project / "models/reranker"),
            "models/reranker: no checkpoint (config.json or safetensors",
        ),
        (
            lambda project: (project / "dvc.lock").unlink(),
            "dvc.lock: no such file; run from the repository's folder",
        ),
        (
            lambda project: shutil.rmtree(project / ".git"),
            "git rev-parse: fatal: not a git repository",
        ),
    ],
)
def test_a_project_that_differs_from_dvc_lock_or_git_is_refused(
    project, hub, publish, change, message
):
    change(project)
    assert refused(publish()).startswith(message)
    assert hub.requests == [] and not (project / "models/published.jsonl").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ("--repo", "a/b/c"),
            "--repo a/b/c: Repo id must be in the form 'repo_name' or 'namespace/repo_name'",
        ),
        (("--repo", "ann/a model"), "--repo ann/a model: Repo id must use alphanumeric chars"),
        (("--repo", "reranker"), "--repo reranker: write organisation/name, or user/name"),
        (("--tag", "a..b"), "--tag a..b: Git allows no such name"),
        (
            ("--license", "MIT"),
            "--license MIT: no identifier of https://huggingface.co/docs/hub/repositories-licenses",
        ),
        (("--language", "Chinese"), "--language Chinese: no ISO 639 code such as zh"),
    ],
)
def test_an_invalid_name_is_refused(project, hub, publish, options, message):
    done = publish(*options)
    assert refused(done).startswith(message) and hub.requests == []


# what the Hub refuses


@pytest.mark.parametrize(
    "token, repo, options, message",
    [
        (
            None,
            REPO,
            (),
            "there is no token to publish with: "
            "set HF_TOKEN to one that may write, or run hf auth login",
        ),
        (
            "hf_wrong",
            REPO,
            (),
            "the Hub refuses the token: set HF_TOKEN to a valid one, or run hf auth login; "
            "nothing was published",
        ),
        (
            "hf_云杉",
            REPO,
            (),
            "the token contains invalid characters: set HF_TOKEN again, or run hf auth login",
        ),
        (
            "hf_reader",
            REPO,
            (),
            f"the token may not write to {REPO} (You don't have the rights to create a model under",
        ),
        (
            "hf_reader",
            "ann/there",
            (),
            "the token may not write to ann/there (you must use a write token to upload to a "
            "repository.)",
        ),
        (
            "hf_bob",
            "ann/there",
            (),
            "the token may not write to ann/there (you must use a write token to upload to a "
            "repository.)",
        ),
        (
            "hf_bob",
            "ann/hidden",
            (),
            "the token may not write to ann/hidden "
            "(You don't have the rights to create a model under",
        ),
        (
            "hf_ann",
            "ann/there",
            ("--tag", "v1"),
            "ann/there has a tag or branch v1 already; nothing was published, take another --tag",
        ),
        (
            "hf_ann",
            "ann/there",
            ("--tag", "main"),
            "ann/there has a tag or branch main already; nothing was published",
        ),
        (
            "hf_ann",
            "ann/there",
            ("--license", "my-own"),
            'the Hub did not take it (Invalid metadata in README.md. - "license" must be',
        ),
        (
            "hf_ann",
            "ann/there",
            ("--private",),
            "ann/there is public already; leave --private away, or make it private on the Hub",
        ),
    ],
)
def test_a_refusal_is_one_line_and_changes_nothing(
    project, hub, publish, token, repo, options, message
):
    hub.add("ann/there", {"config.json": b"{}"})
    hub.repositories["ann/there"].tags["v1"] = hub.repositories["ann/there"].commits[0].oid
    hub.add("ann/hidden", {"config.json": b"{}"}, private=True)
    assert refused(publish(*options, token=token, repo=repo)).startswith(message)
    assert set(hub.repositories) == {"ann/there", "ann/hidden"} and hub.large == {}
    assert all(len(repository.commits) == 1 for repository in hub.repositories.values())
    assert not (project / "models/published.jsonl").exists()


@pytest.mark.parametrize(
    "fault, message",
    [
        (
            Fault("PUT /storage", status=403, message="expired"),
            f"the token may not write to {REPO} (expired)",
        ),
        (
            Fault("POST .*/commit/", status=500, message="Internal Error"),
            "the Hub did not take it (Internal Error); nothing was",
        ),
        (
            Fault("GET /api/whoami-v2", status=500, message="Bearer hf_ann failed"),
            "the Hub did not take it (Bearer *** failed)",
        ),
        (Fault("GET .*/refs", cut=0, reset=True), "http://127.0.0.1:"),
    ],
)
def test_an_upload_that_fails_publishes_nothing_and_can_be_repeated(
    project, hub, publish, fault, message
):
    hub.add(REPO, {".gitattributes": b""})
    hub.faults.append(fault)
    assert refused(publish("--tag", "v1")).startswith(message)
    assert len(hub.repositories[REPO].commits) == 1 and hub.repositories[REPO].tags == {}
    assert not (project / "models/published.jsonl").exists()
    assert publish("--tag", "v1").returncode == 0
    assert len(hub.repositories[REPO].commits) == 2 and list(hub.repositories[REPO].tags) == ["v1"]


def test_a_commit_of_others_in_between_is_not_mixed_with_ours(project, hub, publish):
    hub.add(REPO, {".gitattributes": b""})
    hub.faults.append(
        Fault("POST .*/preupload/", meanwhile=lambda: hub.add(REPO, {"config.json": b"theirs"}))
    )
    message = (
        f"{REPO} was changed meanwhile, or is not yours to see "
        "(A commit has happened since. Please refresh and try again.)"
    )
    assert refused(publish("--tag", "v1")).startswith(message)
    assert (
        hub.repositories[REPO].commits[-1].files == {"config.json": b"theirs"}
        and hub.repositories[REPO].tags == {}
    )


def test_our_commit_is_checked_and_tagged_if_main_has_a_newer_one(project, hub, publish):
    hub.faults.append(Fault("GET .*/tree/"))  # has no effect on the first list of the files
    hub.faults.append(
        Fault("GET .*/tree/", meanwhile=lambda: hub.add(REPO, {"config.json": b"theirs"}))
    )
    assert publish("--tag", "v1").returncode == 0
    _, ours, theirs = hub.repositories[REPO].commits
    assert hub.repositories[REPO].tags == {"v1": ours.oid} and theirs.files == {
        "config.json": b"theirs"
    }


def test_an_unreachable_hub_is_reported_in_one_line(project, tmp_path):
    with Hub() as gone:
        pass
    command = [sys.executable, "-c", COMMAND, "publish", "--repo", REPO]
    environment = gone.environment(tmp_path, "hf_ann")
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, encoding="utf-8"
    )
    assert refused(done).startswith(f"{gone.endpoint} could not be reached (")


def test_a_commit_without_its_tag_is_recorded_and_reported(project, hub, publish):
    hub.faults.append(Fault("POST .*/tag/", status=500, message="Internal Error"))
    message = refused(publish("--tag", "v1"))
    head = hub.repositories[REPO].commits[-1].oid
    assert message == (
        f"the Hub did not take it (Internal Error); the commit {head} is there, its tag v1 is not"
    )
    assert json.loads((project / "models/published.jsonl").read_text())["tag"] is None
    assert publish("--tag", "v1").returncode == 0  # the same commit gets the tag
    assert hub.repositories[REPO].commits[-1].oid == head and hub.repositories[REPO].tags == {
        "v1": head
    }


def test_a_file_that_the_repositorys_gitignore_leaves_out_is_reported(project, hub, publish):
    hub.add(REPO, {".gitignore": b"tokenizer.json\n"})
    message = refused(publish("--tag", "v1"))
    head = hub.repositories[REPO].commits[-1].oid
    assert (
        message
        == f"{REPO} at {head} lacks tokenizer.json (a .gitignore there?); do not use that commit"
    )
    assert hub.repositories[REPO].tags == {}
