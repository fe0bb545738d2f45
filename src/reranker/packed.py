"""A small cross-encoder in a folder that Git can carry: fewer pieces in its vocabulary, fewer bits in its matrices.

A packed folder has config.json, tokenizer.json and tokenizer_config.json like any checkpoint, and model.packed.safetensors:

    NAME              vectors and matrices of one row, float32, as they were
    NAME.codes        uint8 [rows, columns * bits / 8]: a matrix's numbers, most significant bit first, row by row
    NAME.scales       float16 [rows, columns / block]

    weight = (number - 2 ** (bits - 1)) * scale

That is llama.cpp's `Q4_0` (https://github.com/ggml-org/llama.cpp, ggml-quants.c) for any number of bits. The word embeddings
have 4 bits and blocks of 32, which is the grid that e5_small.py reads them from: where training froze them nothing is lost.

Other matrices have 7 bits and blocks of 384. A short fine-tuning changes a weight by about 2 %, and 6 bits round much of that
away: on 160 pairs the logits, of standard deviation 3.0, were off by 0.78 (root mean square), with 7 bits by 0.14, with 8 by
0.06, which would leave no room for English. Blocks of 32, those of the encoder's own 4 bits, were worse (7 bits: 0.25): they
share its grid, and round small changes back to it.
"""

import json
import math
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights

from reranker.checkpoints import save
from reranker.errors import InputError
from reranker.safe_checkpoint import refuse_unsafe

MODEL = "model.packed.safetensors"
FILES = (MODEL, "config.json", "tokenizer.json", "tokenizer_config.json")
EMBEDDINGS = "word_embeddings.weight"
BLOCK = 2**18
"""Numbers that are expanded at a time, so that temporary arrays are of about a megabyte, not of the size of the result."""

# Ideographs with extension A and the compatibility block; punctuation of CJK, full-width, general (dashes, quotation marks,
# dots) and ASCII; digits.
IDEOGRAPHS = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
PUNCTUATION = r"\u3000-\u303f\uff01-\uff5e\uffe0-\uffe6\u00b7\u2010-\u2027!-/:-@\[-`{-~"
CHINESE = re.compile(f"[▁{IDEOGRAPHS}{PUNCTUATION}0-9]+")
# One character, with a leading space or without: ASCII, accented Latin, Greek, and the symbols from dashes to dingbats.
SINGLE = re.compile(r"▁?[!-~\u00a0-\u024f\u0370-\u03ff\u2000-\u27bf]")


