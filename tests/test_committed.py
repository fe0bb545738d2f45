"""What is committed belongs together: the lock, the parameters, the code, the metrics and the README's table.

All of it is read from Git's HEAD: `make repro` rewrites dvc.lock and metrics/ in the working tree, on another CPU to other
figures. After a change of any of them: `dvc repro`, `PYTHONPATH=src python tests/test_committed.py` to put the table of the
working tree into the README, and one commit of them all.
"""

import hashlib
import re

import pytest
import yaml

from conftest import ROOT, at_head, git
from reranker.params import Loader

TRACKED = set(git("ls-tree", "-r", "--name-only", "-z", "HEAD", cwd=ROOT).split("\0"))
LOCK = yaml.load(at_head("dvc.lock"), Loader) if "dvc.lock" in TRACKED else {"stages": {}}
README = ROOT / "README.md"
TABLE = re.compile(r"(?s)(<!-- metrics/table.md -->\n)(.*?)(<!-- end -->)")


@pytest.mark.parametrize("stage", yaml.safe_load(at_head("dvc.yaml"))["stages"])
def test_the_lock_is_of_this_code_these_parameters_and_these_metrics(stage):
    locked = LOCK["stages"][stage]
    files = [entry for entry in locked["deps"] + locked["outs"] if entry["path"].startswith(("src/", "metrics/", "params.yaml"))]
    assert [entry["path"] for entry in files if hashlib.md5(at_head(entry["path"])).hexdigest() != entry["md5"]] == []
    assert len(files) > 3
    values = yaml.load(at_head("params.yaml"), Loader)
    for name, value in locked.get("params", {}).get("params.yaml", {}).items():
        group, _, key = name.partition(".")
        assert (values[group][key] if key else values[group]) == value, name


def test_stages_pass_on_what_they_were_given():
    """Every input that another stage makes is locked at the content that stage left."""
    made = {out["path"]: out["md5"] for stage in LOCK["stages"].values() for out in stage["outs"]}
    inputs = [(dep["path"], dep["md5"]) for stage in LOCK["stages"].values() for dep in stage["deps"] if dep["path"] in made]
    assert len(inputs) > 8
    assert [path for path, digest in inputs if made[path] != digest] == []


def test_the_readme_shows_the_committed_table():
    assert TABLE.search(at_head("README.md").decode())[2] == at_head("metrics/table.md").decode()


if __name__ == "__main__":
    table = (ROOT / "metrics/table.md").read_text(encoding="utf-8")
    README.write_text(TABLE.sub(lambda m: m[1] + table + m[3], README.read_text(encoding="utf-8")), encoding="utf-8")
