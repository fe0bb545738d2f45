import json
import re
import shutil
from dataclasses import replace

import pytest
import yaml
from conftest import ROOT
from huggingface_hub import ModelCard
from searched import evaluated, questions
from test_publish import DIFFERENCE, VALUES, metrics

from tunerank.params.load import Params, load
from tunerank.provenance.lock import Origin
from tunerank.publishing.card import describe_checkpoint, model_card

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def parameters(**changes: dict) -> Params:
    values = load(ROOT / "tests/params.yaml").model_dump()
    for group, change in changes.items():
        values[group] |= change
    return Params.model_validate(values)


def origin(**changes: dict) -> Origin:
    """Return a run for the card; `changes`: name of a metrics file -> changed values."""
    found = {name: value | changes.get(name, {}) for name, value in metrics().items()}
    return Origin(COMMIT, dirty=False, md5="9987263b1903fd0aaf4e58c1b57f71ef.dir", metrics=found)


def written(
    params: Params | None = None,
    of: Origin | None = None,
    license: str | None = None,
    search: bool = False,
) -> str:
    revision = "v1" if search else "main"
    params, of = params or parameters(), of or origin()
    return model_card("ann/my_reranker", revision, params, of, license, [], search)


def about(text: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


def test_the_bundled_base_data_and_licence_are_named():
    text = written()
    found = about(text)
    assert (found["base_model"], found["license"], found["language"]) == (
        "intfloat/multilingual-e5-small",
        "mit",
        ["zh"],
    )
    assert "intfloat/multilingual-e5-small by way of the training repository's bundled base" in text
    assert (
        "`data/raw/yunshan`: 12 passages; questions: 18 train, 9 valid, 16 test |" in text
        and "| dropped rows | 2 empty |" in text
    )
    assert f"| `{COMMIT}` |" in text and "| `9987263b1903fd0aaf4e58c1b57f71ef.dir` |" in text
    assert (
        "| torch 2.13.0+cpu |" in text
        and "cpu (x86\\_64) with avx2, 2 threads, fp32, Python 3.11.7" in text
    )


def test_the_smaller_base_is_named_with_the_larger_one_s_licence():
    text = written(parameters(base={"source": "small"}))
    found = about(text)
    assert (found["base_model"], found["license"]) == ("intfloat/multilingual-e5-small", "mit")
    assert "bundled base and half of its layers, distilled from it (`docs/models.md` there)" in text
    assert "its base kept the vocabulary of Chinese and English alone" in text


def test_a_base_from_the_hub_has_no_licence_in_the_card():
    params = parameters(
        base={"source": "hub", "repo": "BAAI/bge-reranker-base", "revision": COMMIT}
    )
    text = written(params)
    assert about(text)["base_model"] == "BAAI/bge-reranker-base" and "license" not in about(text)
    assert f"Fine-tuned from `BAAI/bge-reranker-base` at `{COMMIT}` on" in text
    assert (
        "| licence | not stated: ask for that of the base and of the data |" in text
        and "MIT" not in text
    )
    assert about(written(params, license="apache-2.0"))["license"] == "apache-2.0"


def test_local_paths_are_shortened_to_their_last_part():
    params = parameters(
        base={"source": "path", "path": "/home/ann/secret/base"},
        prepare={"raw": "/home/ann/secret/qa.xlsx"},
    )
    text = written(params)
    assert "secret" not in text and "/home" not in text
    assert "a local checkpoint, `base` on questions about `qa.xlsx`." in text
    assert "base_model" not in about(text) and "language" not in about(text)
    assert about(text)["model-index"][0]["results"][0]["dataset"] == {
        "name": "qa",
        "type": "qa",
        "split": "test",
    }


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "x\n---\nlicense: gpl",
        "`code` *b* <script>",
        "a: b # c",
        "'\"",
        "{{x}}",
        "知识库 问答",
        "- item",
        "$$x$$",
        "--",
        "![](x)",
    ],
)
def test_a_path_with_markup_changes_neither_metadata_nor_tables(name):
    plain, odd = (
        written(parameters(prepare={"raw": "data/qa"})),
        written(parameters(prepare={"raw": f"data/{name}"})),
    )
    ours, theirs = about(plain), about(odd)
    wanted = theirs["model-index"][0]["results"][0].pop("dataset")
    assert ours["model-index"][0]["results"][0].pop("dataset")["name"] == "qa"
    assert theirs == ours
    assert wanted["name"] == " ".join(name.split()) and re.fullmatch(
        r"[A-Za-z0-9_.-]+", wanted["type"]
    )
    bars = [
        [re.sub(r"\\.", "", line).count("|") for line in ModelCard(text).text.split("\n")]
        for text in (plain, odd)
    ]
    assert bars[0] == bars[1]  # the same lines, and each row of a table has the same cells
    assert "<script>" not in re.sub(r"(`+).*?\1", "", ModelCard(odd).text)  # except in code spans


