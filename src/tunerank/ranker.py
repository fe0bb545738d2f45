"""Rank passages for a query with a reranker alone, without a first stage.

    from tunerank import Ranker

    passages = ["整机保修一年，电池两年。", "屏幕摔坏不保修。"]
    for ranked in Ranker("models/reranker").rank("电池保修几年？", passages):
        print(ranked.score, passages[ranked.index])

A checkpoint of this project says in its config.json how many characters a view has
(`reranker.shown`). The pipeline takes views where a retriever finds the passage nearest to the
query. Here all views are scored, each overlapping the next by half, and the best score is the
passage's (MaxP: Dai and Callan, SIGIR 2019, arXiv:1905.09217). Other checkpoints, and those trained
on whole passages, score whole passages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.data.passages import Passage, windows
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.models.device import best_device
from tunerank.sources.packed import MODEL, load_packed


@dataclass(frozen=True)
class Ranked:
    """A passage in a ranking.

    index: of the passage among those given.
    score: the raw logit of its best view.
    view: the text of that view.
    """

    index: int
    score: float
    view: str


class Ranker:
    """A reranker in memory.

    Args:
        folder: a checkpoint, or a packed one such as models/bundled.
        precision: see `score.precision` in params.yaml.
        batch_tokens: tokens in a batch, padding included.

    Raises:
        InputError: `folder` is not a checkpoint.
    """

    def __init__(self, folder: str | Path, precision: str = "auto", batch_tokens: int = 2048):
        if Path(folder, MODEL).exists():
            model, tokenizer = load_packed(Path(folder))
            model.to(best_device())
            self.encoder = CrossEncoder.of(model, tokenizer, 512, precision, batch_tokens)
        elif Path(folder, "config.json").exists():
            self.encoder = CrossEncoder(folder, 512, precision, batch_tokens)
        else:
            raise InputError(
                f"{folder}: no config.json, so no checkpoint; give a folder such as "
                "models/reranker or models/bundled"
            )
        settings = getattr(self.encoder.model.config, "reranker", None) or {}
        self.encoder.max_length = settings.get("max_length", self.encoder.max_length)
        self.view_size = settings.get("shown", 0)

    def rank(
        self, query: str, passages: Sequence[str | Passage], top_k: int | None = None
    ) -> list[Ranked]:
        """Return the `top_k` best passages, or all; equal scores keep the order given."""
        return self.rank_many([query], passages, top_k)[0]

    def rank_many(
        self, queries: Sequence[str], passages: Sequence[str | Passage], top_k: int | None = None
    ) -> list[list[Ranked]]:
        """Return what `rank` returns for each query; all are scored together."""
        views = self.views(passages)
        pairs = [(query, view) for query in queries for _, view in views]
        scores = iter(self.encoder.score(pairs, "passages"))
        rankings = []
        for _ in queries:
            best: dict[int, Ranked] = {}
            for (index, view), score in zip(views, scores):
                if index not in best or score > best[index].score:
                    best[index] = Ranked(index, float(score), view)
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
