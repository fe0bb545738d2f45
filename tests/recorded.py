"""Run a script as `python` does, and record the paths Python opens and the parameters it reads.

    python tests/recorded.py READS.json src/train.py data/samples/train.jsonl ...

Paths come from Python's audit events (https://docs.python.org/3/library/audit_events.html), which
do not report what a library opens in C or Rust.
"""

import atexit
import json
import os
import runpy
import sys
from pathlib import Path


def record_files(opened: set[str]) -> None:
    def hook(event: str, arguments: tuple) -> None:
        if event not in ("open", "os.listdir", "os.scandir"):
            return
        path, flags = arguments[0], arguments[2] if event == "open" else os.O_RDONLY
        # shutil.rmtree opens names relative to an open folder. The event has no folder, and the
        # name does not exist in the working folder.
        if (
            isinstance(path, (str, bytes))
            and not flags & (os.O_WRONLY | os.O_CREAT)
            and os.path.exists(path)
        ):
            opened.add(os.path.abspath(os.fsdecode(path)))

    sys.addaudithook(hook)


def record_parameters(read: set[str]) -> None:
    """Record `group.key` when a stage reads a field of the loaded parameters or of a copy of them.

    A field that was replaced in the copy does not count. Validators see every field; they have run
    before.
    """
    from tunerank.params import base
    from tunerank.params import load as params

    held: dict[int, tuple[base.Group, str, set[str]]] = {}
    load, copy = params.load, base.Group.model_copy

    def loading(*arguments):
        loaded = load(*arguments)
        held[id(loaded)] = loaded, "", set()
        for name, value in loaded:
            if isinstance(value, base.Group):
                held[id(value)] = value, f"{name}.", set()
        return loaded

    def copying(self, *, update=None, deep=False):
        copied = copy(self, update=update, deep=deep)
        if id(self) in held:
            _, prefix, replaced = held[id(self)]
            held[id(copied)] = copied, prefix, replaced | set(update or ())
        return copied

    def reading(self, name):
        value = object.__getattribute__(self, name)
        if (
            id(self) in held
            and name in type(self).__pydantic_fields__
            and not isinstance(value, base.Group)
        ):
            _, prefix, replaced = held[id(self)]
            if name not in replaced:
                read.add(prefix + name)
        return value

    params.load, base.Group.model_copy, base.Group.__getattribute__ = loading, copying, reading


def main(target: str, script: str, *arguments: str) -> None:
    files, parameters = set(), set()
    process = os.getpid()

    def write() -> None:
        if os.getpid() == process:
            found = {"files": sorted(files), "parameters": sorted(parameters)}
            Path(target).write_text(json.dumps(found), encoding="utf-8")

    atexit.register(write)
    sys.argv, sys.path[0] = [script, *arguments], str(Path(script).parent.absolute())
    record_files(files)
    if "from tunerank.params.load import" in Path(script).read_text(encoding="utf-8"):
        record_parameters(parameters)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
