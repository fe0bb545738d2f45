"""Run the whole pipeline on each form of data that people have: the same questions, nine ways.

Every thing of the tiny table has two right passages for its price: the manual's and the shop's.
"""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ir_measures
import openpyxl
import pandas as pd
import pytest
import yaml
from conftest import dvc, table_rows
from ir_measures import AP, RR, R, Success, nDCG

from tunerank.core.files import read_jsonl

SHOP = "商店的价目：{thing}现在卖{price}元，送货到家。"


def judged() -> tuple[dict[str, tuple[str, str]], list[dict]]:
    """Return passage -> (title, text), and questions {id, question, split, relevant, negatives}.

    `relevant` is passage -> (grade, answer).
    """
    passages, questions = {}, []
    for number, row in enumerate(table_rows()):
        thing, price = row["question"][0], int(row["uuid"][1:]) + 3
        passages[row["uuid"]] = f"{thing}的手册", row["doc"]
        relevant, negatives = {row["uuid"]: (1, row["answer"])}, []
        if "卖" in row["question"]:
            key = f"s{row['uuid'][1:]}"
            passages[key] = "价目", SHOP.format(thing=thing, price=price)
            relevant = {key: (2, row["answer"])} | relevant
            negatives = [f"p{(price - 2) % 12:02d}"]
        questions.append(
            {"id": f"t{number}", "question": row["question"], "split": row["dataset"]}
            | {"relevant": relevant, "negatives": negatives}
        )
    return passages, questions


PASSAGES, QUESTIONS = judged()
SPLITS = {"train": "train", "dev": "valid", "test": "test"}
TEXTS = {key: text for key, (_, text) in PASSAGES.items()}


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )


def of_split(split: str) -> list[dict]:
    return [question for question in QUESTIONS if question["split"] == split]


def workbook(folder: Path) -> Path:
    """Write the article's columns; a question stands in one row for each of its passages."""
    folder.mkdir(parents=True)
    book = openpyxl.Workbook()
    book.active.append(["uuid", "question", "answer", "doc", "qa_type", "dataset"])
    for question in QUESTIONS:
        for key, (_, answer) in question["relevant"].items():
            book.active.append(
                [key, question["question"], answer, TEXTS[key], "detailed", question["split"]]
            )
    book.save(folder / "问答.xlsx")
    return folder / "问答.xlsx"


