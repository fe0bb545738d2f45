"""Build a tiny XLM-RoBERTa cross-encoder with a Unigram tokenizer, for tests that run everything.

It takes a second.

The processes of pytest-xdist (`make test`) share one model and one run of the whole pipeline.
"""

import atexit
import csv
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

# A tiny model is slower on more threads. `make test-cpus` sets the variable.
THREADS = int(os.environ.get("TEST_THREADS", "1"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)  # for the stages that tests start

# Scripts that tests start import this file too, without the paths of pyproject.toml.
sys.path.append(str(Path(__file__).parent.parent / "experiments"))

import pytest
import torch
import yaml
from forked import Server
from hub import Client, Hub
from packing import pack, pack_small
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from tunerank.core.errors import InputError
from tunerank.models import device
from tunerank.models.checkpoint import save
from tunerank.params.base import Loader
from tunerank.samples.negatives import all_negatives
from tunerank.sources.packed import load_packed
from tunerank.sources.small import some_layers

pytest_plugins = ["searched"]  # its fixtures
torch.set_num_threads(THREADS)
if os.environ.get("TEST_BF16") == "1":
    # This process behaves as on a chip that multiplies bf16. The stages that it starts do not.
    device.bf16_instructions = lambda: ["avx512_bf16"]
ROOT = Path(__file__).parent.parent
LONGEST = [
    "test_declared",
    "test_security",
    "test_interruption",
    "test_pipeline",
    "test_verify",
    "test_team",
    "test_training",
]
"""The slowest files start first, so that no process is left alone with them at the end."""
APART = ["test_pipeline", "test_team"]
"""Tests of these files may run in any process. The tests of another file stay in one process,
because they share the fixtures of their module."""


NOT_DEPS = (
    "src/tunerank/__init__.py",
    "src/tunerank/params",
    "src/tunerank/core/errors.py",
    "src/tunerank/core/console.py",
    "src/tunerank/core/stage.py",
)
"""Code that stages import and do not list as a dependency. DVC tracks the values of parameters.
The other files start a stage, print and report errors: a new message must not make a training
stale. The package's __init__.py imports the ranker on demand."""


def stay_together(nodeid: str) -> str:
    """Return a key; tests with the same key run in the same process of pytest-xdist.

    pytest-xdist's own --dist=loadgroup has no effect with pytest 9.2, which no longer lets it
    change a test's id.
    """
    file = Path(nodeid.partition("::")[0]).stem
    if file == "test_declared":
        return f"{file} rich" if "[rich-" in nodeid else file
    return nodeid if file in APART else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = stay_together
    return scheduling


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that train or score the tiny model, and put the slowest files first."""
    for item in items:
        if {"tiny_model", "project"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.trained)
    items.sort(
        key=lambda item: (
            LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)
        )
    )


COLOURS = ["红", "橙", "黄", "绿", "青", "蓝", "紫", "黑", "白", "灰", "金", "银"]
THINGS = ["车", "船", "灯", "门", "窗", "桌", "椅", "笔", "书", "伞", "帽", "鞋"]


def table_rows() -> list[dict]:
    """Return a table that a reranker can learn.

    Each thing has a passage and questions about its colour, price and guarantee.
    """
    rows = []
    for number, (colour, thing) in enumerate(zip(COLOURS, THINGS)):
        doc = (
            f"{thing}的说明。这件{thing}是{colour}色的，放在{number}号柜。"
            f"它的价格是{number + 3}元，保修{number + 1}年。"
        )
        split = "test" if number % 4 == 3 else "valid" if number % 4 == 2 else "train"
        for question, answer, context in (
            (f"{thing}是什么颜色？", f"{colour}色", f"这件{thing}是{colour}色的"),
            (f"{thing}卖多少元？", f"{number + 3}元", f"它的价格是{number + 3}元"),
            (f"{thing}保修几年？", f"{number + 1}年", f"保修{number + 1}年"),
        ):
            rows.append(
                {
                    "uuid": f"p{number:02d}",
                    "question": question,
                    "answer": answer,
                    "context": context,
                    "doc": doc,
                    "qa_type": "detailed",
                    "dataset": split,
                }
            )
    return rows


def article(rows: list[tuple[str, str]], batch_size: int | None, n_batch: int) -> list[dict]:
    """Return the samples that the article makes of (question, text) pairs."""
    return list(
        all_negatives(
            [question for question, _ in rows], lambda _, other: rows[other][1], batch_size, n_batch
        )
    )


def once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that `make` fills once for all processes of pytest-xdist.

    The temporary folders of the processes are its siblings.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / f"{name}.made").exists():
            make(base / name)
            (base / f"{name}.made").touch()
    return base / name


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Return a checkpoint folder: 2 layers, hidden size 32.

    The vocabulary has one piece for each character of the table and of ASCII.
    """
    return once(tmp_path_factory, "tiny", make_tiny_model)


def make_tiny_model(folder: Path) -> None:
    text = "".join(str(value) for row in table_rows() for value in row.values())
    characters = sorted(set(text) | {chr(code) for code in range(33, 127)})
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)] + [
        (c, -3.0) for c in characters
    ]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],
    )
    config = XLMRobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        num_labels=1,
        initializer_range=0.2,
    )
    torch.manual_seed(7)
    folder.mkdir()
    save(XLMRobertaForSequenceClassification(config), fast, folder)
    embedder = embedder_of(folder)
    shutil.copytree(folder, embedder)
    edit(embedder / "config.json", architectures=["XLMRobertaModel"])


