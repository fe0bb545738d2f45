"""Read a small cross-encoder that was packed for Git: a smaller vocabulary, matrices of fewer bits.

experiments/packing.py packs it.

A packed folder has config.json, tokenizer.json and tokenizer_config.json like any checkpoint, and
model.packed.safetensors:

    NAME              float32, unchanged: vectors and matrices of one row
    NAME.codes        uint8 [rows, columns * bits / 8]: codes of a matrix, row by row, most
                      significant bit first
    NAME.scales       float16 [rows, columns / block]

    weight = (code - 2 ** (bits - 1)) * scale

That is llama.cpp's `Q4_0` (https://github.com/ggml-org/llama.cpp, ggml-quants.c) for any number of
bits. The word embeddings have 4 bits and blocks of 32, as in the file that e5_small.py reads: if
training did not change them, packing is lossless.

Other matrices have 7 bits and blocks of 384. A short fine-tuning changes a weight by about 2 %, and
6 bits round much of that away. Root mean square error of the logits (standard deviation 3.0) on 160
pairs: 0.78 with 6 bits, 0.14 with 7, 0.06 with 8, but then Git has no room for an English
vocabulary. Blocks of 32 were worse (0.25 with 7 bits): they have the grid of the encoder's own 4
bits, and round small changes back to it.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights

from tunerank.core.errors import InputError, one_line
from tunerank.models.checkpoint import save
from tunerank.models.identify import identify

MODEL = "model.packed.safetensors"
FILES = (MODEL, "config.json", "tokenizer.json", "tokenizer_config.json")
EMBEDDINGS = "word_embeddings.weight"
BLOCK = 2**18
"""Weights that are expanded at a time: temporary arrays have about a megabyte."""


def expand(codes: np.ndarray, scales: np.ndarray, columns: int) -> np.ndarray:
    """Return the float32 matrix [rows, columns] of `quantise`'s codes and scales."""
    bits = codes.shape[1] * 8 // columns
    matrix = np.empty((len(codes), columns), np.float32)
    rows = max(1, BLOCK // columns)
    for start in range(0, len(codes), rows):
        part = codes[start : start + rows]
        part_scales = scales[start : start + rows, :, None].astype(np.float32)
        # `bits` bytes contain eight codes.
        padded = np.pad(part, ((0, 0), (0, -part.shape[1] % bits)))
        eights = padded.reshape(len(part), -1, bits)
        numbers = np.empty((*eights.shape[:2], 8), np.float32)
        for place in range(8):
            byte, shift = divmod(place * bits, 8)
            pair = eights[..., byte].astype(np.uint16) << 8
            if byte + 1 < bits:
                pair |= eights[..., byte + 1]
            numbers[..., place] = pair >> (16 - bits - shift) & ((1 << bits) - 1)
        numbers -= 1 << (bits - 1)
        blocks = numbers.reshape(len(part), -1)[:, :columns]
        blocks = blocks.reshape(*scales[start : start + rows].shape, -1)
        np.multiply(blocks, part_scales, out=matrix[start : start + rows].reshape(blocks.shape))
    return matrix


def unpack(source: Path, target: Path) -> None:
    """Write the packed folder `source` as a float32 checkpoint; errors as `load_packed`."""
    save(*load_packed(source), target)


def load_packed(source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model of the packed folder `source`, in float32, and its tokenizer.

    Raises:
        InputError: a file is missing, or `pack` did not write it like that.
    """
    remedy = f"restore it with git checkout -- {source}"
    for name in FILES:
        if not (source / name).is_file():
            raise InputError(f"{source}: not a packed reranker ({name} is missing); {remedy}")
    try:
        identify(source, source.name, "reranker", weights=[MODEL])
        stored = load_file(source / MODEL)
        with no_init_weights():
            model = AutoModelForSequenceClassification.from_config(
                AutoConfig.from_pretrained(source)
            )
        state = {
            name: stored_weight(stored, name, weight.shape)
            for name, weight in model.state_dict().items()
        }
        model.load_state_dict(state, strict=True, assign=True)
        tokenizer = AutoTokenizer.from_pretrained(source)
    # From safetensors, json, torch, or tokenizers, which raises Exception itself.
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else one_line(error)
        message = f"{source}: cannot be read as a packed reranker ({reason}); {remedy}"
        raise InputError(message) from None
    return model, tokenizer


def stored_weight(stored: dict[str, np.ndarray], name: str, shape: torch.Size) -> torch.Tensor:
    if name in stored:
        return torch.from_numpy(stored[name])
    return torch.from_numpy(expand(stored[f"{name}.codes"], stored[f"{name}.scales"], shape[1]))
