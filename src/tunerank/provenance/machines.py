"""Judge whether the metrics of two runs differ only as another machine makes them differ.

A CPU with other vector instructions, another number of threads and another precision round
differently. Near ties then change places. Training amplifies this: a run on another machine is like
a run with nearly the same seed. No stage imports this module: dvc.yaml would have to name it.

The criterion is per system. MRR@10 moved if `verdict` (evaluation/significance.py) says better or
worse and p is below `ALPHA` divided by the number of systems. A system that is not trained must
also have no more moved ranks than `MOVED` explains. With few questions only a large difference is a
change.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom

from tunerank.evaluation.significance import SYSTEMS, compare, verdict
from tunerank.provenance.ranks import other_questions, ranks_of, systems_of
from tunerank.provenance.runs import HERE, LOCK, MACHINE, Run, first_few, other_inputs

CUTOFF = 10
"""`tunerank compare` judges by MRR@10 too. It uses more of a ranking than hit@1 does."""

ALPHA = 0.05
"""For all tests of a line together. Each system has `ALPHA` divided by the number of systems
(Bonferroni): a false alarm makes people look for a change that nobody made."""

MOVED = {"rounding": 0.02, "precision": 0.15}
"""The share of ranks that another machine may move under a system that is not trained.

rounding: both runs have the same precision. One thread against two moves logits by 5e-7 and 0 of 32
rankings (docs/reliability.md); kernels without AVX move logits by 3e-6 against AVX2. On 96 of the
bundled test questions the base separates a question's passage from the nearest other by 3e-4 of a
logit or more. Noise of 1e-4 moves none of these ranks, noise of 5e-3 moves 1.6 % of them. Noise of
1e-5 in the dense scores moves 0.2 % of 384. Training amplifies it, and still AVX2 against AVX-512
changed hit@1 of 1 question of 384 under the reranker and of 2 under the fused system.
precision: the runs differ in it. bf16 against fp32 moves logits by up to 0.048 and 4 of 32
rankings, 12.5 % (docs/reliability.md). Noise of that size moves 8 % of the base's ranks on the same
96 questions.
A count is too large above the binomial quantile of this share, so that one moved rank of ten
questions is not yet a change."""

RESAMPLES, SEED = 2000, 42
"""Of intervals and p. 2000 are enough to compare p with `ALPHA` / 6."""

UNMOVED = {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
"""The result of `compare` for equal ranks."""


@dataclass(frozen=True)
class Judgement:
    """`kind`: same, within (another machine explains it), beyond (it does not), changed (the
    machine is the same and explains nothing) or incomparable. `line`: the same for people."""

    kind: str
    line: str


def judged(a: Run, b: Run) -> Judgement:
    """Return whether `b` has the metrics of `a`, and if not, whether another machine explains it.

    Raises:
        InputError: a table of ranks cannot be read.
    """
    of = "metrics" if b.name == HERE else f"metrics of {b.name}"
    those = "those committed (HEAD)" if (a.name, b.name) == ("HEAD", HERE) else f"those of {a.name}"
    if (a.evaluation, a.ranks) == (b.evaluation, b.ranks):
        return Judgement("same", f"{of}: the same as {those}")
    before, after = ranks_of(a), ranks_of(b)
    if reason := other_questions(before, after, a.name, b.name):
        return Judgement("incomparable", f"{of}: not comparable with {those}: {reason}")

    inputs, machine = other_inputs(a, b), other_machine(a.machine, b.machine)
    share = MOVED["precision" if "precision" in machine else "rounding"]
    beyond, moved = differences(before, after, share)
    kind = "beyond" if beyond else "within" if machine else "changed"
    size = f"{'beyond' if beyond else 'within'} what another machine does to {those}"
    known = (
        f"{LOCK} has the same parameters, code and data"
        if a.stages and b.stages
        else f"no {LOCK} says what else differs"
    )
    names = [a.name] if b.name == HERE else [a.name, b.name]
    names += [f"--system {beyond[0]}"] if beyond else []
    judge = f"by question: tunerank compare {' '.join(names)}"
    if inputs:
        same = f"the machine is the same ({label(b.machine)})"
        parts = [inputs, moved, size, described(a, b, machine) if machine else same, judge]
    elif not machine:
        parts = [
            f"not {those}, and yet capability, threads and precision are the same "
            f"({label(b.machine)})",
            moved,
            known,
            "one machine gives the same bytes each time: compare the CPU models, then make verify",
        ]
    else:
        parts = [size, moved, described(a, b, machine)]
        if beyond:
            parts += [known, judge]
        elif b.name == HERE:
            parts.append(
                "if you changed nothing, do not commit dvc.lock and metrics (docs/comparing.md)"
            )
    return Judgement(kind, f"{of}: {'; '.join(parts)}")


def differences(before: pd.DataFrame, after: pd.DataFrame, share: float) -> tuple[list[str], str]:
    """Return the systems that moved by more than another machine moves them, and a text.

    The text says how far these moved, or else how little all moved.

    Args:
        before, after: of `ranks_of`, with the same questions and relevant passages.
        share: of the ranks that another machine may move under a system that is not trained.
    """
    count, after = len(before), after.reindex(before.index)
    systems = [name for name in systems_of(before) if name in after]
    level = ALPHA / max(1, len(systems))
    limit = binom.ppf(1 - level, count, share)
    beyond, trained, others = {}, [], 0
    for name in systems:
        moved = int((before[name] != after[name]).sum())
        theirs, ours = (reciprocal(table[name]) for table in (before, after))
        paired = compare(ours, theirs, RESAMPLES, SEED) if moved else UNMOVED
        size = f"{paired['difference']:+.3f} [{paired['low']:+.3f}, {paired['high']:+.3f}]"
        if (verdict(paired) != "no evidence" and paired["p"] < level) or (
            name not in SYSTEMS and moved > limit
        ):
            means = f"{theirs.mean():.3f} -> {ours.mean():.3f}"
            beyond[name] = f"{name} MRR@{CUTOFF} {means}, {size}, {moved} of {count} ranks moved"
        elif name in SYSTEMS:
            trained.append(f"{name} MRR@{CUTOFF} {size}")
        else:
            others += moved
    untrained = count * (len(systems) - len(trained))
    rest = f"{others} of {untrained} ranks of untrained systems moved"
    return list(beyond), ", ".join([*beyond.values()] or [*trained, rest])


def reciprocal(ranks: pd.Series) -> np.ndarray:
    """Return 1 / rank of each question's first relevant passage, 0 beyond CUTOFF.

    Args:
        ranks: of one system, by (question, passage).
    """
    first = ranks.groupby(level="id", sort=False).min().to_numpy()
    return np.where(first <= CUTOFF, 1 / first, 0.0)


EXPLAINED = ("packages", "precision_why")
"""Keys of metrics/environment.json that are not compared: packages are compared one by one, and the
reason for a precision is a sentence."""

LABELLED = ("device", "cpu_capability", "amx", "threads", "precision", "instructions")
"""Keys of metrics/environment.json that `label` shows."""


def other_machine(a: Mapping, b: Mapping) -> dict[str, tuple]:
    """Return the differences of two metrics/environment.json: key -> (of a, of b).

    Packages have keys of their own. A key that one of them lacks is not compared, because an older
    version did not write it. An empty one counts as another machine.
    """
    if bool(a) != bool(b):
        return {"machine": ("known", "unknown")}
    a, b = (
        {
            key: value
            for key, value in {**run, **run.get("packages", {})}.items()
            if key not in EXPLAINED
        }
        for run in (a, b)
    )
    return {key: (value, b[key]) for key, value in a.items() if key in b and b[key] != value}


def label(machine: Mapping, differ: Collection[str] = ()) -> str:
    """Return the name of a machine.

    Args:
        machine: the content of metrics/environment.json.
        differ: its keys that differ from another machine's. The device and the instructions are
            named only if they differ.

    >>> machine = {"device": "cpu (x86_64)", "cpu_capability": "AVX512", "amx": True}
    >>> label(machine | {"threads": 2, "precision": "bf16"})
    'AVX512 with AMX, 2 threads, bf16'
    """
    if not machine:
        return f"an unknown machine (no {MACHINE})"
    device = str(machine.get("device", ""))
    chip = str(machine.get("cpu_capability", "unknown capability"))
    if not device.startswith("cpu") or "device" in differ:
        chip = f"{device} {chip}"
    if machine.get("amx") is True:
        chip += " with AMX"
    if "instructions" in differ and "cpu_capability" not in differ:
        chip += f" ({json.dumps(machine['instructions'])})"
    threads, precision = machine.get("threads", "unknown"), machine.get("precision")
    return f"{chip}, {threads} threads, {precision or 'unknown precision'}"


def described(a: Run, b: Run, differ: Mapping[str, tuple]) -> str:
    """Return the two machines, and the packages that differ."""
    builds = [
        f"{key} {old} -> {new}"
        for key, (old, new) in differ.items()
        if key not in (*LABELLED, "machine")
    ]
    both = f"{a.name} ran on {label(a.machine, differ)}, {b.name} on {label(b.machine, differ)}"
    return f"{both}, with {first_few(builds)}" if builds else both
