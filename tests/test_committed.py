"""Test that the committed lock, parameters, code, metrics and README tables belong together.

All of it is read from Git's HEAD, because `make repro` rewrites dvc.lock and metrics/ in the
working tree, with other figures on another CPU. After a change of any of them run `dvc repro` and
`python tests/test_committed.py`, which writes the results in metrics/eval.json of the working tree
into both READMEs, and commit all of it together.
"""

import hashlib
import json
import re

import pytest
import yaml
from conftest import ROOT, at_head, git

from tunerank.evaluation.significance import verdict
from tunerank.params.base import Loader

TRACKED = set(git("ls-tree", "-r", "--name-only", "-z", "HEAD", cwd=ROOT).split("\0"))
LOCK = yaml.load(at_head("dvc.lock"), Loader) if "dvc.lock" in TRACKED else {"stages": {}}
RESULTS = re.compile(r"(?s)(<!-- results -->\n)(.*?)(<!-- end -->)")
RIVAL = "dense"
SYSTEMS = (RIVAL, "base_whole", "reranker", "fused", "reranker_whole", "fused_whole")
WORDS = {
    "README.md": {
        "system": "system",
        "minus": "{} − {} [95 % interval]",
        "title": "{} test questions; against {} by {}: ",
        "better": "better: {}",
        "worse": "worse: {}",
        "no evidence": "no evidence of a difference: {}",
        "marks": (", ", "; ", "."),
    },
    "README.zh-CN.md": {
        "system": "系统",
        "minus": "{} − {} [95 % 区间]",
        "title": "{} 个测试问题；与 {} 比较 {}：",
        "better": "更好的有 {}",
        "worse": "更差的有 {}",
        "no evidence": "没有证据表明有差异的有 {}",
        "marks": ("、", "；", "。"),
    },
}


def md5_at_head(path: str) -> str:
    """Return DVC's md5 of a file or a folder of HEAD.

    A folder's is that of the JSON list of its files, as dvc_data.hashfile.tree writes it.
    """
    if path in TRACKED:
        return hashlib.md5(at_head(path)).hexdigest()
    files = sorted(name for name in TRACKED if name.startswith(f"{path}/"))
    listed = [
        {"md5": hashlib.md5(at_head(name)).hexdigest(), "relpath": name.removeprefix(f"{path}/")}
        for name in files
    ]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


@pytest.mark.parametrize("stage", yaml.safe_load(at_head("dvc.yaml"))["stages"])
def test_the_lock_belongs_to_the_committed_code_parameters_and_metrics(stage):
    locked = LOCK["stages"][stage]
    files = [
        entry
        for entry in locked["deps"] + locked["outs"]
        if entry["path"].startswith(("src/", "metrics/", "params.yaml"))
        and entry["path"] != "metrics/runs"  # DVC keeps it
    ]
    assert [entry["path"] for entry in files if md5_at_head(entry["path"]) != entry["md5"]] == []
    assert len(files) > 3
    values = yaml.load(at_head("params.yaml"), Loader)
    for name, value in locked.get("params", {}).get("params.yaml", {}).items():
        group, _, key = name.partition(".")
        assert (values[group][key] if key else values[group]) == value, name


def test_a_stages_input_is_locked_as_the_earlier_stage_left_it():
    """The lock has the same content for an output and for the input of a later stage."""
    made = {out["path"]: out["md5"] for stage in LOCK["stages"].values() for out in stage["outs"]}
    inputs = [
        (dep["path"], dep["md5"])
        for stage in LOCK["stages"].values()
        for dep in stage["deps"]
        if dep["path"] in made
    ]
    assert len(inputs) > 8
    assert [path for path, digest in inputs if made[path] != digest] == []


def results(result: dict, words: dict) -> str:
    """Return a README's table of a few systems, and one sentence with the verdict on each.

    Args:
        result: the content of metrics/eval.json.
        words: one of the values of `WORDS`.
    """
    everything, against = result["all"], result["against"]["all"]
    measure = next(name for name in everything[RIVAL] if name.startswith("MRR@"))
    columns = [words["system"], "hit@1", measure, words["minus"].format(measure, RIVAL)]
    lines = [f"| {' | '.join(columns)} |", "|---|---|---|---|"]
    verdicts = {"better": [], "worse": [], "no evidence": []}
    for system in SYSTEMS:
        if system not in everything:
            continue
        name, interval = system.replace("_", " "), "–"
        if system in against:
            entry = against[system][RIVAL][measure]
            interval = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**entry)
            verdicts[verdict(entry)].append(name)
        values = everything[system]
        lines.append(f"| {name} | {values['hit@1']:.3f} | {values[measure]:.3f} | {interval} |")
    comma, semicolon, stop = words["marks"]
    parts = [words[kind].format(comma.join(names)) for kind, names in verdicts.items() if names]
    title = words["title"].format(everything["questions"], RIVAL, measure)
    return "\n".join([*lines, "", title + semicolon.join(parts) + stop, ""])


@pytest.mark.parametrize("readme", WORDS)
def test_a_readme_shows_the_committed_results(readme):
    table = results(json.loads(at_head("metrics/eval.json")), WORDS[readme])
    assert RESULTS.search(at_head(readme).decode())[2] == table


def test_a_readmes_table_has_a_row_and_a_verdict_per_system():
    """Metrics of a run without views have no `whole` rows, and a system may be worse."""
    value = {"hit@1": 0.5, "MRR@10": 0.61254}
    entry = {"difference": -0.05, "low": -0.08, "high": -0.0204, "p": 0.01}
    result = {
        "all": {"questions": 3, "bm25": value, "dense": value, "reranker": value, "fused": value},
        "against": {
            "all": {
                "reranker": {"dense": {"MRR@10": entry}},
                "fused": {"dense": {"MRR@10": entry | {"high": 0.1, "p": 0.2}}},
            }
        },
    }
    assert results(result, WORDS["README.md"]).splitlines() == [
        "| system | hit@1 | MRR@10 | MRR@10 − dense [95 % interval] |",
        "|---|---|---|---|",
        "| dense | 0.500 | 0.613 | – |",
        "| reranker | 0.500 | 0.613 | -0.050 [-0.080, -0.020] |",
        "| fused | 0.500 | 0.613 | -0.050 [-0.080, +0.100] |",
        "",
        "3 test questions; against dense by MRR@10: worse: reranker; "
        "no evidence of a difference: fused.",
    ]


if __name__ == "__main__":
    committed = json.loads((ROOT / "metrics/eval.json").read_text(encoding="utf-8"))
    for readme, words in WORDS.items():
        path = ROOT / readme
        text = path.read_text(encoding="utf-8")
        table = results(committed, words)
        path.write_text(RESULTS.sub(lambda m: m[1] + table + m[3], text), encoding="utf-8")
