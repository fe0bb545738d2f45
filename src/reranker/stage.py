"""How a stage runs: alone, with a log, and with a last line that says what went wrong.

    .cache/logs/train-20261126-045623-1234.log    stage, start, process: all that it said, each line with its time
    .cache/train.lock                             held while it runs, with the number of the process that holds it

A progress bar draws over its own line, which is nothing for a file: a log, and what is no terminal, gets that line once a
minute, so that a long run shows that it lives and when it will be done. The newest logs are kept.
"""

import errno
import faulthandler
import fcntl
import os
import re
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from reranker.errors import InputError, memory_ran_out, quiet_libraries
from reranker.unchanged import unchanged_inputs

LOGS_KEPT = 30
HEARTBEAT = 60.0
"""Seconds between two lines of one progress bar."""

TERMINATED = 128 + signal.SIGTERM

PATIENCE = 10.0
"""Seconds to wait for the lock: a killed process's data workers hold it until they notice, which takes them 5."""

BELOW = re.compile(r"\n(\r[^\n\r\x1b]*)\x1b\[A")
"""How tqdm draws a bar below another: a line down, the bar, and up again. It is taken as drawn over the other."""
OPEN = re.compile(r"\r[^\n]*\n(\r[^\n\r\x1b]*)?$")
"""A bar and a line feed, which ends it or begins such a drawing: what comes next tells."""
CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

DISK_FULL = ("No space left on device", "Disk quota exceeded", "File too large", "PytorchStreamWriter", "inline_container.cc")
"""What safetensors, pyarrow and torch say in errors of their own where the disk or a quota is full."""


