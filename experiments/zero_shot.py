"""A base without fine-tuning beside the first stages, from what the stage `baseline` left: see experiments/zero-shot.sh."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from tunerank.core.errors import run_command
from tunerank.core.files import read_by_id, read_jsonl
from tunerank.evaluation.significance import compare
from tunerank.evaluation.systems import evaluate_systems
from tunerank.params.load import load
from tunerank.reranking.ways import read_scores, system_title


def main() -> None:
    params = load()
    split = params.score.split
    questions = list(read_jsonl(f"data/prepared/{split}.jsonl"))
    keys = [question["id"] for question in questions]
    candidates = read_by_id(f"data/candidates/{split}.jsonl", "candidates", keys)
    base = read_scores(Path(f"data/baseline/{split}.jsonl"), keys, params.retrieve)
    # There is no fine-tuned reranker: the base stands in its place, and the rows that it makes are not shown.
    scores = {way: {"base": found, "reranker": found} for way, found in base.items()}
    result, _, _, values = evaluate_systems(
        questions, candidates, scores, dict.fromkeys(base, (1.0, 0.0, 0.0)), set(), params
    )
    print(
        f"{len(questions)} {split} questions, nothing fine-tuned; base - dense with its 95 % interval\n"
    )
    names = list(values["base"])
    print(f"| system | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for system in (name for name in values if not name.startswith(("reranker", "fused"))):
        print(
            f"| {system_title(system)} | {' | '.join(format(result['all'][system][name], '.3f') for name in names)} |"
        )
    for system in (name for name in values if name.startswith("base")):
        both = [[list(values[one][name].values()) for one in (system, "dense")] for name in names]
        found = [compare(*pair, params.evaluate.resamples, params.seed) for pair in both]
        print(
            f"| {system_title(system)} - dense | {' | '.join('{difference:+.3f} [{low:+.3f}, {high:+.3f}]'.format(**one) for one in found)} |"
        )


if __name__ == "__main__":
    run_command(main)
