"""Training guided by ranking: the validation questions are reranked over their real candidates while training goes on.

The base is epoch 0 of the curve, the best checkpoint by one named measure is kept, training stops when it no longer gets
better, and weights between the base's and the fine-tuned ones are tried last (Wortsman et al., "Robust fine-tuning of
zero-shot models", CVPR 2022; Xiao et al., "LM-Cocktail", 2023, arXiv:2311.13534), so that the result is never worse than
the base on the validation questions.
"""

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from reranker.measures import measure
from reranker.params import Params
from reranker.passages import Passage
from reranker.retrieval import first_stage
from reranker.scoring import CrossEncoder, by_passage, shown


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
        self.keys, self.pairs = shown(
            questions, candidates, corpus, lambda found: first_stage(found, params.train.valid_depth, params.retrieve)
        )

    def score(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, dict[str, float]]:
        """question id -> passage -> logit under this model, whose mode is left as it was; passages in the first stage's order."""
        training, score = model.training, self.params.score
        encoder = CrossEncoder.of(model, tokenizer, score.max_length, self.params.train.precision, score.batch_tokens)
        scores = encoder.score(self.pairs, "validation")
        model.train(training)
        return by_passage(self.keys, scores)

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


def choose_merge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    base: Mapping[str, torch.Tensor],
    tuned: Mapping[str, torch.Tensor],
    known: Mapping[float, Mapping[str, Mapping[str, float]]],
    validation: Validation,
) -> tuple[float, dict[float, float], Mapping[str, Mapping[str, float]]]:
    """Leave in `model` the mixture of base and fine-tuned weights that ranks the validation questions best.

    Args:
        known: alpha -> scores of the validation questions, where they are there already.

    Returns:
        the chosen alpha, the value of every one tried, and the chosen one's scores; of equal values the largest alpha is chosen.
    """
    train, scores = validation.params.train, dict(known)
    for alpha in train.merge:
        if alpha not in scores:
            model.load_state_dict(merged(base, tuned, alpha))
            scores[alpha] = validation.score(model, tokenizer)
    values = {alpha: validation.measure(scores[alpha])[train.best] for alpha in sorted(scores)}
    chosen = max(reversed(values), key=values.get)
    model.load_state_dict(merged(base, tuned, chosen))
    return chosen, values, scores[chosen]
