"""Training guided by ranking: the validation questions are reranked over their real candidates while training goes on.

The base is epoch 0 of the curve, the best checkpoint by one named measure is kept, training stops when it no longer gets
better, and weights between the base's and the fine-tuned ones are tried last (Wortsman et al., "Robust fine-tuning of
zero-shot models", CVPR 2022; Xiao et al., "LM-Cocktail", 2023, arXiv:2311.13534), so that the result is never worse than
the base on the validation questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from reranker.device import set_attention
from reranker.evidence import compare, verdict
from reranker.fusion import first_stage
from reranker.maxp import Asked
from reranker.measures import measure, per_question
from reranker.params import Params
from reranker.passages import Passage
from reranker.scoring import CrossEncoder
from reranker.ways import RANKED, Scores, ways

CUTOFF = 10
MEASURES = ("hit@1", "MRR@10", "nDCG@10")
RESAMPLES = 10_000
"""Of the bootstrap that tells a loss from luck."""


class Validation:
    """Validation questions and what a reranker is shown of their first `train.valid_depth` candidates, each way.

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
        start: Mapping[str, Scores] | None = None,
    ):
        self.params, self.start = params, start
        self.gold = {question["id"]: question["passage"] for question in questions}
        chosen = partial(first_stage, depth=params.train.valid_depth, params=params.retrieve)
        self.asked = Asked(questions, candidates, corpus, dict.fromkeys(ways(params.retrieve), chosen))

    def score(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Scores]:
        """way -> scores under this model, which keeps its mode; passages in the first stage's order."""
        training, score = model.training, self.params.score
        encoder = CrossEncoder.of(model, tokenizer, score.max_length, self.params.train.precision, score.batch_tokens)
        found = self.asked.score(encoder, "validation")
        model.train(training)
        set_attention(model, encoder.precision, training=True)
        return found

    def measure(self, found: Mapping[str, Scores]) -> dict[str, float]:
        """hit@1, MRR@10 and nDCG@10 of the validation questions by these scores; of another way than the ranked one with its name
        before them.

        A question whose passage is not among its candidates counts as 0, as in `measures`; equal scores keep the first
        stage's order.
        """
        return {
            name if way == RANKED else f"{way} {name}": value
            for way, scores in found.items()
            for name, value in measure(self.gold, _rankings(scores), [1], CUTOFF).items()
        }

    def value(self, measured: Mapping[str, float]) -> float:
        """What the best checkpoint and mixture have most of: `train.best`, the mean of the ways. `measured`: of `measure`."""
        best = self.params.train.best
        return fmean(measured[best if way == RANKED else f"{way} {best}"] for way in self.asked.pairs)

    def worse(self, found: Mapping[str, Scores], base: Mapping[str, Scores]) -> list[str]:
        """The ways in which these scores rank worse than the base's, beyond luck: by the interval of src/reranker/evidence.py."""

        def values(scores: Scores) -> list[float]:
            return list(per_question(self.gold, _rankings(scores), [1], CUTOFF)[self.params.train.best].values())

        return [
            way
            for way in found
            if verdict(compare(values(found[way]), values(base[way]), RESAMPLES, self.params.seed)) == "worse"
        ]


def _rankings(scores: Scores) -> dict[str, list[str]]:
    return {question: sorted(found, key=lambda passage: -found[passage]) for question, found in scores.items()}


class Guide(TrainerCallback):
    """Asks the trainer to evaluate and to keep a checkpoint at even distances, and to stop after `train.patience` of them
    without a new best."""

    def __init__(self, trainer, evaluations: int, patience: int | None):
        self.trainer, self.evaluations, self.patience = trainer, evaluations, patience

    def on_train_begin(self, args, state, control, **kwargs):
        self.at = {max(1, round((i + 1) * state.max_steps / self.evaluations)) for i in range(self.evaluations)}
        if state.global_step == 0:
            self.trainer.evaluate()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.at:
            control.should_evaluate = control.should_save = control.should_log = True

    def on_evaluate(self, args, state, control, **kwargs):
        # Counted from the curve, which a resumed run has too.
        values = [point["eval_value"] for point in curve(state.log_history)]
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
    each mixture as the mean of logits predicts it; `scores`: of the chosen one; `worse`: share -> the ways in which it is worse than
    the base, of those that were refused for it."""

    chosen: float
    valid: dict[float, float]
    predicted: dict[float, float]
    scores: Mapping[str, Scores]
    worse: dict[float, list[str]] = field(default_factory=dict)


def choose_merge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    base: Mapping[str, torch.Tensor],
    tuned: Mapping[str, torch.Tensor],
    known: Mapping[float, Mapping[str, Scores]],
    validation: Validation,
) -> Merge:
    """Leave in `model` the mixture of base and fine-tuned weights that ranks the validation questions best.

    Scoring a mixture costs as much as an evaluation, and its logits are close to the mean of both ends' logits (Wortsman et al.,
    2022, section 4). That mean is known without scoring, so only the mixture that it ranks best is made and scored, and none
    where an end is at least as good as it predicts. What is chosen has been scored: it is never worse than either end. One that is
    worse than the base in one way beyond luck, whatever it gains in the other, is not chosen.

    Args:
        known: share -> scores of the validation questions, of the base (0) and of the fine-tuned weights (1).
    """
    scores = dict(known)

    def value(found: Mapping[str, Scores]) -> float:
        return validation.value(validation.measure(found))

    shares = [share for share in sorted(validation.params.train.merge) if share not in known]
    predicted = {
        share: value({way: mean_scores(known[0.0][way], known[1.0][way], share) for way in known[0.0]}) for share in shares
    }
    likely = max(reversed(predicted), key=predicted.get, default=None)
    if likely is not None and predicted[likely] > max(value(found) for found in known.values()):
        model.load_state_dict(merged(base, tuned, likely))
        scores[likely] = validation.score(model, tokenizer)
    valid = {share: value(scores[share]) for share in sorted(scores)}
    worse = {share: found for share in valid if (found := validation.worse(scores[share], known[0.0]))}
    chosen = max((share for share in reversed(valid) if share not in worse), key=valid.get)
    model.load_state_dict(merged(base, tuned, chosen))
    return Merge(chosen, valid, predicted, scores[chosen], worse)


def mean_scores(base: Scores, tuned: Scores, share: float) -> dict[str, dict[str, float]]:
    """share * tuned + (1 - share) * base, score by score.

    >>> mean_scores({"q": {"p": 1.0}}, {"q": {"p": 3.0}}, 0.25)
    {'q': {'p': 1.5}}
    """
    return {
        question: {passage: share * score + (1 - share) * base[question][passage] for passage, score in found.items()}
        for question, found in tuned.items()
    }
