"""Refuse a folder that a command would replace, if it has files of somebody else."""

from collections.abc import Collection
from pathlib import Path

from tunerank.core.errors import InputError


def refuse_file(folder: Path) -> None:
    """Check that `folder` is a folder, or missing.

    Raises:
        InputError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder")


def refuse_foreign(
    folder: Path, names: Collection[str], own: Collection[str], command: str
) -> None:
    """Check that a folder has only what a command wrote.

    Args:
        names: what is in the folder; own: what the command wrote; command: its name.

    Raises:
        InputError: there is something that would be lost.
    """
    if foreign := sorted(set(names) - set(own)):
        raise InputError(
            f"{folder}: {foreign[0]} is not as tunerank {command} writes it; name another folder, "
            "or move this one away"
        )
