"""Rank passages for a query by a reranker alone, without a first stage.

    from reranker.ranking import Ranker
    for found in Ranker("models/reranker").rank("电池保修几年？", ["整机保修一年，电池两年。", "屏幕摔坏不保修。"]):
        print(found.score, found.index)

A checkpoint of this project has learned from views of so many characters (`reranker.shown` in its config.json), and the pipeline
shows it those around the windows that a retriever finds nearest. Here nothing says which are near: every view is scored, each sharing
half with the next, and the best one's score is the passage's (MaxP, Dai and Callan, SIGIR 2019, arXiv:1905.09217). Another
checkpoint, or one trained on whole passages, is shown whole passages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from reranker.errors import InputError
from reranker.packed import MODEL, load_packed
from reranker.passages import Passage, windows
from reranker.scoring import CrossEncoder


@dataclass(frozen=True)
class Ranked:
    """`index`: of the passage among those given; `score`: the raw logit of its best view; `view`: that view's text."""

    index: int
    score: float
    view: str


class Ranker:
    """A reranker in memory.

    Args:
        folder: a checkpoint, or a packed one such as models/bundled.
        precision: as `score.precision` in params.yaml; batch_tokens: in a batch, padding included.

    Raises:
        InputError: `folder` is no checkpoint.
    """

    def __init__(self, folder: str | Path, precision: str = "auto", batch_tokens: int = 2048):
        if Path(folder, MODEL).exists():
            model, tokenizer = load_packed(Path(folder))
            model.to("cuda" if torch.cuda.is_available() else "cpu")
            self.encoder = CrossEncoder.of(model, tokenizer, 512, precision, batch_tokens)
        elif Path(folder, "config.json").exists():
            self.encoder = CrossEncoder(folder, 512, precision, batch_tokens)
        else:
            raise InputError(
                f"{folder}: no config.json, so no checkpoint; give a folder such as models/reranker or models/bundled"
            )
        settings = getattr(self.encoder.model.config, "reranker", None) or {}
        self.encoder.max_length = settings.get("max_length", self.encoder.max_length)
        self.shown = settings.get("shown", 0)

    def rank(self, query: str, passages: Sequence[str | Passage], top_k: int | None = None) -> list[Ranked]:
        """The passages, or the first `top_k` of them, the best first; equal scores in the order given."""
        return self.rank_many([query], passages, top_k)[0]

    def rank_many(
        self, queries: Sequence[str], passages: Sequence[str | Passage], top_k: int | None = None
    ) -> list[list[Ranked]]:
        """`rank` of each query over the same passages, scored together."""
        whole = [passage if isinstance(passage, Passage) else Passage("", passage) for passage in passages]
        views = [
            (index, passage.view(*span))
            for index, passage in enumerate(whole)
            for span in windows(passage.text, self.shown, max(1, self.shown // 2))
        ]
        scores = iter(self.encoder.score([(query, view) for query in queries for _, view in views], "passages"))
        found = []
        for _ in queries:
            best: dict[int, Ranked] = {}
            for (index, view), score in zip(views, scores):
                if index not in best or score > best[index].score:
                    best[index] = Ranked(index, float(score), view)
            found.append(sorted(best.values(), key=lambda ranked: -ranked.score)[:top_k])
        return found