def embedder_of(tiny_model: Path) -> Path:
    """Return the folder of the tiny model's encoder, as an embedding model has it."""
    return tiny_model.with_name(f"{tiny_model.name}-embedder")


def error_of(call: Callable, *arguments, **options) -> str:
    """Return the one line with which a call refuses its input."""
    with pytest.raises(InputError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(path: Path, **changes) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))


def kill_training_at(step: int, module: str, call: str) -> None:
    """Run `call` in another process and kill it after an optimizer step.

    Args:
        call: an expression that uses the test module `module` under the name `t`.
    """
    script = f"""
import sys; sys.path[:0] = [{str(ROOT / "src")!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
import {module} as t
from tunerank.training import trainer as training
class Slow(training.Progress):
    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == {step}:
            print("at the step", flush=True); import time; time.sleep(600)
training.Progress = Slow
{call}
"""
    process = started(["-c", script], ROOT)
    assert any("at the step" in line for line in process.stdout)
    process.kill()
    process.communicate()


def hears_ctrl_c() -> None:
    """Restore the default handling of SIGINT; use it as `preexec_fn`.

    A shell starts background processes with SIGINT ignored, and their children inherit that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def git(*arguments: str, cwd: Path) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout


def at_head(name: str) -> bytes:
    """Return a file of Git's HEAD.

    `make repro` rewrites dvc.lock, metrics/ and the files that depend on them in the working tree,
    with other figures on another CPU.
    """
    return subprocess.run(
        ["git", "cat-file", "blob", f"HEAD:{name}"], cwd=ROOT, check=True, capture_output=True
    ).stdout


@pytest.fixture(scope="session")
def committed(tmp_path_factory) -> Path:
    """Return a folder with HEAD's metrics/ and params.yaml, from a full run on the bundled data."""
    folder = tmp_path_factory.mktemp("committed")
    command = ["git", "archive", "HEAD", "metrics", "params.yaml"]
    packed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def copy_project(target: Path) -> Path:
    """Copy the files that a pipeline run needs into a new Git repository.

    Its parameters are tests/params.yaml, not the user's.
    """
    target.mkdir(parents=True, exist_ok=True)
    names = (
        "src",
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvcignore",
        ".gitignore",
        "dvc.yaml",
        "data/.gitignore",
        "data/runs",
        "metrics/.gitignore",
        "models/.gitignore",
        "models/LICENSE",
    )
    for name in (*names, "params.yaml"):
        source = ROOT / ("tests/params.yaml" if name == "params.yaml" else name)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    git("init", "-q", "-b", "main", cwd=target)
    return target


ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    **{
        f"GIT_{who}_{what}": "test@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}


# Fork one process that has imported the slow libraries (tests/forked.py). With TEST_FORKS=0 every
# test starts real processes.
FORKS = (
    Server(ENVIRONMENT) if sys.platform == "linux" and os.environ.get("TEST_FORKS") != "0" else None
)
if FORKS:
    atexit.register(FORKS.end)


def started(arguments: list, cwd: Path, env: dict[str, str] = ENVIRONMENT, together: bool = False):
    """Start `python arguments` and return it like subprocess.Popen, with its output piped.

    `together`: stderr goes into the pipe of stdout.
    """
    if FORKS:
        return FORKS.start(arguments, cwd, env, together)
    pipes = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT if together else subprocess.PIPE,
    }
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd, env=env, text=True, preexec_fn=hears_ctrl_c, **pipes
    )


