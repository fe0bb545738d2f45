"""A base without fine-tuning beside the first stages, from what the stage `baseline` left: see experiments/zero-shot.sh."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from reranker.errors import run
from reranker.evidence import compare
from reranker.files import read_jsonl
from reranker.params import load
from reranker.reranking import evaluate_systems


def main() -> None:
    params = load()
    split = params.score.split
    questions = list(read_jsonl(f"data/prepared/{split}.jsonl"))
    candidates = {row["id"]: row["candidates"] for row in read_jsonl(f"data/candidates/{split}.jsonl")}
    base = {row["id"]: row["scores"] for row in read_jsonl(f"data/baseline/{split}.jsonl")}
    # There is no fine-tuned reranker: the base stands in its place, and the rows that it makes are not shown.
    scores = {"base": base, "reranker": base}
    result, _, _, values = evaluate_systems(questions, candidates, scores, set(), params.score.depth, params.retrieve, params.evaluate)
    print(f"{len(questions)} {split} questions, nothing fine-tuned; base - dense with its 95 % interval\n")
    names = list(values["base"])
    print(f"| system | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for system in ("bm25", "dense", "retriever", "base"):
        print(f"| {system} | {' | '.join(format(result['all'][system][name], '.3f') for name in names)} |")
    ours, theirs = values["base"], values["dense"]
    found = [compare(list(ours[name].values()), list(theirs[name].values()), params.evaluate.resamples, params.seed) for name in names]
    print(f"| base - dense | {' | '.join('{difference:+.3f} [{low:+.3f}, {high:+.3f}]'.format(**one) for one in found)} |")


if __name__ == "__main__":
    run(main)
