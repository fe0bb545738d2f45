"""Measure pairs a second by precision, attention and length, in training and in scoring.

    dvc repro fetch && python benchmarks/precision.py [--model models/base] [--lengths 90 250 450]
      [--turns 3]

The rules of src/tunerank/models/device.py rest on this table. Precisions that the hardware emulates
are measured too, to show what `auto` avoids; --precisions leaves them out. int8 is torch's dynamic
quantization of the linear layers, for scoring only. Turns alternate; the best of each is printed.
The last column is the share of queries with the same order of 10 passages as in fp32.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import torch

from tunerank.core.files import read_jsonl
from tunerank.models.checkpoint import load_classifier
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.models.device import DTYPES, describe_machine
from tunerank.training.preflight import keep_freed_memory

TRAINED, QUERIES, PASSAGES = 16, 24, 10


def texts(folder: Path) -> tuple[list[str], list[str]]:
    """Return questions, and passages that are long enough to be cut to any length."""
    passages = [row["text"] for row in read_jsonl(folder / "corpus.jsonl")]
    return [row["question"] for row in read_jsonl(folder / "valid.jsonl")], [
        " ".join(passages[i : i + 3]) for i in range(len(passages))
    ]


def scoring(
    model, tokenizer, precision: str, attention: str, length: int, questions, passages
) -> tuple[float, list[list[int]]]:
    """Return pairs a second, and each query's order of its passages."""
    encoder = CrossEncoder.of(model, tokenizer, length, precision, 4096)
    model.set_attn_implementation(attention)
    pairs = [
        (questions[q], passages[(7 * q + p) % len(passages)])
        for q in range(QUERIES)
        for p in range(PASSAGES)
    ]
    start = time.perf_counter()
    scores = encoder.score(pairs).reshape(QUERIES, PASSAGES)
    return len(pairs) / (time.perf_counter() - start), (-scores).argsort(1, kind="stable").tolist()


def training(
    model, tokenizer, precision: str, attention: str, length: int, questions, passages
) -> float:
    """Return pairs a second, forward and backward."""
    model.set_attn_implementation(attention)
    model.train()
    batch = tokenizer(
        questions[:TRAINED],
        passages[:TRAINED],
        truncation="only_second",
        max_length=length,
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    start = time.perf_counter()
    with torch.autocast(model.device.type, DTYPES[precision], enabled=precision != "fp32"):
        loss = model(**batch).logits.float().sum()
    loss.backward()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    model.zero_grad()
    return TRAINED / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="models/base")
    parser.add_argument("--data", default="data/prepared", type=Path)
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[90, 250, 450], help="tokens of a pair"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["fp32", "bf16", "int8"],
        choices=["fp32", "bf16", "fp16", "int8"],
    )
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    questions, passages = texts(options.data)
    print(json.dumps(describe_machine("auto")))
    print(
        "| work | tokens | precision | attention | pairs/s | same first 10 |\n"
        "|---|---|---|---|---|---|"
    )
    models = {}
    for precision in options.precisions:
        model, tokenizer = load_classifier(options.model)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.get_input_embeddings().requires_grad_(False)
        if precision == "int8":
            model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
        models[precision] = model, tokenizer
    for length in options.lengths:
        rates: dict[tuple, list[float]] = {}
        orders: dict[tuple, list[list[int]]] = {}
        for _ in range(options.turns):
            for precision, (model, tokenizer) in models.items():
                for attention in ("sdpa", "eager"):
                    work = (
                        model,
                        tokenizer,
                        "fp32" if precision == "int8" else precision,
                        attention,
                        length,
                        questions,
                        passages,
                    )
                    rate, orders[precision, attention] = scoring(*work)
                    rates.setdefault(("scoring", precision, attention), []).append(rate)
                    if precision != "int8":
                        rates.setdefault(("training", precision, attention), []).append(
                            training(*work)
                        )
        for (what, precision, attention), measured in sorted(rates.items()):
            same = ""
            if what == "scoring" and ("fp32", "sdpa") in orders:
                pairs = zip(orders[precision, attention], orders["fp32", "sdpa"])
                same = f"{sum(order == reference for order, reference in pairs) / QUERIES:.2f}"
            print(
                f"| {what} | {length} | {precision} | {attention} | {max(measured):.1f} | {same} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
