"""Compare systems with intervals and p-values; list documents and labels that a person should read.

`compare` tells whether one system is better than another, or only lucky in the questions drawn.
Interval: percentile bootstrap of the mean paired difference (Efron, "Bootstrap Methods: Another
Look at the Jackknife", Annals of Statistics 1979). Percentile and not BCa, because a mean over
hundreds of bounded differences has almost none of the bias and skew that BCa corrects, and BCa is
undefined where all differences are equal.
p: two-sided paired randomization test, which flips the signs of differences at random (Smucker,
Allan and Carterette, "A Comparison of Statistical Significance Tests for Information Retrieval
Evaluation", CIKM 2007).

Both take questions as independent draws. Several questions about one passage are not independent,
so that intervals are somewhat too narrow. p is not corrected for the number of comparisons.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy.stats import bootstrap, permutation_test

from tunerank.reranking.ways import RANKED, WHOLE, system_name

FIRST_STAGES = ("bm25", "dense", "retriever")
SYSTEMS = tuple(
    system_name(system, way) for way in (RANKED, WHOLE) for system in ("reranker", "fused")
)
"""The systems that are compared with every other one."""
ALPHA = 0.05
"""The p below which `verdict` says better or worse."""
SUSPECT = ("split", "id", "question", "passage", "rival", "base_margin", "reranker_margin")
"""Columns of metrics/suspects.csv."""


def compare(
    ours: Sequence[float], theirs: Sequence[float], resamples: int, seed: int
) -> dict[str, float]:
    """Return the paired comparison of two systems: {difference, low, high, p}.

    difference is mean(ours) - mean(theirs); low and high bound its 95 % interval. With a single
    question low and high are its difference, and p is 1.

    Args:
        ours, theirs: a measure's values of the same questions, in the same order, at least one.
        resamples: of the bootstrap, and of the signs; p is exact where all 2^n flips are fewer.
        seed: of both draws; the same for every comparison, so that swapped systems have exactly
            the mirrored interval.
    """
    differences = np.subtract(ours, theirs, dtype=np.float64)
    difference = low = high = float(differences.mean())
    if len(differences) > 1:
        low, high = bootstrap(
            (differences,),
            np.mean,
            n_resamples=resamples,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    # The sign of a tie changes nothing. Without ties p is the same, and exact more often.
    untied, p = differences[differences != 0], 1.0
    if len(untied) > 1:
        p = permutation_test(
            (untied,),
            np.mean,
            permutation_type="samples",
            n_resamples=resamples,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).pvalue
    return {"difference": difference, "low": float(low), "high": float(high), "p": float(p)}


def verdict(difference: Mapping[str, float]) -> str:
    """Return "better" or "worse" if the interval of `compare` excludes 0 and p is below ALPHA.

    Otherwise return "no evidence". The interval alone is not enough with few questions: if three
    differ, all in one direction, it excludes 0, and chance does that once in four times. Fewer than
    six can never give such a p.
    """
    if difference["p"] >= ALPHA:
        return "no evidence"
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "no evidence"


def best_first_stage(measured: Mapping[str, Mapping[str, float]], measure: str) -> str:
    """Return the first stage with the highest measure: what is deployed without a reranker.

    Args:
        measured: system -> measure -> value.
    """
    return max(
        (name for name in FIRST_STAGES if name in measured),
        key=lambda name: measured[name][measure],
    )


def compare_systems(
    values: Mapping[str, Mapping[str, Mapping[str, float]]],
    groups: Mapping[str, Collection[str]],
    resamples: int,
    seed: int,
) -> dict:
    """Compare each of SYSTEMS with every other system.

    Args:
        values: system -> measure -> question id -> value.
        groups: name -> question ids; a group without questions is left out.

    Returns:
        group -> system -> rival -> measure -> the result of `compare`.
    """
    rivals = [name for name in values if name not in SYSTEMS]
    return {
        name: {
            system: {
                rival: _compare_measures(values[system], values[rival], group, resamples, seed)
                for rival in rivals
            }
            for system in SYSTEMS
            if system in values
        }
        for name, group in groups.items()
        if group
    }


def _compare_measures(
    ours: Mapping[str, Mapping[str, float]],
    theirs: Mapping[str, Mapping[str, float]],
    questions: Collection[str],
    resamples: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    return {
        measure: compare(
            [ours[measure][question] for question in questions],
            [theirs[measure][question] for question in questions],
            resamples,
            seed,
        )
        for measure in ours
    }


def hits_by_document(
    rows: Sequence[dict], systems: Sequence[str], documents: Mapping[str, str]
) -> list[dict]:
    """Return the hit@1 of each system on the questions of each document, by document name.

    Args:
        rows: one a question, with the rank of its passage under each system.
        documents: passage -> its document.

    Returns:
        {document, questions, system: share of them with their passage first}.
    """
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(documents[row["passage"]], []).append(row)
    return [
        {"document": document, "questions": len(group)}
        | {name: round(sum(row[name] == 1 for row in group) / len(group), 6) for name in systems}
        for document, group in sorted(groups.items())
    ]


def suspect_labels(
    split: str,
    questions: Sequence[dict],
    base: Mapping[str, Mapping[str, float]],
    tuned: Mapping[str, Mapping[str, float]],
    margin: float,
) -> list[dict]:
    """Return the questions whose own passage both models clearly score below the same rival.

    The label may be wrong, both passages may answer, or the views may miss the answer: read these
    questions before dropping any. A base with an untrained head scores all passages much alike, and
    so confirms little.

    Args:
        split: of all the questions, for the first column.
        base, tuned: question id -> passage -> raw logit. A question whose own passage has no score
            is left out.
        margin: logits by which both models must score the rival above the own passage, at least.

    Returns:
        a row with SUSPECT's columns for each question, with its strongest rival; the rows with the
        largest smaller margin come first.
    """
    rows = []
    for question in questions:
        key, passage = question["id"], question["passage"]
        before, after = base[key], tuned[key]
        if passage not in after:
            continue
        margins = {
            rival: (before[rival] - before[passage], after[rival] - after[passage])
            for rival in after
        }
        rival = max(margins, key=lambda name: min(margins[name]))
        if min(margins[rival]) >= margin:
            rounded = (round(value, 6) for value in margins[rival])
            rows.append((split, key, question["question"], passage, rival, *rounded))
    return [dict(zip(SUSPECT, row)) for row in sorted(rows, key=lambda row: -min(row[5:]))]
