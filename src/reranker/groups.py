"""What a training step sees: groups of one positive and its negatives, and the loss over them.

Loss: cross-entropy of a group's logits with the positive first, "localized contrastive estimation" (Gao, Dai and Callan,
"Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline", ECIR 2021), and beside it, where samples carry a
teacher's scores, distillation. What differs from FlagEmbedding 1.4.2:

- Groups are drawn by a generator of their own for each sample and epoch, never by the global `random`, so that neither the
  number of workers nor anything else that draws can change them. A sample's negatives are taken in turn, all before any
  twice (the schedule of Tevatron, https://github.com/texttron/tevatron).
- A last batch that is smaller is grouped by the real group size (the original reshapes it into wrong groups).
- Distillation has a weight and a temperature (the original: 1 and 1).
"""

import math
import random

import torch
from FlagEmbedding.abc.finetune.reranker import AbsRerankerDataArguments, AbsRerankerTrainDataset
from FlagEmbedding.finetune.reranker.encoder_only.base import CrossEncoderModel

from reranker.files import read_jsonl


class GroupDataset(AbsRerankerTrainDataset):
    """The whole training, sample after sample: item i belongs to epoch i // rows, in that epoch's own order.

    Items are groups tokenised by FlagEmbedding: the positive, then group_size - 1 negatives.
    """

    def __init__(self, args: AbsRerankerDataArguments, tokenizer, epochs: float, seed: int):
        self.args, self.tokenizer, self.seed = args, tokenizer, seed
        self.dataset = list(read_jsonl(args.train_data[0]))
        self.length = max(1, math.floor(len(self.dataset) * epochs))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int):
        epoch, position = divmod(item, len(self.dataset))
        query, passages, scores = self.group(self.order(epoch)[position], epoch)
        return [self.create_one_example(query, passage) for passage in passages], scores

    def order(self, epoch: int) -> list[int]:
        if getattr(self, "_order", (None,))[0] != epoch:  # a worker asks for one epoch's at a time
            rows = list(range(len(self.dataset)))
            random.Random(f"{self.seed}:{epoch}").shuffle(rows)
            self._order = (epoch, rows)
        return self._order[1]

    def group(self, row: int, epoch: int) -> tuple[str, list[str], list[float] | None]:
        """The query, its passages, the positive first, and their teacher's scores if there is one: those of this row in
        this epoch, whoever asks and when."""
        data = self.dataset[row]
        positive = random.Random(f"{self.seed}:{row}:{epoch}").choice(range(len(data["pos"])))
        negatives = list(range(len(data["neg"])))
        random.Random(f"{self.seed}:{row}").shuffle(negatives)
        size = self.args.train_group_size - 1
        drawn = [negatives[(epoch * size + i) % len(negatives)] for i in range(size)]
        scores = None
        if self.args.knowledge_distillation:
            scores = [data["pos_scores"][positive], *(data["neg_scores"][i] for i in drawn)]
        return data["query"], [data["pos"][positive], *(data["neg"][i] for i in drawn)], scores


class GroupModel(CrossEncoderModel):
    """FlagEmbedding's model, reshaping logits by the groups that are there, with a distillation loss that has a
    temperature (Hinton, Vinyals and Dean 2015, arXiv:1503.02531)."""

    group_size: int
    distill_weight = 0.0
    distill_temperature = 1.0

    def forward(self, pair=None, teacher_scores=None):
        self.train_batch_size = len(pair["input_ids"]) // self.group_size
        output = super().forward(pair)
        if teacher_scores is not None and self.training:
            logits = output.scores.view(self.train_batch_size, -1)
            teacher = torch.tensor(teacher_scores, device=logits.device).view_as(logits)
            output.loss = output.loss + self.distill_weight * distillation(logits, teacher, self.distill_temperature)
        return output


def distillation(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """temperature^2 * KL(softmax(teacher / temperature) || softmax(logits / temperature)), the mean over groups.

    Args:
        logits, teacher: of shape (groups, group size), raw scores.
    """
    log_student = torch.log_softmax(logits.float() / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * torch.nn.functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
