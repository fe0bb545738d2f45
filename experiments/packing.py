"""Pack rerankers for Git, in the formats of packed.py and small.py of src/tunerank/sources."""

import json
import lzma
import math
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save, save_file
from tokenizers import Tokenizer

from tunerank.core.errors import InputError
from tunerank.core.files import replacing
from tunerank.sources.packed import EMBEDDINGS, MODEL, load_packed
from tunerank.sources.small import PLACES, SMALL, some_layers

# Ideographs with extension A and the compatibility block; punctuation of CJK, full-width, general
# (dashes, quotation marks, dots) and ASCII; digits.
IDEOGRAPHS = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
PUNCTUATION = r"\u3000-\u303f\uff01-\uff5e\uffe0-\uffe6\u00b7\u2010-\u2027!-/:-@\[-`{-~"
CHINESE = re.compile(f"[▁{IDEOGRAPHS}{PUNCTUATION}0-9]+")
# One character, with or without a leading space: ASCII, accented Latin, Greek, and the symbols from
# dashes to dingbats.
SINGLE = re.compile(r"▁?[!-~\u00a0-\u024f\u0370-\u03ff\u2000-\u27bf]")


def kept_pieces(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    """Return the ids of a smaller vocabulary for Chinese mixed with English, ascending.

    It keeps the special tokens, pieces of Chinese characters only, single characters, and all
    pieces that the full tokenizer needs for `texts`. A Unigram tokenizer uses the best of all
    segmentations. Removing a piece only changes segmentations with that piece, so the segmentation
    of `texts` stays the same.
    """
    kept = {0, 1, 2, 3} | set(tokenizer.get_added_tokens_decoder())
    kept |= {
        number
        for piece, number in tokenizer.get_vocab().items()
        if CHINESE.fullmatch(piece) or SINGLE.fullmatch(piece)
    }
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        kept.update(encoding.ids)
    return sorted(kept)


def trim(tokenizer_json: dict, keep: list[int]) -> dict:
    """Return a Unigram tokenizer.json with only the pieces `keep`, numbered in that order.

    Scores do not change. Truncation and padding, left from the last use, are removed.

    Raises:
        ValueError: a special token would be lost.
    """
    new_ids = {old: new for new, old in enumerate(keep)}
    model, post = tokenizer_json["model"], tokenizer_json["post_processor"]
    specials = {token["id"] for token in tokenizer_json["added_tokens"]} | {model["unk_id"]}
    specials |= {old for token in post["special_tokens"].values() for old in token["ids"]}
    if lost := sorted(specials - set(keep)):
        raise ValueError(f"the vocabulary would lose its special tokens {lost}")
    processor = post | {
        "special_tokens": {
            name: token | {"ids": [new_ids[old] for old in token["ids"]]}
            for name, token in post["special_tokens"].items()
        }
    }
    return tokenizer_json | {
        "truncation": None,
        "padding": None,
        "added_tokens": [
            token | {"id": new_ids[token["id"]]} for token in tokenizer_json["added_tokens"]
        ],
        "post_processor": processor,
        "model": model
        | {"unk_id": new_ids[model["unk_id"]], "vocab": [model["vocab"][old] for old in keep]},
    }


def quantise(matrix: np.ndarray, bits: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantise a matrix, with one scale for each block of a row's columns.

    The element with the largest absolute value in a block becomes -2 ** (bits - 1), whatever its
    sign. The error of the others is at most half a scale. For an element of the opposite sign that
    is almost as large it is at most a whole scale: the largest number is 2 ** (bits - 1) - 1.

    Returns:
        codes [rows, columns * bits / 8] and scales [rows, columns / block], as in the file.
    """
    half = 1 << (bits - 1)
    blocks = matrix.reshape(len(matrix), -1, block)
    extremes = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    # Adding 0 turns the -0 of a block of zeros into 0.
    scales = (extremes / -half).astype(np.float16) + np.float16(0)
    steps = np.where(scales == 0, 1, scales).astype(np.float32)
    codes = (np.rint(blocks / steps).clip(-half, half - 1) + half).astype(np.uint8)
    planes = np.unpackbits((codes << (8 - bits))[..., None], axis=-1, count=bits)
    return np.packbits(planes.reshape(len(matrix), -1), axis=1), scales[..., 0]


def pack(source: Path, target: Path, keep: list[int]) -> None:
    """Write the checkpoint `source` as a packed folder `target` with the vocabulary `keep`.

    The weights of `source` are in one safetensors file.
    """
    target.mkdir(parents=True, exist_ok=True)
    stored = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if name.endswith(EMBEDDINGS):
            weight = weight[keep]
        if weight.ndim == 2 and len(weight) > 1:
            bits, block = (4, 32) if name.endswith(EMBEDDINGS) else (7, 384)
            stored[f"{name}.codes"], stored[f"{name}.scales"] = quantise(
                weight, bits, math.gcd(weight.shape[1], block)
            )
        else:
            stored[name] = weight
    # Only one key of metadata, because several have no fixed order in the file.
    save_file(stored, target / MODEL, metadata={"format": "pt"})

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | {"vocab_size": len(keep)}, ensure_ascii=False, indent=2)
    (target / "config.json").write_text(text + "\n", encoding="utf-8")
    tokenizer = trim(json.loads((source / "tokenizer.json").read_text(encoding="utf-8")), keep)
    compact = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (target / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    shutil.copyfile(source / "tokenizer_config.json", target / "tokenizer_config.json")


def ternary(changes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the signs [rows, ceil(columns / 5)] and scales [rows] of a matrix, as in the file.

    A change counts as 0 below its row's root mean square. The others have one size, with which the
    stored row is as long as the true one in the true one's direction. What is left then behaves
    like noise, and sums over many columns cancel it. The size that is nearest to the changes (Li,
    Zhang and Liu, "Ternary Weight Networks", 2016, arXiv:1605.04711) shrinks every row by a
    quarter, which nothing cancels: root mean square error of the logits 0.5 for 0.06 (standard
    deviation 1.9, 240 pairs).
    """
    sizes, squares = np.abs(changes), changes**2
    kept = sizes > np.sqrt(squares.mean(1, keepdims=True))
    lengths = (sizes * kept).sum(1)
    scales = squares.sum(1) / np.where(lengths > 0, lengths, 1)
    digits = (np.sign(changes) * kept + 1).astype(np.uint8)
    digits = np.pad(digits, ((0, 0), (0, -digits.shape[1] % len(PLACES))))
    signs = (digits.reshape(len(digits), -1, len(PLACES)) * PLACES).sum(-1, dtype=np.uint8)
    return signs, scales.astype(np.float16)


def pack_small(source: Path, layers: list[int], packed: Path) -> None:
    """Write the checkpoint `source` as changes to these layers of the packed folder's model.

    Its word embeddings are not read: training must not have changed them.

    Raises:
        InputError: it has other weights than those layers.
    """
    larger, weights = (
        {name: weight for name, weight in state.items() if not name.endswith(EMBEDDINGS)}
        for state in (
            some_layers(load_packed(packed)[0], layers).state_dict(),
            load_file(source / "model.safetensors"),
        )
    )
    shapes = {name: tuple(weight.shape) for name, weight in larger.items()}
    if {name: weight.shape for name, weight in weights.items()} != shapes:
        raise InputError(
            f"{source}: its weights are not those of {len(layers)} layers of the model in "
            f"{packed}; name as many --layers as it has, and the model it was distilled from"
        )
    stored = {"layers": np.array(layers, np.uint8)}
    for name, weight in weights.items():
        if weight.ndim == 2 and len(weight) > 1:
            changes = ternary(weight - larger[name].numpy())
            stored[f"{name}.signs"], stored[f"{name}.scales"] = changes
        else:
            stored[name] = weight.astype(np.float16)
    with replacing(packed / SMALL) as partial:
        partial.write_bytes(lzma.compress(save(stored)))