def repeated_rows(folder: Path) -> Path:
    """Write qa.csv with a row for each judgement, and corpus.csv."""
    folder.mkdir(parents=True)
    with open(folder / "qa.csv", "w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["question", "uuid", "dataset", "label"])
        for question in QUESTIONS:
            grades = [(key, grade) for key, (grade, _) in question["relevant"].items()]
            for key, grade in grades + [(key, 0) for key in question["negatives"]]:
                rows.writerow([question["question"], key, question["split"], grade])
    with open(folder / "corpus.csv", "w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["uuid", "title", "doc"])
        rows.writerows((key, title, text) for key, (title, text) in PASSAGES.items())
    return folder


def beir(folder: Path) -> Path:
    write_lines(
        folder / "corpus.jsonl",
        [{"_id": key, "title": title, "text": text} for key, (title, text) in PASSAGES.items()],
    )
    write_lines(
        folder / "queries.jsonl",
        [{"_id": question["id"], "text": question["question"]} for question in QUESTIONS],
    )
    (folder / "qrels").mkdir()
    for name, split in SPLITS.items():
        lines = [
            f"{question['id']}\t{key}\t{grade}\n"
            for question in of_split(split)
            for key, (grade, _) in question["relevant"].items()
        ]
        (folder / f"qrels/{name}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8"
        )
    return folder


def flag_embedding(folder: Path) -> Path:
    for name, split in SPLITS.items():
        rows = [
            {
                "query": question["question"],
                "pos": [TEXTS[key] for key in question["relevant"]],
                "neg": [TEXTS[key] for key in question["negatives"]],
            }
            for question in of_split(split)
        ]
        write_lines(folder / f"{name}.jsonl", rows)
    return folder


def triplets(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, split in SPLITS.items():
        rows = [
            (question["question"], TEXTS[key], TEXTS[(question["negatives"] or ["s00"])[0]])
            for question in of_split(split)
            for key in question["relevant"]
        ]
        frame = pd.DataFrame(rows, columns=["anchor", "positive", "negative"])
        frame.to_parquet(folder / f"{name}.parquet")
    return folder


def labelled_pairs(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, split in SPLITS.items():
        rows = []
        for question in of_split(split):
            rows += [(question["question"], TEXTS[key], 1) for key in question["relevant"]]
            rows += [(question["question"], TEXTS[key], 0) for key in question["negatives"]]
        frame = pd.DataFrame(rows, columns=["sentence1", "sentence2", "label"])
        frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


def squad(folder: Path) -> Path:
    """Write SQuAD's form; a question stands in each paragraph that answers it."""
    folder.mkdir(parents=True)
    for name, split in SPLITS.items():
        asked: dict[str, list[dict]] = {}
        for question in of_split(split):
            for key, (_, answer) in question["relevant"].items():
                found = {"text": answer, "answer_start": TEXTS[key].find(answer)}
                qa = {"id": f"{question['id']}-{key}", "question": question["question"]}
                asked.setdefault(key, []).append(qa | {"answers": [found]})
        data = [
            {"title": PASSAGES[key][0], "paragraphs": [{"context": TEXTS[key], "qas": found}]}
            for key, found in asked.items()
        ]
        text = json.dumps({"version": "v1.1", "data": data}, ensure_ascii=False)
        (folder / f"{name}-v1.1.json").write_text(text, encoding="utf-8")
    return folder


def cmrc(folder: Path) -> Path:
    """Write the form of cmrc2018's own files."""
    folder.mkdir(parents=True)
    for name, split in SPLITS.items():
        rows = []
        for key in PASSAGES:
            qas = [
                {
                    "query_id": f"{question['id']}-{key}",
                    "query_text": question["question"],
                    "answers": [question["relevant"][key][1]],
                }
                for question in of_split(split)
                if key in question["relevant"]
            ]
            if qas:
                title, text = PASSAGES[key]
                rows.append({"context_id": key, "context_text": text, "title": title, "qas": qas})
        (folder / f"cmrc2018_{name}.json").write_text(
            json.dumps(rows, ensure_ascii=False), encoding="utf-8"
        )
    return folder


def trec(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "collection.tsv").write_text(
        "".join(f"{key}\t{text}\n" for key, text in TEXTS.items()), encoding="utf-8"
    )
    for name, split in SPLITS.items():
        questions = of_split(split)
        (folder / f"queries.{name}.tsv").write_text(
            "".join(f"{question['id']}\t{question['question']}\n" for question in questions),
            encoding="utf-8",
        )
        lines = [
            f"{question['id']} 0 {key} {grade}\n"
            for question in questions
            for key, grade in [
                *((key, grade) for key, (grade, _) in question["relevant"].items()),
                *((key, 0) for key in question["negatives"]),
            ]
        ]
        (folder / f"qrels.{name}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


GRADED = (repeated_rows, beir, trec)
WITH_NEGATIVES = (repeated_rows, flag_embedding, triplets, labelled_pairs, trec)
OWN_IDS = (beir, trec)
FORMS = (
    workbook,
    repeated_rows,
    beir,
    flag_embedding,
    triplets,
    labelled_pairs,
    squad,
    cmrc,
    trec,
)


@pytest.fixture(scope="module")
def work(project, tmp_path_factory) -> Path:
    """Return a copy of the tiny project, whose stages run again on other data."""
    folder = tmp_path_factory.mktemp("forms") / "work"
    return Path(shutil.copytree(project, folder, symlinks=True))


def repro(work: Path, raw: Path, changes: dict[str, dict]) -> tuple[dict, str]:
    """Run the pipeline on `raw`; return metrics/eval.json and what was printed."""
    parameters = yaml.safe_load((work / "params.yaml").read_text(encoding="utf-8"))
    parameters["prepare"]["raw"] = str(raw.relative_to(work))
    for group, values in changes.items():
        parameters[group] |= values
    (work / "params.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    said = dvc("repro", cwd=work)
    return json.loads((work / "metrics/eval.json").read_text(encoding="utf-8")), said


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=[] if form is beir else pytest.mark.slow, id=form.__name__)
        for form in FORMS
    ],
)
def test_the_pipeline_runs_on_a_form(work, form: Callable[[Path], Path]):
    raw = form(work / "data/raw" / form.__name__)
    result, _ = repro(work, raw, {})
    found = {
        split: {row["question"]: row for row in read_jsonl(work / f"data/prepared/{split}.jsonl")}
        for split in ("train", "valid", "test")
    }
    texts = {row["id"]: row["text"] for row in read_jsonl(work / "data/prepared/corpus.jsonl")}
    assert set(texts.values()) == set(TEXTS.values())
    for split, rows in found.items():
        expected = {question["question"]: question for question in of_split(split)}
        assert rows.keys() == expected.keys()
        for name, row in rows.items():
            relevant = expected[name]["relevant"]
            grades = {TEXTS[key]: grade for key, (grade, _) in relevant.items()}
            assert {texts[item["passage"]]: item["grade"] for item in row["relevant"]} == (
                grades if form in GRADED else dict.fromkeys(grades, 1)
            )
            if form in OWN_IDS:
                assert row["id"] == expected[name]["id"]
    asked = {question["question"]: question for question in QUESTIONS}
    samples = list(read_jsonl(work / "data/samples/train.jsonl"))
    assert len(samples) == len(of_split("train"))
    for sample in samples:
        question = asked[sample["query"]]
        right = {TEXTS[key] for key in question["relevant"]}
        assert {texts[key] for key in sample["pos_passages"]} == right
        assert not right & {texts[key] for key in sample["neg_passages"]}
        if form in WITH_NEGATIVES and question["negatives"]:
            own = TEXTS[question["negatives"][0]]
            held_out = {
                key for other in QUESTIONS if other["split"] != "train" for key in other["relevant"]
            }
            if question["negatives"][0] not in held_out:
                assert texts[sample["neg_passages"][0]] == own

    measures = ["hit@1", "hit@2", "MRR@10", "nDCG@10", "recall@1", "recall@2", "MAP@10"]
    assert sorted(result["all"]["fused"]) == sorted(measures)
    theirs = [Success @ 1, Success @ 2, RR @ 10, nDCG @ 10, R @ 1, R @ 2, AP @ 10]
    qrels = list(ir_measures.read_trec_qrels(str(work / "metrics/runs/qrels.trec")))
    for system, values in result["all"].items():
        if system != "questions":
            run = ir_measures.read_trec_run(str(work / f"metrics/runs/{system}.trec"))
            computed = ir_measures.calc_aggregate(theirs, qrels, run)
            assert [values[name] for name in measures] == pytest.approx(
                [computed[measure] for measure in theirs], abs=1e-6
            )


def test_the_pipeline_reranks_what_another_search_returns(work):
    """The user's search finds half of the passages, and ranks the right ones last."""
    raw = work / "data/raw/beir"
    if not raw.exists():
        beir(raw)
    lines = []
    for question in QUESTIONS:
        right = [key for key in question["relevant"] if not key.startswith("s")]
        others = [key for key in PASSAGES if key.startswith("p") and key not in right]
        for place, key in enumerate([*others[:5], *right]):
            lines.append(
                {"query": question["question"], "passage": key, "score": round(9 - place / 2, 1)}
            )
    write_lines(work / "data/runs/shop-search.jsonl", lines)
    result, _ = repro(work, raw, {"retrieve": {"run": "shop-search.jsonl"}})
    systems = list(result["all"])
    assert systems[:3] == ["questions", "shop-search", "base"] and "fused" in systems
    assert not {"bm25", "dense", "retriever"} & set(systems)
    # The right passage is the sixth of six, and the shop's own passages are never found.
    assert result["all"]["shop-search"]["hit@2"] == 0.0
    assert result["all"]["shop-search"]["MRR@10"] == pytest.approx(1 / 6, abs=1e-6)
    assert list(result["fusion_weights"]) == ["reranker", "shop-search"]
    table = (work / "metrics/table.md").read_text(encoding="utf-8")
    assert "shop-search" in table and "bm25" not in table
    assert "shop-search" in (work / "report/index.html").read_text(encoding="utf-8")
