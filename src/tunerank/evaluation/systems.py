"""Put rerankers behind the first stage: rank the candidates, and measure the rankings."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from tunerank.data.questions import grades, several
from tunerank.evaluation.measures import Gold, measure, per_question
from tunerank.evaluation.per_query import first_row, question_groups, rank_rows
from tunerank.params.data import Retrieve
from tunerank.params.load import Params
from tunerank.reranking.ways import WHOLE, Scores, system_name
from tunerank.retrieval.fusion import fused_top_k, ranked_by

Parts = Sequence[tuple[str, str]]
"""`Retrieve.parts`: (name, a candidate's field) of the first stage's scores."""


def fused_names(parts: Parts) -> tuple[str, ...]:
    """Return the names of the scores that the fused row adds, in the order of its weights."""
    return ("reranker", *(name for name, _ in parts))


def rank_first_stages(
    candidates: Sequence[dict], depth: int, retrieve: Retrieve
) -> dict[str, list[str]]:
    """Return first stage -> the first `depth` passages of one question.

    With `retrieve.run` that is the run alone. Else `dense` is missing where the dense retriever is
    not run.
    """

    def first(field: str) -> list[str]:
        return [candidate["passage"] for candidate in ranked_by(field, candidates, depth)]

    if retrieve.run:
        return {retrieve.first_stage: first("run")}
    rankings = {name: first(name) for name in (("bm25", "dense") if retrieve.dense else ("bm25",))}
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
        weights: way -> weights of `fused_names`.
        whole_depth: candidates that are ranked as whole passages, at most.
    """
    rankings = {}
    for way, rerankers in scores.items():
        limit = min(depth, whole_depth) if way == WHOLE else depth
        passages = fused_top_k(candidates, limit, retrieve)
        for name, logits in rerankers.items():
            rankings[system_name(name, way)] = by_score(passages, logits)
        features = fused_features(candidates, rerankers["reranker"], retrieve.parts)
        sums = {passage: np.dot(weights[way], features[passage]) for passage in passages}
        rankings[system_name("fused", way)] = by_score(passages, sums)
    return rankings


def by_score(passages: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    """Return the passages, the highest score first."""
    return sorted(passages, key=lambda passage: -scores[passage])


def fused_features(
    candidates: Sequence[dict], logits: Mapping[str, float], parts: Parts
) -> dict[str, tuple[float, ...]]:
    """Return passage -> its scores in the order of `fused_names`, if it has a logit."""
    return {
        c["passage"]: (logits[c["passage"]], *(c[field] for _, field in parts))
        for c in candidates
        if c["passage"] in logits
    }


def fit_fusion(
    gold: Gold,
    candidates: Mapping[str, Sequence[dict]],
    scores: Mapping[str, Mapping[str, float]],
    parts: Parts,
) -> list[float]:
    """Return the weights of the fused row, none below 0, that explain best what is relevant.

    Conditional logit (McFadden, "Conditional Logit Analysis of Qualitative Choice Behavior", 1974):
    the softmax of the weighted sums is the probability that a candidate is the question's passage.
    A question with several relevant passages counts once: each of them is chosen from itself and
    what is not relevant, and the mean of these losses is weighted by grade.
    Scores are divided by their standard deviation within a question, and half the squared weights
    are added to the negative log-likelihood, so that weights stay finite where the reranker is
    always right. The weights do not depend on the number of candidates, as they would with scores
    normalized by the list, and they use by how much a passage leads, as reciprocal ranks do not.

    Args:
        gold: of the validation questions.
        scores: question -> passage -> logit; a candidate without a logit does not count.

    Returns:
        weights of `fused_names`, of 4 digits; zeros where no question has a relevant passage among
        the candidates. Zeros keep the first stage's order.
    """
    groups, choices = [], []
    for question, relevant in gold.items():
        features = fused_features(candidates[question], scores[question], parts)
        found = {passage: grade for passage, grade in relevant.items() if passage in features}
        if found:
            groups.append(np.array(list(features.values())))
        for passage, grade in found.items():
            rivals = [name for name in features if name == passage or name not in relevant]
            group = np.array([features[name] for name in rivals])
            choices.append((group, rivals.index(passage), grade / sum(found.values())))
    if not groups:
        return [0.0] * (1 + len(parts))
    spread = np.concatenate([group - group.mean(0) for group in groups]).std(0)
    unit = np.where(spread > 0, spread, np.inf)
    options = {"jac": True, "method": "L-BFGS-B", "bounds": [(0, None)] * len(unit)}
    fitted = minimize(fusion_loss, np.zeros(len(unit)), args=(choices, unit), **options).x / unit
    return [float(f"{weight:.4g}") for weight in fitted]


def fusion_loss(
    weights: np.ndarray, choices: Sequence[tuple[np.ndarray, int, float]], unit: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the loss of `fit_fusion` and its gradient, of shape (features,).

    Args:
        choices: of each relevant passage, the features of the candidates that it is chosen from,
            (candidates, features), its index among them, and the weight of its loss.
        unit: divides each feature, (features,).
    """
    loss, gradient = weights @ weights / 2, weights.copy()
    for group, answer, share in choices:
        logits = group / unit @ weights
        loss += share * (logsumexp(logits) - logits[answer])
        gradient += share * (softmax(logits) @ group - group[answer]) / unit
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

    recall and MAP are measured where a question has several relevant passages, or grades.

    Args:
        candidates: of these questions.
        scores: way -> reranker -> scores.
        weights: way -> weights of `fused_names`.
        trained: passages that a training question is about.

    Returns:
        the content of eval.json: group of questions -> system -> measure, and `article`, the
        article's protocol; the rows of `rank_rows`; a row for each question with each system's
        first passage; and system -> hit@1, MRR, nDCG, and where they are measured the deepest
        recall and MAP -> question id -> value, for paired comparisons.
    """
    gold = {question["id"]: grades(question) for question in questions}
    rankings = rank_systems(candidates, scores, weights, params, params.score.depth)
    cutoff = params.evaluate.cutoff
    rows = rank_rows(questions, rankings, trained)
    first = [first_row(question, rankings) for question in questions]
    ks = sorted({1, *params.evaluate.ks})  # the table, the page and the model card need hit@1
    recall = ks if several(questions) else []
    result = {}
    for group, members in sorted(question_groups(rows).items()):
        answers = {question: gold[question] for question in members}
        result[group] = {"questions": len(members)} | {
            name: measure(answers, found, ks, cutoff, recall) for name, found in rankings.items()
        }
    hits = article_hits(gold, candidates, scores, weights, params)
    result["article"] = {"questions": len(gold), **hits}
    values = {
        name: per_question(gold, found, [1], cutoff, recall[-1:])
        for name, found in rankings.items()
    }
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
    gold: Gold,
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
