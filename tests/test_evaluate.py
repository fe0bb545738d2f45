"""Test the stages evaluate and report, and the model card, with other ks and cutoffs."""

import csv
import json
import shutil
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import yaml
from conftest import ROOT
from ir_measures import AP, RR, R, Success, nDCG
from test_publish import metrics

import evaluate
import report
from tunerank.core.errors import InputError
from tunerank.core.files import write_jsonl
from tunerank.evaluation.runs import decode_id, encode_id, write_runs
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


SEVERAL = {"q1": {"a": 2, "c": 1}, "q2": {"h": 1, "b": 1}, "q3": {"g": 1}}
"""Ranks of the fine-tuned: q1 1 and 3, q2 8 and 2, q3 8."""


def question(key: str, relevant: dict[str, int]) -> dict:
    items = [
        {"passage": passage, "grade": grade, "context": "", "answer": f"{passage}."}
        for passage, grade in relevant.items()
    ]
    return {"id": key, "question": f"{key}?", "relevant": items, "negatives": [], "qa_type": ""}


def write_run(folder: Path, gold=None, run: str | None = None, training=(), **changes) -> None:
    """Write what `evaluate` and `report` read, with these values of the group `evaluate`.

    Args:
        gold: question id -> relevant passage -> grade; that of GOLD is the default.
        run: a file of the user's own search, in place of BM25 and dense.
        training: training questions, which the audit sees too.
    """
    gold = gold or {key: {passage: 1} for key, passage in GOLD.items()}
    values = yaml.load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), Loader)
    weights = [1.0, 0.0] if run else [1.0, 0.0, 0.0]
    values["evaluate"] |= {"fusion_weights": weights, "multiplier": 1} | changes
    values["retrieve"] |= {"run": run}
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    corpus = [{"id": passage, "text": passage, "document": passage < "d"} for passage in PASSAGES]
    corpus = [row | {"document": "early" if row["document"] else "late"} for row in corpus]
    first = (
        {"run": None, "run_score": 0.5}
        if run
        else {"dense": None, "bm25": None, "dense_score": 0.5, "bm25_score": 0.0}
    )
    candidates = [
        first | {"passage": passage, "run" if run else "dense": rank}
        for rank, passage in enumerate(PASSAGES, 1)
    ]
    tuned = {
        key: {passage: -float(order.index(passage)) for passage in PASSAGES}
        for key, order in ORDERS.items()
    }
    base = dict.fromkeys(GOLD, {passage: float(i) for i, passage in enumerate(PASSAGES)})
    labels = [{"id": row["id"], "scores": {"a": 0.0, "b": 1.0, "h": 4.0}} for row in training]
    for name, content in {
        "prepared/corpus": corpus,
        "prepared/train": training,
        "prepared/test": [question(key, relevant) for key, relevant in gold.items()],
        "candidates/test": [{"id": key, "candidates": candidates} for key in gold],
        "baseline/test": [{"id": key, "scores": base[key], "whole": base[key]} for key in gold],
        "baseline/train": labels,
        "scores/test": [{"id": key, "scores": tuned[key], "whole": tuned[key]} for key in gold],
        "scores/train": labels,
    }.items():
        write_jsonl(folder / f"{name}.jsonl", content)


def run_evaluate() -> dict:
    """Run the stage in the working folder; return the content of eval.json."""
    evaluate.main("prepared", "candidates", "baseline", "scores", "none", "metrics")
    return json.loads(Path("metrics/eval.json").read_text(encoding="utf-8"))


