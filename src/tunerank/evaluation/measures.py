"""Measure rankings with ir_measures.

hit@k (Success@k): the share of questions with a relevant passage among the first k.
MRR@k (RR@k): the mean of 1 / rank of the first relevant passage, 0 beyond k (Kantor and Voorhees
2000).
nDCG@k: discounted cumulative gain over the ideal one, discount 1 / log2(rank + 1) (Jarvelin and
Kekalainen 2002).
A question without its passage in the ranking counts as 0 in all of them.

A new measure is one entry of MEASURES; metrics/eval.json and `tunerank compare` then have it.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

import ir_measures
from ir_measures import RR, Success, nDCG

MEASURES = {"hit": Success, "MRR": RR, "nDCG": nDCG}
"""Name -> the measure of ir_measures. hit is taken at each of `ks`, others at the cut-off."""


def measure(
    gold: Mapping[str, str], rankings: Mapping[str, Sequence[str]], ks: Sequence[int], cutoff: int
) -> dict[str, float]:
    """Return measure -> mean over the questions of `gold`, at 6 digits; empty without a question.

    Args: as `per_question`.
    """
    if not gold:
        return {}
    return {
        name: round(fmean(values.values()), 6)
        for name, values in per_question(gold, rankings, ks, cutoff).items()
    }


def per_question(
    gold: Mapping[str, str], rankings: Mapping[str, Sequence[str]], ks: Sequence[int], cutoff: int
) -> dict[str, dict[str, float]]:
    """Return measure -> question id -> value in [0, 1], questions in the order of `gold`.

    Args:
        gold: question id -> the passage that answers it.
        rankings: question id -> passages, best first; a question may be missing.
        ks: of hit@k, in the order of the result; cutoff: of the other measures.
    """
    names = {MEASURES["hit"] @ k: f"hit@{k}" for k in ks}
    names |= {
        found @ cutoff: f"{name}@{cutoff}" for name, found in MEASURES.items() if name != "hit"
    }
    qrels = [ir_measures.Qrel(question, passage, 1) for question, passage in gold.items()]
    run = [
        ir_measures.ScoredDoc(question, passage, -float(rank))
        for question in gold
        for rank, passage in enumerate(rankings.get(question, ()), 1)
    ]
    values = {name: dict.fromkeys(gold, 0.0) for name in names.values()}
    for metric in ir_measures.iter_calc(list(names), qrels, run):
        values[names[metric.measure]][metric.query_id] = float(metric.value)
    return values


def gold_rank(ranking: Sequence[str], gold: str) -> int | None:
    """Return the rank, from 1, of the passage that answers the question; None if it is missing."""
    return ranking.index(gold) + 1 if gold in ranking else None
