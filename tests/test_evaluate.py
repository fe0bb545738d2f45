"""Test the stages evaluate and report, and the model card, with other ks and cutoffs."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from test_publish import metrics

import evaluate
import report
from tunerank.core.errors import InputError
from tunerank.core.files import write_jsonl
from tunerank.params.base import Loader
from tunerank.params.load import load
from tunerank.provenance.lock import Origin
from tunerank.publishing.card import model_card

PASSAGES = "abcdefgh"
"""The dense retriever's order for every question."""
GOLD = {"q1": "a", "q2": "b", "q3": "h"}
ORDERS = {"q1": "abcdefgh", "q2": "abcdefgh", "q3": "abcdehfg"}
"""The fine-tuned reranker's orders: gold passages at rank 1, 2 and 6. The base has the reversed
dense order."""


def write_run(folder: Path, **changes) -> None:
    """Write what `evaluate` and `report` read, with these values of the group `evaluate`."""
    values = yaml.load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), Loader)
    values["evaluate"] |= {"fusion_weights": [1.0, 0.0, 0.0], "multiplier": 1} | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    rows = [
        {"id": key, "question": "?", "passage": passage, "qa_type": "", "context": "", "answer": ""}
        for key, passage in GOLD.items()
    ]
    corpus = [{"id": passage, "text": passage} for passage in PASSAGES]
    candidates = [
        {"passage": passage, "dense": rank, "bm25": None, "dense_score": 0.5, "bm25_score": 0.0}
        for rank, passage in enumerate(PASSAGES, 1)
    ]
    tuned = {
        key: {passage: -float(order.index(passage)) for passage in PASSAGES}
        for key, order in ORDERS.items()
    }
    base = dict.fromkeys(GOLD, {passage: float(i) for i, passage in enumerate(PASSAGES)})
    for name, content in {
        "prepared/corpus": corpus,
        "prepared/train": [],
        "prepared/test": rows,
        "candidates/test": [{"id": key, "candidates": candidates} for key in GOLD],
        "baseline/test": [{"id": key, "scores": base[key], "whole": base[key]} for key in GOLD],
        "baseline/train": [],
        "scores/test": [{"id": key, "scores": tuned[key], "whole": tuned[key]} for key in GOLD],
        "scores/train": [],
    }.items():
        write_jsonl(folder / f"{name}.jsonl", content)


@pytest.mark.parametrize(
    "changes, measured, curve, article, headers",
    [
        (
            {"ks": [5]},
            {"hit@1": 0.333333, "hit@5": 0.666667, "MRR@10": 0.555556, "nDCG@10": 0.662379},
            {"5": 0.666667},
            {"5": 0.666667},
            ["| system | hit@1 | hit@5 | MRR@10 | nDCG@10 |", "| system | hit@5 |"],
        ),
        (
            {"ks": [8, 1, 8, 3]},
            {
                "hit@1": 0.333333,
                "hit@3": 0.666667,
                "hit@8": 1.0,
                "MRR@10": 0.555556,
                "nDCG@10": 0.662379,
            },
            {"1": 0.333333, "3": 0.666667, "8": 1.0},
            {"1": 0.333333, "3": 0.666667, "8": 1.0},
            [
                "| system | hit@1 | hit@3 | hit@8 | MRR@10 | nDCG@10 |",
                "| system | hit@1 | hit@3 | hit@8 |",
            ],
        ),
        (
            {"ks": [7], "cutoff": 1},
            {"hit@1": 0.333333, "hit@7": 1.0, "MRR@1": 0.333333, "nDCG@1": 0.333333},
            {"7": 1.0},
            {"7": 0.666667},  # the passage of q3 is the eighth candidate
            ["| system | hit@1 | MRR@1 | nDCG@1 |", "| system | hit@7 |"],
        ),
    ],
)
def test_metrics_table_page_and_card_take_any_ks_and_cutoff(
    changes, measured, curve, article, headers, tmp_path, monkeypatch, committed
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(committed / "metrics", "metrics")
    write_run(tmp_path, **changes)
    evaluate.main("prepared", "candidates", "baseline", "scores", "none", "metrics")
    result = json.loads(Path("metrics/eval.json").read_text(encoding="utf-8"))
    for system in ("reranker", "fused", "reranker_whole", "fused_whole"):
        assert list(result["all"][system].items()) == list(measured.items())
    assert result["article"]["reranker"] == {f"hit@{k}": share for k, share in article.items()}
    with open("metrics/hit_at_k.csv", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["k"]: float(row["reranker"]) for row in rows} == curve
    assert {row["k"]: float(row["article_reranker"]) for row in rows} == article
    table = Path("metrics/table.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in table if line.startswith("| system")] == [headers[0]] * 2 + headers[1:]

    report.main("metrics", "params.yaml", "report")
    page = Path("report/index.html").read_text(encoding="utf-8")
    shown = [name for name in measured if name not in ("hit@7", "hit@8")]
    assert "".join(f'<th class="number">{name}</th>' for name in shown) in page
    assert "first for <b>33.3 %</b> of\n3 test questions" in page

    origin = Origin("0" * 40, dirty=False, md5="1.dir", metrics=metrics() | {"eval": result})
    card = model_card("ann/mine", "main", load(), origin, None, [])
    names = [name for name in measured if name == "hit@1" or "hit@" not in name]
    values = " | ".join(f"{measured[name]:.3f}" for name in names)
    assert f"|  | {' | '.join(names)} |" in card and f"| **this model** | {values} |" in card


def test_ks_are_in_ascending_order_and_not_empty(tmp_path):
    write_run(tmp_path, ks=[8, 1, 8, 3])
    assert load(tmp_path / "params.yaml").evaluate.ks == [1, 3, 8]
    write_run(tmp_path, ks=[])
    with pytest.raises(InputError) as error:
        load(tmp_path / "params.yaml")
    assert str(error.value) == (
        f"{tmp_path}/params.yaml: evaluate.ks: List should have at least 1 item after "
        "validation, not 0, got []"
    )