def rows_of(name: str) -> list[dict]:
    with open(f"metrics/{name}.csv", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


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
    result = run_evaluate()
    for system in ("reranker", "fused", "reranker_whole", "fused_whole"):
        assert list(result["all"][system].items()) == list(measured.items())
    assert result["article"]["reranker"] == {f"hit@{k}": share for k, share in article.items()}
    rows = rows_of("hit_at_k")
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


@pytest.fixture
def folder(tmp_path, monkeypatch, committed) -> Path:
    """Return the working folder, with the metrics of other stages."""
    shutil.copytree(committed / "metrics", tmp_path / "metrics")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_several_relevant_passages_reach_every_table_the_page_and_the_card(folder):
    training = [question("t1", {"a": 1, "b": 1}), question("t2", {"x": 1, "h": 1})]
    write_run(folder, SEVERAL, training=training, ks=[1, 3])
    result = run_evaluate()
    assert {name: group["questions"] for name, group in result.items() if "all" == name[:3]} == {
        "all": 3
    }
    assert result["seen"]["questions"] == 2 and result["unseen"]["questions"] == 1
    assert result["all"]["reranker"] == {
        "hit@1": 0.333333,
        "hit@3": 0.666667,
        "MRR@10": 0.541667,  # 1, 1/2 and 1/8
        "nDCG@10": 0.615326,  # 2.5 / 2.63093, 0.94639 / 1.63093 and 0.31546
        "recall@1": 0.166667,
        "recall@3": 0.5,
        "MAP@10": 0.444444,  # (1 + 2/3) / 2, (1/2 + 2/8) / 2 and 1/8
    }
    assert [list(row.values())[:5] for row in rows_of("per_query")] == [
        ["q1", "a", "2", "", "True"],
        ["q1", "c", "1", "", "True"],
        ["q2", "h", "1", "", "True"],
        ["q2", "b", "1", "", "True"],
        ["q3", "g", "1", "", "False"],
    ]
    assert [row["reranker"] for row in rows_of("per_query")] == ["1", "3", "8", "2", "8"]
    assert [(row["passage"], row["evidence"]) for row in rows_of("first")] == [
        ("a", "a."), ("h", "h."), ("g", "g."),
    ]  # fmt: skip
    # b and c are nowhere first, and still a reader needs their texts.
    assert [row["passage"] for row in rows_of("passages")] == ["a", "b", "c", "g", "h"]
    assert [
        (row["document"], row["questions"], row["base"], row["reranker"])
        for row in rows_of("by_document")
    ] == [("early", "2", "0.5", "0.5"), ("late", "2", "0.5", "0.0")]
    # t1 has b 1.0 and its rival h 4.0 under both models; the passages of t2 are h and one unscored.
    suspects = [row for row in rows_of("suspects") if row["split"] == "train"]
    assert [(row["id"], row["passage"], row["rival"]) for row in suspects] == [("t1", "b", "h")]
    assert {name: row["base_margin"] for name, row in zip("b", suspects)} == {"b": "3.0"}
    table = Path("metrics/table.md").read_text(encoding="utf-8")
    assert "| system | hit@1 | hit@3 | MRR@10 | nDCG@10 | recall@3 | MAP@10 |\n" in table
    assert "| reranker | 0.333 | 0.667 | 0.542 | 0.615 | 0.500 | 0.444 |\n" in table

    report.main("metrics", "params.yaml", "report")
    page = Path("report/index.html").read_text(encoding="utf-8")
    for name in ("recall@1", "recall@3", "MAP@10"):
        assert f'<th class="number">{name}</th>' in page
    assert "puts a right passage first for" in page and "its passages" in page
    shown = json.loads(page.split('id="data">')[1].split("</script>")[0])["questions"]
    found = {one["id"]: one for one in shown}
    assert [
        (one["passage"], one["grade"], one["ranks"]["reranker"]) for one in found["q2"]["relevant"]
    ] == [("h", 1, 8), ("b", 1, 2)]
    assert found["q2"]["ranks"]["reranker"] == 2 and found["q1"]["ranks"]["reranker"] == 1

    origin = Origin("0" * 40, dirty=False, md5="1.dir", metrics=metrics() | {"eval": result})
    card = model_card("ann/mine", "main", load(), origin, None, [])
    assert "|  | hit@1 | MRR@10 | nDCG@10 | recall@3 | MAP@10 |\n" in card
    assert "| **this model** | 0.333 | 0.542 | 0.615 | 0.500 | 0.444 |\n" in card
    assert "- The passages that the data names count as right for a question; " in card
    assert "One passage counts as right" not in card


def test_one_passage_a_question_has_neither_recall_nor_a_grade(folder):
    write_run(folder)
    result = run_evaluate()
    text = json.dumps(result) + Path("metrics/table.md").read_text(encoding="utf-8")
    assert "recall@" not in text and "MAP@" not in text and "first_stages" not in result
    assert list(rows_of("per_query")[0])[:5] == ["id", "passage", "qa_type", "seen", "bm25"]
    report.main("metrics", "params.yaml", "report")
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "recall@" not in page and "puts the right passage first for" in page


@pytest.mark.parametrize("gold", [None, SEVERAL])
def test_a_run_of_the_users_own_search_is_the_first_stage_everywhere(folder, gold):
    write_run(folder, gold, run="elastic.trec", ks=[1, 3])
    result = run_evaluate()
    systems = [
        "elastic",
        "base",
        "reranker",
        "fused",
        "base_whole",
        "reranker_whole",
        "fused_whole",
    ]
    assert list(result)[:3] == ["split", "first_stages", "fusion_weights"]
    assert result["first_stages"] == ["elastic"]
    assert result["fusion_weights"] == {"reranker": 1.0, "elastic": 0.0}
    assert [name for name in result["all"] if name != "questions"] == systems
    assert list(result["against"]["all"]["fused"]) == ["elastic", "base", "base_whole"]
    assert result["all"]["elastic"]["hit@3"] == 0.666667  # a and b of abcdefgh
    assert "elastic" in rows_of("per_query")[0] and "elastic" in rows_of("by_document")[0]
    assert rows_of("first")[2]["elastic"] == "a"
    table = Path("metrics/table.md").read_text(encoding="utf-8")
    assert "Against elastic, the first stage, with 95 % intervals" in table

    report.main("metrics", "params.yaml", "report")
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "Against <b>elastic</b>" in page and "<td>elastic</td>" in page

    origin = Origin("0" * 40, dirty=False, md5="1.dir", metrics=metrics() | {"eval": result})
    card = model_card("ann/mine", "main", load(), origin, None, [])
    assert "| elastic, first stage | 0.333 |" in card
    assert "| this model - elastic, the first stage | +0.000 [" in card
    assert (
        "`1 * reranker + 0 * elastic`" in card and "dense" not in card.split("## How it")[1][:900]
    )
    assert "windows that the dense retriever finds nearest to the question" in card


IDS = {
    "q 1": "q%201", "100%": "100%25", "%20": "%2520", "手册　第 1 章": "手册%E3%80%80第%201%20章",
    "a\tb": "a%09b", "a\x85\u2028b": "a%C2%85%E2%80%A8b", "\ufeffa": "%EF%BB%BFa", "\x00": "%00",
    "plain-1_é:/#": "plain-1_é:/#",
}  # fmt: skip


@pytest.mark.parametrize("name, field", IDS.items(), ids=map(ascii, IDS))
def test_an_id_is_one_field_and_comes_back(name, field):
    assert encode_id(name) == field and len(field.split()) == 1
    assert decode_id(field) == name


def test_trec_files_hold_ranks_grades_and_judged_negatives(tmp_path):
    asked = [
        question("q 1", {"a": 1, "手 册": 3}) | {"negatives": ["n%", "b"]},
        question("q2", {"b": 1}),
    ]
    write_runs(tmp_path / "runs", asked, {"bm25": {"q 1": ["b", "a", "手 册"], "q2": []}})
    assert (tmp_path / "runs/qrels.trec").read_text(encoding="utf-8") == (
        "q%201 0 手%20册 3\nq%201 0 a 1\nq%201 0 n%25 0\nq%201 0 b 0\nq2 0 b 1\n"
    )
    assert (tmp_path / "runs/bm25.trec").read_text(encoding="utf-8") == (
        "q%201 Q0 b 1 1 bm25\nq%201 Q0 a 2 0.5 bm25\nq%201 Q0 手%20册 3 0.333333333 bm25\n"
    )
    write_runs(tmp_path / "runs", asked, {"dense": {}})  # nothing of another run stays
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "dense.trec", "qrels.trec",
    ]  # fmt: skip


