"""Draw the training groups, and collate the pairs of a step into batches of similar length.

A group is one positive and its negatives. Differences to FlagEmbedding 1.4.2:

- Where a sample has `pos_weights`, the positive is drawn in proportion to them.
- Each sample and epoch has its own generator, so that the groups depend neither on the global
  `random` nor on the number of workers.
- All negatives of a sample are used once before any is used twice (the schedule of Tevatron,
  https://github.com/texttron/tevatron).
- Each distinct pair of a step is scored once, and is not padded to the longest of all.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from FlagEmbedding.abc.finetune.reranker import AbsRerankerDataArguments
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from tunerank.training.tokens import PairTemplate, TokenizedSamples

MAX_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens in a sub-batch, padding included, by device. On a CPU this fits the cache."""

OVERHEAD = {"cpu": 64, "cuda": 16384}
"""The cost of one more sub-batch, in tokens. The value for cuda is a guess, not measured."""


class GroupDataset(Dataset):
    """All groups of a training, epoch after epoch: item i belongs to epoch i // len(samples).

    An item is (pairs, teacher scores): the token ids of the positive's pair and of group_size - 1
    negatives' pairs, and their scores, None without distillation. The limits of query, passage and
    pair are FlagEmbedding's.

    Args:
        folder: where the token ids of the samples are stored.
    """

    def __init__(
        self,
        args: AbsRerankerDataArguments,
        tokenizer: PreTrainedTokenizerBase,
        epochs: float,
        seed: int,
        folder: Path,
    ):
        self.args, self.seed, self.template = args, seed, PairTemplate(tokenizer)
        self.query_limit = args.query_max_len + args.passage_max_len // 4
        self.passage_limit = args.passage_max_len + args.query_max_len // 2
        self.pair_limit = args.query_max_len + args.passage_max_len
        self.samples = TokenizedSamples(
            Path(args.train_data[0]), tokenizer, self.pair_limit, folder
        )
        self.length = max(1, math.floor(len(self.samples) * epochs))
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> tuple[list[dict], list[float] | None]:
        epoch, position = divmod(item, len(self.samples))
        row = self.order(epoch)[position]
        sample = self.samples.row(row)
        sizes = len(sample["pos"]), len(sample["neg"])
        positive, negatives = self.draw(row, epoch, *sizes, sample["pos_weights"])
        query = self.samples.ids(sample["query"])[: self.query_limit]
        texts = [sample["pos"][positive], *(sample["neg"][i] for i in negatives)]
        passages = [self.samples.ids(text)[: self.passage_limit] for text in texts]
        group = [self.template.join(query, passage, self.pair_limit) for passage in passages]
        if not self.args.knowledge_distillation:
            return group, None
        scores = [sample["pos_scores"][positive], *(sample["neg_scores"][i] for i in negatives)]
        return group, scores

    def order(self, epoch: int) -> list[int]:
        """Return the rows of the samples in the order of an epoch."""
        if self._order[0] != epoch:  # kept, because all items of an epoch ask for it
            rows = list(range(len(self.samples)))
            random.Random(f"{self.seed}:{epoch}").shuffle(rows)
            self._order = (epoch, rows)
        return self._order[1]

    def draw(
        self,
        row: int,
        epoch: int,
        positives: int,
        negatives: int,
        weights: Sequence[float] | None = None,
    ) -> tuple[int, list[int]]:
        """Return the indices of a row's positive and negatives in an epoch.

        They do not depend on the order of calls. `positives`, `negatives`: how many the row has.
        `weights`: a positive is drawn in proportion to its own; None: all are as likely.
        """
        rng, numbers = random.Random(f"{self.seed}:{row}:{epoch}"), range(positives)
        positive = rng.choices(numbers, weights)[0] if weights else rng.choice(numbers)
        order = list(range(negatives))
        random.Random(f"{self.seed}:{row}").shuffle(order)
        size = self.args.train_group_size - 1
        return positive, [order[(epoch * size + i) % negatives] for i in range(size)]


class GroupCollator:
    """Collate groups into sub-batches of their distinct pairs.

    Args:
        max_tokens, overhead: see `sub_batches`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, overhead: int):
        self.tokenizer, self.max_tokens, self.overhead = tokenizer, max_tokens, overhead

    def __call__(self, items: Sequence[tuple[list[dict], list[float] | None]]) -> dict:
        """Return the arguments of `GroupModel.forward`: `pair` and `teacher_scores`.

        `pair` has `batches`, the padded inputs, longest pairs first; `index`, of shape (pairs,),
        the place of each group's pairs in the batches' concatenated logits; and `tokens`, their
        number without and with padding.
        """
        pairs = [pair for group, _ in items for pair in group]
        distinct = {tuple(pair["input_ids"]): pair for pair in pairs}
        longest_first = sorted(distinct, key=len, reverse=True)
        lengths = [len(ids) for ids in longest_first]
        place = {ids: i for i, ids in enumerate(longest_first)}
        batches = []
        for start, end in sub_batches(lengths, self.max_tokens, self.overhead):
            rows = [distinct[ids] for ids in longest_first[start:end]]
            inputs = {name: [row[name] for row in rows] for name in rows[0]}
            batches.append(dict(self.tokenizer.pad(inputs, return_tensors="pt")))
        padded = sum(batch["input_ids"].numel() for batch in batches)
        teacher_scores = [score for _, scores in items for score in scores or []]
        return {
            "pair": {
                "batches": batches,
                "index": torch.tensor([place[tuple(pair["input_ids"])] for pair in pairs]),
                "tokens": [sum(lengths), padded],
            },
            "teacher_scores": teacher_scores or None,
        }


def sub_batches(lengths: Sequence[int], max_tokens: int, overhead: int) -> list[tuple[int, int]]:
    """Return the (start, end) of the batches that are cheapest in sum, by dynamic programming.

    A batch costs its tokens, padded to its longest sequence, and `overhead`. Only a batch of one
    sequence may have more than `max_tokens`.

    Args:
        lengths: of the sequences, the longest first.

    >>> [sub_batches([9, 9, 3, 3, 3], max_tokens=100, overhead=overhead) for overhead in (2, 20)]
    [[(0, 2), (2, 5)], [(0, 5)]]
    >>> sub_batches([9, 9, 3, 3, 3], max_tokens=18, overhead=20)
    [(0, 2), (2, 5)]
    """
    length, count = np.array(lengths), len(lengths)
    # For the first `end` sequences: the least cost, and the start of their last batch.
    cost, last_start = np.zeros(count + 1), np.zeros(count + 1, int)
    for end in range(1, count + 1):
        start = np.arange(end)
        tokens = length[:end] * (end - start)
        allowed = (tokens <= max_tokens) | (start == end - 1)
        total = cost[:end] + np.where(allowed, tokens, np.inf) + overhead
        last_start[end] = total.argmin()
        cost[end] = total[last_start[end]]
    batches, end = [], count
    while end:
        start = int(last_start[end])
        batches.append((start, end))
        end = start
    return batches[::-1]
