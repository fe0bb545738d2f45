"""Measure how time and peak memory grow with the number of questions.

    python benchmarks/scale.py [--sizes 1000 10000 100000] [--stages prepare retrieve samples]
      [--folder .cache/scale]

prepare, retrieve (BM25) and samples run as processes of their own. The tables are the bundled data
resampled: a passage has as many sentences as a bundled one, drawn from all of them, and a number; a
question is a bundled one with a number, in the bundled proportion of 1200 questions to 508
passages. So the vocabulary does not grow, as it would with real text, and a word's list of passages
grows faster, which is hard for BM25. Parameters are those of params.yaml with BM25 alone, 50 deep,
whole passages, no teacher. A size's files are removed when it is done; 10^6 questions need about
20 GB of disk. The exponent is the slope between two sizes: 1 is linear growth.
"""

import argparse
import csv
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))

from tunerank.params.base import Loader

PASSAGES_PER_QUESTION = 508 / 1200
CHANGES = {
    "prepare": {"raw": "raw", "valid_fraction": 0.01, "test_fraction": 0.01},
    "retrieve": {
        "dense_weight": 0.0,
        "bm25_weight": 1.0,
        "bm25_depth": 50,
        "depth": 50,
        "window": 0,
        "stride": 0,
        "shown": 0,
    },
    "samples": {"teacher": "none"},
    "train": {"distill_weight": 0.0},
}
STAGES = {
    "prepare": ["raw", "prepared", "data.json"],
    "retrieve": ["prepared", "none", "candidates"],
    "samples": ["prepared", "candidates", "none", "samples", "samples.json"],
}


def make_tables(questions: int, folder: Path) -> int:
    """Write raw/qa.csv and raw/corpus.csv, always the same, and return the number of passages."""
    rng = random.Random(questions)
    bundled = ROOT / "data/raw/yunshan"
    texts = pd.read_csv(bundled / "corpus.csv")["doc"]
    bundled_rows = pd.read_csv(bundled / "qa.csv", dtype=str, keep_default_na=False)[
        ["question", "answer", "context"]
    ].values.tolist()
    split = [re.findall(r"[^。！？\n]+[。！？\n]?", text) for text in texts]
    sentences = [sentence for text in split for sentence in text]
    count = max(2, round(questions * PASSAGES_PER_QUESTION))
    (folder / "raw").mkdir(parents=True)
    with open(folder / "raw/corpus.csv", "w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["uuid", "doc"])
        for number in range(count):
            rows.writerow(
                [
                    f"p{number}",
                    "".join(rng.choices(sentences, k=len(rng.choice(split)))) + f"编号{number}。",
                ]
            )
    with open(folder / "raw/qa.csv", "w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["uuid", "question", "answer", "context"])
        for number in range(questions):
            question, answer, context = rng.choice(bundled_rows)
            rows.writerow(
                [f"p{rng.randrange(count)}", f"{question}（第{number}问）", answer, context]
            )
    return count


def run(stage: str, folder: Path) -> tuple[float, float]:
    """Run a stage and return its seconds and its peak memory in GB."""
    start = time.perf_counter()
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "src" / f"{stage}.py"), *STAGES[stage]],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{stage} failed:\n{(folder / 'log').read_text(errors='replace')[-3000:]}")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--folder", type=Path, default=Path(".cache/scale"))
    options = parser.parse_args()
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"), Loader)
    for group, changes in CHANGES.items():
        params[group].update(changes)
    print(
        "| stage | questions | passages | seconds | exponent | peak memory, GB |\n"
        "|---|---|---|---|---|---|"
    )
    last: dict[str, tuple[int, float]] = {}
    for size in options.sizes:
        shutil.rmtree(options.folder, ignore_errors=True)
        passages = make_tables(size, options.folder)
        (options.folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        for stage in options.stages:
            seconds, memory = run(stage, options.folder)
            growth = (
                ""
                if stage not in last
                else f"{math.log(seconds / last[stage][1]) / math.log(size / last[stage][0]):.2f}"
            )
            last[stage] = size, seconds
            print(
                f"| {stage} | {size} | {passages} | {seconds:.1f} | {growth} | {memory:.2f} |",
                flush=True,
            )
    shutil.rmtree(options.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