def python(
    *arguments: str | Path, cwd: Path, env: dict[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess:
    process = started(list(arguments), cwd, env)
    out, err = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


COMMAND = f"""
import sys; sys.path.insert(0, {str(ROOT / "src")!r})
from tunerank.commands.app import main; main()"""


def tunerank(
    *arguments: str | Path, cwd: Path, env: dict[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess:
    """Run the command `tunerank` from this repository's code, whichever version is installed."""
    return python("-c", COMMAND, *map(str, arguments), cwd=cwd, env=env)


def dvc(*arguments: str, cwd: Path, fails: bool = False) -> str:
    """Run DVC and return its output. Its stages are forks too."""
    done = python("-m", "dvc", *arguments, cwd=cwd)
    assert bool(done.returncode) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def verify(
    folder: Path, *options: str, env: dict[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess:
    return tunerank("verify", *options, cwd=folder, env=env)


@pytest.fixture(scope="session")
def project(tiny_model, tmp_path_factory) -> Path:
    """Return a repository of the pipeline on the tiny model and table, reproduced and committed.

    Each process has its own copy.
    """
    made = once(tmp_path_factory, "reproduced", lambda folder: make_project(folder, tiny_model))
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("project") / "repo", symlinks=True))


def make_project(folder: Path, tiny_model: Path) -> None:
    copy_project(folder)
    raw = folder / "data/raw/tiny.csv"
    raw.parent.mkdir(parents=True)
    rows = table_rows()
    with open(raw, "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    parameters = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    parameters["prepare"]["raw"] = "data/raw/tiny.csv"
    pack_both(tiny_model, folder / "models/bundled")
    parameters["retriever"] |= {"source": "path", "path": str(embedder_of(tiny_model))}
    parameters["retriever"]["max_length"] = 100
    parameters["retrieve"] |= {"depth": 8, "window": 24, "stride": 12, "shown": 30}
    parameters["samples"] |= {"window": 8, "skip_top": 0, "negatives": 5, "random_negatives": 2}
    parameters["train"] |= {
        "lr": 0.003, "epochs": 2, "group_size": 4, "batch_size": 2, "accumulation": 1,
        "query_max_length": 16, "passage_max_length": 80, "logging_steps": 2,
        "precision": "fp32", "valid_depth": 8,
    }  # fmt: skip
    parameters["score"] |= {"depth": 8, "whole_depth": 5, "max_length": 100, "precision": "fp32"}
    parameters["evaluate"] |= {"ks": [1, 2], "multiplier": 3}
    (folder / "params.yaml").write_text(
        yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8"
    )
    dvc("init", "-q", "-f", cwd=folder)
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    dvc("repro", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "run", cwd=folder)


def pack_both(model_folder: Path, packed: Path) -> None:
    """Pack a model, and its last layer as the smaller one."""
    tokens = len(AutoTokenizer.from_pretrained(model_folder))
    pack(model_folder, packed, list(range(tokens)))
    model, tokenizer = load_packed(packed)
    last = model.config.num_hidden_layers - 1
    with TemporaryDirectory() as small:
        save(some_layers(model, [last]), tokenizer, Path(small))
        pack_small(Path(small), [last], packed)


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    with Hub() as hub, Client(hub, tmp_path_factory.mktemp("client")) as client:
        yield hub, client


@pytest.fixture
def hub(served) -> Hub:
    """Return an empty Hub that runs on this machine."""
    served[0].clear()
    return served[0]


@pytest.fixture
def client(served) -> Client:
    """Return a process that uses this Hub."""
    return served[1]


@pytest.fixture
def fetch_from_hub(hub, client, tmp_path, tiny_model):
    """Return a function that runs the stage fetch with a base from the local Hub."""

    def run(repo: str, revision: str, token: str | None = None) -> subprocess.CompletedProcess:
        values = yaml.load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), Loader)
        values["base"] |= {"source": "hub", "repo": repo, "revision": revision}
        values["retriever"] |= {"source": "path", "path": str(embedder_of(tiny_model))}
        (tmp_path / "params.yaml").write_text(
            yaml.safe_dump(values, allow_unicode=True), encoding="utf-8"
        )
        names = ("bundled", "base", "retriever", "teacher", "compare")
        folders = [f"models/{name}" for name in names]
        return client.run(ROOT / "src/fetch.py", *folders, cwd=tmp_path, token=token)

    return run
