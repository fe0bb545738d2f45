"""Compare two runs, paired question by question: better, worse or no evidence."""

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tunerank.core.errors import InputError
from tunerank.core.files import CONTROL
from tunerank.evaluation.markdown import plain
from tunerank.evaluation.measures import MEASURES, SEVERAL, per_question
from tunerank.evaluation.significance import compare, verdict
from tunerank.provenance.machines import Judgement, judged
from tunerank.provenance.ranks import moved_questions, ranks_of, systems_of
from tunerank.provenance.runs import HERE, commit_of, read_run, run_of

MEASURE = re.compile(rf"({'|'.join([*MEASURES, *SEVERAL])})@[1-9]\d*")
Ranks = Mapping[str, Sequence[tuple[int | None, int]]]
"""Question id -> (rank, None if it was not found, and grade) of each relevant passage."""


def values(ranks: Ranks, measure: str) -> dict[str, float]:
    """Return question id -> its value of a measure such as hit@k or MRR@k."""
    name, k = measure.split("@")
    k, gold, rankings = int(k), {}, {}
    for question, found in ranks.items():
        gold[question] = {f"own {number}": grade for number, (_, grade) in enumerate(found)}
        places = {rank: own for own, (rank, _) in zip(gold[question], found) if rank and rank <= k}
        last = max(places, default=0)
        rankings[question] = [places.get(rank, f"another {rank}") for rank in range(1, last + 1)]
    recall = [k] if name in SEVERAL else []
    return per_question(gold, rankings, [k], k, recall)[measure]


def first_ranks(ranks: Ranks) -> dict[str, int | None]:
    """Return question id -> the rank of its first relevant passage, None if none was found."""
    return {
        question: min((rank for rank, _ in found if rank), default=None)
        for question, found in ranks.items()
    }


def paired(before: Ranks, after: Ranks, measures: list[str], resamples: int, seed: int) -> dict:
    """Compare two systems on the same questions.

    Args:
        before, after: the ranks under A and under B.

    Returns:
        {questions, measures: name -> {a, b, difference, low, high, p}, won: questions with a
        relevant passage first under B alone, lost: under A alone}.
    """
    compared = {}
    for name in measures:
        theirs, ours = values(before, name), values(after, name)
        means = {"a": sum(theirs.values()) / len(theirs), "b": sum(ours.values()) / len(ours)}
        compared[name] = means | compare(
            [ours[question] for question in before],
            [theirs[question] for question in before],
            resamples,
            seed,
        )
    was, now = first_ranks(before), first_ranks(after)
    won = [question for question in before if now[question] == 1 != was[question]]
    lost = [question for question in before if was[question] == 1 != now[question]]
    return {"questions": len(before), "measures": compared, "won": won, "lost": lost}


def ranks(table: pd.DataFrame, system: str, name: str) -> Ranks:
    """Return the ranks of one system.

    Raises:
        InputError: the table of run `name` has no such system.
    """
    systems = systems_of(table)
    if system not in systems:
        raise InputError(f"{name}: no system {system!r} among {', '.join(systems)}")
    found: dict[str, list[tuple[int | None, int]]] = {}
    for (question, _), rank, grade in zip(table.index, table[system], table["grade"]):
        place = int(rank) if np.isfinite(rank) else None
        found.setdefault(question, []).append((place, int(grade)))
    return found


def refuse_other_questions(a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str]) -> None:
    """Check that two runs were tested on the same questions with the same relevant passages.

    Raises:
        InputError: naming those that differ.
    """
    for table, other, (name, against) in ((a, b, names), (b, a, names[::-1])):
        others = set(other.index.get_level_values("id"))
        if alone := [key for key in table.index.unique("id") if key not in others]:
            more = ", ..." if len(alone) > 3 else ""
            raise InputError(
                f"{name} was tested on {len(alone)} questions that {against} was not: "
                f"{', '.join(alone[:3])}{more}; "
                "compare runs on the same data (prepare, score.split)"
            )
    moved, what = moved_questions(a, b)
    if moved:
        raise InputError(
            f"{len(moved)} questions have {what} in {names[1]} than in {names[0]}: "
            f"{', '.join(moved[:3])}"
        )


