"""Which systems a run has, what orders them, and the weights of the fused ones."""

from collections.abc import Iterable
from typing import NamedTuple

from tunerank.evaluation.systems import fused_names
from tunerank.params.data import Retrieve
from tunerank.reranking.ways import system_name, ways


class Reader(NamedTuple):
    """The way in which a system reads passages, its reranker, and whether the first stage's scores
    are added to the logits."""

    way: str
    reranker: str
    fused: bool


def known_systems(
    names: Iterable[str], rerankers: Iterable[str], retrieve: Retrieve
) -> tuple[str, ...]:
    """Return those of `names` that can be ranked by here, in their order."""
    known = {"bm25", "dense", "retriever"}
    if retrieve.run:
        known = {retrieve.first_stage}
    known |= set(readers_of(rerankers, retrieve))
    return tuple(name for name in names if name in known)


def readers_of(rerankers: Iterable[str], retrieve: Retrieve) -> dict[str, Reader]:
    """Return system -> how it reads, of the systems that a reranker orders."""
    readers = {}
    for way in ways(retrieve):
        readers |= {system_name(name, way): Reader(way, name, False) for name in rerankers}
        readers[system_name("fused", way)] = Reader(way, "reranker", True)
    return readers


def weights_of(result: dict, retrieve: Retrieve) -> dict[str, list[float]]:
    """Return way -> weights of `fused_names`, from the content of eval.json or search.json.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: they are not there.
    """
    names = fused_names(retrieve.parts)
    return {
        way: [float(result[system_name("fusion_weights", way)][name]) for name in names]
        for way in ways(retrieve)
    }
