"""Run a stage under a lock, with a log file and a one-line error message.

    .cache/logs/train-20261126-045623-1234.log    stage, start and process: its output, with times
    .cache/train.lock                             held while it runs; contains the process's number

Progress bars redraw one line. Logs and pipes get that line once a minute instead, so that a long
run shows its progress. Only the newest logs are kept.
"""

import fcntl
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tunerank.core.console import log_output
from tunerank.core.errors import TERMINATED, InputError, explain, one_line, quiet_libraries
from tunerank.core.inputs import unchanged_inputs

PATIENCE = 10.0
"""Seconds to wait for the lock: a killed process's data workers hold it for about 5 more."""


def run_stage(main: Callable[..., Path | None]) -> None:
    """Call `main` with the command line's arguments, and exit if it fails.

    An error becomes `error: ...` and `log: ...` on stderr; only an unexpected one prints a
    traceback before. Exit codes: 1, or 130 after Ctrl-C and 143 after SIGTERM. If `main` returns a
    folder, of checkpoints to resume from, it is removed once the stage has succeeded.
    """
    quiet_libraries()
    name = Path(sys.argv[0]).stem
    signal.signal(signal.SIGTERM, _terminated)
    if os.environ.get("LOCAL_RANK", "0") != "0":  # another process of torchrun
        try:
            main(*sys.argv[1:])
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        return
    try:
        with stage_lock(name), log_output(name) as log:
            try:
                with unchanged_inputs():
                    finished = main(*sys.argv[1:])
                if finished:
                    shutil.rmtree(finished, ignore_errors=True)
            except BaseException as error:
                message, code = explain(error, name)
                if message is None:
                    sys.stderr.close_line()
                    traceback.print_exc()
                    remedy = "unexpected error, please report it with the log"
                    message = f"{name}: {one_line(error)}; {remedy}"
                sys.stdout.close_line()
                sys.stderr.close_line()
                print(f"error: {message}\nlog: {log}", file=sys.stderr)
                sys.exit(code)
    except InputError as error:  # from the lock or the log
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


@contextmanager
def stage_lock(name: str) -> Iterator[None]:
    """Hold the stage's lock in this folder.

    DVC's lock disappears when DVC is killed, but its stage keeps running.

    Raises:
        InputError: another process holds the lock; the message names it.
    """
    path = Path(".cache", f"{name}.lock")
    try:
        path.parent.mkdir(exist_ok=True)
        file = open(path, "ab+", buffering=0)
    except OSError as error:
        raise InputError(explain(error, name)[0]) from None
    with file:
        deadline = time.monotonic() + PATIENCE
        while not _locked(file):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read().decode().strip() or "unknown"
                raise InputError(
                    f"{name} is already at work in this folder, as process {holder}: "
                    f"wait until it ends, or end it with kill {holder}"
                )
            time.sleep(0.2)
        with suppress(OSError):  # If the disk is full, the lock is held without the number.
            file.truncate(0)
            file.write(b"%d\n" % os.getpid())
        yield


def _locked(file: BinaryIO) -> bool:
    """Try to lock the file and return whether that succeeded."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _terminated(signum: int, frame) -> None:
    sys.exit(TERMINATED)
