"""Load params.yaml as one typed object and refuse unknown keys, wrong types and contradictions.

    params = load("params.yaml"); params.train.lr

PyYAML implements YAML 1.1, which reads `2e-05` as a string. DVC writes `-S train.lr=2e-5` like
that, so the loader reads numbers as YAML 1.2 (https://yaml.org/spec/1.2.2/#10214-floating-point).
"""

import reprlib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from tunerank.core.errors import InputError
from tunerank.core.files import regular
from tunerank.params.base import Base, Compared, Count, Group, Loader, Positive, Retriever, Teacher
from tunerank.params.data import Prepare, Retrieve, Samples
from tunerank.params.train import Pretrain, Train

SHORT = reprlib.Repr()
"""Shortens values in messages: YAML aliases can expand a few lines to a very long value."""
SHORT.maxlevel, SHORT.maxstring = 1, 200


class Score(Group):
    """How cross-encoders score pairs, in the stages baseline and score."""

    split: Literal["test", "valid"]
    """Questions to rank: `valid` to choose parameters, `test` to report results."""
    depth: Positive
    """Candidates to rerank for each question."""
    whole_depth: Positive
    """Candidates to rerank as whole passages too, if `retrieve.shown` is not 0."""
    max_length: Annotated[int, Field(ge=8)]
    """Tokens of a pair."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch_tokens: Annotated[int, Field(ge=64)]
    """Tokens in one forward pass, including padding."""


TAKEN = {
    *("bm25", "dense", "retriever", "base", "reranker", "fused", "none", "qrels"),
    *("id", "question", "questions", "evidence", "passage", "grade", "seen", "document"),
    *("k", "share", "system"),
}
"""Rows and columns of the tables of metrics. No reranker of `evaluate.compare` and no run of
`retrieve.run` has such a name."""


class Evaluate(Group):
    ks: Annotated[list[Positive], Field(min_length=1), AfterValidator(lambda ks: sorted(set(ks)))]
    """The values of k for hit@k."""
    cutoff: Positive
    """The cut-off of MRR and nDCG."""
    multiplier: Positive
    """The article's protocol reranks multiplier * k candidates for each k."""
    fusion_weights: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None
    """Weights of the reranker's logit and of each of `Retrieve.parts`, the dense and the BM25
    score, in the fused row; null fits them to the validation questions."""
    resamples: Annotated[int, Field(ge=100)]
    """Resamples of the bootstrap and of the randomization test that compare systems. The smallest p
    is 2 / (resamples + 1)."""
    suspect_margin: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """A question is listed as suspect if base and fine-tuned reranker both score another passage
    higher than its own by this many logits."""
    compare: dict[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9.-]*$")], Compared]
    """Name -> another reranker, as a row of the same tables."""

    @model_validator(mode="after")
    def consistent(self):
        if taken := TAKEN & set(self.compare):
            raise ValueError(f"compare: the name '{min(taken)}' is taken")
        return self


class Params(Group):
    """All of params.yaml."""

    seed: Count
    base: Base
    retriever: Retriever
    teacher: Teacher
    prepare: Prepare
    retrieve: Retrieve
    samples: Samples
    pretrain: Pretrain
    train: Train
    score: Score
    evaluate: Evaluate

    @model_validator(mode="after")
    def consistent_depths(self):
        limit = self.retrieve.depth
        for group, name in (("score", "depth"), ("score", "whole_depth"), ("train", "valid_depth")):
            depth = getattr(getattr(self, group), name)
            if depth > limit:
                raise ValueError(f"{group}.{name} {depth} exceeds retrieve.depth {limit}")
        evaluate, samples = self.evaluate, self.samples
        if evaluate.multiplier * max(evaluate.ks) > self.score.depth:
            raise ValueError(
                f"evaluate.multiplier {evaluate.multiplier} times the largest of evaluate.ks, "
                f"{max(evaluate.ks)}, exceeds score.depth {self.score.depth}"
            )
        if samples.strategy == "hard" and samples.skip_top + samples.window > limit:
            raise ValueError(
                f"samples.skip_top {samples.skip_top} + samples.window {samples.window} exceeds "
                f"retrieve.depth {limit}"
            )
        return self

    @model_validator(mode="after")
    def consistent_first_stage(self):
        retrieve, evaluate = self.retrieve, self.evaluate
        if retrieve.first_stage in TAKEN | set(evaluate.compare):
            raise ValueError(
                f"retrieve.run: the name '{retrieve.first_stage}' is taken; rename "
                f"data/runs/{retrieve.run}"
            )
        names = ["the reranker", *(name for name, _ in retrieve.parts)]
        weights = evaluate.fusion_weights
        if weights is not None and len(weights) != len(names):
            raise ValueError(
                f"evaluate.fusion_weights needs {len(names)} weights, of {', '.join(names)}, got "
                f"{len(weights)}; empty: fitted to the validation questions"
            )
        return self

    @model_validator(mode="after")
    def consistent_stages(self):
        if self.evaluate.fusion_weights is None and not self.train.evals_per_epoch:
            raise ValueError(
                "evaluate.fusion_weights is empty, which needs train.evals_per_epoch above 0"
            )
        if self.samples.units.window and not self.retrieve.window:
            raise ValueError(
                "samples.units.window above 0 needs retrieve.window, to find the window nearest to "
                "a query"
            )
        if (self.teacher.source == "none") == (self.samples.teacher == "reranker"):
            raise ValueError(
                f"teacher.source '{self.teacher.source}' and samples.teacher "
                f"'{self.samples.teacher}': set both to use a reranker as teacher, or neither"
            )
        if self.train.distill_weight and self.samples.teacher == "none":
            raise ValueError("train.distill_weight above 0 needs samples.teacher")
        margins = (self.samples.absolute_margin, self.samples.relative_margin)
        mined = self.samples.teacher == "retriever" or margins != (None, None)
        # Pre-training searches by itself, whatever `run` is.
        searched = self.retrieve.model_copy(update={"run": None}).dense
        if (self.pretrain.epochs and not searched) or (mined and not self.retrieve.dense):
            setting = "retrieve.run" if searched else "retrieve.dense_weight 0"
            pretraining = "" if searched else "pretrain.epochs above 0, "
            raise ValueError(
                f"{setting} with retrieve.window 0 gives no dense scores, but {pretraining}"
                "samples.teacher 'retriever' and the margins of samples need them"
            )
        return self


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check all parameters.

    Raises:
        InputError: one line that names the file and the first wrong key.
    """
    try:
        file = regular(path, "no such file; run from the repository's folder")
        values = yaml.load(file.read_text(encoding="utf-8"), Loader)
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save it as UTF-8") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deep") from None
    # ValueError: an impossible date, or a number of thousands of digits.
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = " ".join(".".join(str(part) for part in first["loc"]).split())
        reason = " ".join(first["msg"].removeprefix("Value error, ").split())
        if first["type"] == "extra_forbidden":
            reason = "unknown key; see the names in params.yaml"
        given = "" if isinstance(first["input"], dict) else f", got {SHORT.repr(first['input'])}"
        raise InputError(f"{path}: {key + ': ' if key else ''}{reason}{given}") from None
