"""Is B better than A? Two Git revisions or experiments, paired question by question on what they were tested on.

    python src/compare.py main                       # main and the working tree
    python src/compare.py main my-experiment --system reranker
    python src/compare.py main HEAD --md >> comment.md
    python src/compare.py main HEAD --require not-worse     # for CI: exit code 1 where HEAD is worse
    python src/compare.py --machine                  # HEAD and the working tree: a change, or another machine?
    python src/compare.py main HEAD --machine --require unchanged

Reads metrics, which are in Git, so that no data is pulled. The verdict is of one system by one measure: better or worse where the
95 % bootstrap interval of the mean paired difference excludes 0, else no evidence (src/reranker/evidence.py). --machine judges
all systems together (src/reranker/machines.py).
"""

import argparse
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from reranker.errors import InputError, run
from reranker.evidence import compare, verdict
from reranker.files import CONTROL
from reranker.machines import Judgement, judged
from reranker.markdown import plain
from reranker.measures import per_question
from reranker.runs import HERE, LOCK, RANKS, commit_of, locked_stages, not_evaluated, read_run
from reranker.spreadsheets import read_csv


def values(ranks: Mapping[str, int | None], measure: str) -> dict[str, float]:
    """Question id -> its value of hit@k, MRR@k or nDCG@k, from the rank of its passage, None where it was not found."""
    k = int(measure.split("@")[1])
    rankings = {
        q: [] if rank is None else [f"another {place}" for place in range(1, rank)] + ["own"] for q, rank in ranks.items()
    }
    return per_question(dict.fromkeys(ranks, "own"), rankings, [k], k)[measure]


def paired(
    before: Mapping[str, int | None], after: Mapping[str, int | None], measures: list[str], resamples: int, seed: int
) -> dict:
    """Two systems on the same questions.

    Args:
        before, after: question id -> rank of its passage under A and B.

    Returns:
        {questions, measures: name -> {a, b, difference, low, high, p}, won, lost: questions whose passage B has first and A has
        not, or the other way round}.
    """
    found = {}
    for name in measures:
        ours, theirs = values(after, name), values(before, name)
        means = {side: sum(each.values()) / len(each) for side, each in (("a", theirs), ("b", ours))}
        found[name] = means | compare([ours[q] for q in before], [theirs[q] for q in before], resamples, seed)
    won = [q for q in before if after[q] == 1 != before[q]]
    lost = [q for q in before if before[q] == 1 != after[q]]
    return {"questions": len(before), "measures": found, "won": won, "lost": lost}


def read_ranks(revision: str | None) -> pd.DataFrame:
    """metrics/per_query.csv of a revision or an experiment, None: of the working tree; a row a question, by its id.

    Raises:
        InputError: there is none, or it is of another checkpoint than that revision's.
    """
    if revision is None:
        if not Path(RANKS).is_file():
            raise InputError(f"{RANKS}: no such file; run from the repository's folder, after dvc repro")
        text = Path(RANKS).read_text(encoding="utf-8")
        lock = Path(LOCK).read_text(encoding="utf-8") if Path(LOCK).is_file() else ""
    else:
        import dvc.api  # which takes a second
        from dvc.exceptions import DvcException
        from scmrepo.exceptions import SCMError

        try:
            text = dvc.api.read(RANKS, rev=revision, encoding="utf-8")
        except (DvcException, SCMError, FileNotFoundError) as error:
            raise InputError(f"{revision}: no revision or experiment that has {RANKS} ({' '.join(str(error).split())})") from None
        try:
            lock = dvc.api.read(LOCK, rev=revision, encoding="utf-8")
        except (DvcException, FileNotFoundError):
            lock = ""
    if stale := not_evaluated(locked_stages(lock)):
        raise InputError(f"{revision or HERE}: {RANKS} is older than {stale}; run dvc repro there, to its end")
    return read_csv(io.StringIO(text), dtype={"id": str}).set_index("id")


def ranks(table: pd.DataFrame, system: str, name: str) -> dict[str, int | None]:
    if system not in table:
        raise InputError(f"{name}: no system {system!r} among {', '.join(table.columns[3:])}")
    return {question: None if pd.isna(rank) else int(rank) for question, rank in table[system].items()}


def refuse_other_questions(a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str]) -> None:
    """
    Raises:
        InputError: the two were not tested on the same questions about the same passages, and which differ.
    """
    for table, other, (name, against) in ((a, b, names), (b, a, names[::-1])):
        if alone := [question for question in table.index if question not in other.index]:
            raise InputError(
                f"{name} was tested on {len(alone)} questions that {against} was not: {', '.join(alone[:3])}"
                f"{', ...' if len(alone) > 3 else ''}; compare runs on the same data (prepare, seed and score.split)"
            )
    if moved := [question for question in a.index if a.passage[question] != b.passage[question]]:
        raise InputError(f"{len(moved)} questions have another passage in {names[1]} than in {names[0]}: {', '.join(moved[:3])}")


