"""What a stage was told to read must not change while it runs.

DVC 3.67 writes parameters and inputs into dvc.lock as they are when a stage has ended: who edits params.yaml during a training,
or runs `dvc exp run -S` beside it, would get a dvc.lock that names a learning rate which no one trained with, and no stage would
be stale. Small files are compared by their content, large ones by size and time.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from reranker.errors import InputError

SMALL = 1 << 20


@contextmanager
def unchanged_inputs() -> Iterator[None]:
    """Compare what dvc.yaml declares of the stage that DVC runs here, before and after the block; nothing without DVC.

    Raises:
        InputError: which parameter or file has changed, and what to do.
    """
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    before = declared(stage)
    yield
    after = declared(stage)
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if before and changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"{stage}: {', '.join(changed[:3])}{more} changed while it ran, so that dvc.lock would name what it did not read; "
            "dvc repro runs it again, and a training goes on from its last resume point where you put back what was there"
        )


def declared(stage: str) -> dict[str, object]:
    """A stage's parameters and files, each with what tells whether it has changed; empty for no stage, and where dvc.yaml or
    params.yaml cannot be read, as while someone writes it.

    >>> declared("")
    {}
    """
    try:
        entry = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][stage] if stage else {}
        values = dict(_leaves("", yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")))) if stage else {}
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return {}
    found: dict[str, object] = {}
    for name in entry.get("params", []):
        found |= {f"params.yaml: {key}": value for key, value in values.items() if f"{key}.".startswith(f"{name}.")}
    for dep in entry.get("deps", []):
        path = Path(re.sub(r"\$\{(.+?)\}", lambda match: str(values.get(match[1])), dep))
        files = path.rglob("*") if path.is_dir() else [path]
        found |= {str(file): _signature(file) for file in files if file.is_file()}
    return found


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value


def _signature(file: Path) -> object:
    at = file.stat()
    return hashlib.sha256(file.read_bytes()).hexdigest() if at.st_size <= SMALL else (at.st_size, at.st_mtime_ns)
