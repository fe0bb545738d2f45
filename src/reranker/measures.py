"""Measures of a ranking, by ir_measures, under their names in the literature.

hit@k (Success@k): the share of questions with a relevant passage among the first k.
MRR@k (RR@k): the mean of 1 / rank of the first relevant passage, 0 where it is beyond k (Kantor and Voorhees 2000).
nDCG@k: discounted cumulative gain over its ideal, discount 1 / log2(rank + 1) (Jarvelin and Kekalainen 2002).
A question whose passage was never retrieved counts as 0 in all of them.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

import ir_measures
from ir_measures import RR, Success, nDCG


def measure(gold: Mapping[str, str], rankings: Mapping[str, Sequence[str]], ks: Sequence[int], cutoff: int) -> dict[str, float]:
    """Mean measures over the questions of `gold`, at 6 digits; nothing where it has none. Arguments as `per_question`."""
    if not gold:
        return {}
    return {name: round(fmean(values.values()), 6) for name, values in per_question(gold, rankings, ks, cutoff).items()}


def per_question(
    gold: Mapping[str, str], rankings: Mapping[str, Sequence[str]], ks: Sequence[int], cutoff: int
) -> dict[str, dict[str, float]]:
    """Each question's own measures.

    Args:
        gold: question id -> the passage that answers it.
        rankings: question id -> passages, best first; a question without an entry counts as not found.

    Returns:
        measure -> question id -> value in [0, 1], questions in the order of `gold`.
    """
    names = {Success @ k: f"hit@{k}" for k in ks}
    names |= {RR @ cutoff: f"MRR@{cutoff}", nDCG @ cutoff: f"nDCG@{cutoff}"}
    qrels = [ir_measures.Qrel(question, passage, 1) for question, passage in gold.items()]
    run = [
        ir_measures.ScoredDoc(question, passage, -float(rank))
        for question in gold
        for rank, passage in enumerate(rankings.get(question, ()), 1)
    ]
    values = {name: dict.fromkeys(gold, 0.0) for name in names.values()}
    for found in ir_measures.iter_calc(list(names), qrels, run):
        values[names[found.measure]][found.query_id] = float(found.value)
    return values


def gold_rank(ranking: Sequence[str], gold: str) -> int | None:
    """The rank, from 1, of the passage that answers the question; None where it is not in the ranking."""
    return ranking.index(gold) + 1 if gold in ranking else None
