"""Fuse rankings, and cut the fused first stage at a depth.

Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods", SIGIR 2009.
"""

from collections.abc import Iterable, Sequence

from reranker.params import Retrieve


def fuse(rankings: Iterable[tuple[Sequence[str], float]], k: int) -> list[tuple[str, float]]:
    """Weighted reciprocal rank fusion: score(d) = sum over the lists that hold d of weight / (k + rank of d).

    Returns:
        (id, score), best first; ties go to what stands earlier in the earlier list.
    """
    scores: dict[str, float] = {}
    for ranking, weight in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + weight / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def first_stage(candidates: Sequence[dict], depth: int, params: Retrieve) -> list[str]:
    """The passages that a retriever asked for `depth` returns: its dense top `depth` fused with its BM25 list.

    This is the article's ensemble: dense depth follows what is asked for, BM25's own depth is fixed.

    Args:
        candidates: one question's, as `Retrieval.candidates` gives them.
    """
    dense = sorted((c for c in candidates if c["dense"] and c["dense"] <= depth), key=lambda c: c["dense"])
    sparse = sorted((c for c in candidates if c["bm25"] and c["bm25"] <= params.bm25_depth), key=lambda c: c["bm25"])
    fused = fuse(
        [
            ([c["passage"] for c in dense] if params.dense_weight else [], params.dense_weight),
            ([c["passage"] for c in sparse] if params.bm25_weight else [], params.bm25_weight),
        ],
        params.rrf_k,
    )
    return [passage for passage, _ in fused[:depth]]