def test_the_card_warns_of_figures_from_validation_questions():
    text = written(of=origin(eval={"split": "valid"}))
    assert about(text)["model-index"][0]["results"][0]["dataset"]["split"] == "validation"
    assert (
        "- **The figures are of the validation questions, by which the checkpoint was chosen: "
        "they are too good.**" in text
    )
    assert "16 validation questions;" in text
    assert "too good" not in written()


def test_the_card_says_if_the_base_was_the_best():
    valid = {"measure": "MRR@10", "base": 0.5, "best": 0.4}
    trained = {
        "best_step": 3,
        "valid": valid,
        "merge": {"chosen": 0.0, "valid": {"0.0": 0.5, "1.0": 0.4}},
    }
    assert describe_checkpoint(trained).startswith(
        "**the base itself**: no fine-tuned weights"
    ) and describe_checkpoint(trained).endswith("MRR@10 0.500, the base's 0.500")
    assert (
        describe_checkpoint({"best_step": 3, "valid": valid})
        == "step 3, 1 of its weights and 0 of the base's; validation MRR@10 0.400, the base's 0.500"
    )
    assert (
        describe_checkpoint({"samples": 4})
        == "the last; no validation questions were ranked while it trained"
    )
    assert (
        "step 3, 0.75 of its weights and 0.25 of the base's; "
        "validation MRR@10 0.656, the base's 0.500" in written()
    )


def test_measures_follow_cutoff_and_ks():
    params = parameters(evaluate={"cutoff": 5, "ks": [2, 3]})
    values = {"hit@2": 0.5, "MRR@5": 0.25, "nDCG@5": 0.375}
    changed = json.loads(
        json.dumps(metrics()["eval"]).replace("@10", "@5").replace("hit@1", "hit@2")
    )
    for group in ("all", "unseen", "seen"):
        changed[group]["reranker"] = values
    found = about(written(params, origin(eval=changed)))["model-index"][0]["results"][0]["metrics"]
    assert [(m["type"], m["value"]) for m in found] == [("mrr@5", 0.25), ("ndcg@5", 0.375)]


def test_whole_passages_and_other_losses_are_described():
    text = written(parameters(retrieve={"shown": 0, "title": False}))
    assert (
        "Give it whole passages. On the first 24 candidates of a question in the run's first stage "
        "that is the row **this model**: hit@1 0.500, MRR@10 0.641, nDCG@10 0.703.\n" in text
    )
    assert (
        "by the weights of *fused*, the logits of whole passages make the row **fused**: "
        "hit@1 0.500, MRR@10 0.641, nDCG@10 0.703.\n" in text
    )
    assert '("问题", "一段文字")' in text and "views" not in text
    assert "| distillation | none |" in text
    taught = parameters(
        samples={"teacher": "reranker"},
        train={"distill_weight": 1.0},
        teacher={"source": "hub", "repo": "BAAI/big", "revision": COMMIT},
    )
    assert "| distillation | weight 1, temperature 1, from `BAAI/big` |" in written(taught)


@pytest.mark.parametrize(
    "shown, shares, untitled, expected",
    [
        (64, (1.0, 0.0, 0.0), 0.0, "views of 64 characters 100%"),
        (
            64,
            (1.0, 1.0, 2.0),
            0.25,
            "views of 64 characters 25%, windows of 64 to 320 characters 25%, whole passages 50%; "
            "without titles 25%",
        ),
        (0, (1.0, 2.0, 1.0), 0.0, "whole passages 50%, windows of 64 to 320 characters 50%"),
    ],
)
def test_the_views_of_training_are_described(shown, shares, untitled, expected):
    samples = {"units": dict(zip(("view", "window", "whole"), shares)), "untitled": untitled}
    assert f"| shown | {expected} |" in written(
        parameters(retrieve={"shown": shown}, samples=samples)
    )