def kept_pieces(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    """The ids of a vocabulary for Chinese with English in it, ascending.

    Kept are the special tokens, the pieces of Chinese characters alone, single characters, and every piece that the full
    tokenizer needs for `texts`. A Unigram tokenizer takes the best of all segmentations, so that losing a piece changes only
    what was segmented with it: `texts` are segmented as before.
    """
    used = {0, 1, 2, 3} | set(tokenizer.get_added_tokens_decoder())
    used |= {number for piece, number in tokenizer.get_vocab().items() if CHINESE.fullmatch(piece) or SINGLE.fullmatch(piece)}
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        used.update(encoding.ids)
    return sorted(used)


def trim(tokenizer_json: dict, keep: list[int]) -> dict:
    """A Unigram tokenizer.json of the pieces `keep` alone, numbered in that order; their scores stay.

    Limits of length and padding, which a tokenizer keeps from its last use, are left out.

    Raises:
        ValueError: a special token would be lost or, but for the mask, would change its number.
    """
    number = {old: new for new, old in enumerate(keep)}
    model, post = tokenizer_json["model"], tokenizer_json["post_processor"]
    specials = {token["id"] for token in tokenizer_json["added_tokens"]} | {model["unk_id"]}
    specials |= {old for token in post["special_tokens"].values() for old in token["ids"]}
    if lost := sorted(specials - set(keep)):
        raise ValueError(f"the vocabulary would lose its special tokens {lost}")
    processor = post | {
        "special_tokens": {
            name: token | {"ids": [number[old] for old in token["ids"]]} for name, token in post["special_tokens"].items()
        }
    }
    return tokenizer_json | {
        "truncation": None,
        "padding": None,
        "added_tokens": [token | {"id": number[token["id"]]} for token in tokenizer_json["added_tokens"]],
        "post_processor": processor,
        "model": model | {"unk_id": number[model["unk_id"]], "vocab": [model["vocab"][old] for old in keep]},
    }


def quantise(matrix: np.ndarray, bits: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of so many bits, and a scale for each block of a row's columns.

    The element of a block that is largest in size becomes -2 ** (bits - 1), whatever its sign. No other is off by more than
    half a scale, but for one almost as large of the other sign, for which the numbers end one short: a whole scale.

    Returns:
        codes [rows, columns * bits / 8] and scales [rows, columns / block], as in the file.
    """
    half = 1 << (bits - 1)
    blocks = matrix.reshape(len(matrix), -1, block)
    extremes = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    scales = (extremes / -half).astype(np.float16) + np.float16(0)  # which makes -0 of a block of zeros 0
    steps = np.where(scales == 0, 1, scales).astype(np.float32)
    numbers = (np.rint(blocks / steps).clip(-half, half - 1) + half).astype(np.uint8)
    planes = np.unpackbits((numbers << (8 - bits))[..., None], axis=-1, count=bits)
    return np.packbits(planes.reshape(len(matrix), -1), axis=1), scales[..., 0]


def expand(codes: np.ndarray, scales: np.ndarray, columns: int) -> np.ndarray:
    """The float32 matrix [rows, columns] of `quantise`'s codes and scales."""
    bits = codes.shape[1] * 8 // columns
    matrix = np.empty((len(codes), columns), np.float32)
    rows = max(1, BLOCK // columns)
    for start in range(0, len(codes), rows):
        part, part_scales = codes[start : start + rows], scales[start : start + rows, :, None].astype(np.float32)
        eights = np.pad(part, ((0, 0), (0, -part.shape[1] % bits))).reshape(len(part), -1, bits)  # each group holds eight numbers
        numbers = np.empty((*eights.shape[:2], 8), np.float32)
        for place in range(8):
            byte, shift = divmod(place * bits, 8)
            pair = eights[..., byte].astype(np.uint16) << 8
            if byte + 1 < bits:
                pair |= eights[..., byte + 1]
            numbers[..., place] = pair >> (16 - bits - shift) & ((1 << bits) - 1)
        numbers -= 1 << (bits - 1)
        blocks = numbers.reshape(len(part), -1)[:, :columns].reshape(*scales[start : start + rows].shape, -1)
        np.multiply(blocks, part_scales, out=matrix[start : start + rows].reshape(blocks.shape))
    return matrix


def pack(source: Path, target: Path, keep: list[int]) -> None:
    """Write the checkpoint in `source`, one safetensors file, with the vocabulary `keep` as a packed folder `target`."""
    target.mkdir(parents=True, exist_ok=True)
    stored = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if name.endswith(EMBEDDINGS):
            weight = weight[keep]
        if weight.ndim == 2 and len(weight) > 1:
            bits, block = (4, 32) if name.endswith(EMBEDDINGS) else (7, 384)
            stored[f"{name}.codes"], stored[f"{name}.scales"] = quantise(weight, bits, math.gcd(weight.shape[1], block))
        else:
            stored[name] = weight
    save_file(stored, target / MODEL, metadata={"format": "pt"})  # one key: more have no fixed order in the file

    config = json.loads((source / "config.json").read_text(encoding="utf-8")) | {"vocab_size": len(keep)}
    (target / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    tokenizer = trim(json.loads((source / "tokenizer.json").read_text(encoding="utf-8")), keep)
    compact = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (target / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    shutil.copyfile(source / "tokenizer_config.json", target / "tokenizer_config.json")


def unpack(source: Path, target: Path) -> None:
    """Write the packed folder `source` as an ordinary float32 checkpoint into the folder `target`; errors as `load_packed`."""
    save(*load_packed(source), target)


def load_packed(source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of the packed folder `source`, in float32, and its tokenizer.

    Raises:
        InputError: a file is missing or is not what `pack` wrote.
    """
    remedy = f"restore it with git checkout -- {source}"
    for name in FILES:
        if not (source / name).is_file():
            raise InputError(f"{source}: no packed reranker ({name} is missing); {remedy}")
    try:
        refuse_unsafe(source, source.name, weights=[MODEL])
        stored = load_file(source / MODEL)
        with no_init_weights():
            model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(source))
        state = {name: stored_weight(stored, name, weight.shape) for name, weight in model.state_dict().items()}
        model.load_state_dict(state, strict=True, assign=True)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except InputError as error:
        raise InputError(f"{source}: not readable as a packed reranker ({error}); {remedy}") from None
    except Exception as error:  # of safetensors, json, torch or tokenizers, which raises Exception itself
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{source}: not readable as a packed reranker ({reason}); {remedy}") from None
    return model, tokenizer


def stored_weight(stored: dict[str, np.ndarray], name: str, shape: torch.Size) -> torch.Tensor:
    weight = stored[name] if name in stored else expand(stored[f"{name}.codes"], stored[f"{name}.scales"], shape[1])
    return torch.from_numpy(weight)