def run_stage(main: Callable[..., Path | None]) -> None:
    """Call `main` with the command line's arguments. What it fails by becomes `error: ...` and `log: ...` on stderr, with exit
    code 1, or 130 and 143 after Ctrl-C and SIGTERM; only an error that nobody foresaw shows a traceback before. A folder that
    it returns, of resume points, is removed once nothing can make them needed any more."""
    quiet_libraries()
    name = Path(sys.argv[0]).stem
    signal.signal(signal.SIGTERM, _terminated)
    if os.environ.get("LOCAL_RANK", "0") != "0":  # torchrun's other processes
        try:
            main(*sys.argv[1:])
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        return
    try:
        with alone(name), logged(name) as log:
            try:
                with unchanged_inputs():
                    needless = main(*sys.argv[1:])
                if needless:
                    shutil.rmtree(needless, ignore_errors=True)
            except BaseException as error:
                message, code = explain(error, name)
                if message is None:
                    sys.stderr.close_line()
                    traceback.print_exc()
                    message = f"{name}: {_one_line(error)}; this was not foreseen, please report it with the log"
                sys.stdout.close_line()
                sys.stderr.close_line()
                print(f"error: {message}\nlog: {log}", file=sys.stderr)
                sys.exit(code)
    except InputError as error:  # of the lock
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def explain(error: BaseException, name: str) -> tuple[str | None, int]:
    """One line about an error, None where it was not foreseen, and the exit code.

    Args:
        name: the stage's.
    """
    if isinstance(error, InputError):
        return str(error), 1
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == TERMINATED):
        by, code = ("Ctrl-C", 130) if isinstance(error, KeyboardInterrupt) else ("SIGTERM", TERMINATED)
        return f"{name}: stopped by {by}; dvc repro goes on from what was finished", code
    text = _one_line(error)
    number, file = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    at = f" ({file})" if file else ""
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(sign in text for sign in DISK_FULL):
        return f"{name}: the disk or its quota is full{at}; free some space, then dvc repro goes on from what was finished", 1
    if memory_ran_out(error):
        return f"{name}: memory ran out; end what else runs here or take a machine with more, then dvc repro", 1
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{name}: {file or 'a file'}: {error.strerror}; make it readable and its folder writable, then dvc repro", 1
    if isinstance(error, OSError) and file:
        return f"{name}: {file}: {error.strerror}", 1
    return None, 1


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the stage's lock in this folder; DVC's own does not outlive DVC, whose stage goes on where it alone is killed.

    Raises:
        InputError: another process holds it, and which.
    """
    path = Path(".cache", f"{name}.lock")
    try:
        path.parent.mkdir(exist_ok=True)
        file = open(path, "ab+", buffering=0)
    except OSError as error:
        raise InputError(explain(error, name)[0]) from None
    with file:
        until = time.monotonic() + PATIENCE
        while not _locked(file):
            if time.monotonic() > until:
                file.seek(0)
                holder = file.read().decode().strip() or "unknown"
                raise InputError(
                    f"{name} is already at work in this folder, as process {holder}: wait until it ends, or end it with "
                    f"kill {holder}"
                )
            time.sleep(0.2)
        with suppress(OSError):  # a full disk: the lock is held all the same
            file.truncate(0)
            file.write(b"%d\n" % os.getpid())
        yield


@contextmanager
def logged(name: str) -> Iterator[Path]:
    """Send what is printed to a new log as well, and give its path; the oldest logs go."""
    folder = Path(".cache/logs")
    path = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = open(path, "wb", buffering=0)  # what a full disk does not take must not come up again when it is closed
    except OSError as error:
        raise InputError(explain(error, name)[0]) from None
    for old in sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)[:-LOGS_KEPT]:
        old.unlink(missing_ok=True)
    out, err = sys.stdout, sys.stderr
    with log:
        _append(log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(sys.orig_argv)}")
        faulthandler.enable(log)  # where a library crashes the process, the log ends with where it was
        sys.stdout, sys.stderr = Lines(out, log), Lines(err, log)
        sys.stdout.beside, sys.stderr.beside = sys.stderr, sys.stdout
        try:
            yield path
        finally:
            sys.stdout.close_line()
            sys.stderr.close_line()
            sys.stdout, sys.stderr = out, err
            faulthandler.disable()


class Lines:
    """A stream whose lines also go to a log; of a line that is drawn over and over, what stands there once a minute."""

    def __init__(self, out: TextIO, log: BinaryIO):
        self.out, self.log, self.terminal = out, log, out.isatty()
        self.line, self.said = "", time.monotonic()
        self.beside: Lines | None = (
            None  # the other of stdout and stderr: a bar that has ended on one stands before what the other says
        )

    def write(self, text: str) -> int:
        if self.beside and self.beside.line.endswith("\n"):
            self.beside.close_line()
        if self.terminal:
            self.out.write(text)
        self.line = BELOW.sub(r"\1", self.line + text)
        ended = self.line[: self.line.rindex("\n")] if OPEN.search(self.line) else self.line
        *whole, rest = ended.split("\n")
        self.line = rest + self.line[len(ended) :]
        for line in whole:
            self._say(line.rstrip("\r").rpartition("\r")[2])
        if "\r" in self.line and "\n" not in self.line:
            self.line = "\r" + self.line.rpartition("\r")[2]
            if time.monotonic() - self.said >= HEARTBEAT and self.line.strip():
                self._say(self.line[1:])
        return len(text)

    def _say(self, line: str) -> None:
        self.said = time.monotonic()
        line = CODES.sub("", line).rstrip()
        if not self.terminal:
            with suppress(OSError):  # whoever read it is gone, or its disk is full: no reason to end a training; the log has it
                print(line, file=self.out, flush=True)
        if line:
            _append(self.log, f"{time.strftime('%H:%M:%S')} {line}")

    def close_line(self) -> None:
        """End a line that a progress bar has left open, so that what follows begins one."""
        if self.line.strip():
            if self.terminal and not self.line.endswith("\n"):
                self.out.write("\n")
            for line in self.line.removesuffix("\n").split("\n"):
                self._say(line.rpartition("\r")[2])
        self.line = ""

    def flush(self) -> None:
        self.out.flush()

    def __getattr__(self, name: str):
        return getattr(self.out, name)


def _append(log: BinaryIO, line: str) -> None:
    with suppress(OSError):  # a full disk: what is said reaches the terminal all the same
        log.write(f"{line}\n".encode("utf-8", "backslashreplace"))


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _terminated(signum: int, frame) -> None:
    sys.exit(TERMINATED)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
