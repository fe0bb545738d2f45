"""Fuse rankings, and cut the fused first stage at a depth.

Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009.
"""

from collections.abc import Iterable, Sequence

from tunerank.params.data import Retrieve


def fuse(rankings: Iterable[tuple[Sequence[str], float]], k: int) -> list[tuple[str, float]]:
    """Return (id, score), best first, by weighted reciprocal rank fusion.

    A list adds weight / (k + rank) to the score of each id it holds. Of equal scores the one that
    comes first in the earlier list comes first.

    Args:
        rankings: (ids, best first; weight of the list).
    """
    scores: dict[str, float] = {}
    for ranking, weight in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + weight / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def fused_top_k(candidates: Sequence[dict], depth: int, params: Retrieve) -> list[str]:
    """Return the first `depth` passages of the first list's top `depth` fused with the others.

    This is the article's ensemble: the dense depth follows `depth`, the BM25 depth is fixed. With
    `retrieve.run` there is one list, so that the order is that search's own.

    Args:
        candidates: one question's, as `Retrieval.candidates` or `OwnSearch.candidates` gives them.
    """
    rankings = [
        ([c["passage"] for c in ranked_by(name, candidates, limit if place else depth)], weight)
        for place, (name, limit, weight) in enumerate(params.lists)
        if weight
    ]
    return [passage for passage, _ in fuse(rankings, params.rrf_k)[:depth]]


def ranked_by(name: str, candidates: Sequence[dict], depth: int) -> list[dict]:
    """Return the candidates among the first `depth` of a list of `Retrieve.lists`, in order."""
    found = (c for c in candidates if c[name] and c[name] <= depth)
    return sorted(found, key=lambda candidate: candidate[name])
