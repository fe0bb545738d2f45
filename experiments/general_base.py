"""Train a general base on samples, or a smaller one from it: see experiments/general-base.sh.

    S=.cache/general/samples/train.jsonl
    python experiments/general_base.py $S models/base .cache/general/l12 --epochs 0.6
    python experiments/general_base.py $S .cache/general/l12 .cache/general/l6 \\
      --layers 0 2 4 7 9 11 --epochs 0.4

With --layers the model is a copy of some layers of the first and learns its logits; with --student
it is a smaller one that has begun to. A run that was killed continues from its last resume point
under .cache/general.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import torch

from tunerank.core.errors import run_command
from tunerank.core.files import file_digest, read_jsonl, replacing, write_jsonl
from tunerank.models.checkpoint import load_classifier, save
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.params.load import load
from tunerank.params.train import Train
from tunerank.samples.negatives import add_teacher_scores
from tunerank.sources.small import some_layers
from tunerank.training.preflight import keep_freed_memory

RECIPE = {
    "lr": 2e-4, "batch_size": 64, "accumulation": 1, "group_size": 8, "drop_last": True,
    "warmup_ratio": 0.08, "scheduler": "cosine", "weight_decay": 0.01, "max_grad_norm": 1.0,
    "distill_temperature": 1.0, "dropout": 0.0, "freeze_embeddings": True, "evals_per_epoch": 0,
    "merge": [], "logging_steps": 50, "save_steps": 200,
}  # fmt: skip
DISTILLED = {"retriever": 0.3, "reranker": 3.3}
"""Teacher -> weight of the divergence from its scores, beside the cross-entropy."""


def taught_samples(samples: Path, teacher: str, target: Path) -> Path:
    """Write the samples with the teacher's logits, if an earlier call did not, and return them."""
    if not target.exists():
        encoder = CrossEncoder(
            teacher,
            load().score.max_length,
            batch_tokens=65536 if torch.cuda.is_available() else 2048,
        )
        rows = list(read_jsonl(samples))
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            taught = add_teacher_scores(
                rows, lambda pairs: encoder.score(pairs, "with the teacher"), len(rows)
            )
            write_jsonl(partial, taught)
    return target


def settings(options: argparse.Namespace) -> Train:
    """Return the training parameters: params.yaml with RECIPE and the options."""
    weight = DISTILLED["reranker" if options.layers or options.student else "retriever"]
    changes = {
        "epochs": options.epochs,
        "distill_weight": weight,
        "lr": options.lr,
        "batch_size": options.batch_size,
    }
    return load().train.model_copy(update=RECIPE | changes)


def main(*arguments: str) -> None:
    from tunerank.training.resume import run_key
    from tunerank.training.selection import save_reranker
    from tunerank.training.trainer import run_training

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("samples", "model", "target"):
        parser.add_argument(name)
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument(
        "--layers", type=int, nargs="+", help="of the model, for a smaller one that learns from it"
    )
    smaller.add_argument("--student", help="a smaller one that learns from the model")
    parser.add_argument("--epochs", type=float, required=True)
    parser.add_argument("--lr", type=float, default=RECIPE["lr"])
    parser.add_argument("--batch-size", type=int, default=RECIPE["batch_size"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    keep_freed_memory()
    train_params, samples, start = settings(options), Path(options.samples), Path(options.model)
    with tempfile.TemporaryDirectory() as temporary:
        if options.layers or options.student:
            key = f"{file_digest(samples)[:16]}-{file_digest(start / 'model.safetensors')[:16]}"
            samples = taught_samples(
                samples, options.model, Path(".cache/general", f"taught-{key}.jsonl")
            )
        if options.layers:
            model, tokenizer = load_classifier(start)
            start = Path(temporary)
            save(some_layers(model, options.layers), tokenizer, start)
        elif options.student:
            start = Path(options.student)
        scratch = Path(".cache/general", run_key(train_params, options.seed, [samples], start))
        runner = run_training(train_params, options.seed, samples, start, scratch)
        with replacing(options.target) as folder:
            save_reranker(runner, folder, None)
    print(
        f"{options.target}: {runner.trainer.state.global_step} steps of "
        f"{train_params.batch_size} groups"
    )


if __name__ == "__main__":
    run_command(main)
