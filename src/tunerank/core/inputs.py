"""List a stage's inputs, and refuse a run whose inputs changed while it ran.

DVC 3.67 records parameters and inputs when a stage ends. If params.yaml is edited during training,
or `dvc exp run -S` runs beside it, dvc.lock would name a learning rate that was not used, and no
stage would be stale. Small files are compared by content, large ones by size and time.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import yaml

from tunerank.core.errors import InputError

SMALL = 1 << 20
IGNORED = (
    *("__pycache__", "*.pyc", "*~", "*.swp", ".ipynb_checkpoints", ".DS_Store"),
    *("~$*", "._*", ".~lock.*#", "Thumbs.db", "desktop.ini"),
)
"""The patterns of .dvcignore; DVC leaves such files out of a folder's hash."""


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder that DVC hashes, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(
            fnmatch(part, pattern) for part in path.relative_to(folder).parts for pattern in IGNORED
        )
    )


@contextmanager
def unchanged_inputs() -> Iterator[None]:
    """Check that the stage's parameters and inputs in dvc.yaml are the same after the block.

    It does nothing if DVC does not run the stage.

    Raises:
        InputError: a parameter or file has changed.
    """
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    before = declared(stage)
    yield
    after = declared(stage)
    changed = sorted(
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    )
    if before and changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"{stage}: {', '.join(changed[:3])}{more} changed while it ran, so that dvc.lock would "
            "name values that were not used; run dvc repro again (with the old values restored, a "
            "training resumes from its last checkpoint)"
        )


def declared(stage: str) -> dict[str, object]:
    """Return a stage's parameters with their values and its input files with their signatures.

    It is empty without a stage, or if dvc.yaml or params.yaml cannot be read, for example because
    another program is writing it.

    >>> declared("")
    {}
    """
    if not stage:
        return {}
    try:
        entry = _read_yaml("dvc.yaml")["stages"][stage]
        values = dict(_leaves("", _read_yaml("params.yaml")))
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return {}
    inputs: dict[str, object] = {}
    for name in entry.get("params", []):
        inputs |= {
            f"params.yaml: {key}": value
            for key, value in values.items()
            if f"{key}.".startswith(f"{name}.")
        }
    for dep in entry.get("deps", []):
        path = Path(re.sub(r"\$\{(.+?)\}", lambda match: str(values.get(match[1])), dep))
        files = files_in(path) if path.is_dir() else [path] if path.is_file() else []
        inputs |= {str(file): _signature(file) for file in files}
    return inputs


def _read_yaml(path: str) -> dict:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield the dotted key and the value of every leaf of nested mappings."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value


def _signature(file: Path) -> object:
    """Return the digest of a small file, or the size and time of a large one."""
    status = file.stat()
    if status.st_size > SMALL:
        return status.st_size, status.st_mtime_ns
    return hashlib.sha256(file.read_bytes()).hexdigest()