def test_whole_passages_have_their_own_rows_in_a_run_with_views():
    found = origin()
    everything, against = found.metrics["eval"]["all"], found.metrics["eval"]["against"]["all"]
    whole = (("base_whole", 0.25), ("reranker_whole", 0.375), ("fused_whole", 0.625))
    everything |= {name: dict.fromkeys(VALUES, value) for name, value in whole}
    found.metrics["eval"]["fusion_weights_whole"] = {"reranker": 1.5, "dense": 20.0, "bm25": 0.0}
    cell = {"difference": 0.125, "low": 0.0625, "high": 0.1875, "p": 0.01}
    against["reranker_whole"] = {rival: dict.fromkeys(VALUES, cell) for rival in everything}
    before = written(parameters(retrieve={"shown": 64}))
    assert "That is no row of the results, which were measured on views.\n" in before
    assert "**this model, whole passages**" not in before
    assert "make the row" not in before and "fused, whole" not in before
    text = written(parameters(retrieve={"shown": 64}), of=found)
    assert (
        "| **this model, whole passages** | 0.375 | 0.375 | 0.375 |" in text
        and "| base, whole passages | 0.250 |" in text
    )
    assert "| this model, whole passages - base, whole passages | +0.125 [+0.062, +0.188] |" in text
    assert (
        "| **fused, whole passages**, with the first stage's scores | 0.625 | 0.625 | 0.625 |"
        in text
    )
    assert (
        "*fused, whole passages* orders by `1.5 * reranker + 20 * dense + 0 * bm25`, this model's "
        "logit and" in text
    )
    assert "make the row **fused, whole passages**: hit@1 0.625, MRR@10 0.625, nDCG" in text
    assert {m["value"] for m in about(text)["model-index"][0]["results"][0]["metrics"]} == {
        0.375
    }  # the snippets use it like this
    assert (
        "Give it whole passages, each after its title, as here. On the first 12 candidates of a "
        "question in the run's first stage that is the row **this model, whole passages**: "
        "hit@1 0.375, MRR@10 0.375, nDCG@10 0.375.\n"
        in text
        and '("问题", "标题。一段文字")' in text
    )
    assert "The row **this model**, hit@1 0.500, MRR@10 0.641, nDCG@10 0.703, takes of" in text


def test_the_card_describes_a_dirty_tree_without_seen_passages():
    found = origin()
    del found.metrics["eval"]["seen"]
    text = written(of=replace(found, dirty=True))
    assert (
        "*Seen* passages" not in text
        and "12 are about passages without training questions, 0 about passages with some" in text
    )
    assert f"`{COMMIT}`, with uncommitted changes |" in text
    assert VALUES["hit@1"] == 0.5 and "| **this model** | 0.500 | 0.641 | 0.703 |" in text


def test_recall_and_map_are_in_the_card_only_where_they_were_measured():
    assert "recall@" not in written() and "MAP@" not in written()
    assert "- One passage counts as right for each question; another that answers" in written()
    found = origin()
    more = {"recall@8": 0.875, "MAP@10": 0.53125}
    result = found.metrics["eval"]
    for group in ("all", "unseen", "seen"):
        for system in ("base", "reranker", "fused", "bm25", "dense", "retriever"):
            result[group][system] = result[group][system] | more
    cells = dict.fromkeys(("hit@1", "MRR@10", "nDCG@10", *more), DIFFERENCE)
    for system in ("reranker", "fused"):
        result["against"]["all"][system] = {"dense": cells, "bm25": cells, "base": cells}
    text = written(of=found)
    assert "|  | hit@1 | MRR@10 | nDCG@10 | recall@8 | MAP@10 |" in text
    assert "| **this model** | 0.500 | 0.641 | 0.703 | 0.875 | 0.531 |" in text
    assert "- The passages that the data names count as right for a question; " in text
    results = about(text)["model-index"][0]["results"][0]["metrics"]
    assert [(m["type"], m["value"]) for m in results][3:] == [
        ("recall@8", 0.875),
        ("map@10", 0.53125),
    ]


def test_a_card_of_a_run_names_the_users_search():
    found = origin()
    result = found.metrics["eval"]
    for group in ("all", "unseen", "seen"):
        result[group] = {
            "elastic" if name == "bm25" else name: values
            for name, values in result[group].items()
            if name not in ("dense", "retriever")
        }
    for system, rivals in result["against"]["all"].items():
        result["against"]["all"][system] = {"elastic": rivals["bm25"], "base": rivals["base"]}
    result |= {"first_stages": ["elastic"], "fusion_weights": {"reranker": 2.5, "elastic": 0.5}}
    params = parameters(
        retrieve={"run": "elastic.trec"},
        samples={"teacher": "retriever"},
        train={"distill_weight": 1.0},
    )
    text = written(params, of=found)
    assert "| elastic, first stage | 0.375 |" in text and "| bm25" not in text
    assert "| this model - elastic, the first stage | +0.125 [-0.062, +0.312] |" in text
    assert "*fused* orders by `2.5 * reranker + 0.5 * elastic`, this model's logit and" in text
    assert "| fused - elastic, the first stage | +0.125 [-0.062, +0.312] |" in text
    assert 'candidates = [("passage-1", 12.5), ("passage-2", 11.0)]' in text
    assert 'searcher.search("问题", top_k=5, candidates=candidates):' in text
    assert "windows that the dense retriever finds nearest to the question" in text
    assert "| distillation | weight 1, temperature 1, from the dense retriever |" in text


