"""Measures of a ranking, by ir_measures, under their names in the literature.

hit@k (Success@k): the share of questions with a relevant passage among the first k.
MRR@k (RR@k): the mean of 1 / rank of the first relevant passage, 0 where it is beyond k (Kantor and Voorhees 2000).
nDCG@k: discounted cumulative gain over its ideal, discount 1 / log2(rank + 1) (Jarvelin and Kekalainen 2002).
A question whose passage was never retrieved counts as 0 in all of them.
"""

from collections.abc import Mapping, Sequence

import ir_measures
from ir_measures import RR, Success, nDCG


def measure(gold: Mapping[str, str], rankings: Mapping[str, Sequence[str]], ks: Sequence[int], cutoff: int) -> dict[str, float]:
    """Mean measures over the questions of `gold`.

    Args:
        gold: question id -> the passage that answers it.
        rankings: question id -> passages, best first; a question without an entry counts as not found.
    """
    names = {Success @ k: f"hit@{k}" for k in ks}
    names |= {RR @ cutoff: f"MRR@{cutoff}", nDCG @ cutoff: f"nDCG@{cutoff}"}
    if not gold:
        return {}
    qrels = [ir_measures.Qrel(question, passage, 1) for question, passage in gold.items()]
    run = [
        ir_measures.ScoredDoc(question, passage, -float(rank))
        for question in gold
        for rank, passage in enumerate(rankings.get(question, ()), 1)
    ]
    values = ir_measures.calc_aggregate(list(names), qrels, run)
    return {name: round(float(values[key]), 6) for key, name in names.items()}


def gold_rank(ranking: Sequence[str], gold: str) -> int | None:
    """The rank, from 1, of the passage that answers the question; None where it is not in the ranking."""
    return ranking.index(gold) + 1 if gold in ranking else None
