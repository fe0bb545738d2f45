"""What a training step sees: groups of one positive and its negatives, the pairs in them, and the loss over them.

Loss: cross-entropy of a group's logits with the positive first, "localized contrastive estimation" (Gao, Dai and Callan,
"Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline", ECIR 2021), and beside it, where samples carry a
teacher's scores, distillation. What differs from FlagEmbedding 1.4.2:

- Groups are drawn by a generator of their own for each sample and epoch, never by the global `random`, so that neither the
  number of workers nor anything else that draws can change them. A sample's negatives are taken in turn, all before any
  twice (the schedule of Tevatron, https://github.com/texttron/tevatron).
- A step's pairs are scored in sub-batches of about one length, each distinct pair once, and not padded to the longest of all.
- A last batch that is smaller is grouped by the real group size (the original reshapes it into wrong groups).
- Distillation has a weight and a temperature (the original: 1 and 1).
"""

import math
import random
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from FlagEmbedding.abc.finetune.reranker import AbsRerankerDataArguments
from FlagEmbedding.finetune.reranker.encoder_only.base import CrossEncoderModel
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from reranker.tokens import Pairs, TokenizedSamples
from reranker.watch import step_seen

MOST_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Of a sub-batch, padding included: what suits a CPU's cache."""
OVERHEAD = {"cpu": 64, "cuda": 16384}
"""What a further sub-batch costs, as the tokens that would take as long; for cuda a guess, not measured."""


class GroupDataset(Dataset):
    """The whole training, sample after sample: item i belongs to epoch i // rows, in that epoch's own order.

    Items are groups of tokenised pairs, the positive, then group_size - 1 negatives, and their teacher's scores if there is one.
    FlagEmbedding's limits: a query has at most query_max_len + passage_max_len // 4 ids, a passage passage_max_len +
    query_max_len // 2, and a pair query_max_len + passage_max_len.

    Args:
        folder: where the samples' token ids are kept.
    """

    def __init__(
        self, args: AbsRerankerDataArguments, tokenizer: PreTrainedTokenizerBase, epochs: float, seed: int, folder: Path
    ):
        self.args, self.seed, self.pairs = args, seed, Pairs(tokenizer)
        self.query_limit = args.query_max_len + args.passage_max_len // 4
        self.passage_limit = args.passage_max_len + args.query_max_len // 2
        self.pair_limit = args.query_max_len + args.passage_max_len
        self.samples = TokenizedSamples(Path(args.train_data[0]), tokenizer, self.pair_limit, folder)
        self.length = max(1, math.floor(len(self.samples) * epochs))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int):
        epoch, position = divmod(item, len(self.samples))
        row = self.order(epoch)[position]
        data = self.samples.row(row)
        positive, negatives = self.draw(row, epoch, len(data["pos"]), len(data["neg"]))
        query = self.samples.ids(data["query"])[: self.query_limit]
        passages = [data["pos"][positive], *(data["neg"][i] for i in negatives)]
        texts = [self.samples.ids(passage)[: self.passage_limit] for passage in passages]
        group = [self.pairs.join(query, text, self.pair_limit) for text in texts]
        if not self.args.knowledge_distillation:
            return group, None
        return group, [data["pos_scores"][positive], *(data["neg_scores"][i] for i in negatives)]

    def order(self, epoch: int) -> list[int]:
        if getattr(self, "_order", (None,))[0] != epoch:  # a worker asks for one epoch's at a time
            rows = list(range(len(self.samples)))
            random.Random(f"{self.seed}:{epoch}").shuffle(rows)
            self._order = (epoch, rows)
        return self._order[1]

    def draw(self, row: int, epoch: int, positives: int, negatives: int) -> tuple[int, list[int]]:
        """Which of its positives and which of its negatives this row has in this epoch, whoever asks and when."""
        positive = random.Random(f"{self.seed}:{row}:{epoch}").choice(range(positives))
        order = list(range(negatives))
        random.Random(f"{self.seed}:{row}").shuffle(order)
        size = self.args.train_group_size - 1
        return positive, [order[(epoch * size + i) % negatives] for i in range(size)]


