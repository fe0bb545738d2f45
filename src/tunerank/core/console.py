"""Copy what a stage prints to a log file, where a progress bar becomes one line a minute."""

import faulthandler
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from tunerank.core.errors import InputError, explain

LOGS_KEPT = 30

HEARTBEAT = 60.0
"""Seconds between two log lines of one progress bar."""

BELOW = re.compile(r"\n(\r[^\n\r\x1b]*)\x1b\[A")
"""How tqdm draws a bar below another: line feed, bar, cursor up. It is read as a redraw of the
other one."""

OPEN = re.compile(r"\r[^\n]*\n(\r[^\n\r\x1b]*)?$")
"""A bar and a line feed: the next text decides whether this ends the bar or starts one below it."""

CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@contextmanager
def log_output(name: str) -> Iterator[Path]:
    """Copy stdout and stderr to a new log file and yield its path; delete the oldest logs."""
    folder = Path(".cache/logs")
    path = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a buffer that a full disk rejects would raise again when the file is closed.
        log = open(path, "wb", buffering=0)
    except OSError as error:
        raise InputError(explain(error, name)[0]) from None
    for old in sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)[:-LOGS_KEPT]:
        old.unlink(missing_ok=True)
    out, err = sys.stdout, sys.stderr
    with log:
        _append(log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(sys.orig_argv)}")
        # If a library crashes the process, the log ends with the stack.
        faulthandler.enable(log)
        sys.stdout, sys.stderr = LogTee(out, log), LogTee(err, log)
        sys.stdout.sibling, sys.stderr.sibling = sys.stderr, sys.stdout
        try:
            yield path
        finally:
            sys.stdout.close_line()
            sys.stderr.close_line()
            sys.stdout, sys.stderr = out, err
            faulthandler.disable()


class LogTee:
    """A stream that copies its lines to a log; of a progress bar it copies one line a minute."""

    def __init__(self, out: TextIO, log: BinaryIO):
        self.out, self.log, self.terminal = out, log, out.isatty()
        self.line, self.last_printed = "", time.monotonic()
        # The other one of stdout and stderr: a bar that has ended on one is logged before the
        # next text of the other.
        self.sibling: LogTee | None = None

    def write(self, text: str) -> int:
        if self.sibling and self.sibling.line.endswith("\n"):
            self.sibling.close_line()
        if self.terminal:
            self.out.write(text)
        self.line = BELOW.sub(r"\1", self.line + text)
        ended = self.line[: self.line.rindex("\n")] if OPEN.search(self.line) else self.line
        *complete, rest = ended.split("\n")
        self.line = rest + self.line[len(ended) :]
        for line in complete:
            self._print(line.rstrip("\r").rpartition("\r")[2])
        if "\r" in self.line and "\n" not in self.line:
            self.line = "\r" + self.line.rpartition("\r")[2]
            if time.monotonic() - self.last_printed >= HEARTBEAT and self.line.strip():
                self._print(self.line[1:])
        return len(text)

    def _print(self, line: str) -> None:
        self.last_printed = time.monotonic()
        line = CODES.sub("", line).rstrip()
        if not self.terminal:
            # A closed pipe or a full disk behind it must not end a training: the log has the line.
            with suppress(OSError):
                print(line, file=self.out, flush=True)
        if line:
            _append(self.log, f"{time.strftime('%H:%M:%S')} {line}")

    def close_line(self) -> None:
        """End the line that a progress bar has left open, so that the next text starts a line."""
        if self.line.strip():
            if self.terminal and not self.line.endswith("\n"):
                self.out.write("\n")
            for line in self.line.removesuffix("\n").split("\n"):
                self._print(line.rpartition("\r")[2])
        self.line = ""

    def flush(self) -> None:
        self.out.flush()

    def __getattr__(self, name: str):
        return getattr(self.out, name)


def _append(log: BinaryIO, line: str) -> None:
    with suppress(OSError):  # If the disk is full, the terminal still gets the line.
        log.write(f"{line}\n".encode("utf-8", "backslashreplace"))
