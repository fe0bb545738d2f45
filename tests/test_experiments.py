"""The named runs of experiments/: every parameter they set is one that there is, and the whole is consistent."""

import re

import pytest
import yaml

from conftest import ROOT
from reranker.params import Loader, Params

SCRIPTS = sorted((ROOT / "experiments").glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_parameters_of_a_named_run_are_accepted(script):
    overrides = re.findall(r"-S '?([a-z_0-9]+)\.([a-z_0-9]+)=([^\s']+)'?", script.read_text(encoding="utf-8"))
    assert len(overrides) > 3
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"), Loader)
    for group, key, text in overrides:
        assert key in values[group], f"{group}.{key}"
        values[group][key] = "table.csv" if text.startswith('"$') else yaml.load(text, Loader)
    Params.model_validate(values)
