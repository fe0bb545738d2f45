"""Print the test questions' table over several seeds: the mean of each measure and its range.

    python experiments/seed_table.py HEAD seed-43 seed-44

A name is an experiment or any Git revision with metrics. All must have the same test questions
(prepare.split_seed), so that only what a seed changes differs: the samples, the order of training,
the resamples. The first stage and the base are the same in all.
"""

import json
import sys
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from tunerank.core.errors import InputError, run_command
from tunerank.provenance.machines import other_questions, ranks_of
from tunerank.provenance.runs import EVALUATION, run_of

SYSTEMS = ("dense", "base", "reranker", "fused")
GROUPS = {"all": "all", "unseen": "unseen passages", "seen": "seen passages"}


def table(results: list[dict], measures: list[str]) -> str:
    """Return a Markdown table of the mean of each measure, and its range if the seeds differ.

    Args:
        results: the content of metrics/eval.json under each seed. A group without questions, such
            as seen passages after a split by passage, and a system that is not in all are left out.
    """
    lines = [
        "| test questions | system | " + " | ".join(measures) + " |",
        "|---|---|" + "---|" * len(measures),
    ]
    for group, title in GROUPS.items():
        for system in SYSTEMS:
            if any(system not in result.get(group, {}) for result in results):
                continue
            values = [[result[group][system][name] for result in results] for name in measures]
            cells = [
                f"{fmean(v):.3f} ({min(v):.3f} to {max(v):.3f})"
                if len(set(v)) > 1
                else f"{v[0]:.3f}"
                for v in values
            ]
            lines.append(f"| {title} | {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(*revisions: str) -> None:
    """Print the table of these revisions.

    Raises:
        InputError: a revision without metrics, or with other test questions or measures.
    """
    if not revisions:
        raise InputError("name the revisions, for example HEAD seed-43 seed-44")
    runs = [run_of(revision) for revision in revisions]
    first = ranks_of(runs[0])
    for run in runs:
        if reason := other_questions(first, ranks_of(run), runs[0].name, run.name):
            raise InputError(f"{run.name}: {reason}; keep prepare.split_seed and the data")
        if run.evaluation is None:
            raise InputError(f"{run.name} has no {EVALUATION}; run dvc repro there")
    results = [json.loads(run.evaluation) for run in runs]
    measures = [
        name
        for name in results[0]["all"]["base"]
        if name == "hit@1" or name.startswith(("MRR", "nDCG"))
    ]
    if any(name not in result["all"]["base"] for result in results for name in measures):
        raise InputError("the revisions have other measures; use the same evaluate.cutoff")
    print(table(results, measures))


if __name__ == "__main__":
    run_command(main)
