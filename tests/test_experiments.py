"""The named runs of experiments/: every parameter they set is one that there is, and the whole is consistent."""

import importlib.util
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
    for name, text in re.findall(r"-S '?(\+?[a-z_0-9.-]+)=(\{[^}]*\}|[^\s']+)'?", command):
        texts = ["table.csv"] if text.startswith('"$') else [text] if text.startswith(("[", "{")) else text.split(",")
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
                *groups, key = name.removeprefix("+").split(".")
                group = params
                for each in groups:
                    group = group[each]
                assert (key in group) != name.startswith("+"), name
                group[key] = given[0] if value is None else value
            Params.model_validate(params)


def test_every_way_to_write_a_change_is_read():
    assert overrides("dvc exp run -S seed=1,2 -S 'a.b=[x,y]' -S a.c=1e-5,2 -S a.d=\"$1\" -S a.e=null -S '+a.f.g-h={i: j, k: 1}'") == {
        "seed": [1, 2], "a.b": [["x", "y"]], "a.c": [1e-5, 2], "a.d": ["table.csv"], "a.e": [None],
        "+a.f.g-h": [{"i": "j", "k": 1}],
    }  # fmt: skip


def table_of(script: str):
    spec = importlib.util.spec_from_file_location(script, ROOT / f"experiments/{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.table


def test_experiments_are_compared_question_by_question():
    first = {"hit@1": {"q1": 1.0, "q2": 0.0}, "MRR@10": {"q1": 1.0, "q2": 0.5}}
    second = {"hit@1": {"q2": 1.0, "q1": 1.0}, "MRR@10": {"q2": 1.0, "q1": 1.0}}
    *_, one, other = table_of("validation_table")({"main": (first, 0.25), "wider": (second, 0.375)}).splitlines()
    assert one == "| main | 0.500 | 0.750 | 0.250 |  |"
    assert other == "| wider | 1.000 | 1.000 | 0.375 | +0.250 [+0.000, +0.500] |"


def test_experiments_on_other_validation_questions_are_refused():
    one, other = ({"hit@1": {q: 1.0}, "MRR@10": {q: 1.0}} for q in ("q1", "q2"))
    with pytest.raises(ValueError, match="^reseeded has other validation questions than main: prepare or seed differ$"):
        table_of("validation_table")({"main": (one, 0.5), "reseeded": (other, 0.5)})


def test_seeds_are_shown_by_their_mean_and_range():
    seeds = [
        {group: {system: {"hit@1": low + step} for system in ("dense", "base", "reranker", "fused")} for group, low in groups}
        for step in (0.0, 0.0625, 0.125)
        for groups in [(("all", 0.5), ("unseen", 0.25), ("seen", 0.75))]
    ]
    seeds[1]["all"]["fused"]["hit@1"] = 0.9375
    for seed in seeds:
        seed["unseen"]["base"]["hit@1"] = 0.375
    header, _, *rows = table_of("seed_table")(seeds, ["hit@1"]).splitlines()
    assert header == "| test questions | system | hit@1 |"
    assert rows[0] == "| all | dense | 0.562 (0.500 to 0.625) |"
    assert rows[3] == "| all | fused | 0.688 (0.500 to 0.938) |"
    assert rows[5] == "| unseen passages | base | 0.375 |"
    assert rows[8:] == [f"| seen passages | {system} | 0.812 (0.750 to 0.875) |" for system in ("dense", "base", "reranker", "fused")]
