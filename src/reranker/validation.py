"""Training guided by ranking: the validation questions are reranked over their real candidates while training goes on.

The base is epoch 0 of the curve, the best checkpoint by one named measure is kept, training stops when it no longer gets
better, and weights between the base's and the fine-tuned ones are tried last (Wortsman et al., "Robust fine-tuning of
zero-shot models", CVPR 2022; Xiao et al., "LM-Cocktail", 2023, arXiv:2311.13534), so that the result is never worse than
the base on the validation questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from reranker.device import set_attention
from reranker.fusion import first_stage
from reranker.maxp import max_over_views, view_pairs
from reranker.measures import measure
from reranker.params import Params
from reranker.passages import Passage
from reranker.scoring import CrossEncoder


class Validation:
    """Validation questions and what a reranker is shown of their first `train.valid_depth` candidates.

    Args:
        questions: {id, question, passage}; candidates: question id -> as `Retrieval.candidates` gives them;
        corpus: id -> passage.
        start: the scores of the model that training starts from, as `score` gives them, where they are known already.
    """

    def __init__(
        self,
        questions: Sequence[dict],
        candidates: Mapping[str, Sequence[dict]],
        corpus: Mapping[str, Passage],
        params: Params,
        start: Mapping[str, Mapping[str, float]] | None = None,
    ):
        self.params, self.start = params, start
        self.gold = {question["id"]: question["passage"] for question in questions}
        self.keys, self.pairs = view_pairs(
            questions, candidates, corpus, lambda found: first_stage(found, params.train.valid_depth, params.retrieve)
        )

    def score(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, dict[str, float]]:
        """question id -> passage -> logit under this model, which keeps its mode; passages in the first stage's order."""
        training, score = model.training, self.params.score
        encoder = CrossEncoder.of(model, tokenizer, score.max_length, self.params.train.precision, score.batch_tokens)
        scores = encoder.score(self.pairs, "validation")
        model.train(training)
        set_attention(model, encoder.precision, training=True)
        return max_over_views(self.keys, scores)

    def measure(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """hit@1, MRR@10 and nDCG@10 of the validation questions by these scores.

        A question whose passage is not among its candidates counts as 0, as in `measures`; equal scores keep the first
        stage's order.
        """
        rankings = {question: sorted(found, key=lambda passage: -found[passage]) for question, found in scores.items()}
        return measure(self.gold, rankings, [1], 10)


class Guide(TrainerCallback):
    """Asks the trainer to evaluate and to keep a checkpoint at even distances, and to stop after `train.patience` of them
    without a new best."""

    def __init__(self, trainer, evaluations: int, best: str, patience: int | None):
        self.trainer, self.evaluations, self.best, self.patience = trainer, evaluations, f"eval_{best}", patience

    def on_train_begin(self, args, state, control, **kwargs):
        self.at = {max(1, round((i + 1) * state.max_steps / self.evaluations)) for i in range(self.evaluations)}
        if state.global_step == 0:
            self.trainer.evaluate()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.at:
            control.should_evaluate = control.should_save = control.should_log = True

    def on_evaluate(self, args, state, control, **kwargs):
        # Counted from the curve, which a resumed run has too.
        values = [point[self.best] for point in curve(state.log_history)]
        if self.patience and len(values) - 1 - values.index(max(values)) >= self.patience:
            control.should_training_stop = True


def curve(log_history: Sequence[dict]) -> list[dict]:
    """The evaluations in a trainer's log, the base's first."""
    return [entry for entry in log_history if any(name.startswith("eval_") for name in entry)]


def merged(base: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """alpha * tuned + (1 - alpha) * base, each weight by itself, in float32; exactly either end at 1 and 0."""
    if alpha in (0, 1):
        return dict(tuned if alpha else base)
    return {name: torch.lerp(base[name].float(), tuned[name].float(), alpha) for name in tuned}


@dataclass(frozen=True)
class Merge:
    """`chosen`: the share of fine-tuned weights; `valid`: share -> value of each that was scored; `predicted`: share -> value of
    each mixture as the mean of logits predicts it; `scores`: of the chosen one, question id -> passage -> logit."""

    chosen: float
    valid: dict[float, float]
    predicted: dict[float, float]
    scores: Mapping[str, Mapping[str, float]]


def choose_merge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    base: Mapping[str, torch.Tensor],
    tuned: Mapping[str, torch.Tensor],
    known: Mapping[float, Mapping[str, Mapping[str, float]]],
    validation: Validation,
) -> Merge:
    """Leave in `model` the mixture of base and fine-tuned weights that ranks the validation questions best.

    Scoring a mixture costs as much as an evaluation, and its logits are close to the mean of both ends' logits (Wortsman et al.,
    2022, section 4). That mean is known without scoring, so only the mixture that it ranks best is made and scored, and none
    where an end is at least as good as it predicts. What is chosen has been scored: it is never worse than either end.

    Args:
        known: share -> scores of the validation questions, of the base (0) and of the fine-tuned weights (1).
    """
    train, scores = validation.params.train, dict(known)

    def value(found: Mapping[str, Mapping[str, float]]) -> float:
        return validation.measure(found)[train.best]

    predicted = {share: value(mean_scores(known[0.0], known[1.0], share)) for share in sorted(train.merge) if share not in known}
    likely = max(reversed(predicted), key=predicted.get, default=None)
    if likely is not None and predicted[likely] > max(value(found) for found in known.values()):
        model.load_state_dict(merged(base, tuned, likely))
        scores[likely] = validation.score(model, tokenizer)
    valid = {share: value(scores[share]) for share in sorted(scores)}
    chosen = max(reversed(valid), key=valid.get)
    model.load_state_dict(merged(base, tuned, chosen))
    return Merge(chosen, valid, predicted, scores[chosen])


def mean_scores(
    base: Mapping[str, Mapping[str, float]], tuned: Mapping[str, Mapping[str, float]], share: float
) -> dict[str, dict[str, float]]:
    """share * tuned + (1 - share) * base, score by score.

    >>> mean_scores({"q": {"p": 1.0}}, {"q": {"p": 3.0}}, 0.25)
    {'q': {'p': 1.5}}
    """
    return {
        question: {passage: share * score + (1 - share) * base[question][passage] for passage, score in found.items()}
        for question, found in tuned.items()
    }
