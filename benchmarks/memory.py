"""Measure what keeping freed memory gains here: the same pairs with and without, in turns.

    dvc repro baseline && python benchmarks/memory.py [PAIRS] [TURNS]

Prints pairs a second of every turn and the ratio of the medians. Each turn is a process of its own,
because an allocator's settings last as long as the process.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))


def turn(keep: bool, count: int) -> float:
    """Return pairs a second of this process."""
    from tunerank.core.files import read_jsonl
    from tunerank.models.cross_encoder import CrossEncoder
    from tunerank.params.load import load
    from tunerank.training.preflight import keep_freed_memory

    if keep and not keep_freed_memory():
        sys.exit("the allocator is not glibc's malloc: nothing to compare")
    params = load(ROOT / "params.yaml")
    pairs = [
        (row["query"], text)
        for row in read_jsonl(ROOT / "data/samples/train.jsonl")
        for text in row["pos"] + row["neg"]
    ]
    encoder = CrossEncoder(
        ROOT / "models/base",
        params.score.max_length,
        params.score.precision,
        params.score.batch_tokens,
    )
    encoder.score(pairs[:200])
    start = time.perf_counter()
    encoder.score(pairs[:count])
    return min(count, len(set(pairs[:count]))) / (time.perf_counter() - start)


def main(count: int, turns: int) -> None:
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(turns):
        for keep in rates:
            command = [sys.executable, __file__, "--turn", str(int(keep)), str(count)]
            rates[keep].append(
                json.loads(
                    subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                )
            )
    for keep, measured in rates.items():
        each = ", ".join(f"{rate:.1f}" for rate in measured)
        print(f"{'kept' if keep else 'returned'}: {each} pairs/s")
    print(
        f"ratio of medians: {statistics.median(rates[True]) / statistics.median(rates[False]):.2f}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--turn"]:
        print(json.dumps(turn(bool(int(sys.argv[2])), int(sys.argv[3]))))
    else:
        main(*(int(value) for value in sys.argv[1:] or (1000, 3)))
