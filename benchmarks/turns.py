"""Systems that take turns, each turn a process of its own whose last line is a JSON object."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence


def turn(name: str, command: Sequence[str], python: str = sys.executable) -> dict:
    """What a script of benchmarks/ prints last; its errors end this one. Nothing is asked of the Hub."""
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
    """system -> its results, `turns` of them; `command`: a system's; `pythons`: of those that have an interpreter of their own."""
    found: dict[str, list[dict]] = {system: [] for system in systems}
    for number in range(1, turns + 1):
        for system in systems:
            found[system].append(turn(system, command(system), pythons.get(system, sys.executable)))
            print(f"turn {number} of {turns}: {system}", file=sys.stderr, flush=True)
    return found
