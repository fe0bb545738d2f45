"""Do the metrics of two runs differ as another machine makes them differ, or by more?

A CPU with other vector instructions, another number of threads and another precision round differently. Near ties then change
places. Training amplifies this: a run on another machine is like a run with nearly the same seed. No stage imports this module,
because dvc.yaml would have to name it.

The criterion is per system. MRR@10 moved where the 95 % interval of the paired difference excludes 0 and the p of the
randomization test is below `ALPHA` (src/reranker/evidence.py). The interval alone is not enough: where four ranks differ, all in
one direction, it excludes 0, and chance does that once in eight times. A system that is not trained must also have no more moved
ranks than `MOVED` explains. With few questions only a large difference is beyond.
"""

import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom

from reranker.errors import InputError
from reranker.evidence import SYSTEMS, compare, verdict
from reranker.runs import HERE, LOCK, MACHINE, RANKS, Run, other_inputs, some
from reranker.spreadsheets import read_csv

ABOUT = ["id", "passage", "qa_type", "seen"]
"""The columns of metrics/per_query.csv that describe the question. The others are systems."""

CUTOFF = 10
"""MRR@10 is what src/compare.py judges by. It uses more of a ranking than hit@1 does."""

ALPHA = 0.05
"""Of all tests of a line together. Each system has `ALPHA` divided by the number of systems (Bonferroni): a false alarm sends
people to look for a change that nobody made."""

MOVED = {"rounding": 0.02, "precision": 0.15}
"""The share of questions for which another machine may move the own passage's rank under a system that is not trained.

rounding, where both runs have the same precision. One thread against two moves logits by 5e-7 and 0 of 32 rankings
(docs/reliability.md); kernels without AVX move logits by 3e-6 against AVX2. On 96 of the bundled test questions the base separates
a question's passage from the nearest other by 3e-4 of a logit or more. Noise of 1e-4 moves none of these ranks, noise of 5e-3
moves 1.6 % of them. Of the dense scores noise of 1e-5 moves 0.2 % of 384. Training amplifies it, and still AVX2 against AVX-512
changed hit@1 of 1 question of 384 under the reranker and of 2 under the fused system.
precision, where they have not. bf16 against fp32 moves logits by up to 0.048 and 4 of 32 rankings, 12.5 % (docs/reliability.md).
Noise of that size moves 8 % of the base's ranks on the same 96 questions.
A count is too large above the binomial quantile of this share, so that one moved rank of ten questions is not yet a change."""

RESAMPLES, SEED = 2000, 42
"""Of intervals and p. 2000 are enough to compare p with `ALPHA` / 6."""

