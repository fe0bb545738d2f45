"""Score what evaluation needs of a reranker: candidates, and a sample of the training labels."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tunerank.core.files import read_by_id
from tunerank.data.passages import Passage
from tunerank.data.questions import grades
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.params.data import Retrieve
from tunerank.params.load import Params
from tunerank.reranking.maxp import ScoringTask
from tunerank.reranking.ways import RANKED, WHOLE, Scores, ways
from tunerank.retrieval.fusion import fused_top_k

AUDITED = 1000
"""Training questions in the label audit, at most."""

AUDIT_DEPTH = 5
"""Candidates that the label audit compares with a question's relevant passages."""


def load_encoder(folder: str | Path, params: Params) -> CrossEncoder:
    """Load a reranker with the settings of `score`."""
    score = params.score
    return CrossEncoder(folder, score.max_length, score.precision, score.batch_tokens)


def read_candidates(
    folder: str | Path, questions: Mapping[str, Sequence[dict]]
) -> list[dict[str, list[dict]]]:
    """Return question id -> candidates, of data/candidates, for each split's questions.

    Raises:
        InputError: a question has no row there.
    """
    return [
        read_by_id(Path(folder, f"{split}.jsonl"), "candidates", [row["id"] for row in rows])
        for split, rows in questions.items()
    ]


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
    """Score each question's relevant passages and the others of its first AUDIT_DEPTH candidates.

    The other passages are scored by their nearest view alone. That saves time and makes it harder
    to rank above a relevant one. The relevant passages' further views can only raise their scores,
    so they are scored only where another passage is ahead without them.
    """
    own, nearest = {}, {}
    for question in questions:
        found, relevant = candidates[question["id"]], grades(question)
        own[question["id"]] = [candidate for candidate in found if candidate["passage"] in relevant]
        compared = {*fused_top_k(found, AUDIT_DEPTH, params), *relevant}
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
    """Return whether a passage scores higher than every relevant one of the question.

    It is False where no relevant passage has a score.
    """
    found = scores[question["id"]]
    own = (found[passage] for passage in grades(question) if passage in found)
    return max(found.values(), default=-math.inf) > max(own, default=math.inf)


def _all_passages(
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    corpus: Mapping[str, Passage],
) -> ScoringTask:
    choose = {RANKED: lambda found: [candidate["passage"] for candidate in found]}
    return ScoringTask(questions, candidates, corpus, choose)
