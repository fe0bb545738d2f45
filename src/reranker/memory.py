"""How much memory training needs, and how a process keeps what it has.

Freed memory stays with the process: a step on a CPU allocates and frees the same tens of megabytes for every layer. glibc's malloc
returns such blocks to the kernel, which has to clear them again page by page. In one training (48 pairs a step, 2 cores) a third of
the CPU time was the kernel's, and none of it with this setting; scoring 300 pairs was no faster (benchmarks/memory.py: 0.93 of the
rate, within its spread).
"""

import ctypes

import psutil
import torch
from transformers import PreTrainedModel

# mallopt's parameters, https://man7.org/linux/man-pages/man3/mallopt.3.html
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tell malloc to serve large blocks from its heap and never to shrink it.

    The process keeps the most memory it has needed at once, which it needs for the next batch again.

    Returns:
        whether there is such a malloc: not on macOS, and not under another allocator's preload.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def training_memory(model: PreTrainedModel, tokens: int, value_bytes: int, checkpointing: bool) -> dict[str, float]:
    """What a training step of a BERT-like model needs beside Python and its libraries, in GB.

    Weights are float32 and have, where they are trained, a gradient and AdamW's two averages. Of each token every layer keeps for
    the backward pass 8 h + 2 i values, h the hidden and i the intermediate size: its input, queries, keys, values and what they
    attend to, the inputs of both norms, the first one's output, and the network's inner values before and after GELU. (Korthikanti
    et al., "Reducing Activation Recomputation in Large Transformer Models", 2022, arXiv:2205.05198, less dropout's masks and the
    attention matrix, which fused kernels do not keep.) With checkpointing a layer keeps its input, and one of them all the rest.

    Args:
        tokens: of all pairs of a forward pass, padding included; value_bytes: of an activation, 4 or 2.
    """
    config = model.config
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    layer = 8 * config.hidden_size + 2 * config.intermediate_size
    kept = config.num_hidden_layers * (config.hidden_size if checkpointing else layer) + checkpointing * layer
    return {
        "weights": 4 * sum(weight.numel() for weight in model.parameters()) / 1e9,
        "gradients and optimizer": 12 * trained / 1e9,
        "activations": value_bytes * tokens * kept / 1e9,
    }


def free_memory() -> float:
    """Of the GPU that is used, or else of the machine, in GB."""
    return (torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available) / 1e9
