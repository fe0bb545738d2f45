"""Samples and the base -> a fine-tuned reranker and its training curve.

    python src/train.py data/samples/train.jsonl models/base models/reranker metrics

An interrupted run goes on from its last resume point under .cache/train at the next call with the same inputs.
"""

import shutil
from pathlib import Path

import pandas as pd

from reranker.errors import run_stage
from reranker.files import replacing, write_json, write_text
from reranker.params import load
from reranker.training import run_key, save_reranker, train


def main(samples: str, base: str, reranker: str, metrics: str) -> None:
    params = load()
    scratch = Path(".cache/train", run_key(params.train, params.seed, Path(samples), Path(base)))
    runner = train(params.train, params.seed, Path(samples), Path(base), scratch)
    if not runner.trainer.is_world_process_zero():
        return

    with replacing(reranker) as folder:
        inference = {"max_length": params.score.max_length, "window": params.retrieve.window, "stride": params.retrieve.stride}
        save_reranker(runner, folder, inference)
    state = runner.trainer.state
    curve = pd.DataFrame([entry for entry in state.log_history if "loss" in entry])
    curve = curve[["step", "loss", "learning_rate", "grad_norm"]]
    write_text(Path(metrics, "train.csv"), curve.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    summary = {
        "samples": len(runner.train_dataset),
        "optimizer_steps": state.global_step,
        "loss_first": float(curve["loss"].iloc[0]),
        "loss_last": float(curve["loss"].iloc[-1]),
    }
    write_json(Path(metrics, "train.json"), summary)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
