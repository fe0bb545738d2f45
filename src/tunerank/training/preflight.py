"""Prepare the process for a training: keep freed memory, estimate memory, check the disk.

1. `keep_freed_memory` makes malloc keep freed memory. A step on a CPU allocates and frees the same
   tens of megabytes in every layer. By default glibc returns such blocks to the kernel, which
   clears their pages again. In one training (48 pairs a step, 2 cores) the kernel used a third of
   the CPU time, and nothing with this setting. Scoring is not faster: benchmarks/memory.py.
2. `report_memory` prints the memory that a step needs, and warns if less is free.
3. `refuse_full_disk` stops a training whose checkpoints and output do not fit on the disk.
"""

import ctypes
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from transformers import PreTrainedModel

from tunerank.core.errors import InputError
from tunerank.params.train import Train

# Parameters of mallopt, https://man7.org/linux/man-pages/man3/mallopt.3.html
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4

LESS_MEMORY = {
    "train": "lower train.batch_size (and raise train.accumulation as much), train.group_size, "
    "train.passage_max_length, retrieve.shown or samples.units.whole (whole passages are the "
    "longest texts), or set train.gradient_checkpointing to true",
    "pretrain": "lower pretrain.batch_size, pretrain.group_size, train.passage_max_length "
    "(shorter passages), retrieve.shown or samples.units.whole, or set "
    "train.gradient_checkpointing to true",
}
"""What to do when memory runs out, by stage."""


def keep_freed_memory() -> bool:
    """Make malloc serve large blocks from its heap and never shrink the heap.

    The process then keeps the most memory it ever needed, which the next batch needs again.

    Returns:
        False if malloc has no such setting: on macOS, or when another allocator is preloaded.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def training_memory(
    model: PreTrainedModel, tokens: int, value_bytes: int, checkpointing: bool
) -> dict[str, float]:
    """Return the GB that a training step of a BERT-like model needs beside Python and libraries.

    Weights are float32. Trained ones also have a gradient and AdamW's two averages. For the
    backward pass every layer keeps 8 h + 2 i values of each token, with hidden size h and
    intermediate size i: its input, queries, keys, values, the attention's output, the inputs of
    both norms, the output of the first, and the feed-forward values before and after GELU.
    (Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022,
    arXiv:2205.05198, without dropout masks and attention matrix, which fused kernels do not keep.)
    With gradient checkpointing each layer keeps its input, and only one layer keeps the rest.

    Args:
        tokens: of all pairs in a forward pass, padding included.
        value_bytes: of an activation, 4 or 2.
    """
    config = model.config
    weights = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    layer = 8 * config.hidden_size + 2 * config.intermediate_size
    values = config.num_hidden_layers * layer
    if checkpointing:
        values = config.num_hidden_layers * config.hidden_size + layer
    return {
        "weights": 4 * weights / 1e9,
        "gradients and optimizer": 12 * trained / 1e9,
        "activations": value_bytes * tokens * values / 1e9,
    }


def free_memory() -> float:
    """Return the free GB of the GPU that is used, or else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / 1e9
    return psutil.virtual_memory().available / 1e9


def report_memory(
    groups: Sequence, model: PreTrainedModel, params: Train, value_bytes: int, advice: str
) -> None:
    """Print how much memory a training step needs, and warn if less is free.

    The estimate takes the longest of 64 groups at even distances.

    Args:
        groups: item i is (tokenized pairs, teacher scores), see `GroupDataset`.
        value_bytes: of an activation, 4 or 2.
        advice: how to need less, one of LESS_MEMORY.
    """
    batch = params.batch_size
    sampled = range(0, len(groups), max(1, len(groups) // 64))
    longest = max(sum(len(pair["input_ids"]) for pair in groups[item][0]) for item in sampled)
    needed = training_memory(model, batch * longest, value_bytes, params.gradient_checkpointing)
    total, free = sum(needed.values()), free_memory()
    parts = ", ".join(f"{name} {amount:.2f}" for name, amount in needed.items())
    print(
        f"memory: about {total:.2f} GB ({parts}) for {batch} groups of up to {longest} tokens; "
        f"{free:.1f} GB are free"
    )
    if total > free:
        print(
            f"WARNING: training needs about {total:.1f} GB and {free:.1f} GB are free; {advice}",
            file=sys.stderr,
        )


def refuse_full_disk(
    model: PreTrainedModel, scratch: Path, save_total_limit: int, stage: str
) -> None:
    """Stop before training if the disk cannot hold the checkpoints and the output.

    Raises:
        InputError: with the space that is needed and the space that is free.
    """
    weights = list(model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    checkpoint = 4 * sum(weight.numel() for weight in weights) + 8 * trained
    used = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    # The latest checkpoints, the best one, the one being written, and the output.
    needed = (save_total_limit + 3) * checkpoint - used
    free = shutil.disk_usage(scratch).free
    if needed > free:
        raise InputError(
            f"{stage}: checkpoints and output need up to {needed / 1e9:.2f} GB of disk in "
            f"{scratch.parent}, and {free / 1e9:.2f} GB are free; free some space, or lower "
            f"train.save_total_limit ({save_total_limit})"
        )
