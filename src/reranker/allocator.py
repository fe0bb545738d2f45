"""Memory that is freed stays with the process.

A step on a CPU allocates and frees the same tens of megabytes for every layer. glibc's malloc returns such blocks to the kernel,
which has to clear them again page by page. In one training (48 pairs a step, 2 cores) a third of the CPU time was the kernel's,
and none of it with this setting; scoring 300 pairs was no faster (benchmarks/allocator.py: 0.93 of the rate, within its spread).
"""

import ctypes

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
