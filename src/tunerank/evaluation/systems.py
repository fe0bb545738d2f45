"""Put rerankers behind the first stage: rank the candidates, and measure the rankings."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from tunerank.evaluation.measures import gold_rank, measure, per_question
from tunerank.params.data import Retrieve
from tunerank.params.load import Params
from tunerank.reranking.ways import WHOLE, Scores, system_name
from tunerank.retrieval.fusion import fused_top_k, ranked_by

FUSED = ("reranker", "dense", "bm25")
"""The scores that the fused row adds, in the order of its weights."""


def rank_first_stages(
    candidates: Sequence[dict], depth: int, retrieve: Retrieve
) -> dict[str, list[str]]:
    """Return first stage -> the first `depth` passages of one question.

    `dense` is missing where the dense retriever is not run.
    """
    retrievers = ("bm25", "dense") if retrieve.dense else ("bm25",)
    rankings = {
        name: [candidate["passage"] for candidate in ranked_by(name, candidates, depth)]
        for name in retrievers
    }
    return rankings | {"retriever": fused_top_k(candidates, depth, retrieve)}


def rank_rerankers(
    candidates: Sequence[dict],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    weights: Mapping[str, Sequence[float]],
    depth: int,
    whole_depth: int,
    retrieve: Retrieve,
) -> dict[str, list[str]]:
    """Return system -> the first `depth` candidates of one question, reranked.

    Equal scores keep the first stage's order.

    Args:
        scores: way -> reranker -> passage -> logit. The one named `reranker` is also fused.
        weights: way -> weights of FUSED.
        whole_depth: candidates that are ranked as whole passages, at most.
    """
    rankings = {}
    for way, rerankers in scores.items():
        limit = min(depth, whole_depth) if way == WHOLE else depth
        passages = fused_top_k(candidates, limit, retrieve)
        for name, logits in rerankers.items():
            rankings[system_name(name, way)] = by_score(passages, logits)
        features = fused_features(candidates, rerankers["reranker"])
        sums = {passage: np.dot(weights[way], features[passage]) for passage in passages}
        rankings[system_name("fused", way)] = by_score(passages, sums)
    return rankings


def by_score(passages: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    """Return the passages, the highest score first."""
    return sorted(passages, key=lambda passage: -scores[passage])


def fused_features(
    candidates: Sequence[dict], logits: Mapping[str, float]
) -> dict[str, tuple[float, float, float]]:
    """Return passage -> its scores in the order of FUSED, of the candidates with a logit."""
    return {
        c["passage"]: (logits[c["passage"]], c["dense_score"], c["bm25_score"])
        for c in candidates
        if c["passage"] in logits
    }


def fit_fusion(
    gold: Mapping[str, str],
    candidates: Mapping[str, Sequence[dict]],
    scores: Mapping[str, Mapping[str, float]],
) -> list[float]:
    """Return the weights of FUSED, none below 0, that explain best which candidate is the answer.

    Conditional logit (McFadden, "Conditional Logit Analysis of Qualitative Choice Behavior", 1974):
    the softmax of the weighted sums is the probability that a candidate is the question's passage.
    Scores are divided by their standard deviation within a question, and half the squared weights
    are added to the negative log-likelihood, so that weights stay finite where the reranker is
    always right. The weights do not depend on the number of candidates, as they would with scores
    normalized by the list, and they use by how much a passage leads, as reciprocal ranks do not.

    Args:
        gold: validation question -> its passage.
        scores: question -> passage -> logit; a candidate without a logit does not count.

    Returns:
        3 weights of 4 digits; zeros where no question has its passage among the candidates. Zeros
        keep the first stage's order.
    """
    groups, answers = [], []
    for question, passage in gold.items():
        features = fused_features(candidates[question], scores[question])
        if passage in features:
            groups.append(np.array(list(features.values())))
            answers.append(list(features).index(passage))
    if not groups:
        return [0.0, 0.0, 0.0]
    spread = np.concatenate([group - group.mean(0) for group in groups]).std(0)
    unit = np.where(spread > 0, spread, np.inf)
    options = {"jac": True, "method": "L-BFGS-B", "bounds": [(0, None)] * 3}
    fitted = minimize(fusion_loss, np.zeros(3), args=(groups, answers, unit), **options).x / unit
    return [float(f"{weight:.4g}") for weight in fitted]


def fusion_loss(
    weights: np.ndarray, groups: Sequence[np.ndarray], answers: Sequence[int], unit: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the loss of `fit_fusion` and its gradient, of shape (3,).

    Args:
        groups: of each question, the features of its candidates, (candidates, 3).
        answers: of each question, the index of its passage.
        unit: divides each feature, (3,).
    """
    loss, gradient = weights @ weights / 2, weights.copy()
    for group, answer in zip(groups, answers):
        logits = group / unit @ weights
        loss += logsumexp(logits) - logits[answer]
        gradient += (softmax(logits) @ group - group[answer]) / unit
    return loss, gradient


