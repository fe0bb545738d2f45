"""Search a corpus by exactly the systems that a run has measured.

    from tunerank import Searcher

    searcher = Searcher(".")                # a repository after dvc repro, or
    searcher = Searcher("my-search")        # a folder that tunerank export wrote
    for found in searcher.search("电池保修几年？", top_k=3):
        print(found.rank, found.title, found.text[slice(*found.span)], found.score, found.scores)

Ranks are those of metrics/per_query.csv. One exception is a last digit: in bf16 a query alone has
other batches than all questions of a split together, and a logit may move (docs/searching.md).
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.evaluation.systems import fused_names
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.ranker import Ranker
from tunerank.reranking.scores import load_encoder
from tunerank.reranking.ways import RANKED
from tunerank.searching.answers import Answer, all_rankings, first_stage, reranked
from tunerank.searching.checks import as_questions, checked_count, checked_passages
from tunerank.searching.corpus import Texts, build_corpus
from tunerank.searching.first_stage import Listed, retrieved
from tunerank.searching.opened import open_source
from tunerank.searching.running import alone, on_terminal, quiet_loading
from tunerank.searching.systems import readers_of
from tunerank.searching.vectors import KnownVectors


@dataclass(frozen=True)
class Found:
    """A passage in a result.

    rank: from 1. passage: its id. text: all of it.
    score: of the system: for fused the weighted sum, for a reranker the logit, for retriever the
    sum of reciprocal ranks.
    scores: of each part: the reranker's logit, if one was asked, dense and bm25, or that of your
    own search by its name.
    span: the characters [start, end) of `text` that decided: the best view for a reranker, the
    nearest window for dense and retriever, all of the text otherwise.
    """

    rank: int
    passage: str
    title: str
    text: str
    score: float
    scores: dict[str, float]
    span: tuple[int, int]


class Searcher:
    """A corpus, its first stage and rerankers in memory; threads may share it.

    One search computes at a time, on all cores, whichever searcher or ranker of the process it is.

    Args:
        source: a repository after `dvc repro`, a folder of `tunerank export`, or a repository of
            the Hugging Face Hub with such a folder named `search`.
        revision: of a repository of the Hub: a commit of 40 hexadecimal digits, or a tag.
        precision: of retriever and rerankers. `auto`: what the parameters of the run say.

    Attributes:
        systems: what `search` can rank by, in the order of metrics/eval.json. The base and other
            rerankers are there if their checkpoints are, which an exported folder has not.

    Raises:
        InputError: there is no such source, or something in it is missing, damaged or changed.
    """

    systems: tuple[str, ...]

    def __init__(
        self, source: str | Path = ".", revision: str | None = None, precision: str = "auto"
    ):
        with alone(bars=on_terminal()):
            opened = open_source(source, revision, precision)
            self.systems, self.settings = opened.systems, opened.settings
            self._opened, self._corpus = opened, opened.corpus
            self._readers = readers_of(opened.rerankers, opened.settings.retrieve)
            self._encoder = opened.encoder() if opened.settings.retrieve.dense else None
            self._rerankers: dict[str, CrossEncoder] = {}
            self._reranker("reranker")

    @property
    def ranker(self) -> Ranker:
        """The fine-tuned reranker, for passages that are not in the corpus."""
        names = fused_names(self.settings.retrieve.parts)
        weights = dict(zip(names, self._opened.weights[RANKED]))
        return Ranker.of(copy.copy(self._reranker("reranker")), weights)

    def text_of(self, passage: str) -> str | None:
        """Return the text of a passage by its id; None if the corpus has none of this id."""
        found = self._corpus.texts.passages.get(passage)
        return found.text if found else None

    def search(
        self,
        query: str,
        top_k: int = 5,
        system: str = "fused",
        candidates: Listed | None = None,
    ) -> list[Found]:
        """Return the `top_k` best passages for a query by a system.

        There are at most `score.depth` (or `score.whole_depth`) of the run.

        Args:
            candidates: what your own search found for the query, if that is the first stage of the
                run (`retrieve.run`): pairs (id of a passage, score).

        Raises:
            InputError: an empty query, half a character in it, an unknown system, `top_k` below 1,
                or candidates that are missing, not wanted or unusable.
        """
        listed = None if candidates is None else [candidates]
        return self.search_many([query], top_k, system, listed)[0]

    def search_many(
        self,
        queries: Iterable[str],
        top_k: int = 5,
        system: str = "fused",
        candidates: Sequence[Listed] | None = None,
    ) -> list[list[Found]]:
        """Return what `search` returns for each query; all are computed together.

        Args:
            candidates: of each query.
        """
        count = checked_count(top_k)
        if system not in self.systems:
            raise InputError(
                f"system {str(system)!r}: there is none; take one of {', '.join(self.systems)}"
            )
        questions = as_questions(queries)
        if not questions:
            return []
        with alone(bars=False):
            settings, corpus = self.settings, self._corpus
            passages = corpus.texts.passages
            found = retrieved(questions, corpus, self._encoder, settings.retrieve, candidates)
            if system not in self._readers:
                answers = first_stage(questions, found, passages, system, settings)
            else:
                reader, weights = self._readers[system], self._opened.weights
                encoder = self._reranker(reader.reranker)
                answers = reranked(questions, found, passages, encoder, reader, weights, settings)
        return [
            [found_passage(rank, one, corpus.texts) for rank, one in enumerate(of_query[:count], 1)]
            for of_query in answers
        ]

    def rankings(
        self, queries: Iterable[str], candidates: Sequence[Listed] | None = None
    ) -> dict[str, list[list[str]]]:
        """Return system -> each query's passages, best first, as the stage evaluate ranks them.

        Queries and texts are encoded and scored in the batches of the stages: for all questions of
        the split, in their order, and on the machine of the run, the ranks are those of
        metrics/per_query.csv to the last digit.
        """
        questions = as_questions(queries)
        if not questions:
            return {system: [] for system in self.systems}
        with alone(bars=on_terminal()):
            settings, corpus = self.settings, self._corpus
            found = retrieved(questions, corpus, self._encoder, settings.retrieve, candidates)
            encoders = {name: self._reranker(name) for name in self._opened.rerankers}
            ranked = all_rankings(
                questions, found, corpus.texts.passages, encoders, self._opened.weights, settings
            )
        return {
            system: [ranked[system][question["id"]] for question in questions]
            for system in self.systems
        }

    def update(self, passages: Iterable[Mapping]) -> int:
        """Add passages, or replace those of the same id; return how many are new or changed.

        Only texts without a vector are encoded; BM25 is built again over all. Searches that run
        meanwhile have the old corpus or the new one. Files do not change.

        Args:
            passages: {"id", "text"} and optionally "title".

        Raises:
            InputError: one of them has no id or text, or is not text. Nothing changes then.
        """
        given = checked_passages(passages)
        with alone(bars=on_terminal()):
            settings, corpus = self.settings, self._corpus
            texts = corpus.texts
            new = {
                key: (title, text)
                for key, (title, text) in given.items()
                if key not in texts.passages
                or (texts.titles[key], texts.passages[key].text) != (title, text)
            }
            if new:
                known = KnownVectors(settings.retriever, lambda: self._encoder, corpus.vectors)
                merged = texts.with_rows(new, settings.retrieve.title)
                self._corpus = build_corpus(merged, settings.retrieve, known)
        return len(new)

    def _reranker(self, name: str) -> CrossEncoder:
        """Return a reranker, loaded on first use."""
        with alone(bars=False):
            if name not in self._rerankers:
                folder = self._opened.rerankers[name]
                with quiet_loading():
                    self._rerankers[name] = load_encoder(folder, self.settings)
            return self._rerankers[name]


def found_passage(rank: int, answer: Answer, texts: Texts) -> Found:
    """Return an answer with its rank, title and text."""
    key = answer.passage
    passage, title = texts.passages[key], texts.titles[key]
    return Found(rank, key, title, passage.text, answer.score, answer.scores, answer.span)
