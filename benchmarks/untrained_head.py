"""Compare two ways to draw an untrained head, by how soon ranking begins.

    dvc repro samples && python benchmarks/untrained_head.py [STEPS]

Samples, schedule and seed are the same. Prints the mean training loss of every 15 optimizer steps;
ln(group_size) is chance.
"""

import math
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunerank.core.files import read_jsonl
from tunerank.models.checkpoint import draw_head, save
from tunerank.params.load import load
from tunerank.training.trainer import run_training

BASE, SAMPLES = Path("models/base"), Path("data/samples/train.jsonl")


def usual_head(model, seed: int) -> None:
    """Draw the head as transformers does: N(0, 0.02)."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for layer in (model.classifier.dense, model.classifier.out_proj):
            layer.weight.normal_(std=model.config.initializer_range)
            layer.bias.zero_()


def main(steps: int) -> None:
    params = load()
    rows = sum(1 for _ in read_jsonl(SAMPLES))
    epochs = steps * params.train.batch_size * params.train.accumulation / rows
    settings = params.train.model_copy(
        update={"epochs": epochs, "logging_steps": 15, "save_steps": 10**6}
    )
    print(f"chance: {math.log(settings.group_size):.3f}")
    for name, draw in (("N(0, 0.02)", usual_head), ("orthogonal", draw_head)):
        with tempfile.TemporaryDirectory() as folder:
            model = AutoModelForSequenceClassification.from_pretrained(BASE)
            draw(model, params.seed)
            save(model, AutoTokenizer.from_pretrained(BASE), Path(folder, "base"))
            runner = run_training(
                settings, params.seed, SAMPLES, Path(folder, "base"), Path(folder, "scratch")
            )
            losses = [
                entry["loss"] for entry in runner.trainer.state.log_history if "loss" in entry
            ]
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: " + ", ".join(f"{loss:.3f}" for loss in losses), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 75)
