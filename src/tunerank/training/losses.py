"""The loss of training groups, and FlagEmbedding's model that is trained with it.

A new loss is one function in this file, of tensors of shape (groups, group size), and its term in
`group_loss`. Its weight is a field of `Train` in params/train.py. No other code changes.

Differences to FlagEmbedding 1.4.2: a smaller last batch is cut into groups of the right size, and
the distillation has a weight and a temperature (the original: 1 and 1).
"""

from collections import deque

import torch
from FlagEmbedding.abc.finetune.reranker.AbsModeling import RerankerOutput
from FlagEmbedding.finetune.reranker.encoder_only.base import CrossEncoderModel

from tunerank.params.train import Train
from tunerank.training.watch import pass_statistics


def group_loss(logits: torch.Tensor, teacher: torch.Tensor | None, params: Train) -> torch.Tensor:
    """Return the loss that is trained, the mean over groups.

    Args:
        logits: of shape (groups, group size), the positive first.
        teacher: a teacher's scores of the same shape; None if the samples have none.
    """
    loss = cross_entropy(logits)
    if teacher is not None:
        temperature = params.distill_temperature
        loss = loss + params.distill_weight * distillation(logits, teacher, temperature)
    return loss


def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the softmax cross-entropy of the positive in its group, the mean over groups.

    "Localized contrastive estimation" in Gao, Dai and Callan, "Rethink Training of BERT Rerankers
    in Multi-Stage Retrieval Pipeline", ECIR 2021.
    """
    positives = logits.new_zeros(len(logits), dtype=torch.long)
    return torch.nn.functional.cross_entropy(logits, positives)


def distillation(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return temperature^2 * KL(softmax(teacher / temperature) || softmax(logits / temperature)).

    The mean over groups. Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network",
    2015, arXiv:1503.02531.
    """
    log_student = torch.log_softmax(logits.float() / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * torch.nn.functional.kl_div(
        log_student, log_teacher, reduction="batchmean", log_target=True
    )


class GroupModel(CrossEncoderModel):
    """FlagEmbedding's model for the batches of `GroupCollator`."""

    params: Train
    tokens = (0, 0)
    """Tokens scored so far, without and with padding."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # watch.py reads and empties it at each optimizer step.
        self.statistics = deque(maxlen=1024)

    def encode(self, pair: dict) -> torch.Tensor:
        self.tokens = tuple(sum(counts) for counts in zip(self.tokens, pair["tokens"]))
        logits = [self.model(**batch, return_dict=True).logits for batch in pair["batches"]]
        return torch.cat(logits)[pair["index"]]

    def forward(self, pair: dict, teacher_scores: list[float] | None = None) -> RerankerOutput:
        scores = self.encode(pair)
        if not self.training:
            return RerankerOutput(scores=scores)
        logits = scores.view(-1, self.params.group_size)
        teacher = None
        if teacher_scores is not None:
            teacher = torch.tensor(teacher_scores, device=logits.device).view_as(logits)
        loss = group_loss(logits, teacher, self.params)
        self.statistics.append(pass_statistics(loss, cross_entropy(logits.detach()), logits))
        return RerankerOutput(loss=loss, scores=scores)
