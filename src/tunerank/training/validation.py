"""Rank the validation questions during training, to choose the weights and to stop early.

The first evaluation is the base's. The checkpoint with the best `train.best` is kept, and training
stops after `train.patience` evaluations without a new best. selection.py then tries mixtures of the
base and that checkpoint.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from tunerank.data.passages import Passage
from tunerank.data.questions import grades
from tunerank.evaluation.measures import measure, per_question
from tunerank.evaluation.significance import compare, verdict
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.models.device import set_attention
from tunerank.params.load import Params
from tunerank.reranking.maxp import ScoringTask
from tunerank.reranking.ways import Scores, measure_name, ways
from tunerank.retrieval.fusion import fused_top_k

CUTOFF = 10

MEASURES = ("hit@1", "MRR@10", "nDCG@10")

RESAMPLES = 10_000
"""Resamples of the bootstrap that decides whether weights rank worse than the base."""


class Validation:
    """The validation questions with their first `train.valid_depth` candidates, each way.

    Args:
        questions: see data/questions.py.
        candidates: question id -> see `Search.candidates`.
        corpus: id -> passage.
        start: way -> scores of the model that training starts from, if they are known.
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
        self.gold = {question["id"]: grades(question) for question in questions}
        self.ways = ways(params.retrieve)
        top_k = partial(fused_top_k, depth=params.train.valid_depth, params=params.retrieve)
        self.first = {question: top_k(candidates[question]) for question in self.gold}
        self.task = ScoringTask(questions, candidates, corpus, dict.fromkeys(self.ways, top_k))

    def score(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Scores]:
        """Return way -> scores of the candidates, in the first stage's order.

        The model stays in training or evaluation mode.
        """
        training, params = model.training, self.params.score
        precision = self.params.train.precision
        encoder = CrossEncoder.of(
            model, tokenizer, params.max_length, precision, params.batch_tokens
        )
        scores = self.task.score(encoder, "validation")
        model.train(training)
        set_attention(model, encoder.precision, training=True)
        return scores

    def measure(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """Return MEASURES of every way; a name starts with its way, except that of the ranked one.

        A question counts as 0 if no relevant passage is among its candidates. Equal scores keep
        the first stage's order.
        """
        return {
            measure_name(name, way): value
            for way, of_way in scores.items()
            for name, value in measure(self.gold, _rankings(of_way), [1], CUTOFF).items()
        }

    def value(self, measured: Mapping[str, float]) -> float:
        """Return the mean of `train.best` over the ways. The best weights have the highest value.

        Args:
            measured: see `measure`.
        """
        return fmean(measured[measure_name(self.params.train.best, way)] for way in self.ways)

    def worse(self, scores: Mapping[str, Scores], base: Mapping[str, Scores]) -> list[str]:
        """Return the ways in which `scores` rank significantly worse than the base's scores."""
        return [way for way in scores if self._loses(scores[way], _rankings(base[way]))]

    def behind(self, scores: Mapping[str, Scores]) -> list[str]:
        """Return the ways in which `scores` rank significantly worse than the first stage does."""
        return [way for way in scores if self._loses(scores[way], self.first)]

    def first_stage(self) -> dict[str, object]:
        """Return {measure, value}: `train.best` of the first stage's order of the candidates."""
        best = self.params.train.best
        return {"measure": best, "value": measure(self.gold, self.first, [1], CUTOFF)[best]}

    def _loses(self, scores: Scores, rankings: Mapping[str, Sequence[str]]) -> bool:
        ours, theirs = self._best(_rankings(scores)), self._best(rankings)
        return verdict(compare(ours, theirs, RESAMPLES, self.params.seed)) == "worse"

    def _best(self, rankings: Mapping[str, Sequence[str]]) -> list[float]:
        """Return `train.best` of each question."""
        values = per_question(self.gold, rankings, [1], CUTOFF)
        return list(values[self.params.train.best].values())


def _rankings(scores: Scores) -> dict[str, list[str]]:
    return {
        question: sorted(of_question, key=lambda passage: -of_question[passage])
        for question, of_question in scores.items()
    }


class Guide(TrainerCallback):
    """Let a trainer evaluate and save at even distances, and stop it early.

    Args:
        evaluations: how many, without that of the base.
        patience: evaluations without a new best, after which training stops; None never stops it.
    """

    def __init__(self, trainer, evaluations: int, patience: int | None):
        self.trainer, self.evaluations, self.patience = trainer, evaluations, patience

    def on_train_begin(self, args, state, control, **kwargs):
        self.steps = {
            max(1, round((i + 1) * state.max_steps / self.evaluations))
            for i in range(self.evaluations)
        }
        if state.global_step == 0:
            self.trainer.evaluate()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.steps:
            control.should_evaluate = control.should_save = control.should_log = True

    def on_evaluate(self, args, state, control, **kwargs):
        # The log of a resumed run has the evaluations before the interruption too.
        values = [entry["eval_value"] for entry in validation_curve(state.log_history)]
        if self.patience and len(values) - 1 - values.index(max(values)) >= self.patience:
            control.should_training_stop = True


def validation_curve(log_history: Sequence[dict]) -> list[dict]:
    """Return the evaluations in a trainer's log, the base's first."""
    return [entry for entry in log_history if any(name.startswith("eval_") for name in entry)]
