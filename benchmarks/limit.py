"""Measure the FLOP/s of scoring and training as shares of a matrix product's.

    dvc repro fetch && python benchmarks/limit.py [--model models/base] [--pairs 32] [--length 96]
      [--turns 5]

A pair of n tokens counts 2 n FLOP for each weight of the layers' matrices and 4 n^2 h for each
layer's attention (scores and context, h the hidden size). A training step counts three times as
much, since a backward pass has two products for each forward one. The rest (softmax, GELU, norms,
embeddings) counts nothing and takes time. The matrix product is the largest one of a layer,
(pairs * length, h) by (h, intermediate size), in the same precision. Turns alternate; the best of
each is compared.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import torch

from tunerank.models.checkpoint import load_classifier
from tunerank.models.device import DTYPES, choose_precision, describe_machine
from tunerank.training.preflight import keep_freed_memory


def flop(config, matrices: int, pairs: int, length: int) -> float:
    """Return the FLOP of one forward pass.

    Args:
        matrices: the number of weights in the layers' linear maps.
    """
    return (
        pairs * length * (2 * matrices + 4 * length * config.hidden_size * config.num_hidden_layers)
    )


def timed(call) -> float:
    """Return the seconds that a call takes."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="models/base")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    model, _ = load_classifier(options.model)  # without dropout
    model.get_input_embeddings().requires_grad_(False)
    config, device = model.config, model.device
    matrices = sum(
        m.weight.numel()
        for m in model.base_model.encoder.modules()
        if isinstance(m, torch.nn.Linear)
    )
    once = flop(config, matrices, options.pairs, options.length)

    dtype = DTYPES[choose_precision("auto")]
    ids = torch.randint(5, 1000, (options.pairs, options.length), device=device)
    tall = torch.randn(
        options.pairs * options.length, config.hidden_size, device=device, dtype=dtype
    )
    wide = torch.randn(config.hidden_size, config.intermediate_size, device=device, dtype=dtype)
    repeats = max(1, round(once / (2 * tall.numel() * config.intermediate_size) / 4))

    def product() -> None:
        for _ in range(repeats):
            tall @ wide

    def forward():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    def scoring() -> None:
        with torch.inference_mode():
            forward()

    def training() -> None:
        forward().float().sum().backward()
        model.zero_grad()

    works = {
        "matrix product": (product, repeats * 2 * tall.numel() * config.intermediate_size),
        "scoring": (scoring, once),
        "training": (training, 3 * once),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.turns + 1):  # the first warms up
        for name, (call, _) in works.items():
            seconds[name].append(timed(call))
    print(json.dumps(describe_machine("auto")))
    peak = works["matrix product"][1] / min(seconds["matrix product"][1:])
    print(
        f"{options.pairs} pairs of {options.length} tokens\n"
        "| | GFLOP/s | of the matrix product |\n|---|---|---|"
    )
    for name, (_, count) in works.items():
        rate = count / min(seconds[name][1:])
        print(f"| {name} | {rate / 1e9:.1f} | {rate / peak:.0%} |")


if __name__ == "__main__":
    main()
