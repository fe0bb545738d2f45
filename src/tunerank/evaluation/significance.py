"""Compare systems with intervals and p-values; list labels that a person should read.

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


def first_stages(result: Mapping) -> list[str]:
    """Return the first stages of a run, the user's own search or those of FIRST_STAGES.

    Args:
        result: the content of metrics/eval.json.
    """
    own = result.get("first_stages")
    return own or [name for name in FIRST_STAGES if name in result["all"]]


def best_first_stage(result: Mapping, measure: str) -> str:
    """Return the first stage with the highest measure: what is deployed without a reranker.

    Args:
        result: the content of metrics/eval.json.
    """
    return max(first_stages(result), key=lambda name: result["all"][name][measure])


def first_stage_title(result: Mapping, measure: str) -> str:
    """Return what tables call the result of `best_first_stage`."""
    best = "best " if len(first_stages(result)) > 1 else ""
    return f"{best_first_stage(result, measure)}, the {best}first stage" + (
        f" by {measure}" if best else ""
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


def suspect_labels(
    split: str,
    questions: Sequence[dict],
    base: Mapping[str, Mapping[str, float]],
    tuned: Mapping[str, Mapping[str, float]],
    margin: float,
) -> list[dict]:
    """Return the questions whose relevant passages both models clearly score below the same rival.

    The label may be wrong, both passages may answer, or the views may miss the answer: read these
    questions before dropping any. A base with an untrained head scores all passages much alike, and
    so confirms little.

    Args:
        split: of all the questions, for the first column.
        base, tuned: question id -> passage -> raw logit. A question without a score of a relevant
            passage is left out.
        margin: logits by which both models must score the rival above each relevant passage, at
            least.

    Returns:
        a row with SUSPECT's columns for each question, with its strongest rival, which is never
        relevant, and the relevant passage that `tuned` scores highest; the rows with the largest
        smaller margin come first.
    """
    rows = []
    for question in questions:
        key, relevant = question["id"], [item["passage"] for item in question["relevant"]]
        before, after = base[key], tuned[key]
        scored = [passage for passage in relevant if passage in after]
        rivals = [passage for passage in after if passage not in relevant]
        if not scored or not rivals:
            continue
        own, known = max(scored, key=after.get), max(before[passage] for passage in scored)
        margins = {rival: (before[rival] - known, after[rival] - after[own]) for rival in rivals}
        rival = max(margins, key=lambda name: min(margins[name]))
        if min(margins[rival]) >= margin:
            rounded = (round(value, 6) for value in margins[rival])
            rows.append((split, key, question["question"], own, rival, *rounded))
    return [dict(zip(SUSPECT, row)) for row in sorted(rows, key=lambda row: -min(row[5:]))]
