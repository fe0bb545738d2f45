"""Compare scoring with one CPU thread a batch and with all threads on one batch, in turns.

    dvc repro fetch prepare && python benchmarks/threads.py [--model models/base] [--pairs 400]
      [--turns 3]

src/tunerank/models/batching.py scores in the first way. Texts are cut to about 90 tokens, the size
of the default's views. The ratio is that of the medians of pairs a second.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import numpy as np
import torch

from tunerank.core.files import read_jsonl
from tunerank.models.batching import length_batches
from tunerank.models.cross_encoder import CrossEncoder, pair_ids
from tunerank.models.device import describe_machine
from tunerank.training.preflight import keep_freed_memory


def together(encoder: CrossEncoder, pairs, batch_tokens: int) -> np.ndarray:
    """Score one batch after the other, each operation by all threads, as PyTorch does."""
    ids = pair_ids(encoder.tokenizer, pairs, encoder.max_length)
    scores = np.zeros(len(pairs), np.float32)
    for batch in length_batches([len(one) for one in ids], batch_tokens):
        scores[batch] = encoder.logits([ids[i] for i in batch])
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="models/base")
    parser.add_argument("--data", default="data/prepared", type=Path)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    questions = [row["question"] for row in read_jsonl(options.data / "train.jsonl")]
    passages = [row["text"] for row in read_jsonl(options.data / "corpus.jsonl")]
    pairs = [
        (questions[i % len(questions)], passages[i % len(passages)][i % 200 :][:90])
        for i in range(options.pairs)
    ]
    encoder = CrossEncoder(options.model, batch_tokens=2048)
    systems = {
        "all threads on a batch of 4096 tokens": lambda: together(encoder, pairs, 4096),
        "all threads on a batch of 2048 tokens": lambda: together(encoder, pairs, 2048),
        "one thread a batch of 2048 tokens": lambda: encoder.score(pairs),
    }
    rates: dict[str, list[float]] = {name: [] for name in systems}
    scores = {}
    for turn in range(options.turns + 1):  # the first warms up
        for name, system in systems.items():
            start = time.perf_counter()
            scores[name] = system()
            if turn:
                rates[name].append(len(pairs) / (time.perf_counter() - start))
    print(json.dumps(describe_machine("auto")))
    first, *_ = systems
    print(
        f"{torch.get_num_threads()} threads\n\n"
        "| | pairs/s, median | each turn | ratio | largest difference of a logit |\n"
        "|---|---|---|---|---|"
    )
    for name, measured in rates.items():
        middle, each = statistics.median(measured), ", ".join(f"{rate:.1f}" for rate in measured)
        ratio = middle / statistics.median(rates[first])
        difference = np.abs(scores[name] - scores[first]).max()
        print(f"| {name} | {middle:.1f} | {each} | {ratio:.2f} | {difference:.1e} |")


if __name__ == "__main__":
    main()
