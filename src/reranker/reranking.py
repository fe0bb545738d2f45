"""Put a reranker behind the first stage: how scores order the candidates, and how good that order is."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from reranker.evidence import FIRST_STAGES, best_first_stage
from reranker.fusion import first_stage
from reranker.measures import gold_rank, measure, per_question
from reranker.params import Params, Retrieve
from reranker.ways import RANKED, Scores

FUSED = ("reranker", "dense", "bm25")  # whose scores the fused row weighs


def rankers(
    candidates: Sequence[dict],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    weights: Mapping[str, Sequence[float]],
    whole_depth: int,
    retrieve: Retrieve,
):
    """One question's systems: name -> function from a first-stage depth to a ranking; no `dense` where it was not run.

    Args:
        scores: way -> of each reranker, passage -> logit for this question; equal logits keep the first stage's order. `reranker`
            is the one that is fused.
        weights: way -> of FUSED.
        whole_depth: candidates that are ranked as whole passages, at most.
    """

    def single(name: str) -> Callable[[int], list[str]]:
        ranked = sorted((c for c in candidates if c[name]), key=lambda c: c[name])
        return lambda depth: [c["passage"] for c in ranked if c[name] <= depth]

    def ranked(score: Callable[[str], float], most: float) -> Callable[[int], list[str]]:
        return lambda depth: sorted(first_stage(candidates, min(depth, most), retrieve), key=lambda passage: -score(passage))

    systems = {"bm25": single("bm25")} | ({"dense": single("dense")} if retrieve.dense else {})
    systems["retriever"] = lambda depth: first_stage(candidates, depth, retrieve)
    for way, by_name in scores.items():
        most, end = (math.inf, "") if way == RANKED else (whole_depth, f"_{way}")
        systems |= {f"{name}{end}": ranked(found.__getitem__, most) for name, found in by_name.items()}
        features = _features(candidates, by_name["reranker"])
        systems[f"fused{end}"] = ranked(lambda passage, f=features, w=weights[way]: np.dot(w, f[passage]), most)
    return systems


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
    scores: Mapping[str, Mapping[str, Scores]],
    weights: Mapping[str, Sequence[float]],
    trained: set[str],
    params: Params,
) -> tuple[dict, list[dict], list[dict], dict]:
    """All systems on the same candidates, by both protocols.

    Args:
        scores: way -> reranker's name -> scores.
        weights: way -> of FUSED.
        trained: passages that some training question asks about.

    Returns:
        the content of eval.json: group of questions -> system -> measure, with the article's protocol (multiplier * k
        candidates reranked for each k) under `article`; one row a question with the gold rank under each system; one with the
        passage that each system puts first; and system -> measure (hit@1, MRR, nDCG) -> question id -> value, for paired
        comparisons.
    """
    depth, evaluate = params.score.depth, params.evaluate
    systems = {}
    for q in questions:
        own = {way: {name: found[q["id"]] for name, found in by_name.items()} for way, by_name in scores.items()}
        systems[q["id"]] = rankers(candidates[q["id"]], own, weights, params.score.whole_depth, params.retrieve)
    names = list(systems[questions[0]["id"]])
    gold = {q["id"]: q["passage"] for q in questions}
    standard = {name: {q: systems[q][name](depth) for q in gold} for name in names}

    def table(group: Sequence[str]) -> dict:
        return {name: measure({q: gold[q] for q in group}, standard[name], evaluate.ks, evaluate.cutoff) for name in names}

    def article(name: str) -> dict[str, float]:
        wider = 1 if name in FIRST_STAGES else evaluate.multiplier
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
                lines.append(f"| {titled(system)} | " + " | ".join(f"{values[name]:.3f}" for name in shown) + " |")
        lines.append("")
        if group == "all":
            lines += [*_headline(result, cutoff), ""]
    return "\n".join(lines)


def titled(system: str) -> str:
    """A system's name for people.

    >>> titled("reranker_whole"), titled("fused")
    ('reranker, whole', 'fused')
    """
    return system.replace("_", ", ")


def _headline(result: dict, cutoff: int) -> list[str]:
    """What the reranker adds to the first stage that would be deployed without it."""
    everything, name = result["all"], f"MRR@{cutoff}"
    rival = best_first_stage(everything, name)
    worth = 1 / everything["questions"]
    lines = [f"Against {rival}, the best first stage by {name}, with 95 % intervals; one question is worth {worth:.4f}:", ""]
    for system, rivals in result["against"]["all"].items():
        found = rivals[rival]["hit@1"]
        interval = f"[{found['low']:+.3f}, {found['high']:+.3f}]"
        lines.append(f"- {titled(system)} - {rival}: hit@1 {found['difference']:+.3f} {interval} p={found['p']:.2g}")
    return lines
