"""Experiments beside one of them, question by question on the validation questions: what a lever is worth, and what is luck.

    python experiments/validation_table.py ablation-nothing ablation-one-view ablation-group-8

A name is an experiment or any Git revision whose data/validation is in the DVC cache or its remote. Of each result, as train
kept it: hit@1 and MRR@10 of the validation questions, its own base's value of `train.best`, and how far its MRR@10 is from the first
name's with a 95 % paired bootstrap interval.
"""

import json
import sys
from pathlib import Path
from statistics import fmean

import dvc.api

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from reranker.evidence import compare
from reranker.measures import per_question


def validated(revision: str) -> tuple[dict[str, dict[str, float]], float]:
    """measure -> question id -> value of a revision's result, and its base's value of `train.best`."""

    def rows(path: str) -> list[dict]:
        return [json.loads(line) for line in dvc.api.read(path, rev=revision, encoding="utf-8").splitlines()]

    gold = {question["id"]: question["passage"] for question in rows("data/prepared/valid.jsonl")}
    ranked = {row["id"]: sorted(row["scores"], key=lambda name: -row["scores"][name]) for row in rows("data/validation/valid.jsonl")}
    base = json.loads(dvc.api.read("metrics/train.json", rev=revision))["base"]["MRR@10"]
    return per_question(gold, ranked, [1], 10), base


def table(results: dict[str, tuple[dict[str, dict[str, float]], float]], resamples: int = 10_000, seed: int = 42) -> str:
    """A Markdown table of what `validated` gives of each revision; the first is the one compared with.

    Raises:
        ValueError: where a revision has other validation questions than the first.
    """
    first, (reference, _) = next(iter(results.items()))
    lines = [f"| | hit@1 | MRR@10 | its base | MRR@10 - {first} |", "|---|---|---|---|---|"]
    questions = list(reference["MRR@10"])
    for revision, (values, base) in results.items():
        if values["MRR@10"].keys() != set(questions):
            raise ValueError(f"{revision} has other validation questions than {first}: prepare or seed differ")
        hit, reciprocal = (f"{fmean(values[name].values()):.3f}" for name in ("hit@1", "MRR@10"))
        found = compare([values["MRR@10"][q] for q in questions], [reference["MRR@10"][q] for q in questions], resamples, seed)
        apart = f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]" if revision != first else ""
        lines.append(f"| {revision} | {hit} | {reciprocal} | {base:.3f} | {apart} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        print(table({revision: validated(revision) for revision in sys.argv[1:]}))
    except ValueError as error:
        sys.exit(f"error: {error}")
