"""Score what evaluation needs of a reranker: candidates, and a sample of the training labels."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from tunerank.data.passages import Passage
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.params.data import Retrieve
from tunerank.params.load import Params
from tunerank.reranking.maxp import ScoringTask
from tunerank.reranking.ways import RANKED, WHOLE, Scores, ways
from tunerank.retrieval.fusion import fused_top_k

AUDITED = 1000
"""Training questions in the label audit, at most."""

AUDIT_DEPTH = 5
"""Candidates that the label audit compares with a question's own passage."""


def candidate_pool(candidates: Sequence[dict], depth: int, params: Retrieve) -> list[str]:
    """Return every passage that the first stage returns at a depth from 1 to `depth`.

    These are the passages that a protocol may need a score of: the top `depth`, and a few that
    enter the fused list only when the dense list is shorter.
    """
    pool = dict.fromkeys(fused_top_k(candidates, depth, params))
    for shallower in range(1, depth):
        pool |= dict.fromkeys(fused_top_k(candidates, shallower, params))
    return list(pool)


def candidate_task(
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    corpus: Mapping[str, Passage],
    params: Params,
) -> ScoringTask:
    """Return the task of scoring each question's candidates, each way."""
    depths = {RANKED: params.score.depth, WHOLE: params.score.whole_depth}
    choose = {
        way: partial(candidate_pool, depth=depths[way], params=params.retrieve)
        for way in ways(params.retrieve)
    }
    return ScoringTask(questions, candidates, corpus, choose)


def sample_for_audit(questions: Sequence[dict]) -> list[dict]:
    """Return at most AUDITED of the questions, evenly spaced."""
    return list(questions[:: max(1, math.ceil(len(questions) / AUDITED))])


def score_labels(
    model: CrossEncoder,
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    corpus: Mapping[str, Passage],
    params: Retrieve,
    what: str,
) -> Scores:
    """Score each question's own passage and the others of its first AUDIT_DEPTH candidates.

    The other passages are scored by their nearest view alone. That saves time and makes it harder
    to rank above the own passage. The own passage's further views can only raise its score, so
    they are scored only where another passage is ahead without them.
    """
    own, nearest = {}, {}
    for question in questions:
        found, passage = candidates[question["id"]], question["passage"]
        own[question["id"]] = [candidate for candidate in found if candidate["passage"] == passage]
        compared = {*fused_top_k(found, AUDIT_DEPTH, params), passage}
        nearest[question["id"]] = [
            candidate | {"views": candidate["views"][:1]}
            for candidate in found
            if candidate["passage"] in compared
        ]
    scores = _all_passages(questions, nearest, corpus).score(model, what)[RANKED]
    doubtful = [question for question in questions if prefers_another(question, scores)]
    all_views = _all_passages(doubtful, own, corpus).score(model, f"{what}, all views")[RANKED]
    return {question: found | all_views.get(question, {}) for question, found in scores.items()}


def prefers_another(question: dict, scores: Scores) -> bool:
    """Return whether a passage scores higher than the question's own."""
    found = scores[question["id"]]
    return max(found.values()) > found.get(question["passage"], math.inf)


def _all_passages(
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    corpus: Mapping[str, Passage],
) -> ScoringTask:
    choose = {RANKED: lambda found: [candidate["passage"] for candidate in found]}
    return ScoringTask(questions, candidates, corpus, choose)