def test_scores_fall_in_32_bits_over_a_long_ranking(tmp_path):
    ranking = {"q": [f"p{i}" for i in range(20_000)]}
    write_runs(tmp_path / "runs", [], {"bm25": ranking})
    lines = (tmp_path / "runs/bm25.trec").read_text(encoding="utf-8").splitlines()
    scores = np.array([line.split()[4] for line in lines], dtype=np.float32)
    assert len(scores) == 20_000 and (np.diff(scores) < 0).all()


@pytest.mark.parametrize("gold", [None, SEVERAL, SEVERAL | {"q2": {"elsewhere": 1}}])
def test_ir_measures_reads_the_figures_from_the_trec_files(folder, gold):
    write_run(folder, gold, ks=[1, 3], cutoff=5)
    if gold and "elsewhere" in gold["q2"]:
        corpus = Path("prepared/corpus.jsonl")
        corpus.write_text(
            corpus.read_text(encoding="utf-8") + '{"id": "elsewhere", "text": "?"}\n',
            encoding="utf-8",
        )
    result = run_evaluate()
    names = {Success @ 1: "hit@1", Success @ 3: "hit@3", RR @ 5: "MRR@5", nDCG @ 5: "nDCG@5"}
    if gold:
        names |= {R @ 1: "recall@1", R @ 3: "recall@3", AP @ 5: "MAP@5"}
    qrels = list(ir_measures.read_trec_qrels("metrics/runs/qrels.trec"))
    systems = [name for name in result["all"] if name != "questions"]
    assert sorted(path.stem for path in Path("metrics/runs").iterdir()) == sorted(
        [*systems, "qrels"]
    )
    for system in systems:
        run = list(ir_measures.read_trec_run(f"metrics/runs/{system}.trec"))
        found = ir_measures.calc_aggregate(list(names), qrels, run)
        assert {names[metric]: value for metric, value in found.items()} == pytest.approx(
            result["all"][system], abs=1e-6
        )
