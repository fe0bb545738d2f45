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
    """Return the first `depth` passages of the dense top `depth` fused with the BM25 list.

    This is the article's ensemble: the dense depth follows `depth`, the BM25 depth is fixed.

    Args:
        candidates: one question's, as `Retrieval.candidates` gives them.
    """
    limits = {"dense": depth, "bm25": params.bm25_depth}
    weights = {"dense": params.dense_weight, "bm25": params.bm25_weight}
    rankings = [
        ([c["passage"] for c in ranked_by(name, candidates, limits[name])], weights[name])
        for name in limits
        if weights[name]
    ]
    return [passage for passage, _ in fuse(rankings, params.rrf_k)[:depth]]


def ranked_by(retriever: str, candidates: Sequence[dict], depth: int) -> list[dict]:
    """Return the candidates among the first `depth` of a retriever, "dense" or "bm25", in order."""
    found = (c for c in candidates if c[retriever] and c[retriever] <= depth)
    return sorted(found, key=lambda candidate: candidate[retriever])
