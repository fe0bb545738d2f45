"""The test questions' table over several seeds: the mean of each measure and its range.

    python experiments/seed_table.py HEAD seed-43 seed-44

A name is an experiment or any Git revision with metrics/eval.json. Only what a seed changes differs: the samples, the order of
training, the resamples. The first stage and the base are the same in all.
"""

import json
import sys
from statistics import fmean

import dvc.api

SYSTEMS = ("dense", "base", "reranker", "fused")
GROUPS = {"all": "all", "unseen": "unseen passages", "seen": "seen passages"}


def table(results: list[dict], measures: list[str]) -> str:
    """A Markdown table, mean (lowest to highest, where they differ) of each measure, of eval.json's content under each seed."""
    lines = ["| test questions | system | " + " | ".join(measures) + " |", "|---|---|" + "---|" * len(measures)]
    for group, title in GROUPS.items():
        for system in SYSTEMS:
            values = [[result[group][system][name] for result in results] for name in measures]
            cells = [f"{fmean(v):.3f} ({min(v):.3f} to {max(v):.3f})" if len(set(v)) > 1 else f"{v[0]:.3f}" for v in values]
            lines.append(f"| {title} | {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    found = [json.loads(dvc.api.read("metrics/eval.json", rev=revision)) for revision in sys.argv[1:]]
    print(table(found, ["hit@1"] + [name for name in found[0]["all"]["base"] if name.startswith(("MRR", "nDCG"))]))
