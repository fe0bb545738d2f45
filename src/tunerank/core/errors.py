"""Turn any error into one line that says what is wrong, where, and what to do."""

import codecs
import errno
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable

MEMORY_FULL = (
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "Unable to allocate",
)
DISK_FULL = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "PytorchStreamWriter",
    "inline_container.cc",
)
"""Texts of safetensors', pyarrow's and torch's own errors when the disk or a quota is full."""

CONTINUE = "then run dvc repro to continue"

TERMINATED = 128 + signal.SIGTERM
READER_GONE = 128 + signal.SIGPIPE


class InputError(ValueError):
    """Invalid user input. The message alone must say how to fix it."""


def memory_ran_out(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a GPU or a CPU.

    Libraries raise their own errors for it, which can only be recognised by their text.
    """
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(sign in f"{type(error).__name__}: {error}" for sign in MEMORY_FULL)
    )


def explain(error: BaseException, name: str, then: str = CONTINUE) -> tuple[str | None, int]:
    """Return one line about an error, None for an unexpected one, and the exit code.

    Args:
        name: of the stage or command.
        then: what to do once the cause is gone: "then ...".
    """
    if isinstance(error, InputError):
        return str(error), 1
    if isinstance(error, KeyboardInterrupt):
        return f"{name}: stopped by Ctrl-C; {then.removeprefix('then ')}", 130
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        return f"{name}: stopped by SIGTERM; {then.removeprefix('then ')}", TERMINATED
    text = one_line(error)
    number, file = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if number in full or any(sign in text for sign in DISK_FULL):
        where = f" ({file})" if file else ""
        return f"{name}: the disk or its quota is full{where}; free some space, {then}", 1
    if memory_ran_out(error):
        remedy = f"stop other programs or use a machine with more memory, {then}"
        return f"{name}: memory ran out; {remedy}", 1
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        remedy = f"make it readable and its folder writable, {then}"
        return f"{name}: {file or 'a file'}: {error.strerror}; {remedy}", 1
    if isinstance(error, OSError) and file:
        return f"{name}: {file}: {error.strerror}", 1
    return None, 1


def one_line(error: BaseException) -> str:
    """Return an error's type and message without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def run_command(command: Callable[..., None], usage_error: type[Exception] | tuple = ()) -> None:
    """Call `command` with the command line's arguments and exit.

    An error is one line on stderr; only an unexpected one prints a traceback before it. Exit codes:
    1 an error, 2 wrong arguments, 130 Ctrl-C, 141 the reader of a pipe is gone.
    """
    quiet_libraries()
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), "tunerank")
    codecs.register_error("json", escape_unencodable)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed by the shell, `>&-`
        stream.reconfigure(errors="json")
    try:
        try:
            command(*sys.argv[1:])
        finally:  # what was printed comes before the error, and a full disk shows here
            if sys.stdout:
                sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
        sys.exit(READER_GONE)
    except usage_error as error:
        print(f"error: {error.format_message().rstrip('.')}; see tunerank --help", file=sys.stderr)
        sys.exit(2)
    except (Exception, KeyboardInterrupt) as error:
        message, code = explain(error, name, "then run it again")
        if message is None:
            traceback.print_exc()
            message = f"{name}: {one_line(error)}; unexpected error, please report it"
        print(f"error: {message}", file=sys.stderr)
        drop_output()
        sys.exit(code)


def escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Write characters that a stream's encoding lacks, such as an emoji in gbk, as JSON does.

    A result in JSON stays valid: backslashreplace would write `\\U0001f600`.
    """
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def drop_output() -> None:
    """Discard what stdout still holds, so that Python does not try to write it again at exit."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def quiet_libraries() -> None:
    """Turn off transformers' warnings about unused heads, and its progress bar for each load."""
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.set_verbosity_error()
        sys.modules["transformers"].logging.disable_progress_bar()
        warnings.filterwarnings("ignore", module="transformers")
