"""Run a model over texts in batches of similar length, on a CPU with one thread a batch.

Threads that share a matrix product wait for each other at the end of every operation. Threads with
a batch each do not: on two idle cores they score 1.2 times as many pairs a second, and more on
busy cores (benchmarks/threads.py). A batch's result is then independent of the number of threads.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def length_batches(lengths: Sequence[int], batch_tokens: int, threads: int = 1) -> list[list[int]]:
    """Return batches of indices, longest texts first, of at most `batch_tokens` padded tokens.

    A longer text is a batch of its own. Few texts are split into one batch a thread, if they fit.

    Args:
        lengths: tokens of each text.

    >>> length_batches([3, 9, 4, 4], batch_tokens=12)
    [[1], [2, 3, 0]]
    >>> length_batches([9, 8, 7, 2], batch_tokens=100, threads=2)
    [[0, 1], [2, 3]]
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    # An equal share of the tokens. Padding comes on top, so that a share often leaves a last batch
    # of one text, for which all other threads would wait: the share grows until all texts fit.
    budget = min(batch_tokens, -(-sum(lengths) // threads))
    while True:
        batches, start = [], 0
        while start < len(order):
            size = max(1, budget // max(1, lengths[order[start]]))
            batches.append(order[start : start + size])
            start += size
        if len(batches) <= threads or budget == batch_tokens:
            return batches
        budget = min(batch_tokens, budget + 1 + budget // 32)


def batch_threads(device: torch.device) -> int:
    """Return the number of threads that run batches: torch's number on a CPU, 1 on a GPU."""
    return 1 if device.type == "cuda" else torch.get_num_threads()


def map_batches(
    call: Callable[[list[int]], Result], batches: Sequence[list[int]], threads: int
) -> Iterator[Result]:
    """Yield `call(batch)` for each batch, in order; run `threads` calls at a time."""
    if threads == 1:
        yield from map(call, batches)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # New threads inherit this number.
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(call, batches)
    finally:
        torch.set_num_threads(before)
