"""Compare experiments with the first of them, question by question on the validation questions.

    python experiments/validation_table.py ablation-nothing ablation-one-view ablation-group-8

A name is an experiment or any Git revision with data/validation in the DVC cache or its remote. The
columns are hit@1 and MRR@10 of the checkpoint that train kept, the value of `train.best` of its own
base, and the difference of its MRR@10 from the first name's with a 95 % paired bootstrap interval.
"""

import json
import sys
from pathlib import Path
from statistics import fmean

import dvc.api
from dvc.exceptions import DvcException
from scmrepo.exceptions import SCMError

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from tunerank.core.errors import InputError, run_command
from tunerank.data.questions import grades
from tunerank.evaluation.measures import per_question
from tunerank.evaluation.significance import compare
from tunerank.provenance.lock import git
from tunerank.provenance.runs import commit_of


def validated(revision: str) -> tuple[dict[str, dict[str, float]], float]:
    """Return measure -> question id -> value of a revision, and its base's value of `train.best`.

    Raises:
        InputError: there is no such revision, or its data is neither in the cache nor in a remote.
    """
    commit = commit_of(revision)
    folder = git("rev-parse", "--show-prefix").strip()  # DVC's paths start at the repository's top

    def read(path: str) -> str:
        try:
            return dvc.api.read(folder + path, rev=commit, encoding="utf-8")
        except (DvcException, SCMError, OSError) as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{revision}: {path} cannot be read ({why}); dvc exp pull it"
            ) from None

    def rows(path: str) -> list[dict]:
        return [json.loads(line) for line in read(path).splitlines()]

    gold = {question["id"]: grades(question) for question in rows("data/prepared/valid.jsonl")}
    ranked = {
        row["id"]: sorted(row["scores"], key=lambda name: -row["scores"][name])
        for row in rows("data/validation/valid.jsonl")
    }
    base = json.loads(read("metrics/train.json"))["base"]["MRR@10"]
    return per_question(gold, ranked, [1], 10), base


def table(
    results: dict[str, tuple[dict[str, dict[str, float]], float]],
    resamples: int = 10_000,
    seed: int = 42,
) -> str:
    """Return a Markdown table of the results of `validated`; the first is the reference.

    Raises:
        InputError: a revision has other validation questions than the first.
    """
    first, (reference, _) = next(iter(results.items()))
    lines = [f"| | hit@1 | MRR@10 | its base | MRR@10 - {first} |", "|---|---|---|---|---|"]
    questions = list(reference["MRR@10"])
    for revision, (values, base) in results.items():
        if values["MRR@10"].keys() != set(questions):
            raise InputError(
                f"{revision} has other validation questions than {first}: "
                "their tables or prepare differ"
            )
        hit, reciprocal = (f"{fmean(values[name].values()):.3f}" for name in ("hit@1", "MRR@10"))
        found = compare(
            [values["MRR@10"][q] for q in questions],
            [reference["MRR@10"][q] for q in questions],
            resamples,
            seed,
        )
        apart = (
            f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
            if revision != first
            else ""
        )
        lines.append(f"| {revision} | {hit} | {reciprocal} | {base:.3f} | {apart} |")
    return "\n".join(lines)


def main(*revisions: str) -> None:
    """Print the table of these revisions."""
    if not revisions:
        raise InputError("name the revisions, for example HEAD lr-2e-5 lr-5e-5")
    print(table({revision: validated(revision) for revision in revisions}))


if __name__ == "__main__":
    run_command(main)
