"""Start Python processes in milliseconds, as forks of a process that has the libraries imported.

A stage imports torch, transformers and FlagEmbedding, which takes seconds, and the tests start some
hundred stages. One server imports the libraries of the stages and of DVC once and forks. A fork has
the requested arguments, environment, folder and streams, and runs its script as `python` does. The
server imports nothing from this repository, so a stage reads the copy of src/ that it belongs to.

    server = Server(environment)
    # like subprocess.Popen([sys.executable, *arguments]):
    server.start(["src/train.py", ...], cwd, environment)
    # its PATH has a `python` that asks the server:
    server.environment(environment)

With other options, or with a variable that a library reads when it is imported, `python` is the
real one. Real processes test the files that a process reads, and that a script imports all that it
needs: tests/test_declared.py.
"""

import array
import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

SOCKET = "RERANKER_TEST_SOCKET"
FREE = ("DVC", "GIT_", "PWD", "OLDPWD", "SHLVL", "_", "PATH", SOCKET)
"""Prefixes of variables that may differ from the server's: no library reads them at its import."""
PRELOADED = (
    "torch", "transformers", "FlagEmbedding.abc.finetune.reranker",
    "FlagEmbedding.finetune.reranker.encoder_only.base", "transformers.models.auto.modeling_auto",
    "transformers.models.xlm_roberta.modeling_xlm_roberta", "transformers.trainer", "pandas",
    "pyarrow.parquet", "scipy.stats", "openpyxl", "bm25s", "jieba", "ir_measures", "pydantic",
    "jinja2", "altair", "vl_convert", "torch.utils.data", "packaging.requirements", "dvc.cli",
    "dvc.cli.parser", "dvc.repo", "dvc.repo.reproduce", "dvc.repo.experiments",
    "dvc.repo.experiments.executor.local", "dvc.repo.experiments.queue.workspace",
    "dvc.repo.experiments.queue.tempdir", "dvc.repo.status", "dvc.stage.run", "dvc.dvcfile",
    "dvc_data.hashfile.hash",
)  # fmt: skip


def passes_on(arguments: list[str]) -> bool:
    """Return whether a fork can run these arguments: a script, `-m dvc` or `-c code`."""
    return bool(arguments) and (
        arguments[0].endswith(".py") or arguments[:2] == ["-m", "dvc"] or arguments[0] == "-c"
    )


class Process:
    """A fork, with the part of subprocess.Popen that tests need; `pid` is the fork's own.

    Raises:
        LookupError: the environment differs from the server's in a variable that matters.
    """

    def __init__(
        self,
        path: str,
        arguments: list[str],
        cwd: str,
        env: dict[str, str],
        streams: tuple[int, int, int],
    ):
        self.returncode = None
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        asked = json.dumps({"arguments": arguments, "cwd": cwd, "env": env}).encode(
            "utf-8", "surrogateescape"
        )
        descriptors = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        self.socket.sendmsg([len(asked).to_bytes(8, "big")], descriptors)
        self.socket.sendall(asked)
        self.answers = self.socket.makefile("r")
        self.pid = int(self.answers.readline())
        if not self.pid:
            self.answers.close()
            self.socket.close()
            raise LookupError("another environment")

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(self.answers.readline())
            self.answers.close()
            self.socket.close()
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                if self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    self.wait()
            except BlockingIOError:
                pass
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Piped(Process):
    """A fork with its stdout in a pipe; its stderr goes there too (`together`), or into a file."""

    def __init__(
        self, path: str, arguments: list[str], cwd: str, env: dict[str, str], together: bool
    ):
        read, write = os.pipe()
        self.stdout, self.errors = (
            open(read, encoding="utf-8"),
            tempfile.TemporaryFile("w+", encoding="utf-8"),
        )
        with open(os.devnull) as nothing, open(write, "wb") as out:
            errors = out if together else self.errors
            super().__init__(
                path, arguments, cwd, env, (nothing.fileno(), out.fileno(), errors.fileno())
            )

    def communicate(self) -> tuple[str, str]:
        with self.stdout, self.errors:
            text = self.stdout.read()
            self.wait()
            self.errors.seek(0)
            return text, self.errors.read()