class GroupCollator:
    """Groups -> their distinct pairs in sub-batches of about one length, and where each pair of each group is among them.

    Args:
        most, overhead: as `sub_batches`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, most: int, overhead: int):
        self.tokenizer, self.most, self.overhead = tokenizer, most, overhead

    def __call__(self, items: Sequence[tuple[list[dict], list[float] | None]]) -> dict:
        """Returns, under `pair`, batches: padded inputs, the longest pairs first; index: for each pair of the groups its place
        in the batches' logits one after the other; tokens: real ones and those with padding. Under `teacher_scores` one list."""
        pairs = [pair for group, _ in items for pair in group]
        distinct = {tuple(pair["input_ids"]): pair for pair in pairs}
        order = sorted(distinct, key=len, reverse=True)
        place = {ids: i for i, ids in enumerate(order)}
        batches = []
        for start, end in sub_batches([len(ids) for ids in order], self.most, self.overhead):
            rows = [distinct[ids] for ids in order[start:end]]
            inputs = {name: [row[name] for row in rows] for name in rows[0]}
            batches.append(dict(self.tokenizer.pad(inputs, return_tensors="pt")))
        scores = [score for _, found in items for score in found or []]
        return {
            "pair": {
                "batches": batches,
                "index": torch.tensor([place[tuple(pair["input_ids"])] for pair in pairs]),
                "tokens": [sum(map(len, order)), sum(batch["input_ids"].numel() for batch in batches)],
            },
            "teacher_scores": scores or None,
        }


def sub_batches(lengths: Sequence[int], most: int, overhead: int) -> list[tuple[int, int]]:
    """Cut sequences, the longest first, into batches that are padded to their first: where the tokens, padding included, and
    `overhead` for each batch are least in sum, and no batch of several has more than `most`.

    >>> sub_batches([9, 9, 3, 3, 3], most=100, overhead=2), sub_batches([9, 9, 3, 3, 3], most=100, overhead=20)
    ([(0, 2), (2, 5)], [(0, 5)])
    >>> sub_batches([9, 9, 3, 3, 3], most=18, overhead=20)
    [(0, 2), (2, 5)]
    """
    length, cost, cut = np.array(lengths), np.zeros(len(lengths) + 1), np.zeros(len(lengths) + 1, int)
    for end in range(1, len(lengths) + 1):
        tokens = length[:end] * (end - np.arange(end))
        tokens = np.where((tokens <= most) | (np.arange(end) == end - 1), tokens, np.inf)
        total = cost[:end] + tokens + overhead
        cut[end] = total.argmin()
        cost[end] = total[cut[end]]
    found, end = [], len(lengths)
    while end:
        found.append((int(cut[end]), end))
        end = int(cut[end])
    return found[::-1]


class GroupModel(CrossEncoderModel):
    """FlagEmbedding's model over what `GroupCollator` gives, reshaping logits by the groups that are there, with a distillation
    loss that has a temperature (Hinton, Vinyals and Dean 2015, arXiv:1503.02531)."""

    group_size: int
    distill_weight = 0.0
    distill_temperature = 1.0
    tokens = (0, 0)
    """Real ones scored so far, and those with padding."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = deque(maxlen=1024)  # what watch.py reads of the forward passes since the last optimizer step

    def encode(self, pair):
        self.tokens = tuple(sum(counts) for counts in zip(self.tokens, pair["tokens"]))
        logits = [self.model(**batch, return_dict=True).logits for batch in pair["batches"]]
        return torch.cat(logits)[pair["index"]]

    def forward(self, pair=None, teacher_scores=None):
        self.train_batch_size = len(pair["index"]) // self.group_size
        output = super().forward(pair)
        if not self.training:
            return output
        logits, cross_entropy = output.scores.view(self.train_batch_size, -1), output.loss
        if teacher_scores is not None:
            teacher = torch.tensor(teacher_scores, device=logits.device).view_as(logits)
            output.loss = cross_entropy + self.distill_weight * distillation(logits, teacher, self.distill_temperature)
        self.seen.append(step_seen(output.loss, cross_entropy, logits))
        return output


def distillation(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """temperature^2 * KL(softmax(teacher / temperature) || softmax(logits / temperature)), the mean over groups.

    Args:
        logits, teacher: of shape (groups, group size), raw scores.
    """
    log_student = torch.log_softmax(logits.float() / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * torch.nn.functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