def as_text(result: dict, before: Mapping[str, int | None], after: Mapping[str, int | None], shown: int, markdown: bool) -> str:
    """For a terminal, or as Markdown."""
    a, b, system, measure = (result[name] for name in ("a", "b", "system", "measure"))
    if markdown:  # names of questions are the other revision's, those of revisions may hold any sign
        a, b = plain(a), plain(b)
    count, mark, named = result["questions"], "- " if markdown else "  ", plain if markdown else str
    head = f"{b} against {a}, {system} by {measure}: {result['verdict']}"
    lines = [f"**{head}**" if markdown else head, ""]
    lines += [f"| {system} | {a} | {b} | difference | 95 % interval | p |", "|---|---|---|---|---|---|"]
    for name, found in result["measures"].items():
        interval = f"[{found['low']:+.3f}, {found['high']:+.3f}]"
        lines.append(
            f"| {name} | {found['a']:.3f} | {found['b']:.3f} | {found['difference']:+.3f} | {interval} | {found['p']:.2g} |"
        )
    lines += ["", f"{count} test questions; one is worth {1 / count:.4f} of hit@1.", ""]
    for what, winner in (("won", b), ("lost", a)):
        questions = result[what]
        lines.append(f"{what}, first passage right in {winner} alone: {len(questions)}")
        lines += [f"{mark}{named(q)}: rank {before[q] or 'none'} -> {after[q] or 'none'}" for q in questions[:shown]]
        if len(questions) > shown:
            lines.append(f"{mark}... and {len(questions) - shown} more (--shown)")
    return "\n".join(lines)


def machine_or_change(a: str, b: str | None) -> Judgement:
    """Whether the metrics of B are those of A, differ as another machine makes them differ, or by more. Where there is nothing to
    compare, the line says why.

    Raises:
        InputError: there is no such revision.
    """
    names = a, b or HERE
    first, second = commit_of(a), b and commit_of(b)
    try:
        if first is None or (b and second is None):
            raise InputError("nothing is committed yet")
        return judged(read_run(first, names[0]), read_run(second, names[1]))
    except InputError as error:
        return Judgement("incomparable", f"metrics: nothing can be compared: {error}")


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(prog="compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", nargs="?", help="revision or experiment; with --machine the default is HEAD")
    parser.add_argument("b", nargs="?", help="revision or experiment; none: the working tree")
    parser.add_argument("--system", default="fused", help="a column of metrics/per_query.csv (default: fused)")
    parser.add_argument("--measure", default="MRR@10", help="hit@k, MRR@k or nDCG@k that the verdict is by (default: MRR@10)")
    required = "exit code 1 where the verdict is another; unchanged, for --machine: the same or within what another machine does"
    parser.add_argument("--require", choices=("better", "not-worse", "unchanged"), help=required)
    parser.add_argument("--shown", type=int, default=10, help="won and lost questions listed (default: 10)")
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=42, help="of the resamples")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--md", action="store_true", help="Markdown, for a pull request")
    form.add_argument("--machine", action="store_true", help="one line on all systems: the same, another machine, or a change")
    options = parser.parse_args(arguments)
    if options.a is None and not options.machine:
        parser.error("the following arguments are required: a")
    if options.require and (options.require == "unchanged") != options.machine:
        parser.error(f"--require {options.require} is {'not for' if options.machine else 'for'} --machine")
    if options.machine:
        found = machine_or_change(options.a or "HEAD", options.b)
        print(CONTROL.sub(" ", found.line))
        if options.require and found.kind not in ("same", "within"):
            raise InputError(f"{options.b or HERE} is required to be unchanged: {found.kind}")
        return
    if not re.fullmatch(r"(hit|MRR|nDCG)@[1-9]\d*", options.measure):
        raise InputError(f"--measure {options.measure}: none of hit@k, MRR@k, nDCG@k")

    names = options.a, options.b or HERE
    a, b = read_ranks(options.a), read_ranks(options.b)
    refuse_other_questions(a, b, names)
    before, after = ranks(a, options.system, names[0]), ranks(b, options.system, names[1])
    measures = list(dict.fromkeys([options.measure, "hit@1", "MRR@10", "nDCG@10"]))
    found = paired(before, after, measures, options.resamples, options.seed)
    decided = verdict(found["measures"][options.measure])
    result = {"a": names[0], "b": names[1], "system": options.system, "measure": options.measure, "verdict": decided, **found}
    print(json.dumps(result, ensure_ascii=False) if options.json else as_text(result, before, after, options.shown, options.md))
    if (options.require == "better" and decided != "better") or (options.require == "not-worse" and decided == "worse"):
        raise InputError(f"{names[1]} is required to be {options.require.replace('-', ' ')}: {decided} by {options.measure}")


if __name__ == "__main__":
    run(main)
