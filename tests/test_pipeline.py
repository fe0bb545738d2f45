"""Test the pipeline under DVC: the stages that a change makes stale, and a run on a tiny table."""

import ast
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ENVIRONMENT, NOT_DEPS, ROOT, dvc, git, table_rows

from tunerank.core.files import read_jsonl
from tunerank.core.inputs import files_in
from tunerank.data.questions import grades
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.params.load import Params, load
from tunerank.retrieval.fusion import fused_top_k

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def stale(folder: Path) -> set[str]:
    """Return the stages that `dvc repro` would run because of their own changes.

    Stages that only follow another stage are left out.
    """
    return {
        stage
        for stage, changes in json.loads(dvc("status", "--json", cwd=folder)).items()
        if any(
            not isinstance(change, str)
            and set(change) & {"changed deps", "changed outs"}
            or isinstance(change, str)
            for change in changes
        )
    }


def imports(path: Path, seen: set[Path]) -> set[Path]:
    """Return `path`, the modules that it imports, directly or not, and the files they read.

    Only modules of this repository and files in their folders count.
    """
    if path in seen:
        return seen
    seen.add(path)
    seen |= {
        path.with_name(name)
        for name in re.findall(
            r'Path\(__file__\)\.with_name\("(.+?)"\)', path.read_text(encoding="utf-8")
        )
    }
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            base = ROOT / "src" / name.replace(".", "/")
            if base.with_suffix(".py").exists():
                imports(base.with_suffix(".py"), seen)
    return seen


