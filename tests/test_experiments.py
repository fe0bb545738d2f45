"""The named runs of experiments/: every parameter they set is one that there is, and the whole is consistent."""

import itertools
import re
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from reranker.params import Loader, Params

SCRIPTS = sorted((ROOT / "experiments").glob("*.sh"))


def overrides(command: str) -> dict[str, list]:
    """What a command sets: parameter -> its values, several where it queues several runs."""
    found = {}
    for name, text in re.findall(r"-S '?([a-z_0-9.]+)=([^\s']+)'?", command):
        texts = ["table.csv"] if text.startswith('"$') else [text] if text.startswith("[") else text.split(",")
        found[name] = [yaml.load(one, Loader) for one in texts]
    return found


def commands(script: Path) -> list[str]:
    """The lines of a script that set parameters; one that goes on in the next line counts with it."""
    lines = script.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [line for line in lines if "-S " in line and not line.startswith("#")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_parameters_of_a_named_run_are_accepted(script):
    runs = commands(script)
    assert runs
    for run in runs:
        changes = overrides(run)
        assert changes, run
        for values in itertools.zip_longest(*changes.values()):
            params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"), Loader)
            for (name, given), value in zip(changes.items(), values):
                *groups, key = name.split(".")
                group = params[groups[0]] if groups else params
                assert key in group, name
                group[key] = given[0] if value is None else value
            Params.model_validate(params)


def test_every_way_to_write_a_change_is_read():
    assert overrides("dvc exp run -S seed=1,2 -S 'a.b=[x,y]' -S a.c=1e-5,2 -S a.d=\"$1\" -S a.e=null") == {
        "seed": [1, 2], "a.b": [["x", "y"]], "a.c": [1e-5, 2], "a.d": ["table.csv"], "a.e": [None],
    }  # fmt: skip
