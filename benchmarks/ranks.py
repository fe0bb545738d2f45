"""Compare the ranks of `Searcher` with those that the run has measured, for every question.

    dvc repro && python benchmarks/ranks.py [--one-by-one fused]

All questions of the split are ranked together, in the batches of the stages: every rank in
metrics/per_query.csv must be the same. With --one-by-one a system ranks each question alone, as
/search does, and its time is printed. In bf16 its batches round logits in another way, so that
neighbours may change places.
"""

import argparse
import csv
import sys
import time
from pathlib import Path
from statistics import quantiles

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))


def rank_of(passage: str, ranking: list[str]) -> str:
    """Return the rank of a passage as metrics/per_query.csv has it, empty if it is not there."""
    return str(ranking.index(passage) + 1) if passage in ranking else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one-by-one", metavar="SYSTEM")
    options = parser.parse_args()

    from tunerank import Searcher
    from tunerank.core.files import read_jsonl
    from tunerank.params.load import load

    split = load(ROOT / "params.yaml").score.split
    asked = {
        row["id"]: row["question"] for row in read_jsonl(ROOT / f"data/prepared/{split}.jsonl")
    }
    with open(ROOT / "metrics/per_query.csv", encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    searcher, start = Searcher(ROOT), time.monotonic()
    if system := options.one_by_one:
        found, seconds = {system: []}, []
        for query in asked.values():
            before = time.monotonic()
            found[system].append([one.passage for one in searcher.search(query, 1000, system)])
            seconds.append(time.monotonic() - before)
        twentieths = quantiles(seconds, n=20)
        print(f"a search: median {twentieths[9]:.2f} s, 95th percentile {twentieths[18]:.2f} s")
    else:
        found = searcher.rankings(asked.values())
    different = 0
    for system, rankings in found.items():
        of = dict(zip(asked, rankings, strict=True))
        moved = [row for row in rows if rank_of(row["passage"], of[row["id"]]) != row[system]]
        different += len(moved)
        print(f"{system}: {len(rows) - len(moved)} of {len(rows)} ranks are the same")
    print(f"{len(asked)} questions, {time.monotonic() - start:.0f} s")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
