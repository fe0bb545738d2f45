"""Put a reranker behind the first stage: how scores order the candidates, and how good that order is."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from reranker.evidence import best_first_stage
from reranker.fusion import first_stage
from reranker.measures import gold_rank, measure, per_question
from reranker.params import Evaluate, Retrieve

FUSED = ("reranker", "dense", "bm25")  # whose scores the fused row weighs


def rankers(candidates: Sequence[dict], scores: Mapping[str, Mapping[str, float]], retrieve: Retrieve, evaluate: Evaluate):
    """One question's systems: name -> function from a first-stage depth to a ranking; no `dense` where it was not run.

    Args:
        scores: of each reranker, passage -> logit for this question; equal logits keep the first stage's order. `reranker` is
            the one that is fused.
    """

    def single(name: str) -> Callable[[int], list[str]]:
        ranked = sorted((c for c in candidates if c[name]), key=lambda c: c[name])
        return lambda depth: [c["passage"] for c in ranked if c[name] <= depth]

    def reranked(name: str) -> Callable[[int], list[str]]:
        return lambda depth: sorted(first_stage(candidates, depth, retrieve), key=lambda passage: -scores[name][passage])

    def fused(depth: int) -> list[str]:
        first, weights = first_stage(candidates, depth, retrieve), evaluate.fusion_weights
        return sorted(first, key=lambda passage: -np.dot(weights, features[passage]))

    features = _features(candidates, scores["reranker"])
    systems = {"bm25": single("bm25")} | ({"dense": single("dense")} if retrieve.dense else {})
    systems["retriever"] = lambda depth: first_stage(candidates, depth, retrieve)
    return systems | {name: reranked(name) for name in scores} | {"fused": fused}


def fit_fusion(
    gold: Mapping[str, str], candidates: Mapping[str, Sequence[dict]], scores: Mapping[str, Mapping[str, float]]
) -> list[float]:
    """The weights, none below 0, of the reranker's logit, the dense score and the BM25 score that explain best which of a
    question's candidates is its passage.

    Conditional logit (McFadden, "Conditional Logit Analysis of Qualitative Choice Behavior", 1974): a candidate is the
    passage with the probability that the softmax of the weighted sums gives it. Scores are measured by their standard
    deviation within a question, and half the squared weights are added to the negative log-likelihood, so that weights stay
    finite where the reranker is always right. What comes out does not depend on the number of candidates, as it would with
    scores normalized by the list, and it keeps by how much a passage leads, which reciprocal ranks lose.

    Args:
        gold: validation question -> its passage; scores: question -> passage -> logit, of the candidates that count.

    Returns:
        3 weights, of 4 digits; zeros, which keep the first stage's order, where no question has its passage among them.
    """
    groups, owns = [], []
    for question, passage in gold.items():
        features = _features(candidates[question], scores[question])
        if passage in features:
            groups.append(np.array(list(features.values())))
            owns.append(list(features).index(passage))
    if not groups:
        return [0.0, 0.0, 0.0]
    spread = np.concatenate([group - group.mean(0) for group in groups]).std(0)
    unit = np.where(spread > 0, spread, np.inf)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = weights @ weights / 2, weights.copy()
        for group, own in zip(groups, owns):
            logits = group / unit @ weights
            value += logsumexp(logits) - logits[own]
            gradient += (softmax(logits) @ group - group[own]) / unit
        return value, gradient

    found = minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B", bounds=[(0, None)] * 3).x / unit
    return [float(f"{weight:.4g}") for weight in found]


def _features(candidates: Sequence[dict], scores: Mapping[str, float]) -> dict[str, tuple[float, float, float]]:
    """passage -> what the fused row weighs, of the passages that have it: the reranker's logit, dense score, BM25 score."""
    return {c["passage"]: (scores[c["passage"]], c["dense_score"], c["bm25_score"]) for c in candidates if c["passage"] in scores}


def question_groups(rows: Sequence[dict]) -> dict[str, list[str]]:
    """Question ids by the groups that are measured: all, seen and unseen, and these by kind of question.

    Args:
        rows: one a question, with {id, qa_type, seen}.
    """
    groups: dict[str, list[str]] = {"all": [row["id"] for row in rows]}
    for row in rows:
        seen = "seen" if row["seen"] else "unseen"
        for name in [seen, f"{row['qa_type']}_{seen}"] if row["qa_type"] else [seen]:
            groups.setdefault(name, []).append(row["id"])
    return groups