def evaluate_systems(
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    scores: Mapping[str, Mapping[str, Scores]],
    weights: Mapping[str, Sequence[float]],
    trained: set[str],
    params: Params,
) -> tuple[dict, list[dict], list[dict], dict]:
    """Measure all systems on the same candidates, by the standard and the article's protocol.

    Args:
        candidates: of these questions.
        scores: way -> reranker -> scores.
        weights: way -> weights of FUSED.
        trained: passages that a training question is about.

    Returns:
        the content of eval.json: group of questions -> system -> measure, and `article`, the
        article's protocol; a row for each question with the rank of its passage under each system;
        a row for each question with each system's first passage; and system -> hit@1, MRR, nDCG ->
        question id -> value, for paired comparisons.
    """
    gold = {question["id"]: question["passage"] for question in questions}
    rankings = rank_systems(candidates, scores, weights, params, params.score.depth)
    cutoff = params.evaluate.cutoff
    rows = [rank_row(question, rankings, trained) for question in questions]
    first = [first_row(question, rankings) for question in questions]
    ks = sorted({1, *params.evaluate.ks})  # the table, the page and the model card need hit@1
    result = {}
    for group, members in sorted(question_groups(rows).items()):
        answers = {question: gold[question] for question in members}
        result[group] = {"questions": len(members)} | {
            name: measure(answers, found, ks, cutoff) for name, found in rankings.items()
        }
    hits = article_hits(gold, candidates, scores, weights, params)
    result["article"] = {"questions": len(gold), **hits}
    values = {name: per_question(gold, found, [1], cutoff) for name, found in rankings.items()}
    return result, rows, first, values


def rank_systems(
    candidates: Mapping[str, Sequence[dict]],
    scores: Mapping[str, Mapping[str, Scores]],
    weights: Mapping[str, Sequence[float]],
    params: Params,
    depth: int,
    multiplier: int = 1,
) -> dict[str, dict[str, list[str]]]:
    """Return system -> question id -> ranking.

    First stages return `depth` passages, rerankers rank the first `multiplier` * `depth`.
    """
    rankings: dict[str, dict[str, list[str]]] = {}
    for question, found in candidates.items():
        logits = {
            way: {name: by_question[question] for name, by_question in rerankers.items()}
            for way, rerankers in scores.items()
        }
        ranked = rank_first_stages(found, depth, params.retrieve) | rank_rerankers(
            found, logits, weights, multiplier * depth, params.score.whole_depth, params.retrieve
        )
        for name, ranking in ranked.items():
            rankings.setdefault(name, {})[question] = ranking
    return rankings


def article_hits(
    gold: Mapping[str, str],
    candidates: Mapping[str, Sequence[dict]],
    scores: Mapping[str, Mapping[str, Scores]],
    weights: Mapping[str, Sequence[float]],
    params: Params,
) -> dict[str, dict[str, float]]:
    """Return system -> hit@k by the article's protocol, which reranks multiplier * k candidates."""
    hits: dict[str, dict[str, float]] = {}
    for k in params.evaluate.ks:
        rankings = rank_systems(candidates, scores, weights, params, k, params.evaluate.multiplier)
        for name, found in rankings.items():
            hits.setdefault(name, {})[f"hit@{k}"] = measure(gold, found, [k], k)[f"hit@{k}"]
    return hits


def question_groups(rows: Sequence[dict]) -> dict[str, list[str]]:
    """Return group -> question ids: all, seen, unseen, and the last two by kind of question.

    Args:
        rows: one a question, with {id, qa_type, seen}.
    """
    groups: dict[str, list[str]] = {"all": [row["id"] for row in rows]}
    for row in rows:
        seen = "seen" if row["seen"] else "unseen"
        for name in [seen, f"{row['qa_type']}_{seen}"] if row["qa_type"] else [seen]:
            groups.setdefault(name, []).append(row["id"])
    return groups


def rank_row(
    question: dict, rankings: Mapping[str, Mapping[str, list[str]]], trained: set[str]
) -> dict:
    """Return a row of metrics/per_query.csv: the rank of the question's passage by system."""
    key, passage = question["id"], question["passage"]
    ranks = {name: gold_rank(found[key], passage) for name, found in rankings.items()}
    seen = passage in trained
    return {"id": key, "passage": passage, "qa_type": question["qa_type"], "seen": seen, **ranks}


def first_row(question: dict, rankings: Mapping[str, Mapping[str, list[str]]]) -> dict:
    """Return a row of metrics/first.csv: the first passage by system, None without any."""
    key = question["id"]
    return {
        "id": key,
        "question": question["question"],
        "evidence": question["context"] or question["answer"],
        "passage": question["passage"],
        **{name: next(iter(found[key]), None) for name, found in rankings.items()},
    }