UNMOVED = {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
"""What `compare` gives for equal ranks."""


@dataclass(frozen=True)
class Judgement:
    """`kind` is same, within (what another machine does), beyond (that), changed (the machine is the same, so that it explains
    nothing) or incomparable. `line` says it to people."""

    kind: str
    line: str


def judged(a: Run, b: Run) -> Judgement:
    """Whether the metrics of `b` are those of `a`, differ by what another machine does, or by more.

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
    beyond, moved = differences(before, after, MOVED["precision" if "precision" in machine else "rounding"])
    kind = "beyond" if beyond else "within" if machine else "changed"
    size = f"{'beyond' if beyond else 'within'} what another machine does to {those}"
    on = described(a, b, machine) if machine else f"the machine is the same ({label(b.machine)})"
    known = f"{LOCK} has the same parameters, code and data" if a.stages and b.stages else f"no {LOCK} says what else differs"
    names = [a.name, *([] if b.name == HERE else [b.name]), *([f"--system {beyond[0]}"] if beyond else [])]
    judge = f"by question: python src/compare.py {' '.join(names)}"
    undo = ["if you changed nothing, do not commit dvc.lock and metrics (docs/team.md)"] if b.name == HERE else []
    if inputs:
        parts = [inputs, moved, size, on, judge]
    elif not machine:
        alike = f"not {those}, and yet capability, threads and precision are the same ({label(b.machine)})"
        parts = [alike, moved, known, "one machine gives the same bytes each time: compare the CPU models, then make verify"]
    else:
        parts = [size, moved, on, *([known, judge] if beyond else undo)]
    return Judgement(kind, f"{of}: {'; '.join(parts)}")


def ranks_of(run: Run) -> pd.DataFrame:
    """A row a question, by its id: `passage`, and a float column a system, infinity where the passage was not found."""
    try:
        table = read_csv(io.BytesIO(run.ranks), dtype={"id": str, "passage": str}).set_index("id", verify_integrity=True)
        systems = [name for name in table if name not in ABOUT]
        return table[["passage", *systems]].astype(dict.fromkeys(systems, "float64")).fillna(dict.fromkeys(systems, np.inf))
    except (ValueError, KeyError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{RANKS} of {run.name} is not a table of ranks ({why}); run dvc repro there") from None


def other_questions(before: pd.DataFrame, after: pd.DataFrame, a: str, b: str) -> str | None:
    """Why two tables of `ranks_of` cannot be compared; None: they can."""
    both = before.index.intersection(after.index)
    if not len(before) == len(after) == len(both):
        return f"other questions ({len(before)} in {a}, {len(after)} in {b}, {len(both)} in both)"
    moved = int((before.passage != after.passage.reindex(before.index)).sum())
    return f"{moved} of {len(before)} questions have another passage" if moved else None


def differences(before: pd.DataFrame, after: pd.DataFrame, share: float) -> tuple[list[str], str]:
    """The systems that moved by more than another machine does, and a text: how far these moved, or else how little all moved.

    Args:
        before, after: of `ranks_of`, with the same questions.
        share: of the ranks that another machine may move under a system that is not trained.
    """
    questions, after = len(before), after.reindex(before.index)
    systems = [name for name in before if name in after and name != "passage"]
    level = ALPHA / max(1, len(systems))
    most = binom.ppf(1 - level, questions, share)
    beyond, trained, others = {}, [], 0
    for name in systems:
        old, new = before[name].to_numpy(), after[name].to_numpy()
        moved = int((old != new).sum())
        theirs, ours = (np.where(ranks <= CUTOFF, 1 / ranks, 0.0) for ranks in (old, new))
        found = compare(ours, theirs, RESAMPLES, SEED) if moved else UNMOVED
        size = f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
        if (verdict(found) != "no evidence" and found["p"] < level) or (name not in SYSTEMS and moved > most):
            means = f"{theirs.mean():.3f} -> {ours.mean():.3f}"
            beyond[name] = f"{name} MRR@{CUTOFF} {means}, {size}, {moved} of {questions} ranks moved"
        elif name in SYSTEMS:
            trained.append(f"{name} MRR@{CUTOFF} {size}")
        else:
            others += moved
    rest = f"{others} of {questions * (len(systems) - len(trained))} ranks of untrained systems moved"
    return list(beyond), ", ".join([*beyond.values()] or [*trained, rest])


def other_machine(a: Mapping, b: Mapping) -> dict[str, tuple]:
    """What metrics/environment.json of two runs has otherwise: key -> (of a, of b); packages by their own names.

    A key that one of them lacks is not compared, because an older version did not write it. Where one is empty, nothing is known
    of that machine, and it counts as another.
    """
    if bool(a) != bool(b):
        return {"machine": ("known", "unknown")}
    a, b = ({key: value for key, value in {**run, **run.get("packages", {})}.items() if key not in EXPLAINED} for run in (a, b))
    return {key: (value, b[key]) for key, value in a.items() if key in b and b[key] != value}


EXPLAINED = ("packages", "precision_why")
"""Of metrics/environment.json: packages are compared one by one, and the reason for a precision is a sentence."""

LABELLED = ("device", "cpu_capability", "amx", "threads", "precision", "instructions")
"""Of metrics/environment.json: what `label` has."""


def label(machine: Mapping, differ: Collection[str] = ()) -> str:
    """
    Args:
        machine: the content of metrics/environment.json.
        differ: its keys that differ from another machine's. A kind of CPU and instructions are named only where they differ.

    >>> label({"device": "cpu (x86_64)", "cpu_capability": "AVX512", "amx": True, "threads": 2, "precision": "bf16"})
    'AVX512 with AMX, 2 threads, bf16'
    """
    if not machine:
        return f"an unknown machine (no {MACHINE})"
    device, chip = str(machine.get("device", "")), str(machine.get("cpu_capability", "unknown capability"))
    if not device.startswith("cpu") or "device" in differ:
        chip = f"{device} {chip}"
    if machine.get("amx") is True:
        chip += " with AMX"
    if "instructions" in differ and "cpu_capability" not in differ:
        chip += f" ({json.dumps(machine['instructions'])})"
    return f"{chip}, {machine.get('threads', 'unknown')} threads, {machine.get('precision', 'unknown precision')}"


def described(a: Run, b: Run, differ: Mapping[str, tuple]) -> str:
    """The two machines, and the packages that differ."""
    builds = [f"{key} {old} -> {new}" for key, (old, new) in differ.items() if key not in (*LABELLED, "machine")]
    both = f"{a.name} ran on {label(a.machine, differ)}, {b.name} on {label(b.machine, differ)}"
    return f"{both}, with {some(builds)}" if builds else both
