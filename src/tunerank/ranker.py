"""Rank passages for a query with a reranker, alone or together with your own first stage.

    from tunerank import Ranker

    passages = ["整机保修一年，电池两年。", "屏幕摔坏不保修。"]
    for ranked in Ranker("models/reranker").rank("电池保修几年？", passages):
        print(ranked.score, passages[ranked.index])

A checkpoint of this project says in its config.json how many characters a view has
(`reranker.shown`). The pipeline takes views where a retriever finds the passage nearest to the
query. Here all views are scored, each overlapping the next by half, and the best score is the
passage's (MaxP: Dai and Callan, SIGIR 2019, arXiv:1905.09217). Other checkpoints, and those trained
on whole passages, score whole passages.

With the scores of your first stage, `first_stage`, passages are ordered by the weighted sum of
logit and scores, as in the row *fused*.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunerank.core.errors import InputError
from tunerank.data.passages import Passage, windows
from tunerank.models import cross_encoder as cross_encoder_module
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.models.device import best_device
from tunerank.models.identify import identify
from tunerank.models.readable import most_tokens
from tunerank.searching.running import alone, quieten
from tunerank.searching.weights import (
    DIGITS,
    FirstStage,
    Weights,
    checkpoint_in,
    features_of,
    fitted_weights,
)
from tunerank.sources.packed import MODEL, load_packed

quieten(cross_encoder_module)

LONGEST = 512
"""Tokens of a pair, as in FlagReranker."""


@dataclass(frozen=True)
class Ranked:
    """A passage in a ranking.

    index: of the passage among those given.
    score: what decides the order: the raw logit of its best view, or with scores of a first stage
    the weighted sum.
    view: the text of that view.
    logit: the raw logit.
    """

    index: int
    score: float
    view: str
    logit: float


class Ranker:
    """A reranker in memory; threads may share it, one call computes at a time.

    Args:
        folder: a checkpoint, a packed one such as models/bundled, or a folder of `tunerank export`.
        precision: see `score.precision` in params.yaml.
        batch_tokens: tokens in a batch, padding included.

    Attributes:
        bars: draw progress bars.

    Raises:
        InputError: `folder` is not a checkpoint, or cannot score pairs.
    """

    def __init__(self, folder: str | Path, precision: str = "auto", batch_tokens: int = 2048):
        home = checkpoint_in(Path(folder))
        if Path(home, MODEL).exists():
            model, tokenizer = load_packed(home)
            model.to(best_device())
            length = longest_pair(most_tokens(model.config))
            encoder = CrossEncoder.of(model, tokenizer, length, precision, batch_tokens)
        elif Path(home, "config.json").exists():
            length = longest_pair(identify(home, str(folder), "reranker").tokens)
            encoder = CrossEncoder(home, length, precision, batch_tokens)
        else:
            raise InputError(
                f"{folder}: no config.json, so no checkpoint; give a folder such as "
                "models/reranker or models/bundled"
            )
        self._set_encoder(encoder, Path(folder), None, True)

    @classmethod
    def of(cls, encoder: CrossEncoder, weights: Mapping[str, float] | None = None):
        """Wrap an encoder in memory, without progress bars; its `max_length` may change."""
        ranker = cls.__new__(cls)
        ranker._set_encoder(encoder, None, weights, False)
        return ranker

    def _set_encoder(self, encoder, folder, weights, bars):
        self.encoder, self._folder, self._weights, self.bars = encoder, folder, weights, bars
        settings = getattr(encoder.model.config, "reranker", None) or {}
        encoder.max_length = settings.get("max_length", encoder.max_length)
        self.view_size = settings.get("shown", 0)

    @property
    def weights(self) -> Mapping[str, float] | None:
        """The weights that the run of the checkpoint has fitted, {"reranker": ..., part: ...}.

        None where they are not beside it.

        Raises:
            InputError: the file that has them is damaged.
        """
        if self._weights is None and self._folder is not None:
            self._weights = fitted_weights(self._folder)
        return self._weights

    def rank(
        self,
        query: str,
        passages: Sequence[str | Passage],
        top_k: int | None = None,
        first_stage: FirstStage | None = None,
        weights: Weights | None = None,
    ) -> list[Ranked]:
        """Return the `top_k` best passages, or all; equal scores keep the order given.

        Args:
            first_stage: a score of each passage by your own first stage, or such scores by the
                names of the parts, as {"dense": [...], "bm25": [...]}. More is better.
            weights: of the reranker and of each part, in order or by name; those of the
                checkpoint's run if None.

        Raises:
            InputError: there are no weights, they do not belong to these scores, or a score is
                missing or not finite.
        """
        if first_stage is None:
            if weights is not None:
                raise InputError("weights are for scores of a first stage; pass first_stage too")
            return self.rank_many([query], passages, top_k)[0]
        fitted = self.weights if weights is None else None
        given, features = features_of(first_stage, weights, fitted, len(passages))
        ranked = []
        for one in sorted(self.rank_many([query], passages)[0], key=lambda one: one.index):
            logit = round(one.logit, DIGITS)
            total = float(np.dot(given, (logit, *features[one.index])))
            ranked.append(Ranked(one.index, total, one.view, one.logit))
        return sorted(ranked, key=lambda one: -one.score)[:top_k]

    def rank_many(
        self, queries: Sequence[str], passages: Sequence[str | Passage], top_k: int | None = None
    ) -> list[list[Ranked]]:
        """Return what `rank` returns for each query; all are scored together."""
        views = self.views(passages)
        pairs = [(query, view) for query in queries for _, view in views]
        with alone(bars=self.bars):
            scores = iter(self.encoder.score(pairs, "passages").tolist())
        rankings = []
        for _ in queries:
            best: dict[int, Ranked] = {}
            for (index, view), score in zip(views, scores):
                if index not in best or score > best[index].score:
                    best[index] = Ranked(index, score, view, score)
            rankings.append(sorted(best.values(), key=lambda ranked: -ranked.score)[:top_k])
        return rankings

    def views(self, passages: Sequence[str | Passage]) -> list[tuple[int, str]]:
        """Return (index of its passage, text) of every view."""
        size, stride = self.view_size, max(1, self.view_size // 2)
        views = []
        for index, passage in enumerate(passages):
            if isinstance(passage, str):
                passage = Passage("", passage)
            spans = windows(passage.text, size, stride)
            views += [(index, passage.view(*span)) for span in spans]
        return views


def longest_pair(tokens: int | None) -> int:
    """Return the tokens that a pair is cut to, where the checkpoint does not say it.

    Args:
        tokens: the most that the model can read, None for any number.
    """
    return LONGEST if tokens is None else min(LONGEST, tokens)
