"""How a command fails: one line that says what is wrong, where, and what to do. A stage's are in stage.py."""

import errno
import sys
import warnings
from collections.abc import Callable


MEMORY_FULL = ("can't allocate memory", "Cannot allocate memory", "out of memory", "bad_alloc", "Unable to allocate")


class InputError(ValueError):
    """Something the user gave is wrong; the message alone must be enough to mend it."""


def memory_ran_out(error: BaseException) -> bool:
    """Whether it says so, on a GPU or a CPU: libraries have errors of their own for it, told by their words."""
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(sign in f"{type(error).__name__}: {error}" for sign in MEMORY_FULL)
    )


def run(main: Callable[..., None]) -> None:
    """Call `main` with the command line's arguments; an InputError becomes one line on stderr and exit code 1."""
    quiet_libraries()
    try:
        main(*sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def quiet_libraries() -> None:
    if "transformers" in sys.modules:  # its notes about heads that a stage leaves unread, and a bar for each load
        sys.modules["transformers"].logging.set_verbosity_error()
        sys.modules["transformers"].logging.disable_progress_bar()
        warnings.filterwarnings("ignore", module="transformers")
