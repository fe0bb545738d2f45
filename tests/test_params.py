import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from tunerank.core.errors import InputError
from tunerank.params.base import Loader
from tunerank.params.load import load

TEXT = (ROOT / "tests/params.yaml").read_text(encoding="utf-8")


def load_with(tmp_path, **changes):
    """Load params.yaml with the first `key: value` line of each name replaced as a text.

    DVC changes parameters in the same way.
    """
    text = TEXT
    for name, value in changes.items():
        group, key = name.split("__") if "__" in name else (None, name)
        start = text.index(f"\n{group}:") if group else 0
        pattern = rf"(?m)^{'  ' if group else ''}{key}:.*$"
        match = re.compile(pattern).search(text, start)
        text = (
            text[: match.start()] + f"{'  ' if group else ''}{key}: {value}" + text[match.end() :]
        )
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


@pytest.mark.parametrize(
    "text, value",
    [
        ("2e-05", 2e-05),  # DVC writes -S train.lr=2e-5 like this
        ("1e3", 1000.0),
        ("-1.5E+2", -150.0),
        (".5", 0.5),
        ("3", 3),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("2e", "2e"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_are_read_as_in_yaml_1_2(text, value):
    found = yaml.load(f"x: {text}", Loader)["x"]
    assert found == value and type(found) is type(value)


def test_lr_written_by_dvc_is_a_float(tmp_path):
    assert load_with(tmp_path, train__lr="2e-05").train.lr == 0.00002


def test_the_committed_parameters_are_valid_and_have_the_same_names_as_the_tests():
    names = [
        {
            group: list(values) if isinstance(values, dict) else None
            for group, values in load(path).model_dump().items()
        }
        for path in (ROOT / "params.yaml", ROOT / "tests/params.yaml")
    ]
    assert names[0] == names[1] and "train" in names[0]


WHOLE = {"retrieve__window": "0", "retrieve__stride": "0", "retrieve__shown": "0"}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train__lr": "'2e-5'"}, "train.lr: Input should be a valid number, got '2e-5'"),
        ({"train__lr": "-0.1"}, "train.lr: Input should be greater than 0, got -0.1"),
        ({"train__epochs": "0"}, "train.epochs: Input should be greater than 0"),
        (
            {"train__group_size": "1"},
            "train.group_size: Input should be greater than or equal to 2",
        ),
        ({"train__batch_size": "2.5"}, "train.batch_size: Input should be a valid integer"),
        ({"train__scheduler": "cosin"}, "train.scheduler: Input should be 'linear', 'cosine'"),
        (
            {"train__drop_last": "yes"},
            "train.drop_last: Input should be a valid boolean, got 'yes'",
        ),
        ({"train__dropout": "1.0"}, "train.dropout: Input should be less than 1"),
        ({"base__source": "hub"}, "base: source 'hub' needs 'repo'"),
        ({"base__path": "x"}, "base: source 'bundled' excludes 'path'"),
        ({"base__source": "path"}, "base: source 'path' needs 'path'"),
        ({"retriever__source": "bundled"}, "retriever: source 'bundled' is a reranker"),
        (
            {"base__source": "hub", "base__repo": "a/b", "base__revision": "main"},
            "base: revision 'main' is not a commit",
        ),
        (
            {"samples__strategy": "all", "samples__teacher": "retriever"},
            "samples: teacher 'retriever' needs strategy 'hard'",
        ),
        (
            {"samples__strategy": "all", "samples__pair": "both"},
            "samples: pair 'both' needs strategy 'hard'",
        ),
        ({"train__distill_weight": "0.5"}, "train.distill_weight above 0 needs samples.teacher"),
        (
            {"train__evals_per_epoch": "0", "evaluate__fusion_weights": ""},
            "evaluate.fusion_weights is empty, which needs train.evals",
        ),
        ({"train__valid_depth": "51"}, "train.valid_depth 51 exceeds retrieve.depth 50"),
        ({"train__best": "loss"}, "train.best: Input should be 'hit@1', 'MRR@10' or 'nDCG@10'"),
        ({"samples__random_negatives": "99"}, "samples: random_negatives 99 exceeds negatives"),
        (
            {"samples__absolute_margin": ".nan"},
            "samples.absolute_margin: Input should be a finite number",
        ),
        ({"retrieve__stride": "0"}, "retrieve: window"),
        (
            {"retrieve__shown": "63"},
            "retrieve: shown 63 and window 64: set shown to at least window",
        ),
        (
            {"retrieve__window": "0", "retrieve__stride": "0"},
            "retrieve: shown 64 and window 0: set shown to at least window, and",
        ),
        (
            {"retrieve__dense_weight": "0", "retrieve__bm25_weight": "0"},
            "retrieve: dense_weight and bm25_weight are both 0",
        ),
        (
            {
                "retrieve__dense_weight": "0",
                "retrieve__window": "0",
                "retrieve__stride": "0",
                "retrieve__shown": "0",
                "pretrain__epochs": "1",
            },
            "retrieve.dense_weight 0 with retrieve.window 0 gives no dense scores, but",
        ),
        (
            {"samples__window_sizes": "[320, 64]"},
            "samples: window_sizes [320, 64]: put the smaller one first",
        ),
        (
            {
                "samples__units": "{view: 0.0, window: 1.0, whole: 0.0}",
                "retrieve__window": "0",
                "retrieve__stride": "0",
                "retrieve__shown": "0",
            },
            "samples.units.window above 0 needs retrieve.window",
        ),
        (
            {"samples__units": "{view: 0.0, window: 0.0, whole: 0.0}"},
            "samples.units: view, window and whole are all 0",
        ),
        ({"samples__untitled": "1.5"}, "samples.untitled: Input should be less than or equal to 1"),
        ({"score__whole_depth": "51"}, "score.whole_depth 51 exceeds retrieve.depth 50"),
        ({"score__depth": "60"}, "score.depth 60 exceeds retrieve.depth 50"),
        (
            {"evaluate__multiplier": "4"},
            "evaluate.multiplier 4 times the largest of evaluate.ks, 8, exceeds score.depth 24",
        ),
        (
            {"evaluate__resamples": "50"},
            "evaluate.resamples: Input should be greater than or equal to 100, got 50",
        ),
        (
            {"evaluate__compare": "{fused: {source: bundled}}"},
            "evaluate: compare: the name 'fused' is taken",
        ),
        (
            {"evaluate__compare": "{share: {source: bundled}}"},
            "evaluate: compare: the name 'share' is taken",
        ),
        (
            {"evaluate__compare": "{Large: {source: bundled}}"},
            "evaluate.compare.Large.[key]: String should match pattern",
        ),
        (
            {"evaluate__compare": "{large: {source: hub, repo: a/b}}"},
            "evaluate.compare.large: source 'hub' needs 'revision'",
        ),
        (
            {"evaluate__compare": "{large: {source: e5-small}}"},
            "evaluate.compare.large.source: Input should be 'bundled', 'hub' or",
        ),
        (
            {"train__report_to": "comet"},
            "train.report_to: Input should be 'none', 'tensorboard', 'wandb', "
            "'mlflow' or 'dvclive'",
        ),
        (
            {"evaluate__suspect_margin": "0"},
            "evaluate.suspect_margin: Input should be greater than 0",
        ),
        (
            {"samples__teacher": "reranker"},
            "teacher.source 'none' and samples.teacher 'reranker': set both to use a reranker",
        ),
        (
            {"teacher__source": "bundled"},
            "teacher.source 'bundled' and samples.teacher 'none': set both to use a reranker",
        ),
        ({"teacher__source": "hub"}, "teacher: source 'hub' needs 'repo'"),
        ({"samples__teacher_margin": "1.0"}, "samples: teacher_margin needs a teacher"),
        (
            {"pretrain__random_negatives": "6"},
            "pretrain: random_negatives 6 leaves no positive in group_size 6",
        ),
        ({"samples__skip_top": "45"}, "samples.skip_top 45 + samples.window"),
        ({"retrieve__run": "data/runs/elastic.trec"}, "retrieve.run: write the name of a file or"),
        ({"retrieve__run": "Elastic.trec"}, "retrieve.run: write the name of a file or folder in"),
        ({"retrieve__run": "../secret"}, "retrieve.run: write the name of a file or folder inside"),
        ({"retrieve__run": "''"}, "retrieve.run: write the name of a file or folder inside data/"),
        ({"retrieve__run": "7"}, "retrieve.run: Input should be a valid string, got 7"),
        (
            {"retrieve__run": "dense.trec"},
            "retrieve.run: the name 'dense' is taken; rename data/runs/dense.trec",
        ),
        ({"retrieve__run": "grade"}, "retrieve.run: the name 'grade' is taken; rename data/runs/"),
        (
            {"retrieve__run": "large.jsonl", "evaluate__compare": "{large: {source: bundled}}"},
            "retrieve.run: the name 'large' is taken; rename data/runs/large.jsonl",
        ),
        (
            {"evaluate__compare": "{grade: {source: bundled}}"},
            "evaluate: compare: the name 'grade' is taken",
        ),
        (
            {"evaluate__fusion_weights": "[1.0, 0.5]"},
            "evaluate.fusion_weights needs 3 weights, of the reranker, dense, bm25, got 2",
        ),
        (
            {"evaluate__fusion_weights": "[]"},
            "evaluate.fusion_weights needs 3 weights, of the reranker, dense, bm25, got 0",
        ),
        (
            {"evaluate__fusion_weights": "[1.0, 0.5, 0.5]", "retrieve__run": "elastic.trec"},
            "evaluate.fusion_weights needs 2 weights, of the reranker, elastic, got 3",
        ),
        (
            {"evaluate__fusion_weights": "[1.0, -0.5, 0.5]"},
            "evaluate.fusion_weights.1: Input should be greater than or equal to 0",
        ),
        (
            WHOLE | {"retrieve__run": "elastic.trec", "samples__teacher": "retriever"},
            "retrieve.run with retrieve.window 0 gives no dense scores, but samples.teacher",
        ),
        (
            WHOLE | {"retrieve__run": "elastic.trec", "samples__relative_margin": "0.1"},
            "retrieve.run with retrieve.window 0 gives no dense scores, but samples.teacher",
        ),
        (
            WHOLE
            | {
                "retrieve__run": "elastic.trec",
                "retrieve__dense_weight": "0",
                "pretrain__epochs": "1",
            },
            "retrieve.dense_weight 0 with retrieve.window 0 gives no dense scores, but pretrain",
        ),
        ({"seed": "-1"}, "seed: Input should be greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_refused_by_name(tmp_path, change, message):
    with pytest.raises(InputError) as error:
        load_with(tmp_path, **change)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_own_search_goes_with_what_needs_no_dense_scores_or_searches_by_itself(tmp_path):
    own = {"retrieve__run": "elastic.trec"}
    assert load_with(tmp_path, **own, samples__teacher="retriever").retrieve.dense
    assert not load_with(tmp_path, **own, **WHOLE, pretrain__epochs="1").retrieve.dense
    weights = load_with(
        tmp_path, **own, evaluate__fusion_weights="[1.0, 2]"
    ).evaluate.fusion_weights
    assert weights == [1.0, 2.0]


def test_an_unknown_key_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("  lr:", "  learning_rate: 1\n  lr:"), encoding="utf-8")
    with pytest.raises(InputError, match=r"train\.learning_rate: unknown key"):
        load(path)


def test_a_missing_key_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"(?m)^  lr:.*\n", "", TEXT), encoding="utf-8")
    with pytest.raises(InputError, match=r"train\.lr: Field required"):
        load(path)


@pytest.mark.parametrize("text", ["a: [", "a: !!python/object:os.system {}", "", "- 1"])
def test_a_file_without_parameters_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="params.yaml"):
        load(path)


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(InputError, match="run from the repository's folder"):
        load(tmp_path / "none.yaml")


def test_the_loader_reads_numbers_the_same_from_every_import():
    """`tunerank verify` compares dvc.lock with params.yaml and loads only a part of params/."""
    code = (
        "import yaml; from tunerank.params.base import Loader; "
        "print(yaml.load('[2e-05, 1e3, .5, true, yes, on]', Loader))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True
    )
    assert done.stdout == "[2e-05, 1000.0, 0.5, True, 'yes', 'on']\n"
