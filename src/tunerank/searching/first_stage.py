"""Find candidates as the stage retrieve does, in a corpus that is indexed already."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.params.base import Retriever
from tunerank.params.data import Retrieve
from tunerank.retrieval import candidates as candidates_module
from tunerank.retrieval import retrievers as retrievers_module
from tunerank.retrieval.candidates import Retrieval
from tunerank.retrieval.own_search import OwnSearch
from tunerank.retrieval.retrievers import DenseEncoder
from tunerank.searching.corpus import Corpus, Texts
from tunerank.searching.running import quiet_loading, quieten
from tunerank.searching.weights import number

quieten(candidates_module, retrievers_module)

Listed = Iterable[tuple[str, float]]
"""(id of a passage, score), as a caller's own search gives them for one query."""


def encoder_of(folder: Path, retriever: Retriever) -> Callable[[], DenseEncoder]:
    """Return a function that loads the dense retriever when it is called first."""

    @lru_cache(1)
    def load_encoder() -> DenseEncoder:
        with quiet_loading():
            return DenseEncoder(str(folder), retriever)

    return load_encoder


class StoredRetrieval(Retrieval):
    """`Retrieval` in a corpus that is indexed already."""

    def __init__(self, corpus: Corpus, encoder: DenseEncoder | None, params: Retrieve):
        self.params, self.encoder = params, encoder
        self.bm25, self.index = corpus.bm25, corpus.index


class CallersSearch(OwnSearch):
    """`OwnSearch` in a corpus that is indexed already, with the results of a caller's search.

    Args:
        run: question id -> passage -> score, best first.
    """

    def __init__(
        self,
        corpus: Corpus,
        encoder: DenseEncoder | None,
        params: Retrieve,
        run: Mapping[str, Mapping[str, float]],
    ):
        self.params, self.encoder, self.run = params, encoder, run
        self.index = corpus.index


def retrieved(
    questions: Sequence[dict],
    corpus: Corpus,
    encoder: DenseEncoder | None,
    params: Retrieve,
    listed: Sequence[Listed] | None,
) -> dict[str, list[dict]]:
    """Return question id -> candidates, as data/candidates has them.

    Args:
        listed: of each question, with `retrieve.run`.

    Raises:
        InputError: `listed` is missing or not wanted, or cannot be used.
    """
    if (listed is None) == bool(params.run):
        raise InputError(
            f"the first stage of this run is {params.run}, your own search: pass its results as "
            "candidates=[(passage, score), ...], or rank texts with Ranker.rank(first_stage=...)"
            if params.run
            else "this run has a first stage of its own and takes no candidates; with scores of "
            "another search use Ranker.rank(first_stage=...)"
        )
    if not params.run:
        search = StoredRetrieval(corpus, encoder, params)
    else:
        if len(listed) != len(questions):
            raise InputError(f"candidates of {len(listed)} queries for {len(questions)} queries")
        run = {row["id"]: best_first(one, corpus.texts) for row, one in zip(questions, listed)}
        search = CallersSearch(corpus, encoder, params, run)
    asked = search.candidates(questions, "queries", len(questions))
    return {question["id"]: found for question, found in asked}


def best_first(listed: Listed, texts: Texts) -> dict[str, float]:
    """Return passage -> score, best first; of equal scores the first one given comes first.

    A passage that comes twice has its higher score, as in `read_run`.

    Raises:
        InputError: a passage that the corpus lacks, or a score that is no finite number.
    """
    found: dict[str, float] = {}
    try:
        pairs = [(passage, score) for passage, score in listed]
    except (TypeError, ValueError):
        raise InputError("candidates: give a list of pairs (id of a passage, score)") from None
    for name, score in pairs:
        passage = texts.merged.get(name, name) if isinstance(name, str) else None
        if passage not in texts.passages:
            raise InputError(
                f"candidates: no passage {name!r} in the corpus; leave it out, or add it by "
                "Searcher.update"
            )
        value = number(score, f"candidates: the score of {name!r}")
        if passage not in found or found[passage] < value:
            found.pop(passage, None)
            found[passage] = value
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
