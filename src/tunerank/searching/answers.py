"""Order a query's candidates by one system, by the code of the stages score and evaluate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tunerank.data.passages import Passage
from tunerank.evaluation.systems import (
    fused_features,
    rank_first_stages,
    rank_rerankers,
    rank_systems,
)
from tunerank.models import cross_encoder as cross_encoder_module
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.params.data import Retrieve
from tunerank.reranking.maxp import DIGITS, ScoringTask
from tunerank.reranking.scores import candidate_task
from tunerank.reranking.ways import WHOLE, Scores, system_name
from tunerank.retrieval.fusion import fused_top_k
from tunerank.searching.opened import Settings
from tunerank.searching.running import quieten
from tunerank.searching.systems import Reader

quieten(cross_encoder_module)

Candidates = Mapping[str, Sequence[dict]]
"""Question id -> candidates, as `Retrieval.candidates` gives them."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Answer:
    """A passage of a ranking.

    score: of the system. scores: part -> score, of the reranker that was asked and of the first
    stage. span: the characters of the passage's text that decided.
    """

    passage: str
    score: float
    scores: dict[str, float]
    span: Span


class Remembering:
    """Score as an encoder does, and remember the score of each pair."""

    def __init__(self, encoder: CrossEncoder):
        self.encoder = encoder
        self.scores: dict[tuple[str, str], float] = {}

    def score(self, pairs: Sequence[tuple[str, str]], what: str) -> np.ndarray:
        scores = self.encoder.score(pairs, what)
        self.scores.update(zip(pairs, scores.tolist()))
        return scores

    def best_view(self, query: str, passage: Passage, views: Sequence[Span]) -> Span:
        """Return the view with the highest score; of equal ones the first."""
        return max(views, key=lambda view: round(self.scores[query, passage.view(*view)], DIGITS))


def reranked(
    questions: Sequence[dict],
    candidates: Candidates,
    passages: Mapping[str, Passage],
    encoder: CrossEncoder,
    reader: Reader,
    weights: Mapping[str, Sequence[float]],
    settings: Settings,
) -> list[list[Answer]]:
    """Return each question's answers by a reranker, or by the fused row with its logits.

    Only what the system ranks is scored, one way.

    Args:
        encoder: of the reranker that `reader` names.
    """
    (way, name, fused), score, retrieve = reader, settings.score, settings.retrieve
    limit = min(score.depth, score.whole_depth) if way == WHOLE else score.depth
    choose = {way: partial(fused_top_k, depth=limit, params=retrieve)}
    remembering = Remembering(encoder)
    task = ScoringTask(questions, candidates, passages, choose)
    logits = task.score(remembering, "views")[way]
    system = system_name("fused" if fused else "reranker", way)
    answers = []
    for question in questions:
        found, found_logits = candidates[question["id"]], logits[question["id"]]
        # Any reranker stands where the fine-tuned one does: it is ordered in the same way.
        ranking = rank_rerankers(
            found,
            {way: {"reranker": found_logits}},
            weights,
            score.depth,
            score.whole_depth,
            retrieve,
        )[system]
        features = fused_features(found, found_logits, retrieve.parts)
        by_passage = {one["passage"]: one for one in found}
        of_question = []
        for key in ranking:
            passage, candidate = passages[key], by_passage[key]
            span = (0, len(passage.text))
            if way != WHOLE:
                span = remembering.best_view(question["question"], passage, candidate["views"])
            total = float(np.dot(weights[way], features[key])) if fused else found_logits[key]
            parts = {name: found_logits[key]} | first_stage_scores(candidate, retrieve)
            of_question.append(Answer(key, total, parts, span))
        answers.append(of_question)
    return answers


def first_stage(
    questions: Sequence[dict],
    candidates: Candidates,
    passages: Mapping[str, Passage],
    system: str,
    settings: Settings,
) -> list[list[Answer]]:
    """Return each question's answers by a first stage."""
    depth, retrieve = settings.score.depth, settings.retrieve
    field = dict(retrieve.parts).get(system)
    answers = []
    for question in questions:
        found = candidates[question["id"]]
        by_passage = {one["passage"]: one for one in found}
        of_question = []
        for name in rank_first_stages(found, depth, retrieve)[system]:
            candidate = by_passage[name]
            total = candidate[field] if field else reciprocal(candidate, depth, retrieve)
            nearest = retrieve.dense and system in ("dense", "retriever")
            span = tuple(candidate["nearest"]) if nearest else (0, len(passages[name].text))
            parts = first_stage_scores(candidate, retrieve)
            of_question.append(Answer(name, float(total), parts, span))
        answers.append(of_question)
    return answers


def reciprocal(candidate: dict, depth: int, retrieve: Retrieve) -> float:
    """Return the score by which `fused_top_k` orders a candidate."""
    total = 0.0
    for place, (name, limit, weight) in enumerate(retrieve.lists):
        rank = candidate[name]
        if rank and rank <= (limit if place else depth):
            total += weight / (retrieve.rrf_k + rank)
    return total


def first_stage_scores(candidate: dict, retrieve: Retrieve) -> dict[str, float]:
    """Return the scores of a candidate by the parts of the first stage that run."""
    return {
        name: candidate[field]
        for name, field in retrieve.parts
        if name != "dense" or retrieve.dense
    }


def all_rankings(
    questions: Sequence[dict],
    candidates: Candidates,
    passages: Mapping[str, Passage],
    encoders: Mapping[str, CrossEncoder],
    weights: Mapping[str, Sequence[float]],
    settings: Settings,
) -> dict[str, dict[str, list[str]]]:
    """Return system -> question id -> passages, best first, as the stage evaluate ranks them.

    Each encoder scores all ways at once, in the batches of the stages baseline and score.
    """
    task = candidate_task(questions, candidates, passages, settings)
    scores: dict[str, dict[str, Scores]] = {}
    for name, encoder in encoders.items():
        for way, found in task.score(encoder, f"with {name}").items():
            scores.setdefault(way, {})[name] = found
    return rank_systems(candidates, scores, weights, settings, settings.score.depth)
