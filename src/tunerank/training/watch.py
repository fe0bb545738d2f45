"""Show the progress of a training, and stop one that fails, with the parameters to change.

Failures are found in the cross-entropy of each optimizer step, the spread of the logits in a group,
and the share of groups with the positive first. Training stops with the last good weights, those
of the step before; earlier checkpoints stay. Failures are:

- A loss or gradient that is not finite: before it reaches the weights. fp16 has a scaler that skips
  such a step and lowers its scale, so there only SKIPPED of them in a row count.
- Collapse: over the last STEPS steps the logits of a group differ by less than FLAT. Every passage
  has the same score, and the loss stays at chance, ln(group size).
- Divergence: over the last STEPS steps the loss is above twice chance, and above 1.5 times the loss
  of the first STEPS steps.

Labels that contradict the base only cause a warning: over the first STEPS steps the positive is
first less than half as often as by chance. A base that knows nothing of the documents also starts
like that.
"""

import math
import sys
from collections import deque

import torch
from tqdm import tqdm
from transformers import TrainerCallback

from tunerank.core.errors import InputError

STEPS, FLAT, SKIPPED = 50, 0.001, 20  # multilingual-e5-small with an untrained head has 0.02


class Progress(TrainerCallback):
    """Progress bar in samples, so that rate and ETA stay right after a resume."""

    def __init__(self, samples_per_step: int, total: int):
        self.samples_per_step, self.total = samples_per_step, total

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(
            total=self.total,
            initial=min(self.total, state.global_step * self.samples_per_step),
            desc="train",
            unit="sample",
            disable=not state.is_world_process_zero,
        )

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(min(self.samples_per_step, self.total - self.bar.n))
        # The curve needs the last step. A mean of losses must not span a checkpoint, because a
        # resumed run would log another mean.
        control.should_log |= control.should_save or state.global_step == state.max_steps

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            loss, lr = float(logs["loss"]), float(logs["learning_rate"])
            self.bar.set_postfix(loss=f"{loss:.3f}", lr=f"{lr:.2g}")

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def pass_statistics(
    loss: torch.Tensor, cross_entropy: torch.Tensor, logits: torch.Tensor
) -> torch.Tensor:
    """Return what `Watch` needs to know of a forward pass.

    Args:
        logits: of shape (groups, group size), the positive first.

    Returns:
        of shape (4,): loss, cross-entropy, mean standard deviation of a group's logits, share of
        groups in which the positive has the highest logit.
    """
    logits = logits.detach().float()
    first = (logits[:, 0] > logits[:, 1:].amax(dim=1)).float().mean()
    spread = logits.std(dim=1, unbiased=False).mean()
    return torch.stack([loss.detach().float(), cross_entropy.detach().float(), spread, first])


class Watch(TrainerCallback):
    """Stop a training that fails.

    Args:
        model: its `statistics` has a row of `pass_statistics` for each forward pass of a step.
        stage: the stage that messages name, `train` or `pretrain`.
        scaled: whether gradients are scaled, as in fp16.

    Raises:
        InputError: the failure, its step, and what to change.
    """

    def __init__(self, model, group_size: int, lr: float, stage: str, scaled: bool):
        self.model, self.stage, self.lr, self.scaled = model, stage, lr, scaled
        self.group_size, self.chance = group_size, math.log(group_size)
        self.first, self.last, self.skipped = [], deque(maxlen=STEPS), 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.from_start = state.global_step == 0

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        statistics = torch.stack([row.cpu() for row in self.model.statistics]).mean(dim=0)
        self.model.statistics.clear()
        norm = torch.nn.utils.get_total_norm(gradients)
        if torch.isfinite(statistics[0]) and torch.isfinite(norm):
            self.skipped = 0
            self.record(statistics.tolist())
            return
        self.skipped += 1
        if self.skipped > (SKIPPED if self.scaled else 0):
            times = f" {self.skipped} times in a row" if self.scaled else ""
            precision = ", set train.precision to bf16 or fp32" if self.scaled else ""
            self.stop(
                state.global_step + 1,
                f"the loss ({float(statistics[0]):.3g}) or its gradient is not finite{times}",
                f"lower {self.stage}.lr ({self.lr:g}){precision}, or look for teacher scores or "
                "weights that are not finite",
            )

    def record(self, statistics: list[float]) -> None:
        self.last.append(statistics)
        if len(self.first) < STEPS:
            self.first.append(statistics)
            if len(self.first) == STEPS and self.from_start:
                self.check_labels()

    def check_labels(self) -> None:
        share = sum(row[3] for row in self.first) / STEPS
        if share < 0.5 / self.group_size:
            tqdm.write(  # which draws the progress bar again below the line
                f"WARNING: {self.stage}: in the first {STEPS} steps the positive came first in "
                f"{share:.1%} of the groups, by chance it would in {1 / self.group_size:.0%}; are "
                "the labels right (prepare.columns, metrics/suspects.csv)?",
                file=sys.stderr,
            )

    def on_step_end(self, args, state, control, **kwargs):
        if len(self.last) < STEPS:
            return
        loss, spread = (sum(row[column] for row in self.last) / STEPS for column in (1, 2))
        if spread < FLAT:
            self.stop(
                state.global_step,
                "collapsed, every passage of a group has had the same score for "
                f"{STEPS} steps, loss {loss:.3f} where chance is {self.chance:.3f}",
                f"lower {self.stage}.lr ({self.lr:g}) or raise train.warmup_ratio",
            )
        first_loss = sum(row[1] for row in self.first) / STEPS
        if loss > 2 * self.chance and loss > 1.5 * first_loss:
            self.stop(
                state.global_step,
                f"diverged, a loss of {loss:.3f} over {STEPS} steps where it began with "
                f"{first_loss:.3f} and chance is {self.chance:.3f}",
                f"lower {self.stage}.lr ({self.lr:g}) or train.max_grad_norm, or raise "
                "train.warmup_ratio",
            )

    def stop(self, step: int, failure: str, remedy: str) -> None:
        raise InputError(f"{self.stage}: step {step}: {failure}; {remedy}")
