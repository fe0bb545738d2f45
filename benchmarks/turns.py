"""Run systems in turns, each turn a process that prints a JSON object on its last line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence


def turn(name: str, command: Sequence[str], python: str = sys.executable) -> dict:
    """Return the JSON object that a script prints last; exit if it fails. The Hub is not used."""
    done = subprocess.run(
        [python, *command], capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(
    systems: Sequence[str],
    turns: int,
    command: Callable[[str], Sequence[str]],
    pythons: Mapping[str, str] = {},
) -> dict[str, list[dict]]:
    """Return system -> its results, one a turn.

    Args:
        command: gives the arguments of a system's turn; pythons: system -> its own interpreter.
    """
    results: dict[str, list[dict]] = {system: [] for system in systems}
    for number in range(1, turns + 1):
        for system in systems:
            python = pythons.get(system, sys.executable)
            results[system].append(turn(system, command(system), python))
            print(f"turn {number} of {turns}: {system}", file=sys.stderr, flush=True)
    return results