class Server:
    """Start forks. The server itself starts with the first of them, in the environment `env`."""

    def __init__(self, env: dict[str, str]):
        self.env, self.process = env, None

    def end(self) -> None:
        if self.process:
            self.process.stdin.close()  # ends the server; forks that still run go on
            self.process.wait()
            shutil.rmtree(self.folder)
            self.process = None

    def begin(self) -> None:
        if self.process:
            return
        # In the system's temporary folder, because a socket's path has at most 100 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="forks"))
        self.path, self.bin = str(self.folder / "socket"), self.folder / "bin"
        self.bin.mkdir()
        for name in ("python", "python3"):
            (self.bin / name).write_text(
                f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "$@"\n'
            )
            (self.bin / name).chmod(0o755)
        command = [sys.executable, __file__, "--serve", self.path]
        self.process = subprocess.Popen(
            command, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        """Return `env` with a PATH on which `python` asks the server."""
        self.begin()
        return env | {"PATH": f"{self.bin}{os.pathsep}{env['PATH']}", SOCKET: self.path}

    def start(
        self, arguments: list[str], cwd: Path, env: dict[str, str], together: bool = False
    ) -> Piped:
        given = self.environment(env)
        return Piped(self.path, list(map(str, arguments)), str(cwd), given, together)

    def run(
        self, arguments: list[str], cwd: Path, env: dict[str, str]
    ) -> subprocess.CompletedProcess:
        process = self.start(arguments, cwd, env)
        out, err = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def serve(path: str) -> None:
    import gc
    import importlib
    import select

    known = dict(os.environ)
    for name in PRELOADED:
        importlib.import_module(name)
    # Libraries set these variables for themselves.
    added = {name: value for name, value in os.environ.items() if name not in known}
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)
    gc.collect()
    gc.freeze()  # otherwise the garbage collection of each fork visits these pages and copies them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the parents of forks
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listening, 0], [], [])
        if 0 in ready:  # closed: the tests are over
            os._exit(0)
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            answer(connection, known, added)
        connection.close()


def answer(connection: socket.socket, known: dict[str, str], added: dict[str, str]) -> None:
    """Fork and run the requested script; this process stays and reports the fork's exit code."""
    head, (control,), *_ = connection.recvmsg(8, socket.CMSG_SPACE(12))
    streams = array.array("i", control[2])
    with connection.makefile("rb") as stream:
        asked = json.loads(stream.read(int.from_bytes(head, "big")))
    env = asked["env"]
    other = {
        name
        for name in env.keys() | known.keys()
        if env.get(name) != known.get(name) and not name.startswith(FREE)
    }
    if other:
        connection.sendall(b"0\n")
        os._exit(0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        for descriptor in (0, 1, 2, *streams):
            os.close(descriptor)
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        try:
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        except OSError:  # the client was killed
            pass
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(env | added)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # DVC imports colorama, which has wrapped them.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    code = 0
    try:
        run(asked["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    # Do what Python does at its end, except for the teardown of all modules, which takes longer
    # here than most scripts.
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 255)


def run(arguments: list[str]) -> None:
    """Run `python arguments` in this process."""
    import runpy

    sys.orig_argv = [sys.executable, *arguments]
    if arguments[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
        module = type(sys)("__main__")
        sys.modules["__main__"] = module
        exec(compile(arguments[1], "<string>", "exec"), module.__dict__)
    elif arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent.absolute())
        runpy.run_path(arguments[0], run_name="__main__")


def ask(arguments: list[str]) -> None:
    """Run the tests' `python`: a fork if that is possible, otherwise the real one."""
    if passes_on(arguments):
        try:
            process = Process(
                os.environ[SOCKET], arguments, os.getcwd(), dict(os.environ), (0, 1, 2)
            )
        except (LookupError, OSError):  # another environment, or the server has ended
            pass
        else:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, frame: os.kill(process.pid, number))
            code = process.wait()
            if code < 0:
                if -code != signal.SIGKILL:
                    signal.signal(-code, signal.SIG_DFL)
                os.kill(os.getpid(), -code)
            os._exit(code)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        ask(sys.argv[1:])
