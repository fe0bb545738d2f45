"""Print a base without fine-tuning beside the first stages: see experiments/zero-shot.sh.

Reads the outputs of the stage baseline.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from tunerank.core.errors import run_command
from tunerank.core.files import read_by_id, read_jsonl
from tunerank.evaluation.significance import compare
from tunerank.evaluation.systems import evaluate_systems
from tunerank.params.load import load
from tunerank.reranking.ways import read_scores, system_title


def row(title: str, cells: list[str]) -> None:
    """Print a row of a Markdown table."""
    print(f"| {title} | {' | '.join(cells)} |")


def main() -> None:
    """Print measures of every system, and the differences of base and dense with intervals."""
    params = load()
    split = params.score.split
    questions = list(read_jsonl(f"data/prepared/{split}.jsonl"))
    keys = [question["id"] for question in questions]
    candidates = read_by_id(f"data/candidates/{split}.jsonl", "candidates", keys)
    base = read_scores(Path(f"data/baseline/{split}.jsonl"), keys, params.retrieve)
    # Nothing is fine-tuned: the base stands in the reranker's place, and its rows are left out.
    scores = {way: {"base": logits, "reranker": logits} for way, logits in base.items()}
    result, _, _, values = evaluate_systems(
        questions, candidates, scores, dict.fromkeys(base, (1.0, 0.0, 0.0)), set(), params
    )
    print(
        f"{len(questions)} {split} questions, nothing fine-tuned; "
        "base - dense with its 95 % interval\n"
    )
    names = list(values["base"])
    row("system", names)
    print(f"|---|{'---|' * len(names)}")
    for system in (name for name in values if not name.startswith(("reranker", "fused"))):
        row(system_title(system), [f"{result['all'][system][name]:.3f}" for name in names])
    for system in (name for name in values if name.startswith("base")):
        both = [[list(values[one][name].values()) for one in (system, "dense")] for name in names]
        compared = [compare(*pair, params.evaluate.resamples, params.seed) for pair in both]
        interval = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        row(f"{system_title(system)} - dense", [interval.format(**one) for one in compared])


if __name__ == "__main__":
    run_command(main)
