"""Choose the weights to keep after a training, and save them.

The best checkpoint competes with the base and with mixtures of both (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022; Xiao et al., "LM-Cocktail", 2023, arXiv:2311.13534). So
the result is never worse than the base on the validation questions, nor than the first stage alone
where anything among them is not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunerank.models.checkpoint import save
from tunerank.reranking.ways import Scores
from tunerank.training.resume import scores_path
from tunerank.training.trainer import Runner
from tunerank.training.validation import Validation, validation_curve

BASE, TUNED = 0.0, 1.0
"""Shares of fine-tuned weights in the two models that are mixed."""

SPREAD = 1e-3
"""Logits of a question's candidates that are closer together tell nothing apart."""

NEARLY_ALL = 0.9


def select_best(runner: Runner) -> tuple[dict, dict[str, Scores]]:
    """Load the weights that rank the validation questions best into the runner's model.

    They are the best checkpoint's, or what `choose_merge` chooses if `train.merge` has shares and
    the base's head is trained. Without validation the last weights stay.

    Returns:
        What metrics/train.json says of the choice, and way -> validation scores of the kept
        weights. Both are empty without validation.
    """
    validation, model = runner.validation, runner.model.model
    if not validation:
        return {}, {}
    scratch = Path(runner.training_args.output_dir)
    base, *checkpoints = validation_curve(runner.trainer.state.log_history)
    best = max(checkpoints, key=lambda entry: entry["eval_value"])
    values = {"base": base["eval_value"], "best": best["eval_value"]}
    summary = {"best_step": best["step"], "valid": {"measure": runner.params.best} | values}
    known = {
        share: json.loads(scores_path(scratch, entry["step"]).read_text())
        for share, entry in ((BASE, base), (TUNED, best))
    }
    tuned_weights = load_file(scratch / f"checkpoint-{best['step']}" / "model.safetensors")
    if runner.params.merge and not getattr(model.config, "untrained_head", False):
        base_weights = load_weights(Path(runner.model_args.model_name_or_path))
        merge = choose_merge(
            model, runner.tokenizer, base_weights, tuned_weights, known, validation
        )
        summary["merge"] = merge.summary()
        scores, worse = merge.scores, []  # choose_merge refuses weights that are worse
        behind = merge.behind
    else:
        model.load_state_dict(tuned_weights)
        scores, worse = known[TUNED], validation.worse(known[TUNED], known[BASE])
        behind = {TUNED: ways} if (ways := validation.behind(scores)) else {}
    summary["base"] = validation.measure(known[BASE])
    summary["kept"] = validation.measure(scores)
    summary["worse"] = worse
    if behind:
        summary["first_stage"] = validation.first_stage()
        summary["behind"] = {str(share): ways for share, ways in behind.items()}
    return summary, scores