def test_the_measured_system_comes_first_with_its_figures():
    found = origin()
    result = found.metrics["eval"]["all"]
    result["fused"] = {"hit@1": 0.5625, "hit@3": 0.75, "MRR@10": 0.6875, "nDCG@10": 0.75}
    text = written(of=found)
    assert "| **fused**, with the first stage's scores | 0.562 | 0.688 | 0.750 |" in text
    assert "| fused - bm25, the best first stage by MRR@10 | +0.125 [-0.062, +0.312] |" in text
    assert (
        "### Search by the measured system: row **fused**\n\n"
        "This reproduces hit@1 0.562, MRR@10 0.688, nDCG@10 0.750, in the training" in text
    )
    assert text.index("### Search by the measured system") < text.index("### This model alone")
    assert "candidates=" not in text


def test_the_card_names_the_passages_and_their_revision_where_they_are_published():
    without, text = written(), written(search=True)
    assert 'searcher = Searcher(".")\n' in without and "search`" not in without
    assert "The passages are not published here. What works without them is this model" in without
    assert "ignore_patterns" not in without and "`LICENSE`, `.gitattributes`).\n" in without
    assert 'searcher = Searcher("ann/my_reranker", revision="v1")\n' in text
    assert "who may read the repository may read the passages." in text
    assert "not published here" not in text
    whole = 'FlagReranker(snapshot_download("ann/my_reranker", revision='
    assert f'{whole}"main"))\n' in without
    assert f'{whole}"v1", ignore_patterns="search/*"))\n' in text  # the passages are not needed
    assert "`LICENSE`, `.gitattributes`, `search`).\n" in text


def test_a_card_without_a_fused_row_names_none():
    found = origin()
    for group in ("all", "unseen", "seen"):
        del found.metrics["eval"][group]["fused"]
    del found.metrics["eval"]["fusion_weights"], found.metrics["eval"]["against"]["all"]["fused"]
    for shown in (0, 64):
        text = written(parameters(retrieve={"shown": shown}), of=found)
        assert "fused" not in text and "Searcher" not in text
        assert "### This model alone\n\nGive it whole passages, each after its title" in text


def test_the_cards_search_finds_what_the_run_has_measured(searched, hub, client, tmp_path):
    """The real client runs the example of the card that was published, as it is."""
    home = shutil.copytree(searched, tmp_path / "home", symlinks=True)
    repo = "ann/my_reranker"
    options = ("--repo", repo, "--search", "--tag", "v1")
    done = client.run("tunerank", "publish", *options, cwd=home, token="hf_ann")
    assert done.returncode == 0, done.stderr
    hub.add(repo, {"config.json": b"{}"})  # main has another commit
    text = hub.repositories[repo].at("v1").files["README.md"].decode()
    example = re.search(r"(?s)```python\n(from tunerank.*?)```", text)[1]
    assert f'searcher = Searcher("{repo}", revision="v1")\n' in example
    asked = questions(home)[:3]
    script = "\n".join(example.replace("问题", row["question"]) for row in asked)
    (alone,) = re.findall(r"FlagReranker\((snapshot_download\(.*\))\)\n", text)
    script += (
        f"import os\nfrom huggingface_hub import snapshot_download\nprint(os.listdir({alone}))\n"
    )
    (tmp_path / "use.py").write_text(script, encoding="utf-8")
    done = client.run(tmp_path / "use.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *found, downloaded = done.stdout.splitlines()
    assert "config.json" in downloaded and "search" not in downloaded  # the model alone
    printed = [line.split() for line in found]
    wanted = [evaluated(home)["fused"][row["id"]][:5] for row in asked]
    assert [(row[0], row[2]) for row in printed] == [
        (str(rank), passage) for ranking in wanted for rank, passage in enumerate(ranking, 1)
    ]
    assert len(printed) == 15
