"""Training that goes wrong is stopped while it runs, with what to change.

Looked at are the groups of each optimizer step: the cross-entropy, how far apart a group's logits lie, and whether the positive is
the first. The weights of the step before are the last good ones; the resume points of before are kept.

- A loss or a gradient that is not finite: at that step, before it reaches the weights. With fp16, whose scaler leaves such a step
  out and lowers its scale, after SKIPPED of them in a row.
- Collapse: over the last WINDOW steps groups' logits differ by less than FLAT, so that every passage scores the same and the loss
  stays at chance, ln(group size).
- Divergence: over the last WINDOW steps the loss is above twice chance's and above one and a half times that of the first WINDOW.
- Labels that fight the base: over the first WINDOW steps its positives come first less than half as often as by chance. That is
  said and not stopped: it is also how a base that knows nothing of these documents begins.
"""

import math
import sys
from collections import deque

import torch
from tqdm import tqdm
from transformers import TrainerCallback

from reranker.errors import InputError

WINDOW, FLAT, SKIPPED = 50, 0.01, 20


def step_seen(loss: torch.Tensor, cross_entropy: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """What `Watch` reads of a forward pass: loss, cross-entropy, mean standard deviation of a group's logits, share of groups whose
    first passage, the positive, has the highest logit.

    Args:
        logits: of shape (groups, group size).
    """
    logits = logits.detach().float()
    first = (logits[:, 0] > logits[:, 1:].amax(dim=1)).float().mean()
    return torch.stack([loss.detach().float(), cross_entropy.detach().float(), logits.std(dim=1, unbiased=False).mean(), first])


class Watch(TrainerCallback):
    """
    Args:
        model: whose `seen` has a row of `step_seen` for each forward pass of the step.
        stage: whose parameters the messages name, `train` or `pretrain`.
        scaled: whether gradients are scaled, as for fp16.

    Raises:
        InputError: what is wrong, at which step, and what to change.
    """

    def __init__(self, model, group_size: int, lr: float, stage: str, scaled: bool):
        self.model, self.stage, self.lr, self.scaled = model, stage, lr, scaled
        self.group_size, self.chance = group_size, math.log(group_size)
        self.first, self.last, self.skipped = [], deque(maxlen=WINDOW), 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.from_start = state.global_step == 0

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        seen = torch.stack([row.cpu() for row in self.model.seen]).mean(dim=0)
        self.model.seen.clear()
        finite = bool(torch.isfinite(seen[0]) and torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        self.skipped = 0 if finite else self.skipped + 1
        if self.skipped > (SKIPPED if self.scaled else 0):
            times = f" {self.skipped} times in a row" if self.scaled else ""
            self.stop(
                state.global_step + 1,
                f"the loss ({float(seen[0]):.3g}) or its gradient is not finite{times}",
                f"lower {self.stage}.lr ({self.lr:g}){', set train.precision to bf16 or fp32' if self.scaled else ''}, or look for "
                "teacher scores or weights that are not finite",
            )
        if finite:
            row = seen.tolist()
            self.last.append(row)
            if len(self.first) < WINDOW:
                self.first.append(row)
                if len(self.first) == WINDOW and self.from_start:
                    self.labels()

    def on_step_end(self, args, state, control, **kwargs):
        if len(self.last) < WINDOW:
            return
        loss, spread = (sum(row[place] for row in self.last) / WINDOW for place in (1, 2))
        if spread < FLAT:
            self.stop(
                state.global_step,
                f"collapsed, every passage of a group has had the same score for {WINDOW} steps, loss {loss:.3f} where chance is "
                f"{self.chance:.3f}",
                f"lower {self.stage}.lr ({self.lr:g}) or raise train.warmup_ratio",
            )
        began = sum(row[1] for row in self.first) / WINDOW
        if loss > 2 * self.chance and loss > 1.5 * began:
            self.stop(
                state.global_step,
                f"diverged, a loss of {loss:.3f} over {WINDOW} steps where it began with {began:.3f} and chance is {self.chance:.3f}",
                f"lower {self.stage}.lr ({self.lr:g}) or train.max_grad_norm, or raise train.warmup_ratio",
            )

    def labels(self) -> None:
        share = sum(row[3] for row in self.first) / WINDOW
        if share < 0.5 / self.group_size:
            tqdm.write(  # which draws the bar anew below it
                f"WARNING: {self.stage}: in the first {WINDOW} steps the positive came first in {share:.1%} of the groups, by chance "
                f"it would in {1 / self.group_size:.0%}; are the labels right (prepare.columns, metrics/suspects.csv)?",
                file=sys.stderr,
            )

    def stop(self, step: int, what: str, remedy: str) -> None:
        raise InputError(f"{self.stage}: step {step}: {what}; {remedy}")
