"""Run models for queries: one call at a time in a process, and without progress bars.

`map_batches` sets torch's number of threads for the whole process while it runs, and a fast
tokenizer cannot be used by two threads at once. One call uses all cores, so that calls side by side
would not be faster.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

from tqdm import tqdm

_LOCK = threading.RLock()
_BARS = ContextVar("progress bars", default=True)


class Bar(tqdm):
    """A progress bar that is not drawn inside `alone(bars=False)`."""

    def __init__(self, *args, **options):
        super().__init__(*args, **(options if _BARS.get() else options | {"disable": True}))


def quieten(*modules: ModuleType) -> None:
    """Let `alone` decide about the progress bars of modules that use the name `tqdm`."""
    for module in modules:
        module.tqdm = Bar


@contextmanager
def alone(bars: bool) -> Iterator[None]:
    """Wait until no other thread computes, and compute alone; a thread may enter twice.

    Args:
        bars: draw progress bars.
    """
    token = _BARS.set(bars)
    try:
        with _LOCK:
            yield
    finally:
        _BARS.reset(token)


def on_terminal() -> bool:
    """Return whether progress bars would be drawn on a terminal."""
    return bool(sys.stderr) and sys.stderr.isatty()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Load checkpoints without transformers' bars, and its warnings about heads that are not used.

    The retriever's is one: a classifier is made of the same checkpoint.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
