"""What is committed belongs together: the lock, the parameters, the code, the metrics and the README's table.

After a change of any of them: `dvc repro`, and `PYTHONPATH=src python tests/test_committed.py` to put the new table into the README.
"""

import hashlib
import re
from pathlib import Path

import pytest
import yaml

from reranker.params import Loader

ROOT = Path(__file__).parent.parent
LOCK = yaml.load((ROOT / "dvc.lock").read_text(encoding="utf-8"), Loader) if (ROOT / "dvc.lock").exists() else {"stages": {}}
README = ROOT / "README.md"
TABLE = re.compile(r"(?s)(<!-- metrics/table.md -->\n).*?(<!-- end -->)")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("stage", yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
def test_the_lock_is_of_this_code_these_parameters_and_these_metrics(stage):
    locked = LOCK["stages"][stage]
    files = [entry for entry in locked["deps"] + locked["outs"] if entry["path"].startswith(("src/", "metrics/", "params.yaml"))]
    assert [entry["path"] for entry in files if md5(ROOT / entry["path"]) != entry["md5"]] == []
    assert len(files) > 3
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"), Loader)
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
    assert TABLE.search(README.read_text(encoding="utf-8")).group(0).split("\n", 1)[1].removesuffix("<!-- end -->") == (
        (ROOT / "metrics/table.md").read_text(encoding="utf-8")
    )


if __name__ == "__main__":
    table = (ROOT / "metrics/table.md").read_text(encoding="utf-8")
    README.write_text(TABLE.sub(lambda m: m.group(1) + table + m.group(2), README.read_text(encoding="utf-8")), encoding="utf-8")
