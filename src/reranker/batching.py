"""Run a model over texts of unlike lengths: in batches of about one length, on a CPU one thread a batch.

Threads that share a matrix product wait for each other at the end of every operation. Threads that have a batch each do not: that
scores 1.2 times as many pairs a second on two idle cores (benchmarks/threads.py), and more where other work takes turns on them.
It also makes a batch's result independent of the number of threads.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def length_batches(lengths: Sequence[int], batch_tokens: int, threads: int = 1) -> list[list[int]]:
    """Indices in batches of at most `batch_tokens` tokens, padding included, the longest first.

    A single longer text is a batch of its own. Where there is little to do, batches are smaller, so that each thread has one.

    >>> length_batches([3, 9, 4, 4], batch_tokens=12)
    [[1], [2, 3, 0]]
    >>> length_batches([4, 4, 4, 4], batch_tokens=100, threads=2)
    [[0, 1], [2, 3]]
    """
    budget = min(batch_tokens, -(-sum(lengths) // threads))
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches, at = [], 0
    while at < len(order):
        size = max(1, budget // max(1, lengths[order[at]]))
        batches.append(order[at : at + size])
        at += size
    return batches


def batch_threads(device: torch.device) -> int:
    """Threads that take batches: as many as torch would use on a CPU, one for a GPU."""
    return 1 if device.type == "cuda" else torch.get_num_threads()


def map_batches(call: Callable[[list[int]], Result], batches: Sequence[list[int]], threads: int) -> Iterator[Result]:
    """The result of `call` for each batch, in their order; `threads` of them at a time, each with operations of one thread."""
    if threads == 1:
        yield from map(call, batches)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that begin from here on take this number
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(call, batches)
    finally:
        torch.set_num_threads(before)