def format_comparison(result: dict, before: Ranks, after: Ranks, limit: int, markdown: bool) -> str:
    """Return the text for a terminal, or Markdown for a pull request."""
    a, b, system, measure = (result[name] for name in ("a", "b", "system", "measure"))
    if markdown:  # names of revisions and questions come from other people and may hold markup
        a, b = plain(a), plain(b)
    was, now = first_ranks(before), first_ranks(after)
    count, mark, named = result["questions"], "- " if markdown else "  ", plain if markdown else str
    head = f"{b} against {a}, {system} by {measure}: {result['verdict']}"
    lines = [f"**{head}**" if markdown else head, ""]
    lines += [
        f"| {system} | {a} | {b} | difference | 95 % interval | p |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["measures"].items():
        interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        lines.append(
            f"| {name} | {row['a']:.3f} | {row['b']:.3f} | {row['difference']:+.3f} "
            f"| {interval} | {row['p']:.2g} |"
        )
    lines += ["", f"{count} questions; one is worth {1 / count:.4f} of hit@1.", ""]
    for what, winner in (("won", b), ("lost", a)):
        questions = result[what]
        lines.append(f"{what}, first passage right in {winner} alone: {len(questions)}")
        lines += [
            f"{mark}{named(question)}: rank {was[question] or 'none'} -> {now[question] or 'none'}"
            for question in questions[:limit]
        ]
        if len(questions) > limit:
            lines.append(f"{mark}... and {len(questions) - limit} more (--shown)")
    return "\n".join(lines)


def machine_or_change(a: str, b: str | None) -> Judgement:
    """Return whether B has the metrics of A, and if not, whether another machine explains it.

    If nothing can be compared, the line says why.

    Raises:
        InputError: there is no such revision.
    """
    first, second = commit_of(a), None if b is None else commit_of(b)
    try:
        if first is None or (b is not None and second is None):
            raise InputError("nothing is committed yet")
        return judged(read_run(first, a), read_run(second, HERE if b is None else b))
    except InputError as error:
        return Judgement("incomparable", f"metrics: nothing can be compared: {error}")


def judge_machines(a: str | None, b: str | None, required: bool) -> None:
    """Print one line: whether B's metrics are A's, or another machine explains them, or a change.

    Args:
        a: None for HEAD; b: None for the working tree.

    Raises:
        InputError: `required`, and it is a change.
    """
    judgement = machine_or_change("HEAD" if a is None else a, b)
    print(CONTROL.sub(" ", judgement.line))
    if required and judgement.kind not in ("same", "within"):
        raise InputError(f"{b or HERE} is required to be unchanged: {judgement.kind}")


def compare_runs(
    a: str,
    b: str | None,
    system: str,
    measure: str,
    require: str | None,
    limit: int,
    resamples: int,
    seed: int,
    as_json: bool,
    markdown: bool,
) -> None:
    """Print how B compares with A, by one system and measure.

    Args:
        b: None for the working tree; require: `better` or `not-worse`; limit: questions to list.

    Raises:
        InputError: runs that cannot be compared, or a verdict that is not the required one.
    """
    if not MEASURE.fullmatch(measure):
        raise InputError(
            f"--measure {measure}: none of "
            f"{', '.join(f'{name}@k' for name in (*MEASURES, *SEVERAL))}"
        )
    runs = run_of(a), run_of(b)
    names = runs[0].name, runs[1].name
    first, second = map(ranks_of, runs)
    refuse_other_questions(first, second, names)
    before, after = ranks(first, system, names[0]), ranks(second, system, names[1])
    several = any(len(found) > 1 or found[0][1] > 1 for found in before.values())
    shown = ["hit@1", "MRR@10", "nDCG@10", *(["recall@10", "MAP@10"] if several else [])]
    measures = list(dict.fromkeys([measure, *shown]))
    compared = paired(before, after, measures, resamples, seed)
    decided = verdict(compared["measures"][measure])
    head = {"a": names[0], "b": names[1], "system": system, "measure": measure, "verdict": decided}
    result = head | compared
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(format_comparison(result, before, after, limit, markdown))
    failed = decided != "better" if require == "better" else decided == "worse"
    if require and failed:
        wanted = require.replace("-", " ")
        raise InputError(f"{names[1]} is required to be {wanted}: {decided} by {measure}")
