"""Parameters of the stages pretrain and train."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunerank.params.base import Count, Fraction, Group, Positive


class Pretrain(Group):
    """Second pre-training on the corpus itself.

    It also uses lengths, precision, dropout, frozen embeddings, valid_depth and best of `train`.
    """

    epochs: Annotated[float, Field(ge=0)]
    """Passes over the fragments; with 0 there is no second pre-training."""
    passages: Literal["all", "train"]
    """`train` excludes passages that only validation or test questions ask about."""
    fragments: Positive
    """Maximum of sentences of a passage that serve as questions."""
    lr: Annotated[float, Field(gt=0, le=1)]
    batch_size: Positive
    group_size: Annotated[int, Field(ge=2)]
    random_negatives: Count
    """Random ones of the group_size - 1 negatives; the others are first-stage candidates."""
    distill_weight: Annotated[float, Field(ge=0)]
    """Weight of the distillation loss on the first stage's scores, added to the cross-entropy."""

    @model_validator(mode="after")
    def consistent(self):
        if self.random_negatives >= self.group_size:
            raise ValueError(
                f"random_negatives {self.random_negatives} leaves no positive in group_size "
                f"{self.group_size}"
            )
        return self


class Train(Group):
    launcher: str
    """Command that runs src/train.py: `python`, `torchrun --nproc_per_node 2`, `accelerate
    launch`."""
    lr: Annotated[float, Field(gt=0, le=1)]
    epochs: Annotated[float, Field(gt=0)]
    """Passes over the samples; may be a fraction."""
    batch_size: Positive
    """Samples (groups) in one forward pass of one process."""
    accumulation: Positive
    """Forward passes for one optimizer step."""
    group_size: Annotated[int, Field(ge=2)]
    """Passages in a group: one positive, the others negatives."""
    drop_last: bool
    """Whether an incomplete last batch is dropped."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    distill_weight: Annotated[float, Field(ge=0)]
    """Weight of the distillation loss, added to the cross-entropy; above 0 needs
    `samples.teacher`."""
    distill_temperature: Annotated[float, Field(gt=0)]
    """Divides the teacher's scores and the model's logits before the softmax."""
    query_max_length: Annotated[int, Field(ge=4)]
    """Tokens of a query. A pair has at most query_max_length + passage_max_length tokens; both
    limits are FlagEmbedding's."""
    passage_max_length: Annotated[int, Field(ge=16)]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """`auto`: bf16 if the hardware multiplies it (AMX, avx512_bf16, Arm's bf16, GPUs from Ampere),
    fp16 on an older GPU, else fp32."""
    dropout: Fraction | None
    """null keeps the checkpoint's own. On a CPU attention dropout disables the fused kernel: 0
    trains 1.6 to 3 times faster."""
    freeze_embeddings: bool
    """Do not train the word embeddings, which are most of XLM-RoBERTa's parameters: rare words,
    which training would hardly reach, stay consistent with the others."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory (11 GB cards), a third more time."""
    workers: Count
    """Processes that tokenise; the samples do not depend on it."""
    evals_per_epoch: Count
    """Validations per epoch, besides that of the base; 0 keeps the last checkpoint unvalidated."""
    valid_depth: Positive
    """Candidates that validation reranks for each question."""
    best: Literal["hit@1", "MRR@10", "nDCG@10"]
    """Validation measure that selects the checkpoint and the share of `merge`."""
    patience: Positive | None
    """Validations without a new best after which training stops; null trains to the end."""
    merge: list[Annotated[float, Field(ge=0, le=1)]]
    """Shares of the fine-tuned weights in a mean with the base's weights. If the base's head is
    trained, validation selects one at the end; empty keeps the fine-tuned weights."""
    logging_steps: Positive
    save_steps: Positive
    """Optimizer steps between two checkpoints to resume from. They are outside DVC's outputs and
    are removed when training succeeds."""
    save_total_limit: Positive
    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "dvclive"]
    """Experiment tracker; its package is installed separately (docs/experiments.md)."""

    @model_validator(mode="after")
    def consistent(self):
        if self.merge and not {0.0, 1.0} <= set(self.merge):
            raise ValueError(
                f"merge {self.merge} needs 0.0 and 1.0 in it: then the result is never worse than "
                "the base or the fine-tuned weights"
            )
        return self
