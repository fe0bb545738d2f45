"""Measure rankings with ir_measures.

hit@k (Success@k): the share of questions with a relevant passage among the first k.
MRR@k (RR@k): the mean of 1 / rank of the first relevant passage, 0 beyond k (Kantor and Voorhees
2000).
nDCG@k: discounted cumulative gain over the ideal one, the gain a passage's grade, discount
1 / log2(rank + 1) (Jarvelin and Kekalainen 2002).
recall@k (R@k): the share of a question's relevant passages among the first k.
MAP@k (AP@k): the mean of the precision at the rank of each relevant passage, 0 for those beyond k.
A question without its passages in the ranking counts as 0 in all of them.

A new measure is one entry of MEASURES, or of SEVERAL if it says nothing new of questions with one
relevant passage; metrics/eval.json and `tunerank compare` then have it.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

import ir_measures
from ir_measures import AP, RR, R, Success, nDCG

MEASURES = {"hit": Success, "MRR": RR, "nDCG": nDCG}
"""Name -> the measure of ir_measures. hit is taken at each of `ks`, others at the cut-off."""

SEVERAL = {"recall": R, "MAP": AP}
"""The same of measures for several relevant passages. recall is taken at each of its own ks."""

Gold = Mapping[str, Mapping[str, int]]
"""Question id -> relevant passage -> grade from 1, at least one passage a question."""


def measure(
    gold: Gold,
    rankings: Mapping[str, Sequence[str]],
    ks: Sequence[int],
    cutoff: int,
    recall: Sequence[int] = (),
) -> dict[str, float]:
    """Return measure -> mean over the questions of `gold`, at 6 digits; empty without a question.

    Args: as `per_question`.
    """
    if not gold:
        return {}
    return {
        name: round(fmean(values.values()), 6)
        for name, values in per_question(gold, rankings, ks, cutoff, recall).items()
    }


def per_question(
    gold: Gold,
    rankings: Mapping[str, Sequence[str]],
    ks: Sequence[int],
    cutoff: int,
    recall: Sequence[int] = (),
) -> dict[str, dict[str, float]]:
    """Return measure -> question id -> value in [0, 1], questions in the order of `gold`.

    Args:
        rankings: question id -> passages, best first; a question may be missing.
        ks: of hit@k, in the order of the result; cutoff: of the other measures.
        recall: the ks of recall@k. Where there are any, SEVERAL is measured after MEASURES.
    """
    names = _at(MEASURES, ks, cutoff) | (_at(SEVERAL, recall, cutoff) if recall else {})
    qrels = [
        ir_measures.Qrel(question, passage, grade)
        for question, relevant in gold.items()
        for passage, grade in relevant.items()
    ]
    run = [
        ir_measures.ScoredDoc(question, passage, -float(rank))
        for question in gold
        for rank, passage in enumerate(rankings.get(question, ()), 1)
    ]
    values = {name: dict.fromkeys(gold, 0.0) for name in names.values()}
    for metric in ir_measures.iter_calc(list(names), qrels, run):
        values[names[metric.measure]][metric.query_id] = float(metric.value)
    return values


def _at(measures: Mapping, ks: Sequence[int], cutoff: int) -> dict:
    """Return the measures, hit and recall at each of `ks` and others at the cut-off, with names."""
    return {
        found @ k: f"{name}@{k}"
        for name, found in measures.items()
        for k in (ks if name in ("hit", "recall") else [cutoff])
    }


def gold_rank(ranking: Sequence[str], gold: str) -> int | None:
    """Return the rank, from 1, of a passage that answers the question; None if it is missing."""
    return ranking.index(gold) + 1 if gold in ranking else None
