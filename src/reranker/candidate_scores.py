"""The scores that evaluation needs of a reranker: those of the candidates, and those of the training labels that are audited."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from reranker.fusion import first_stage
from reranker.maxp import Asked, max_over_views, view_pairs
from reranker.params import Params, Retrieve
from reranker.passages import Passage
from reranker.scoring import CrossEncoder
from reranker.ways import RANKED, WHOLE, Scores, ways

AUDITED, AUDIT_DEPTH = 1000, 5
"""Training questions that are audited, at most, and candidates that their own passage is held against."""


def candidate_pool(candidates: Sequence[dict], depth: int, params: Retrieve) -> list[str]:
    """Every passage that the first stage returns at some depth up to `depth`: what any protocol may need a score of.

    Mostly the top `depth` itself; a passage that only a shallower dense list lets into the fused one is added.
    """
    found = dict.fromkeys(first_stage(candidates, depth, params))
    for shallower in range(1, depth):
        found |= dict.fromkeys(first_stage(candidates, shallower, params))
    return list(found)


def asked_candidates(
    questions: Sequence[dict], candidates: Mapping[str, Sequence[dict]], corpus: Mapping[str, Passage], params: Params
) -> Asked:
    """What rerankers are asked to score: each question's candidates, every way."""
    depths = {RANKED: params.score.depth, WHOLE: params.score.whole_depth}
    chosen = {way: partial(candidate_pool, depth=depths[way], params=params.retrieve) for way in ways(params.retrieve)}
    return Asked(questions, candidates, corpus, chosen)


def audited(questions: Sequence[dict]) -> list[dict]:
    """At most AUDITED of the questions, at even distances."""
    return list(questions[:: max(1, math.ceil(len(questions) / AUDITED))])


def score_labels(
    model: CrossEncoder,
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    corpus: Mapping[str, Passage],
    params: Retrieve,
    what: str,
) -> Scores:
    """Score what the label audit compares: a question's own passage with the others of its first AUDIT_DEPTH candidates.

    A rival is scored by its nearest view alone, which saves time and makes it harder to be one. So is the own passage at first.
    Its other views can only raise its score, so they are scored only where a rival is ahead without them.
    """
    own, compared = {}, {}
    for question in questions:
        found, passage = candidates[question["id"]], question["passage"]
        own[question["id"]] = [candidate for candidate in found if candidate["passage"] == passage]
        first = {*first_stage(found, AUDIT_DEPTH, params), passage}
        compared[question["id"]] = [
            candidate | {"views": candidate["views"][:1]} for candidate in found if candidate["passage"] in first
        ]
    scores = _score_all(model, questions, compared, corpus, what)
    doubted = [question for question in questions if prefers_another(question, scores)]
    for key, again in _score_all(model, doubted, own, corpus, f"{what}, all views").items():
        scores[key] |= again
    return scores


def prefers_another(question: dict, scores: Scores) -> bool:
    """Whether some passage scores higher than the question's own."""
    found = scores[question["id"]]
    return max(found.values()) > found.get(question["passage"], math.inf)


def _score_all(
    model: CrossEncoder, questions: Sequence[dict], candidates: Mapping, corpus: Mapping[str, Passage], what: str
) -> dict[str, dict[str, float]]:
    keys, pairs = view_pairs(questions, candidates, corpus, lambda found: [candidate["passage"] for candidate in found])
    return max_over_views(keys, model.score(pairs, what)) if pairs else {}
