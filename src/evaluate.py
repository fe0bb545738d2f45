"""Retriever alone, base and fine-tuned reranker on the same candidates -> metrics/.

python src/evaluate.py data/prepared data/candidates data/baseline data/scores data/validation metrics
"""

from pathlib import Path

import pandas as pd

from reranker.evidence import SUSPECT, against, by_document, suspects
from reranker.files import read_by_id, read_jsonl, write_json, write_text
from reranker.params import Params, load
from reranker.passages import read_passages, read_questions
from reranker.reranking import (
    FUSED,
    evaluate_systems,
    fit_fusion,
    markdown_table,
    question_groups,
)
from reranker.spreadsheets import write_csv
from reranker.stage import run_stage
from reranker.ways import RANKED, read_scores, ways

SHOWN = 400
"""Characters of a passage in metrics/passages.csv."""


def main(prepared: str, candidate_folder: str, baseline: str, scored: str, validated: str, metrics: str) -> None:
    params = load()
    split = params.score.split
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    training = read_questions(Path(prepared, "train.jsonl"))
    trained = {question["passage"] for question in training}
    questions = read_questions(Path(prepared, f"{split}.jsonl"))
    keys = [question["id"] for question in questions]
    candidates = read_by_id(Path(candidate_folder, f"{split}.jsonl"), "candidates", keys)
    files = {"base": Path(baseline, f"{split}.jsonl")}
    files |= {name: Path(baseline, name, f"{split}.jsonl") for name in params.evaluate.compare}
    files |= {"reranker": Path(scored, f"{split}.jsonl")}
    found = {name: read_scores(path, keys, params.retrieve) for name, path in files.items()}
    scores = {way: {name: by_way[way] for name, by_way in found.items()} for way in ways(params.retrieve)}
    labels = {row["id"]: row["scores"] for row in read_jsonl(Path(scored, "train.jsonl"), ("id", "scores"))}
    base_labels = read_by_id(Path(baseline, "train.jsonl"), "scores", labels)
    audited = [question for question in training if question["id"] in labels]

    weights = fusion_weights(params, prepared, candidate_folder, validated)
    result, rows, first, values = evaluate_systems(questions, candidates, scores, weights, trained, params)
    result["against"] = against(values, question_groups(rows), params.evaluate.resamples, params.seed)

    folder = Path(metrics)
    named = {"fusion_weights" if way == RANKED else f"fusion_weights_{way}": dict(zip(FUSED, weights[way])) for way in weights}
    write_json(folder / "eval.json", {"split": split, **named, **result})
    curves = {"k": params.evaluate.ks}
    for group, prefix in (("all", ""), ("article", "article_")):
        for system, measured in result[group].items():
            if system != "questions":
                curves[prefix + system] = [measured[f"hit@{k}"] for k in params.evaluate.ks]
    write_csv(folder / "hit_at_k.csv", pd.DataFrame(curves))
    write_csv(folder / "per_query.csv", pd.DataFrame(rows).astype(dict.fromkeys(values, "Int64")))
    write_csv(folder / "first.csv", pd.DataFrame(first))
    shown = sorted({passage for row in first for passage in (row["passage"], *(row[name] for name in values)) if passage})
    texts = [(passage, corpus[passage].title, corpus[passage].text[:SHOWN]) for passage in shown]
    write_csv(folder / "passages.csv", pd.DataFrame(texts, columns=["passage", "title", "text"]))
    documents = {row["id"]: row.get("document", "all") for row in read_jsonl(Path(prepared, "corpus.jsonl"))}
    write_csv(folder / "by_document.csv", pd.DataFrame(by_document(rows, list(values), documents)))
    margin = params.evaluate.suspect_margin
    doubtful = suspects(split, questions, scores[RANKED]["base"], scores[RANKED]["reranker"], margin)
    doubtful += suspects("train", audited, base_labels, labels, margin)
    write_csv(folder / "suspects.csv", pd.DataFrame(doubtful, columns=SUSPECT))
    table = markdown_table(result, params.evaluate.ks, params.evaluate.cutoff)
    write_text(folder / "table.md", table)
    print("\n" + table)


def fusion_weights(params: Params, prepared: str, candidate_folder: str, validated: str) -> dict[str, list[float]]:
    """way -> weights of FUSED, fitted to the validation questions where `evaluate.fusion_weights` is empty."""
    if params.evaluate.fusion_weights is not None:
        return dict.fromkeys(ways(params.retrieve), params.evaluate.fusion_weights)
    gold = {question["id"]: question["passage"] for question in read_questions(Path(prepared, "valid.jsonl"))}
    candidates = read_by_id(Path(candidate_folder, "valid.jsonl"), "candidates", gold)
    scores = read_scores(Path(validated, "valid.jsonl"), gold, params.retrieve)
    return {way: fit_fusion(gold, candidates, found) for way, found in scores.items()}


if __name__ == "__main__":
    run_stage(main)
