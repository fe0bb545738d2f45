"""Samples and the base -> a fine-tuned reranker and its training curve.

    python src/train.py data/samples/train.jsonl data/prepared data/candidates models/pretrained data/start models/reranker \\
      data/validation metrics

An interrupted run goes on from its last resume point under .cache/train at the next call with the same inputs.
"""

import sys
from pathlib import Path

import pandas as pd

from reranker.errors import InputError
from reranker.files import read_by_id, replacing, write_json, write_text
from reranker.memory import keep_freed_memory
from reranker.params import Params, load
from reranker.passages import read_passages, read_questions
from reranker.stage import run_stage
from reranker.training import keep_best, run_key, save_reranker, train
from reranker.validation import MEASURES, Validation, curve
from reranker.ways import RANKED, SAID, read_scores, ways, write_scores


def main(
    samples: str, prepared: str, candidate_folder: str, base: str, start: str, reranker: str, ranked: str, metrics: str
) -> Path | None:
    keep_freed_memory()
    params = load()
    valid = [
        Path(prepared, "corpus.jsonl"),
        Path(prepared, "valid.jsonl"),
        Path(candidate_folder, "valid.jsonl"),
        Path(start, "valid.jsonl"),
    ]
    validation = read_validation(params, *valid) if params.train.evals_per_epoch else None
    scratch = Path(".cache/train", run_key(params.train, params.seed, [Path(samples), *valid], Path(base)))
    runner = train(params.train, params.seed, Path(samples), Path(base), scratch, validation)
    if not runner.trainer.is_world_process_zero():
        return None
    best, scores = keep_best(runner)

    with replacing(reranker) as folder:
        shown = {name: getattr(params.retrieve, name) for name in ("window", "stride", "shown", "views", "views_depth", "title")}
        inference = {"max_length": params.score.max_length, **shown}
        save_reranker(runner, folder, inference)
    with replacing(ranked) as folder:
        write_scores(folder / "valid.jsonl", scores)
    state = runner.trainer.state
    losses = pd.DataFrame([entry for entry in state.log_history if "loss" in entry])
    losses = losses[["step", "loss", "learning_rate", "grad_norm"]]
    write_text(Path(metrics, "train.csv"), losses.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    names = [name if way == RANKED else f"{way} {name}" for way in ways(params.retrieve) for name in MEASURES]
    ranked = [[entry["step"], *(entry[f"eval_{name}"] for name in names)] for entry in curve(state.log_history)]
    table = pd.DataFrame(ranked, columns=["step", *names])
    write_text(Path(metrics, "valid.csv"), table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    summary = {
        "samples": len(runner.train_dataset),
        "optimizer_steps": state.global_step,
        "loss_first": float(losses["loss"].iloc[0]),
        "loss_last": float(losses["loss"].iloc[-1]),
        **best,
    }
    write_json(Path(metrics, "train.json"), summary)
    report(best)
    return scratch


def read_validation(params: Params, corpus: Path, questions: Path, candidates: Path, start: Path) -> Validation:
    asked = read_questions(questions)
    if not asked:
        raise InputError(
            "train: there are no validation questions to guide training; set prepare.valid_fraction above 0, or "
            "train.evals_per_epoch to 0"
        )
    keys = [question["id"] for question in asked]
    found, scores = read_by_id(candidates, "candidates", keys), read_scores(start, keys, params.retrieve)
    return Validation(asked, found, read_passages(corpus, params.retrieve.title), params, scores)


def report(best: dict) -> None:
    """Say what was kept and why; loudly where that is the base."""
    if not best:
        return
    merge, measure = best.get("merge", {"chosen": 1.0}), best["valid"]["measure"]
    values = [
        f"{name} {value:.3f}, the base's {best['base'][name]:.3f}"
        for name, value in best["kept"].items()
        if name.endswith(measure)
    ]
    print(
        f"kept: step {best['best_step']}, {merge['chosen']:g} of its weights and {1 - merge['chosen']:g} of the base's; "
        f"validation {'; '.join(values)}"
    )
    for share, worse in merge.get("worse", {}).items():
        print(
            f"WARNING: a share of {share} of the fine-tuned weights was not kept: it ranks the validation questions worse than the "
            f"base beyond luck, {' and '.join(SAID[way] for way in worse)}",
            file=sys.stderr,
        )
    if best["worse"]:
        print(
            "WARNING: models/reranker ranks the validation questions worse than the base beyond luck, "
            f"{' and '.join(SAID[way] for way in best['worse'])}: put 0.0 and 1.0 into train.merge, or try a lower train.lr",
            file=sys.stderr,
        )
    if merge["chosen"] == 0:
        print(
            "WARNING: no fine-tuned weights rank the validation questions better than the base, so models/reranker IS the "
            "base. Try a lower train.lr, other negatives (samples.*), or more questions.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_stage(main)