def expanded(names: list[str]) -> set[str]:
    """Return these files and the files of these folders, without the empty __init__.py."""
    files = [
        file
        for name in names
        for file in (files_in(ROOT / name) if (ROOT / name).is_dir() else [ROOT / name])
    ]
    return {str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_deps_are_the_modules_it_imports_and_no_others(stage):
    """A folder is listed only if the stage imports all of it.

    A new file in it makes this test fail if the stage does not import the file.
    """
    script = next(word for word in STAGES[stage]["cmd"].split() if word.endswith(".py"))
    modules = {str(path.relative_to(ROOT)) for path in imports(ROOT / script, set())}
    declared = expanded([dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")])
    assert modules - expanded(list(NOT_DEPS)) == declared


LIGHT = {
    "prepare": "torch",
    "samples": "torch",
    "evaluate": "torch",
    "report": "torch",
    "pretrain": "FlagEmbedding",
}
"""Stages that start without slow imports, unless their parameters need them."""


@pytest.mark.parametrize("stage", LIGHT)
def test_a_stage_imports_no_heavy_library_that_it_does_not_need(stage):
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import {stage}; "
        f"print({LIGHT[stage]!r} in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


def test_every_parameter_belongs_to_a_stage():
    tracked = {name for stage in STAGES.values() for name in stage.get("params", [])}
    leaves = set()
    for group, field in Params.model_fields.items():
        fields = getattr(field.annotation, "model_fields", None)
        leaves |= {f"{group}.{name}" for name in fields} if fields else {group}
    assert {
        leaf for leaf in leaves if leaf not in tracked and leaf.split(".")[0] not in tracked
    } == set()


def outputs(folder: Path) -> dict[str, bytes]:
    names = [
        *folder.glob("data/*/*.jsonl"),
        *folder.glob("metrics/*.*"),
        *folder.glob("metrics/runs/*"),
        folder / "models/reranker/model.safetensors",
    ]
    return {str(name.relative_to(folder)): name.read_bytes() for name in names}


def test_a_whole_run_leaves_the_documented_outputs(project):
    names = {
        str(path.relative_to(project))
        for path in project.rglob("*")
        if path.is_file() and ".dvc/" not in str(path)
    }
    for name in (
        "data/prepared/corpus.jsonl", "data/prepared/test.jsonl", "data/candidates/train.jsonl",
        "data/samples/train.jsonl", "data/baseline/test.jsonl", "data/scores/test.jsonl",
        "data/scores/train.jsonl", "data/validation/valid.jsonl", "models/base/model.safetensors",
        "models/reranker/model.safetensors", "metrics/data.json", "metrics/eval.json",
        "metrics/hit_at_k.csv", "metrics/per_query.csv", "metrics/train.csv", "metrics/valid.csv",
        "metrics/by_document.csv", "metrics/suspects.csv", "metrics/first.csv",
        "metrics/passages.csv", "report/index.html", "dvc.lock",
    ):  # fmt: skip
        assert name in names
    assert not [
        name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".partial"))
    ]
    assert [path.name for path in (project / ".cache/train").iterdir()] == ["tokens"]
    result = json.loads((project / "metrics/eval.json").read_text())
    assert result["all"]["questions"] == 9
    systems = {
        "bm25",
        "dense",
        "retriever",
        "base",
        "reranker",
        "fused",
        "base_whole",
        "reranker_whole",
        "fused_whole",
    }
    assert systems == set(result["all"]) - {"questions"} == set(result["article"]) - {"questions"}
    ranks = list(csv.DictReader((project / "metrics/per_query.csv").open()))
    share = sum(row["reranker"] == "1" for row in ranks) / len(ranks)
    assert share == pytest.approx(result["all"]["reranker"]["hit@1"], abs=1e-6)
    first = list(csv.DictReader((project / "metrics/first.csv").open(encoding="utf-8")))
    assert [row["id"] for row in first] == [row["id"] for row in ranks]
    texts = {row["uuid"]: row["doc"] for row in table_rows()}
    shown = {
        row["passage"]: row["text"]
        for row in csv.DictReader((project / "metrics/passages.csv").open(encoding="utf-8"))
    }
    for row, ranked in zip(first, ranks):
        for name in systems:
            assert (row[name] == row["passage"]) == (ranked[name] == "1") and (
                not row[name] or shown[row[name]] == texts[row[name]]
            )
    # The table has no documents.
    (whole,) = csv.DictReader((project / "metrics/by_document.csv").open())
    assert (whole["document"], whole["questions"]) == ("all", "9") and float(
        whole["reranker"]
    ) == pytest.approx(share, abs=1e-6)
    assert (
        (project / "metrics/suspects.csv")
        .read_text(encoding="utf-8")
        .startswith("split,id,question,passage,rival,base_margin,")
    )
    judged = {row["id"]: row["scores"] for row in read_jsonl(project / "data/baseline/train.jsonl")}
    asked = list(read_jsonl(project / "data/prepared/train.jsonl"))
    assert len(asked) == 18 and all(set(grades(row)) <= set(judged[row["id"]]) for row in asked)
    assert {len(scores) for scores in judged.values()} <= {5, 6}
    weights = {"fusion_weights", "fusion_weights_whole"}
    assert set(result["against"]) | {"article", "split", "against", *weights} == set(result)
    assert all(list(result[name]) == ["reranker", "dense", "bm25"] for name in weights)
    compared = result["against"]["unseen"]["reranker"]["retriever"]["MRR@10"]
    gain = result["unseen"]["reranker"]["MRR@10"] - result["unseen"]["retriever"]["MRR@10"]
    assert compared["difference"] == pytest.approx(gain, abs=2e-6)
    assert compared["low"] <= compared["difference"] <= compared["high"] and 0 < compared["p"] <= 1
    git_files = git("ls-files", cwd=project).split()
    assert "metrics/eval.json" in git_files and not [
        name for name in git_files if name.startswith(("models/base", "data/samples"))
    ]


def test_no_held_out_passage_is_in_a_sample(project):
    rows = {row["uuid"]: row for row in table_rows()}
    held_out = {key for key, row in rows.items() if row["dataset"] != "train"}
    texts = [rows[key]["doc"] for key in held_out]
    samples = [
        json.loads(line) for line in (project / "data/samples/train.jsonl").read_text().splitlines()
    ]
    assert samples
    for sample in samples:
        assert not held_out & {*sample["pos_passages"], *sample["neg_passages"]}
        assert not [
            text for text in sample["pos"] + sample["neg"] if any(text in doc for doc in texts)
        ]


def test_a_second_repro_has_nothing_to_do(project):
    before = outputs(project)
    said = dvc("repro", cwd=project)
    assert "Data and pipelines are up to date." in said and "Running stage" not in said
    assert "up to date" in dvc("status", cwd=project)
    assert outputs(project) == before


CHANGES = {
    "seed": ("seed", 7, {"fetch", "samples", "pretrain", "train", "evaluate"}),
    "split_seed": ("prepare.split_seed", 7, {"prepare"}),
    "prepare": ("prepare.unicode", "NFKC", {"prepare"}),
    "precision": ("retriever.precision", "bf16", {"retrieve", "pretrain"}),
    "prefix": ("retriever.query_prefix", "Q: ", {"retrieve", "pretrain"}),
    "retrieve": (
        "retrieve.rrf_k",
        30,
        {"retrieve", "pretrain", "train", "baseline", "score", "evaluate"},
    ),
    "window": (
        "retrieve.window",
        20,
        {"retrieve", "pretrain", "train", "baseline", "score", "evaluate"},
    ),
    "shown": (
        "retrieve.shown",
        28,
        {"retrieve", "samples", "pretrain", "train", "baseline", "score", "evaluate"},
    ),
    "views": (
        "retrieve.views",
        2,
        {"retrieve", "pretrain", "train", "baseline", "score", "evaluate"},
    ),
    "title": (
        "retrieve.title",
        False,
        {"retrieve", "samples", "pretrain", "train", "baseline", "score", "evaluate"},
    ),
    "samples": ("samples.skip_top", 0.5, {"samples"}),
    "units": ("samples.untitled", 0.5, {"samples", "pretrain"}),
    "whole_depth": ("score.whole_depth", 4, {"baseline", "score", "evaluate"}),
    "teacher": ("teacher.source", "bundled", {"fetch"}),
    "pretrain": ("pretrain.fragments", 1, {"pretrain"}),
    "lr": ("train.lr", 0.001, {"train"}),
    "best": ("train.best", "hit@1", {"pretrain", "train"}),
    "depth": ("score.depth", 7, {"baseline", "score", "evaluate"}),
    "launcher": ("train.launcher", "python -u", {"train"}),
    "score": ("score.batch_tokens", 4096, {"samples", "pretrain", "train", "baseline", "score"}),
    "max_length": ("score.max_length", 90, {"samples", "pretrain", "train", "baseline", "score"}),
    "evaluate": ("evaluate.suspect_margin", 2.0, {"evaluate"}),
    "ks": ("evaluate.ks", [1, 2, 3], {"evaluate"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_parameter_makes_its_own_stages_stale(project, name):
    key, value, expected = CHANGES[name]
    path = project / "params.yaml"
    text = path.read_text(encoding="utf-8")
    parameters = yaml.safe_load(text)
    group, _, leaf = key.partition(".")
    if leaf:
        parameters[group][leaf] = value
    else:
        parameters[group] = value
    try:
        path.write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")
        # The report shows all parameters.
        assert set(json.loads(dvc("status", "--json", cwd=project))) == expected | {"report"}
    finally:
        path.write_text(text, encoding="utf-8")


def test_an_experiment_with_another_lr_runs_only_train_score_and_evaluate(project):
    said = dvc("exp", "run", "-n", "slower", "-S", "train.lr=2e-5", cwd=project)
    assert [
        line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")
    ] == ["train", "score", "evaluate", "report"]
    # The optimizer got this rate: the maximum of the cosine schedule is reached after the warm-up.
    rates = [
        float(row["learning_rate"])
        for row in csv.DictReader((project / "metrics/train.csv").open())
    ]
    assert 0.9 * 2e-5 < max(rates) <= 2e-5
    assert "lr: 2e-05" in (project / "params.yaml").read_text()
    shown = list(csv.DictReader(dvc("exp", "show", "--csv", cwd=project).splitlines()))
    rates = {row["Experiment"] or row["rev"]: float(row["train.lr"]) for row in shown}
    assert rates["slower"] == 2e-05 and rates["main"] == 0.003
    changes = json.loads(dvc("metrics", "diff", "--json", cwd=project))
    assert changes["metrics/train.json"]["loss_last"]["diff"] != 0
    slower = json.loads((project / "metrics/train.json").read_text())
    *_, main, row = subprocess.run(
        [sys.executable, ROOT / "experiments/validation_table.py", "main", "slower"],
        cwd=project,
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.splitlines()
    name, hit, reciprocal, base, apart = (cell.strip() for cell in row.strip("|").split("|"))
    assert (
        name == "slower"
        and base == f"{slower['base']['MRR@10']:.3f}"
        and reciprocal == f"{slower['kept']['MRR@10']:.3f}"
    )
    both = slower["kept"]["MRR@10"], slower["kept"]["whole MRR@10"]
    assert slower["merge"]["valid"][str(slower["merge"]["chosen"])] == pytest.approx(sum(both) / 2)
    difference, low, high = (float(number.strip("[],")) for number in apart.split())
    assert (
        difference == pytest.approx(float(reciprocal) - float(main.split("|")[3]), abs=2e-3)
        and low <= difference <= high
    )
    git("checkout", "-q", "--", ".", cwd=project)
    dvc("checkout", cwd=project)


def test_branches_compare_in_a_clone_without_data(project, tmp_path):
    git("checkout", "-q", "-b", "other", cwd=project)
    path = project / "params.yaml"
    path.write_text(
        path.read_text()
        .replace("fusion_weights: null", "fusion_weights: [1.0, 0.0, 0.0]")
        .replace("cutoff: 10", "cutoff: 5"),
        encoding="utf-8",
    )
    said = dvc("repro", cwd=project)
    assert [
        line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")
    ] == ["evaluate", "report"]
    git("commit", "-q", "-a", "-m", "other weight", cwd=project)
    clone = tmp_path / "clone"
    git("clone", "-q", str(project), str(clone), cwd=tmp_path)
    git("checkout", "-q", "main", cwd=project)
    dvc("checkout", cwd=project)
    assert not (clone / "data/samples").exists()
    ours = json.loads((clone / "metrics/eval.json").read_text())["all"]
    assert ours["fused"] == ours["reranker"]
    theirs = json.loads(git("show", "origin/main:metrics/eval.json", cwd=clone))["all"]
    changes = json.loads(dvc("metrics", "diff", "origin/main", "--json", cwd=clone))[
        "metrics/eval.json"
    ]
    assert changes["all.fused.MRR@5"]["new"] == ours["fused"]["MRR@5"]
    assert changes["all.fused.MRR@10"]["old"] == theirs["fused"]["MRR@10"]


def test_a_broken_table_stops_the_run_in_one_line_and_loses_nothing(project):
    before, raw = outputs(project), project / "data/raw/tiny.csv"
    good = raw.read_text(encoding="utf-8")
    try:
        raw.write_text(good + 'p99,"一个没有结束的引号,x,y,z,detailed,train\n', encoding="utf-8")
        said = dvc("repro", cwd=project, fails=True)
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert "data/raw/tiny.csv, row 38" in line and "check the quotes" in line
    finally:
        raw.write_text(good, encoding="utf-8")
    dvc("checkout", "--force", cwd=project)
    git("checkout", "-q", "--", ".", cwd=project)
    assert outputs(project) == before


def test_the_articles_construction_needs_only_parameters(project):
    said = dvc(
        "exp", "run", "--temp", "-n", "article", "-S", "samples.strategy=all",
        "-S", "samples.pair=qd", "-S", "samples.neg_batch_size=4", "-S", "retrieve.window=0",
        "-S", "retrieve.stride=0", "-S", "retrieve.shown=0", cwd=project,
    )  # fmt: skip
    assert "samples" in said
    made = json.loads(
        git("show", f"{exp_commit(project, 'article')}:metrics/samples.json", cwd=project)
    )
    assert made == {
        "samples": 18 * 5,
        "negatives": 18 * 17,
        "questions": 18,
        "evidence_shown": 1.0,  # the reranker sees whole passages
    }


def test_bm25_can_be_the_only_first_stage(project):
    options = [
        "retrieve.dense_weight=0",
        "retrieve.window=0",
        "retrieve.stride=0",
        "retrieve.shown=0",
        "samples.teacher=none",
    ]
    given = [part for option in [*options, "train.distill_weight=0"] for part in ("-S", option)]
    dvc("exp", "run", "--temp", "-n", "sparse", *given, cwd=project)
    result = json.loads(
        git("show", f"{exp_commit(project, 'sparse')}:metrics/eval.json", cwd=project)
    )
    measured = {name: value for name, value in result["all"].items() if name != "questions"}
    assert set(measured) == {"bm25", "retriever", "base", "reranker", "fused"}
    assert measured["retriever"] == measured["bm25"]
    assert set(result["against"]["all"]["fused"]) == {"bm25", "retriever", "base"}
    assert result["fusion_weights"]["dense"] == 0


def test_another_reranker_is_a_row_beside_the_base_without_a_new_training(project):
    before = json.loads((project / "metrics/eval.json").read_text())
    said = dvc(
        "exp", "run", "-n", "others", "-S", "+evaluate.compare.twin={source: bundled}", cwd=project
    )
    try:
        assert [
            line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")
        ] == ["fetch", "baseline", "evaluate", "report"]
        result = json.loads((project / "metrics/eval.json").read_text())
        assert list(result["all"]) == [
            "questions",
            "bm25",
            "dense",
            "retriever",
            "base",
            "twin",
            "reranker",
            "fused",
        ] + [f"{name}_whole" for name in ("base", "twin", "reranker", "fused")]
        for group in ("all", "unseen", "article"):
            assert (
                result[group]["twin"] == result[group]["base"]
                and result[group]["twin_whole"] == result[group]["base_whole"]
            )
        assert {name: result["all"][name] for name in before["all"]} == before["all"]
        assert (
            result["against"]["all"]["fused"]["twin"] == result["against"]["all"]["fused"]["base"]
        )
        assert "article_twin" in (project / "metrics/hit_at_k.csv").read_text()
        assert "<option>twin</option>" in (project / "report/index.html").read_text(
            encoding="utf-8"
        )
    finally:
        git("checkout", "-q", "--", ".", cwd=project)
        dvc("checkout", cwd=project)


def test_the_smaller_base_is_one_parameter_away(project):
    said = dvc("exp", "run", "-n", "small", "-S", "base.source=small", cwd=project)
    try:
        assert {"fetch", "train", "baseline", "score", "evaluate"} <= {
            line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")
        }
        for name in ("base", "reranker"):
            config = json.loads((project / f"models/{name}/config.json").read_text())
            assert config["num_hidden_layers"] == 1
        result = json.loads((project / "metrics/eval.json").read_text())["all"]
        assert {"base", "reranker", "base_whole", "reranker_whole"} <= set(result)
    finally:
        git("checkout", "-q", "--", ".", cwd=project)
        dvc("checkout", cwd=project)
    config = json.loads((project / "models/base/config.json").read_text())
    assert config["num_hidden_layers"] == 2


def test_the_plots_show_each_system_and_measure(project):
    plots = json.loads(dvc("plots", "show", "--json", cwd=project))["data"]
    shown = {
        name: {row.get("field") for row in made["content"]["data"]["values"]}
        for name, (made,) in plots.items()
    }
    systems = {"bm25", "dense", "retriever", "base", "reranker", "fused"}
    assert shown["hit@k by system"] == systems and shown["validation"] == {
        "hit@1",
        "MRR@10",
        "nDCG@10",
    }
    assert shown["hit@k by system, the article's protocol"] == {
        f"article_{name}" for name in systems
    }
    assert (
        all("<DVC_METRIC" not in json.dumps(made["content"]) for (made,) in plots.values())
        and len(shown) == 5
    )


def test_a_reranker_can_be_the_teacher_and_drop_negatives(project):
    options = ["-S", "teacher.source=bundled", "-S", "samples.teacher=reranker"]
    dvc("exp", "run", "--temp", "-n", "taught", *options, "samples", cwd=project)
    dvc(
        "exp",
        "run",
        "--temp",
        "-n",
        "filtered",
        *options,
        "-S",
        "samples.teacher_margin=0.0",
        "samples",
        cwd=project,
    )
    made = {
        name: json.loads(
            git("show", f"{exp_commit(project, name)}:metrics/samples.json", cwd=project)
        )
        for name in ("taught", "filtered")
    }
    assert made["taught"]["negatives"] == 18 * 5 > made["filtered"]["negatives"] > 0


def test_training_starts_from_the_pre_trained_base(project):
    options = [
        "-S",
        "pretrain.epochs=1",
        "-S",
        "pretrain.lr=0.003",
        "-S",
        "pretrain.batch_size=2",
        "-S",
        "pretrain.group_size=4",
    ]
    said = dvc("exp", "run", "-n", "pretrained", *options, cwd=project)
    try:
        # If the base itself is the better start, training gives the same scores, and evaluate is
        # up to date.
        started = [
            line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")
        ]
        assert [stage for stage in started if stage != "evaluate"] == [
            "pretrain",
            "train",
            "score",
            "report",
        ]
        made = json.loads((project / "metrics/pretrain.json").read_text())
        # Two sentences of each of twelve passages.
        assert made["samples"] == 24 and made["optimizer_steps"] == 12
        assert set(made["merge"]["valid"]) == {"0.0", "1.0"}
        start = json.loads((project / "metrics/train.json").read_text())["valid"]["base"]
        assert start == max(made["merge"]["valid"].values())
        assert not (project / ".cache/pretrain").exists()
    finally:
        git("checkout", "-q", "--", ".", cwd=project)
        dvc("checkout", cwd=project)


def test_without_pre_training_training_starts_from_the_base_and_its_scores(project):
    ours, theirs = (
        project / "models" / name / "model.safetensors" for name in ("pretrained", "base")
    )
    assert ours.read_bytes() == theirs.read_bytes()
    asked = {
        row["id"]: row["question"] for row in read_jsonl(project / "data/prepared/valid.jsonl")
    }
    texts = {row["id"]: row["text"] for row in read_jsonl(project / "data/prepared/corpus.jsonl")}
    spans = {
        row["id"]: {c["passage"]: c["views"] for c in row["candidates"]}
        for row in read_jsonl(project / "data/candidates/valid.jsonl")
    }
    known = {row["id"]: row["scores"] for row in read_jsonl(project / "data/start/valid.jsonl")}
    assert known.keys() == asked.keys() and all(len(scores) == 8 for scores in known.values())
    pairs, scores = [], []
    for question, found in known.items():
        for passage, score in found.items():
            ((start, end),) = spans[question][passage]
            pairs.append((asked[question], texts[passage][start:end]))
            scores.append(score)
    model = CrossEncoder(theirs.parent, 100, "fp32")
    assert model.score(pairs) == pytest.approx(scores, abs=1e-4)
    whole = {row["id"]: row["whole"] for row in read_jsonl(project / "data/start/valid.jsonl")}
    pairs = [
        (asked[question], texts[passage]) for question, found in whole.items() for passage in found
    ]
    assert model.score(pairs) == pytest.approx(
        [score for found in whole.values() for score in found.values()], abs=1e-4
    )
    assert {key: list(found) for key, found in whole.items()} == {
        key: list(found) for key, found in known.items()
    }


def test_the_rows_of_whole_passages_match_other_tools(project):
    """sentence-transformers scores whole passages of the first `score.whole_depth` candidates.

    It gets only the folder of the checkpoint.
    """
    from sentence_transformers import CrossEncoder as Peer

    texts = {row["id"]: row["text"] for row in read_jsonl(project / "data/prepared/corpus.jsonl")}
    asked = {row["id"]: row for row in read_jsonl(project / "data/prepared/test.jsonl")}
    peer = Peer(str(project / "models/reranker"), device="cpu", activation_fn=torch.nn.Identity())
    right, retrieve = 0, load(project / "params.yaml").retrieve
    for row in read_jsonl(project / "data/candidates/test.jsonl"):
        question, found = asked[row["id"]], fused_top_k(row["candidates"], 5, retrieve)
        scores = dict(
            zip(found, peer.predict([(question["question"], texts[name]) for name in found]))
        )
        right += max(found, key=scores.get) in grades(question)
    result = json.loads((project / "metrics/eval.json").read_text())
    assert result["all"]["reranker_whole"]["hit@1"] == pytest.approx(right / len(asked), abs=1e-6)


def exp_commit(folder: Path, name: str) -> str:
    refs = git(
        "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps", cwd=folder
    ).splitlines()
    return next(ref.split()[0] for ref in refs if ref.endswith(f"/{name}"))