def collapsed(scores: Scores) -> bool:
    """Return whether nearly all questions have all their candidates within SPREAD.

    >>> collapsed({"q": {"a": 0.5001, "b": 0.5002}}), collapsed({"q": {"a": 0.5, "b": 2.0}})
    (True, False)
    """
    lists = [found.values() for found in scores.values() if len(found) > 1]
    equal = sum(max(found) - min(found) < SPREAD for found in lists)
    return equal > NEARLY_ALL * len(lists)


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint. Those of a large model are in several files."""
    files = folder.glob("*.safetensors")
    return {name: weight for file in files for name, weight in load_file(file).items()}


@dataclass(frozen=True)
class Merge:
    """The choice among mixtures, each named by its share of fine-tuned weights.

    valid: share -> the value of its scores, if it was scored.
    predicted: share -> the value of the mean of both models' logits.
    scores: way -> validation scores of the chosen mixture.
    worse: share -> the ways in which it ranks worse than the base, if it was refused for that.
    behind: share -> the ways in which it ranks worse than the first stage, if it does.
    """

    chosen: float
    valid: dict[float, float]
    predicted: dict[float, float]
    scores: Mapping[str, Scores]
    worse: dict[float, list[str]]
    behind: dict[float, list[str]]

    def summary(self) -> dict:
        """Return what metrics/train.json has of it."""
        by_share = {"valid": self.valid, "predicted": self.predicted, "worse": self.worse}
        return {"chosen": self.chosen} | {
            name: {str(share): value for share, value in values.items()}
            for name, values in by_share.items()
        }


def choose_merge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    base: Mapping[str, torch.Tensor],
    tuned: Mapping[str, torch.Tensor],
    known: Mapping[float, Mapping[str, Scores]],
    validation: Validation,
) -> Merge:
    """Load the mixture of base and fine-tuned weights that ranks best into `model`.

    Scoring a mixture costs as much as an evaluation. But its logits are close to the mean of the
    logits of both models (Wortsman et al., 2022, section 4), which are known. So only the mixture
    with the best mean is scored, and only if that mean ranks better than both models. Weights that
    rank significantly worse than the base in one way are refused, even if they gain in the other.
    Weights that rank significantly worse than the first stage are refused, too, if others do not.

    Args:
        known: share -> way -> validation scores, of BASE and TUNED.
    """

    def value(scores: Mapping[str, Scores]) -> float:
        return validation.value(validation.measure(scores))

    scores = dict(known)
    predicted = {
        share: value(
            {way: merge_scores(known[BASE][way], known[TUNED][way], share) for way in known[BASE]}
        )
        for share in sorted(validation.params.train.merge)
        if share not in known
    }
    # Of equal values the larger share, here and below.
    likely = max(reversed(predicted), key=predicted.get, default=None)
    if likely is not None and predicted[likely] > max(value(known[share]) for share in known):
        model.load_state_dict(merge_weights(base, tuned, likely))
        scores[likely] = validation.score(model, tokenizer)
    valid = {share: value(scores[share]) for share in sorted(scores)}
    worse = {share: validation.worse(scores[share], known[BASE]) for share in valid}
    worse = {share: ways for share, ways in worse.items() if ways}
    behind = {share: validation.behind(scores[share]) for share in valid}
    behind = {share: ways for share, ways in behind.items() if ways}
    allowed = [share for share in reversed(valid) if share not in worse]
    ahead = [share for share in allowed if share not in behind]
    chosen = max(ahead or allowed, key=valid.get)
    model.load_state_dict(merge_weights(base, tuned, chosen))
    return Merge(chosen, valid, predicted, scores[chosen], worse, behind)


def merge_weights(
    base: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Return share * tuned + (1 - share) * base of each weight in float32; exact at 0 and 1."""
    if share in (BASE, TUNED):
        return dict(tuned if share else base)
    return {name: torch.lerp(base[name].float(), tuned[name].float(), share) for name in tuned}


def merge_scores(base: Scores, tuned: Scores, share: float) -> dict[str, dict[str, float]]:
    """Return share * tuned + (1 - share) * base of each score.

    >>> merge_scores({"q": {"p": 1.0}}, {"q": {"p": 3.0}}, 0.25)
    {'q': {'p': 1.5}}
    """
    return {
        question: {
            passage: share * score + (1 - share) * base[question][passage]
            for passage, score in scores.items()
        }
        for question, scores in tuned.items()
    }


def save_reranker(runner: Runner, folder: Path, inference: dict | None) -> None:
    """Write the fine-tuned checkpoint, with the base's dropout in its config.

    Args:
        inference: what ranking needs to know (maximum length, view size), stored in config.json
            under `reranker`; None for a checkpoint that another training starts from.
    """
    model = runner.model.model
    for name, value in runner.base_dropout.items():
        setattr(model.config, name, value)
    model.config.__dict__.pop("untrained_head", None)
    if inference:
        model.config.reranker = inference
        runner.tokenizer.model_max_length = inference["max_length"]
    save(model, runner.tokenizer, folder)