def evaluate_systems(
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    trained: set[str],
    depth: int,
    retrieve: Retrieve,
    evaluate: Evaluate,
) -> tuple[dict, list[dict], list[dict], dict]:
    """All systems on the same candidates, by both protocols.

    Args:
        scores: reranker's name -> question id -> passage -> logit.
        trained: passages that some training question asks about.
        depth: candidates reranked in the standard protocol.

    Returns:
        the content of eval.json: group of questions -> system -> measure, with the article's protocol (multiplier * k
        candidates reranked for each k) under `article`; one row a question with the gold rank under each system; one with the
        passage that each system puts first; and system -> measure (hit@1, MRR, nDCG) -> question id -> value, for paired
        comparisons.
    """
    systems = {
        q["id"]: rankers(candidates[q["id"]], {name: scores[name][q["id"]] for name in scores}, retrieve, evaluate)
        for q in questions
    }
    names = list(systems[questions[0]["id"]])
    gold = {q["id"]: q["passage"] for q in questions}
    standard = {name: {q: systems[q][name](depth) for q in gold} for name in names}

    def table(group: Sequence[str]) -> dict:
        return {name: measure({q: gold[q] for q in group}, standard[name], evaluate.ks, evaluate.cutoff) for name in names}

    def article(name: str) -> dict[str, float]:
        wider = evaluate.multiplier if name in (*scores, "fused") else 1
        hits = {}
        for k in evaluate.ks:
            rankings = {q: systems[q][name](wider * k)[:k] for q in gold}
            hits |= {f"hit@{k}": measure(gold, rankings, [k], k)[f"hit@{k}"]}
        return hits

    rows = [
        {
            "id": q["id"],
            "passage": q["passage"],
            "qa_type": q["qa_type"],
            "seen": q["passage"] in trained,
            **{name: gold_rank(standard[name][q["id"]], q["passage"]) for name in names},
        }
        for q in questions
    ]
    first = [
        {"id": q["id"], "question": q["question"], "evidence": q["context"] or q["answer"], "passage": q["passage"]}
        | {name: next(iter(standard[name][q["id"]]), None) for name in names}
        for q in questions
    ]
    result = {name: {"questions": len(group), **table(group)} for name, group in sorted(question_groups(rows).items())}
    result["article"] = {"questions": len(gold)} | {name: article(name) for name in names}
    values = {name: per_question(gold, standard[name], [1], evaluate.cutoff) for name in names}
    return result, rows, first, values


def markdown_table(result: dict, ks: Sequence[int], cutoff: int) -> str:
    """What came out, for a terminal and a README alike.

    Args:
        result: of `evaluate_systems`, and its paired comparisons under `against`.
    """
    columns = [f"hit@{k}" for k in ks if k in (1, 3, 5, 8)] + [f"MRR@{cutoff}", f"nDCG@{cutoff}"]
    lines = []
    for group in ("all", "unseen", "seen", "article"):
        if group not in result:
            continue
        shown = [f"hit@{k}" for k in ks] if group == "article" else columns
        title = "the article's protocol" if group == "article" else f"{group} passages" if group != "all" else "all"
        lines += [f"{result[group]['questions']} test questions, {title}", ""]
        lines += ["| system | " + " | ".join(shown) + " |", "|---|" + "---|" * len(shown)]
        for system, values in result[group].items():
            if system != "questions":
                lines.append(f"| {system} | " + " | ".join(f"{values[name]:.3f}" for name in shown) + " |")
        lines.append("")
        if group == "all":
            lines += [*_headline(result, cutoff), ""]
    return "\n".join(lines)


def _headline(result: dict, cutoff: int) -> list[str]:
    """What the reranker adds to the first stage that would be deployed without it."""
    everything, name = result["all"], f"MRR@{cutoff}"
    rival = best_first_stage(everything, name)
    worth = 1 / everything["questions"]
    lines = [f"Against {rival}, the best first stage by {name}, with 95 % intervals; one question is worth {worth:.4f}:", ""]
    for system, rivals in result["against"]["all"].items():
        found = rivals[rival]["hit@1"]
        interval = f"[{found['low']:+.3f}, {found['high']:+.3f}]"
        lines.append(f"- {system} - {rival}: hit@1 {found['difference']:+.3f} {interval} p={found['p']:.2g}")
    return lines
