"""Read the smaller bundled reranker: some layers of the larger one, and what training changed.

experiments/pack_small.py packs it, into small.safetensors.xz in the folder of the larger one
(packed.py):

    layers            uint8 [layers]: the layers of the larger model that it started as
    NAME              float16, the values: vectors and matrices of one row
    NAME.signs        uint8 [rows, ceil(columns / 5)]: -1, 0 or 1 as the digits 0, 1 or 2 of base 3,
                      five a byte, the first in the lowest place
    NAME.scales       float16 [rows]

    weight = the larger model's weight + sign * scale

The larger model has what is not in the file. Training changed the matrices by 3 to 14 % (root mean
square), so 1.3 bits for a change, as compressed, are more exact than 4 for a weight.
"""

import copy
import lzma
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunerank.core.errors import InputError, one_line
from tunerank.models.checkpoint import save
from tunerank.sources.packed import load_packed

SMALL = "small.safetensors.xz"
PLACES = np.array([1, 3, 9, 27, 81], np.uint8)
"""Values of the digits of base 3 in a byte."""


def some_layers(model: PreTrainedModel, layers: list[int]) -> PreTrainedModel:
    """Return a copy of a model of the BERT family with only these of its layers."""
    small = copy.deepcopy(model)
    small.base_model.encoder.layer = torch.nn.ModuleList(
        small.base_model.encoder.layer[i] for i in layers
    )
    small.config.num_hidden_layers = len(layers)
    return small


def unpack_small(source: Path, target: Path) -> None:
    """Write the smaller model in `source` as a float32 checkpoint; errors as `load_small`."""
    save(*load_small(source), target)


def load_small(source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the smaller model of the packed folder `source`, in float32, and its tokenizer.

    Raises:
        InputError: as `load_packed`, or for its own file.
    """
    model, tokenizer = load_packed(source)
    try:
        stored = load(lzma.decompress((source / SMALL).read_bytes()))
        small = some_layers(model, stored.pop("layers").tolist())
        add_changes(small, stored)
    # From lzma, safetensors, numpy and torch.
    except Exception as error:
        raise InputError(
            f"{source / SMALL}: cannot be read as changes to {source} ({one_line(error)}); restore "
            f"it with git checkout -- {source}"
        ) from None
    return small, tokenizer


def add_changes(model: torch.nn.Module, stored: dict[str, np.ndarray]) -> None:
    """Put the stored arrays into a model that has the larger one's weights; empty `stored`.

    Raises:
        ValueError: an array is of another model.
    """
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if name in stored:
                value = stored.pop(name).astype(np.float32)
            elif f"{name}.signs" in stored:
                signs = unpack_signs(stored.pop(f"{name}.signs"))[:, : weight.shape[1]]
                scales = stored.pop(f"{name}.scales").astype(np.float32)
                value = weight.numpy() + signs * scales[:, None]
            else:
                continue
            if value.shape != weight.shape:
                raise ValueError(f"{name} is {list(value.shape)} for {list(weight.shape)}")
            weight.copy_(torch.from_numpy(value))
    if stored:
        raise ValueError(f"no weight for {min(stored)}")


def unpack_signs(packed: np.ndarray) -> np.ndarray:
    """Return the int8 signs [rows, 5 * bytes] of `packed` [rows, bytes]."""
    digits = packed[..., None] // PLACES % 3
    return digits.astype(np.int8).reshape(len(packed), -1) - 1
