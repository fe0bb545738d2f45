"""Compare ways to combine reranker and first stage, on the validation questions of the last run.

    dvc repro && python experiments/fusion.py

Needs data/prepared, data/candidates and data/validation. Prints hit@1 / MRR@10 over the
`train.valid_depth` candidates of each question, for fusion of ranks (weighted reciprocal rank
fusion), of scores normalized by the list (min-max, as in Bruch, Gai and Ingber, "An Analysis of
Fusion Functions for Hybrid Retrieval", TOIS 2023, arXiv:2210.11934), and by the weights of
`evaluation.systems.fit_fusion`, both on the questions that it saw and, ten times, on a tenth that
it did not see.
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from tunerank.core.files import read_jsonl
from tunerank.data.questions import grades, read_questions
from tunerank.evaluation.measures import measure
from tunerank.evaluation.systems import fit_fusion, rank_rerankers
from tunerank.params.load import load
from tunerank.reranking.ways import RANKED
from tunerank.retrieval.fusion import fuse, fused_top_k

FOLDS = 10

params = load()
parts = params.retrieve.parts
gold = {row["id"]: grades(row) for row in read_questions("data/prepared/valid.jsonl")}
candidates = {row["id"]: row["candidates"] for row in read_jsonl("data/candidates/valid.jsonl")}
logits = {row["id"]: row["scores"] for row in read_jsonl("data/validation/valid.jsonl")}
first = {q: fused_top_k(candidates[q], params.train.valid_depth, params.retrieve) for q in gold}
dense = {q: {c["passage"]: c["dense_score"] for c in candidates[q]} for q in gold}


def by(value) -> dict[str, list[str]]:
    """Return question -> its candidates by value(question, passage), the highest first."""
    return {q: sorted(first[q], key=lambda passage: -value(q, passage)) for q in gold}


def ranks(weight: float) -> dict[str, list[str]]:
    """Return the rankings by weighted reciprocal rank fusion."""
    return {
        q: [p for p, _ in fuse([(reranked[q], weight), (first[q], 1 - weight)], 10)] for q in gold
    }


def min_max(weight: float) -> dict[str, list[str]]:
    """Return the rankings by normalized scores of reranker and dense."""

    def unit(scores: dict[str, float], q: str, passage: str) -> float:
        values = [scores[p] for p in first[q]]
        return (scores[passage] - min(values)) / (max(values) - min(values) or 1)

    return by(
        lambda q, passage: (
            weight * unit(logits[q], q, passage) + (1 - weight) * unit(dense[q], q, passage)
        )
    )


def fitted(weights_of: dict[str, list[float]]) -> dict[str, list[str]]:
    """Return the rankings of the fused row, as the stage evaluate makes them."""

    depth = params.train.valid_depth

    def systems(q: str) -> dict[str, list[str]]:
        scores, weights = {RANKED: {"reranker": logits[q]}}, {RANKED: weights_of[q]}
        return rank_rerankers(candidates[q], scores, weights, depth, 1, params.retrieve)

    return {q: systems(q)["fused"] for q in gold}


def unseen() -> dict[str, list[float]]:
    """Return question -> weights fitted without its tenth of the questions."""
    order = random.Random(params.seed).sample(sorted(gold), len(gold))
    weights = {}
    for fold in range(FOLDS):
        held = order[fold::FOLDS]
        weights |= dict.fromkeys(
            held, fit_fusion({q: gold[q] for q in gold if q not in held}, candidates, logits, parts)
        )
    return weights


def row(name: str, rankings: dict[str, list[str]]) -> None:
    values = measure(gold, rankings, [1], 10)
    print(f"| {name} | {values['hit@1']:.3f} / {values['MRR@10']:.3f} |")


if __name__ == "__main__":
    whole, reranked = (
        fit_fusion(gold, candidates, logits, parts),
        by(lambda q, passage: logits[q][passage]),
    )
    print("| | hit@1 / MRR@10 |\n|---|---|")
    row("first stage", first)
    row("reranker", reranked)
    for tenths in (9, 8, 7, 6, 5):
        row(f"ranks, reranker's weight {tenths / 10}", ranks(tenths / 10))
    for tenths in (9, 8, 7, 6, 5):
        row(f"min-max of reranker and dense, reranker's weight {tenths / 10}", min_max(tenths / 10))
    row(f"fitted weights {whole}", fitted(dict.fromkeys(gold, whole)))
    row("... fitted without the tenth that is ranked", fitted(unseen()))
