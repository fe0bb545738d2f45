"""Test how a stage runs: its lock, log, progress lines and error messages."""

import errno
import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, hears_ctrl_c

from tunerank.core import stage
from tunerank.core.console import LogTee
from tunerank.core.errors import InputError, explain

SCRIPT = """
import os, sys, time; sys.path.insert(0, {src!r})
from tunerank.core.errors import InputError
from tunerank.core.stage import run_stage
def main(*arguments):
    {body}
run_stage(main)
"""


def start(folder: Path, body: str, **options) -> subprocess.Popen:
    (folder / "work.py").write_text(
        SCRIPT.format(src=str(ROOT / "src"), body=body), encoding="utf-8"
    )
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "cwd": folder,
        "preexec_fn": hears_ctrl_c,
    }
    return subprocess.Popen([sys.executable, "work.py", "an argument"], **(pipes | options))


def run(folder: Path, body: str) -> tuple[int, str, list[str]]:
    process = start(folder, body)
    out, err = process.communicate()
    return process.returncode, out, err.splitlines()


def logs(folder: Path) -> list[Path]:
    return sorted((folder / ".cache/logs").glob("*.log"))


def test_the_log_has_the_output_with_times_and_the_command(tmp_path):
    code, out, err = run(tmp_path, "print('one', 2); print('three', file=sys.stderr)")
    assert (code, out, err) == (0, "one 2\n", ["three"])
    (log,) = logs(tmp_path)
    head, *lines = log.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ work.py 'an argument'", head)
    assert [line[9:] for line in lines] == ["one 2", "three"] and re.match(
        r"\d\d:\d\d:\d\d ", lines[0]
    )
    assert re.fullmatch(r"work-\d{8}-\d{6}-\d+\.log", log.name)


def test_an_error_is_one_line_and_the_path_of_the_log(tmp_path):
    code, out, err = run(tmp_path, "raise InputError('table.csv, row 3: no')")
    (log,) = logs(tmp_path)
    assert (code, err) == (1, ["error: table.csv, row 3: no", f"log: {log.relative_to(tmp_path)}"])
    assert "error: table.csv, row 3: no" in log.read_text(encoding="utf-8")


def test_an_unexpected_error_has_its_traceback_in_the_log_too(tmp_path):
    code, _, err = run(tmp_path, "[][1]")
    assert code == 1 and err[0] == "Traceback (most recent call last):"
    assert err[-2] == (
        "error: work: IndexError: list index out of range; "
        "unexpected error, please report it with the log"
    )
    assert "in main" in logs(tmp_path)[0].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "error, line",
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "data/x"),
            "s: the disk or its quota is full (data/x); free some space, ",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            "s: the disk or its quota is full; free some space, ",
        ),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "s: the disk or its quota is full; free some space, ",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
            "s: the disk or its quota is full; free some space, ",
        ),
        (MemoryError(), "s: memory ran out; "),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
            "s: memory ran out; ",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "models/x"),
            "s: models/x: Read-only file system; make it readable ",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "raw.csv"),
            "s: raw.csv: Permission denied; make it readable ",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.jsonl"),
            "s: a.jsonl: No such file or directory",
        ),
        (InputError("as it is"), "as it is"),
    ],
)
def test_a_lack_of_disk_memory_or_permission_is_one_line(error, line):
    message, code = explain(error, "s")
    assert message.startswith(line) and code == 1


def test_an_error_of_the_code_is_not_reported_as_one_of_the_machine():
    assert explain(KeyError("weight"), "s") == (None, 1)
    assert explain(OSError("odd"), "s") == (None, 1)
    # A library has ended the process: the stage was not stopped and has not finished.
    assert explain(SystemExit(0), "s") == (None, 1)


@pytest.mark.parametrize(
    "number, code, word", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_stopped_stage_cleans_up_and_says_so(tmp_path, number, code, word):
    body = "exec('try:\\n print(1, flush=True); time.sleep(60)\\nfinally: print(\"cleaned\")')"
    process = start(tmp_path, body)
    assert process.stdout.readline() == "1\n"
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, out) == (code, "cleaned\n")
    assert err.splitlines()[0] == f"error: work: stopped by {word}; run dvc repro to continue"


def test_a_second_process_is_refused_and_a_killed_ones_lock_is_free(tmp_path, monkeypatch):
    first = start(tmp_path, "print(1, flush=True); time.sleep(60)")
    assert first.stdout.readline() == "1\n"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "PATIENCE", 0.5)
    with pytest.raises(
        InputError,
        match=(
            f"^work is already at work in this folder, as process {first.pid}: "
            f"wait .* kill {first.pid}$"
        ),
    ):
        with stage.stage_lock("work"):
            pass
    with stage.stage_lock("another"):
        assert Path(".cache/another.lock").read_text() == f"{os.getpid()}\n"
    first.kill()
    first.communicate()
    with stage.stage_lock("work"):
        assert Path(".cache/work.lock").read_text() == f"{os.getpid()}\n"


def test_the_newest_logs_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path(".cache/logs")
    folder.mkdir(parents=True)
    for number in range(40):
        (folder / f"old-{number:02d}.log").touch()
        os.utime(folder / f"old-{number:02d}.log", (number, number))
    with stage.log_output("new") as path:
        pass
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        [path.name, *(f"old-{n:02d}.log" for n in range(11, 40))]
    )


