"""Evaluate the first stages, the base and the fine-tuned reranker on the same candidates.

    python src/evaluate.py data/prepared data/candidates data/baseline data/scores \\
      data/validation metrics
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tunerank.core.files import read_by_id, read_jsonl, write_json, write_text
from tunerank.core.stage import run_stage
from tunerank.data.passages import Passage, read_passages
from tunerank.data.questions import grades, read_questions, relevant_passages
from tunerank.evaluation.markdown import markdown_table
from tunerank.evaluation.per_query import hits_by_document, question_groups
from tunerank.evaluation.runs import write_runs
from tunerank.evaluation.safe_csv import write_csv
from tunerank.evaluation.significance import SUSPECT, compare_systems, suspect_labels
from tunerank.evaluation.systems import evaluate_systems, fit_fusion, fused_names, rank_systems
from tunerank.params.load import Params, load
from tunerank.reranking.ways import RANKED, Scores, read_scores, system_name, ways

PREVIEW = 400
"""Characters of a passage in metrics/passages.csv."""


def main(
    prepared: str, candidate_folder: str, baseline: str, scored: str, validated: str, metrics: str
) -> None:
    params = load()
    split = params.score.split
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    rows = read_jsonl(Path(prepared, "corpus.jsonl"))
    documents = {row["id"]: row.get("document", "all") for row in rows}
    training = read_questions(Path(prepared, "train.jsonl"))
    trained = relevant_passages(training)
    questions = read_questions(Path(prepared, f"{split}.jsonl"))
    keys = [question["id"] for question in questions]
    candidates = read_by_id(Path(candidate_folder, f"{split}.jsonl"), "candidates", keys)
    scores = read_all_scores(params, baseline, scored, keys)
    rows = read_jsonl(Path(scored, "train.jsonl"), ("id", "scores"))
    labels = {row["id"]: row["scores"] for row in rows}
    base_labels = read_by_id(Path(baseline, "train.jsonl"), "scores", labels)
    audited = [question for question in training if question["id"] in labels]
    weights = fusion_weights(params, prepared, candidate_folder, validated)

    result, ranks, first, values = evaluate_systems(
        questions, candidates, scores, weights, trained, params
    )
    result["against"] = compare_systems(
        values, question_groups(ranks), params.evaluate.resamples, params.seed
    )
    names = fused_names(params.retrieve.parts)
    named = {system_name("fusion_weights", way): dict(zip(names, weights[way])) for way in weights}
    if params.retrieve.run:
        named = {"first_stages": [params.retrieve.first_stage]} | named
    result = {"split": split, **named, **result}
    margin, ranked = params.evaluate.suspect_margin, scores[RANKED]
    suspects = suspect_labels(split, questions, ranked["base"], ranked["reranker"], margin)
    suspects += suspect_labels("train", audited, base_labels, labels, margin)
    tables = {
        "hit_at_k": pd.DataFrame(hit_curves(result, params.evaluate.ks)),
        "per_query": pd.DataFrame(ranks).astype(dict.fromkeys(values, "Int64")),
        "first": pd.DataFrame(first),
        "passages": preview(first, list(values), relevant_passages(questions), corpus),
        "by_document": pd.DataFrame(hits_by_document(ranks, list(values), documents)),
        "suspects": pd.DataFrame(suspects, columns=SUSPECT),
    }
    table = markdown_table(result, params.evaluate.ks, params.evaluate.cutoff)
    write_outputs(Path(metrics), result, tables, table)
    rankings = rank_systems(candidates, scores, weights, params, params.score.depth)
    write_runs(Path(metrics, "runs"), questions, rankings)
    print("\n" + table)


def read_all_scores(
    params: Params, baseline: str, scored: str, keys: Sequence[str]
) -> dict[str, dict[str, Scores]]:
    """Read way -> reranker -> scores of the questions `keys`: the base, others, the fine-tuned.

    Raises:
        InputError: a question has no scores.
    """
    file = f"{params.score.split}.jsonl"
    files = {"base": Path(baseline, file)}
    files |= {name: Path(baseline, name, file) for name in params.evaluate.compare}
    files |= {"reranker": Path(scored, file)}
    scores = {name: read_scores(path, keys, params.retrieve) for name, path in files.items()}
    return {
        way: {name: by_way[way] for name, by_way in scores.items()} for way in ways(params.retrieve)
    }


def fusion_weights(
    params: Params, prepared: str, candidate_folder: str, validated: str
) -> dict[str, list[float]]:
    """Return way -> weights of `fused_names`: `evaluate.fusion_weights`.

    Where these are empty, they are fitted to the validation questions.
    """
    if params.evaluate.fusion_weights is not None:
        return dict.fromkeys(ways(params.retrieve), params.evaluate.fusion_weights)
    questions = read_questions(Path(prepared, "valid.jsonl"))
    gold = {question["id"]: grades(question) for question in questions}
    candidates = read_by_id(Path(candidate_folder, "valid.jsonl"), "candidates", gold)
    scores = read_scores(Path(validated, "valid.jsonl"), gold, params.retrieve)
    parts = params.retrieve.parts
    return {way: fit_fusion(gold, candidates, found, parts) for way, found in scores.items()}


def hit_curves(result: dict, ks: Sequence[int]) -> dict[str, Sequence[float]]:
    """Return the columns of metrics/hit_at_k.csv: k, and each system's hit@k, by both protocols."""
    curves: dict[str, Sequence[float]] = {"k": ks}
    for group, prefix in (("all", ""), ("article", "article_")):
        for system, measured in result[group].items():
            if system != "questions":
                curves[prefix + system] = [measured[f"hit@{k}"] for k in ks]
    return curves


def preview(
    first: Sequence[dict],
    systems: Sequence[str],
    relevant: set[str],
    corpus: Mapping[str, Passage],
) -> pd.DataFrame:
    """Return the table of relevant passages and those of `first`, with the start of each text."""
    found = {row[name] for row in first for name in systems if row[name]}
    passages = sorted(found | relevant)
    rows = [(key, corpus[key].title, corpus[key].text[:PREVIEW]) for key in passages]
    return pd.DataFrame(rows, columns=["passage", "title", "text"])


def write_outputs(
    folder: Path, result: dict, tables: Mapping[str, pd.DataFrame], table: str
) -> None:
    """Write eval.json, a csv file for each of `tables`, and table.md."""
    write_json(folder / "eval.json", result)
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
    write_text(folder / "table.md", table)


if __name__ == "__main__":
    run_stage(main)
