"""Fine-tune the base on the samples; write the reranker, its validation scores and its curves.

    python src/train.py data/samples/train.jsonl data/prepared data/candidates models/pretrained \\
      data/start models/reranker data/validation metrics

An interrupted run continues from its last checkpoint under .cache/train if the inputs are the same.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.core.files import read_by_id, replacing, write_json, write_text
from tunerank.core.stage import run_stage
from tunerank.data.passages import read_passages
from tunerank.data.questions import read_questions
from tunerank.params.load import Params, load
from tunerank.reranking.ways import (
    RANKED,
    SAID,
    Scores,
    measure_name,
    read_scores,
    ways,
    write_scores,
)
from tunerank.training.preflight import keep_freed_memory
from tunerank.training.resume import run_key
from tunerank.training.selection import collapsed, save_reranker, select_best
from tunerank.training.trainer import run_training
from tunerank.training.validation import MEASURES, Validation, validation_curve


def main(
    samples: str,
    prepared: str,
    candidate_folder: str,
    base: str,
    start: str,
    reranker: str,
    validated: str,
    metrics: str,
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
    key = run_key(params.train, params.seed, [Path(samples), *valid], Path(base))
    scratch = Path(".cache/train", key)
    runner = run_training(params.train, params.seed, Path(samples), Path(base), scratch, validation)
    if not runner.trainer.is_world_process_zero():
        return None
    choice, scores = select_best(runner)

    with replacing(reranker) as folder:
        save_reranker(runner, folder, inference_settings(params))
    with replacing(validated) as folder:
        write_scores(folder / "valid.jsonl", scores)
    history = runner.trainer.state.log_history
    losses = pd.DataFrame([entry for entry in history if "loss" in entry])
    losses = losses[["step", "loss", "learning_rate", "grad_norm"]]
    write_curve(Path(metrics, "train.csv"), losses)
    write_curve(Path(metrics, "valid.csv"), validation_table(params, history))
    summary = {
        "samples": len(runner.train_dataset),
        "optimizer_steps": runner.trainer.state.global_step,
        "loss_first": float(losses["loss"].iloc[0]),
        "loss_last": float(losses["loss"].iloc[-1]),
    }
    write_json(Path(metrics, "train.json"), summary | choice)
    report(choice, scores, params.retrieve.first_stage or "the first stage")
    return scratch


def read_validation(
    params: Params, corpus: Path, questions: Path, candidates: Path, start: Path
) -> Validation:
    rows = read_questions(questions)
    if not rows:
        raise InputError(
            "train: there are no validation questions to guide training; set "
            "prepare.valid_fraction above 0, or train.evals_per_epoch to 0"
        )
    keys = [row["id"] for row in rows]
    candidates_by_id = read_by_id(candidates, "candidates", keys)
    scores = read_scores(start, keys, params.retrieve)
    passages = read_passages(corpus, params.retrieve.title)
    return Validation(rows, candidates_by_id, passages, params, scores)


def inference_settings(params: Params) -> dict:
    """Return what config.json says of how the reranker was trained and measured."""
    names = ("window", "stride", "shown", "views", "views_depth", "title")
    view_settings = {name: getattr(params.retrieve, name) for name in names}
    return {"max_length": params.score.max_length, **view_settings}


def validation_table(params: Params, history: list[dict]) -> pd.DataFrame:
    """Return the measures of every evaluation, those of the base first."""
    names = [measure_name(name, way) for way in ways(params.retrieve) for name in MEASURES]
    rows = [
        [entry["step"], *(entry[f"eval_{name}"] for name in names)]
        for entry in validation_curve(history)
    ]
    return pd.DataFrame(rows, columns=["step", *names])


def write_curve(path: Path, table: pd.DataFrame) -> None:
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def report(choice: dict, scores: Mapping[str, Scores], first: str) -> None:
    """Print which weights were kept, and warn where something is wrong with them.

    They may be the base's, rank worse than the base or the first stage, or tell nothing apart.

    Args:
        choice, scores: what `select_best` returns.
        first: the name of the first stage.
    """
    if not choice:
        return
    merge, measure = choice.get("merge", {"chosen": 1.0}), choice["valid"]["measure"]
    share = merge["chosen"]
    values = "; ".join(
        f"{name} {value:.3f}, the base's {choice['base'][name]:.3f}"
        for name, value in choice["kept"].items()
        if name.endswith(measure)
    )
    print(
        f"kept: step {choice['best_step']}, {share:g} of its weights and {1 - share:g} of the "
        f"base's; validation {values}"
    )
    for refused, worse in merge.get("worse", {}).items():
        warn(
            f"a share of {refused} of the fine-tuned weights was not kept: it ranks the validation "
            f"questions significantly worse than the base, {said(worse)}"
        )
    behind = choice.get("behind", {})
    if str(share) in behind:
        found = " and ".join(
            f"{choice['kept'][measure_name(measure, way)]:.3f} {SAID[way]}"
            for way in behind[str(share)]
        )
        warn(
            "models/reranker ranks the validation questions significantly worse than "
            f"{first} alone: {measure} {found}, where {first} has "
            f"{choice['first_stage']['value']:.3f}. Deploy the fused row or {first} as it is; more "
            "questions or another retrieve.shown may help"
        )
    for refused in (float(name) for name in behind if str(share) not in behind):
        if refused > 0:
            warn(
                f"a share of {refused:g} of the fine-tuned weights was not kept: it ranks the "
                f"validation questions significantly worse than {first} alone, "
                f"{said(behind[str(refused)])}"
            )
    if collapsed(scores[RANKED]):
        warn(
            "models/reranker scores all candidates of a question alike, for nearly all validation "
            "questions: it has collapsed. Try a lower train.lr, other negatives (samples.*), or "
            "another base"
        )
    if choice["worse"]:
        warn(
            "models/reranker ranks the validation questions significantly worse than the base, "
            f"{said(choice['worse'])}: put 0.0 and 1.0 into train.merge, or try a lower train.lr"
        )
    if share == 0:
        warn(
            "no fine-tuned weights rank the validation questions better than the base, so "
            "models/reranker IS the base. Try a lower train.lr, other negatives (samples.*), or "
            "more questions."
        )


def said(worse: list[str]) -> str:
    return " and ".join(SAID[way] for way in worse)


def warn(message: str) -> None:
    print(f"WARNING: {message}", file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