def test_a_folder_that_cannot_be_created_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(".cache").write_text("a file where the folder would be")
    with pytest.raises(InputError, match=r"^work: \.cache: File exists$"):
        with stage.stage_lock("work"):
            pass


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_a_progress_bar_gives_a_line_a_minute_and_its_end(monkeypatch, out):
    """The bar is drawn 300 times over 149.5 seconds."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown, log = out(), io.BytesIO()
    lines = LogTee(shown, log)
    for number in range(300):
        now[0] = number / 2
        lines.write(f"\rstep {number}   ")
    lines.write("\n")
    lines.write("after\n")
    expected = ["step 120", "step 240", "step 299", "after"]
    assert [line[9:] for line in log.getvalue().decode().splitlines()] == expected
    if out is Terminal:
        assert shown.getvalue() == "".join(f"\rstep {n}   " for n in range(300)) + "\nafter\n"
    else:
        assert shown.getvalue().splitlines() == expected


def test_without_a_terminal_a_progress_bar_gives_whole_lines(tmp_path):
    body = (
        "from tqdm import tqdm; bar = tqdm(range(500), desc='work', unit='row'); "
        "[time.sleep(0.0005) for _ in bar]"
    )
    code, _, err = run(tmp_path, body)
    (line,) = err
    assert code == 0 and re.match(r"work: 100%\|.*\| 500/500 \[.*row/s\]$", line)


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_an_error_after_an_open_progress_bar_starts_a_new_line(out):
    lines = LogTee(shown := out(), log := io.BytesIO())
    lines.write("\rstep 1  ")
    lines.close_line()
    lines.write("error: no\n")
    assert shown.getvalue().splitlines()[-2:] == [
        "step 1  " if out is Terminal else "step 1",
        "error: no",
    ]
    assert [line[9:] for line in log.getvalue().decode().splitlines()] == ["step 1", "error: no"]


def test_an_error_is_printed_even_if_the_log_cannot_be_written(tmp_path):
    body = "raise InputError('table.csv, row 3: no')"
    process = start(
        tmp_path, body, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    )
    out, err = process.communicate()
    (log,) = logs(tmp_path)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines() == ["error: table.csv, row 3: no", f"log: {log.relative_to(tmp_path)}"]
    assert log.read_bytes() == b""


def test_a_stage_continues_if_nobody_reads_its_output(tmp_path):
    process = start(
        tmp_path, "[print(n) or time.sleep(0.01) for n in range(50)]; open('done', 'w').close()"
    )
    process.stdout.close()
    process.wait()
    assert (tmp_path / "done").exists()
    assert logs(tmp_path)[0].read_text(encoding="utf-8").splitlines()[-1].endswith(" 49")
    process.stderr.close()


DVC_YAML = """
stages:
  work:
    cmd: python work.py
    deps: [data, "${raw.path}"]
    params: [seed, raw, train]
"""


@pytest.mark.parametrize(
    "change, named",
    [
        ("pass", None),
        ("open('params.yaml', 'a').write('other: 1\\n# a note\\n')", None),
        ("os.utime('data/a.txt')", None),
        ("open('params.yaml', 'a').write('seed: 2\\n')", "params.yaml: seed"),
        (
            "open('params.yaml', 'a').write('train: {lr: 3, new: 1}\\n')",
            "params.yaml: train.lr, params.yaml: train.new",
        ),
        ("open('table.csv', 'a').write('row')", "table.csv"),
        ("os.remove('table.csv')", "table.csv"),
        ("open('data/b.txt', 'w').write('b')", "data/b.txt"),
        ("os.utime('data/large', (1, 1))", "data/large"),
    ],
)
def test_a_stage_fails_if_dvc_would_record_other_inputs_than_it_read(tmp_path, change, named):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("a")
    (tmp_path / "data/large").write_bytes(bytes(2 << 20))
    (tmp_path / "table.csv").write_text("q")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text(
        "raw: {path: table.csv}\nother: 0\ntrain: {lr: 2}\nseed: 1\n"
    )
    process = start(tmp_path, change, env=os.environ | {"DVC_STAGE": "work"})
    _, err = process.communicate()
    assert process.returncode == bool(named)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert lines == (
        [
            f"error: work: {named} changed while it ran, "
            "so that dvc.lock would name values that were not used; run dvc repro again "
            "(with the old values restored, a training resumes from its last checkpoint)"
        ]
        if named
        else []
    )


def test_a_nested_progress_bar_gives_a_line_a_minute_too(tmp_path):
    """During training the bar of the validation questions is below the bar of the training.

    Here the lower bar is drawn 40 times and the upper one once.
    """
    body = (
        "from tqdm import tqdm; outer = tqdm(total=2, desc='outer'); "
        "inner = tqdm(total=40, desc='inner', mininterval=0); "
        "[(inner.update(), time.sleep(0.005)) for _ in range(40)]; "
        "inner.close(); outer.update(); outer.close(); print('end')"
    )
    code, out, err = run(tmp_path, body)
    assert (code, out) == (0, "end\n") and "\x1b" not in "".join(err)
    assert [line.split(":")[0] for line in err if line.strip()] == ["inner", "outer"]
    assert re.match(r"inner: 100%.* 40/40 ", err[0]) and re.match(r"outer:  50%.* 1/2 ", err[-1])
    (log,) = logs(tmp_path)
    assert [line[9:14] for line in log.read_text(encoding="utf-8").splitlines()[1:]] == [
        "inner",
        "outer",
        "end",
    ]


def test_text_after_a_progress_bar_starts_a_new_line():
    shown = io.StringIO()
    lines = LogTee(shown, io.BytesIO())
    for text in (
        "\rone   0%",
        "\rone 100%",
        "\n",
        "\rtwo   0%",
        "\rtwo 100%",
        "\n",
        "said\n",
        "\rthree 100%",
        "\n",
    ):
        lines.write(text)
    lines.close_line()
    assert shown.getvalue().splitlines() == ["one 100%", "two 100%", "said", "three 100%"]
