"""What an evaluation proves, and what of it a person should read: intervals, documents that go badly, doubtful labels.

`compare`: whether one system is better than another on the same questions, or only luckier in which questions were asked.
Interval: percentile bootstrap of the mean paired difference (Efron, "Bootstrap Methods: Another Look at the Jackknife",
Annals of Statistics 1979). Percentile and not BCa, because a mean over hundreds of bounded differences is all but free of
the bias and skew that BCa corrects, and BCa is undefined where all differences are equal.
p: two-sided paired randomization test, which flips the signs of differences at random (Smucker, Allan and Carterette,
"A Comparison of Statistical Significance Tests for Information Retrieval Evaluation", CIKM 2007).

Both take questions as independent draws. Several about one passage are less than that, so that intervals are rather too
narrow; and p is of one comparison, not corrected for how many are made.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy.stats import bootstrap, permutation_test

FIRST_STAGES = ("bm25", "dense", "retriever")
SYSTEMS = ("reranker", "fused", "reranker_whole", "fused_whole")
"""What is compared with every other system; the last two where views are shown."""
SUSPECT = ("split", "id", "question", "passage", "rival", "base_margin", "reranker_margin")


def compare(ours: Sequence[float], theirs: Sequence[float], resamples: int, seed: int) -> dict[str, float]:
    """Paired comparison of two systems.

    Args:
        ours, theirs: a measure's values, question by question in the same order, at least one.
        resamples: of the bootstrap; and of the signs, where not all their 2^n flips are fewer, which makes p exact.
        seed: of both draws; the same for every comparison, so that swapped systems have exactly the mirrored interval.

    Returns:
        difference of the means (ours - theirs), low and high of its 95 % interval, and p. A single question is every
        resample of itself: low and high are its difference, and p is 1.
    """
    differences = np.subtract(ours, theirs, dtype=np.float64)
    difference = low = high = float(differences.mean())
    if len(differences) > 1:
        generator = np.random.default_rng(seed)
        low, high = bootstrap(
            (differences,), np.mean, n_resamples=resamples, method="percentile", vectorized=True, rng=generator
        ).confidence_interval
    # A sign changes nothing about a tie. Without ties p is the same, and exact more often.
    moved, p = differences[differences != 0], 1.0
    if len(moved) > 1:
        generator = np.random.default_rng(seed)
        p = permutation_test(
            (moved,), np.mean, permutation_type="samples", n_resamples=resamples, vectorized=True, rng=generator
        ).pvalue
    return {"difference": difference, "low": float(low), "high": float(high), "p": float(p)}


def verdict(difference: Mapping[str, float]) -> str:
    """Of what `compare` gives: better or worse where its interval excludes 0."""
    return "better" if difference["low"] > 0 else "worse" if difference["high"] < 0 else "no evidence"


def best_first_stage(measured: Mapping[str, Mapping[str, float]], measure: str) -> str:
    """The rival to beat: what would be deployed without any reranker.

    Args:
        measured: system -> measure -> value.
    """
    return max((name for name in FIRST_STAGES if name in measured), key=lambda name: measured[name][measure])


def against(
    values: Mapping[str, Mapping[str, Mapping[str, float]]], groups: Mapping[str, Collection[str]], resamples: int, seed: int
) -> dict:
    """The reranker, alone and fused, each way, against every other system.

    Args:
        values: system -> measure -> question id -> value.
        groups: name -> question ids; one without questions is left out.

    Returns:
        group -> system -> rival -> measure -> what `compare` gives.
    """

    def compared(system: str, rival: str, measure: str, group: Collection[str]) -> dict[str, float]:
        ours, theirs = ([values[name][measure][question] for question in group] for name in (system, rival))
        return compare(ours, theirs, resamples, seed)

    return {
        name: {
            system: {
                rival: {measure: compared(system, rival, measure, group) for measure in values[system]}
                for rival in values
                if rival not in SYSTEMS
            }
            for system in SYSTEMS
            if system in values
        }
        for name, group in groups.items()
        if group
    }


def by_document(rows: Sequence[dict], systems: Sequence[str], documents: Mapping[str, str]) -> list[dict]:
    """hit@1 of each system by the document that a question's passage is of.

    Args:
        rows: one a question, as `evaluate_systems` gives them.
        documents: passage -> its document.

    Returns:
        {document, questions, system: share of them answered by its first passage}, in the documents' order of names.
    """
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(documents[row["passage"]], []).append(row)
    return [
        {"document": document, "questions": len(group)}
        | {name: round(sum(row[name] == 1 for row in group) / len(group), 6) for name in systems}
        for document, group in sorted(groups.items())
    ]


def suspects(
    split: str,
    questions: Sequence[dict],
    base: Mapping[str, Mapping[str, float]],
    tuned: Mapping[str, Mapping[str, float]],
    margin: float,
) -> list[dict]:
    """Questions for which both models prefer one and the same other passage to the question's own, and clearly.

    The label may be wrong, both passages may answer, or the shown window may miss the answer: to be read, not dropped. A
    base with an untrained head scores all passages much alike and so confirms little.

    Args:
        split: of all the questions, for the first column.
        base, tuned: question id -> passage -> raw logit; a question whose own passage has none cannot be judged.
        margin: what the rival's logit must exceed the own passage's by, at least, under both models.

    Returns:
        SUSPECT's columns, one row a question with its strongest rival; the larger the smaller of its margins, the earlier.
    """
    found = []
    for q in questions:
        before, after = base[q["id"]], tuned[q["id"]]
        if q["passage"] not in after:
            continue
        margins = {rival: tuple(scores[rival] - scores[q["passage"]] for scores in (before, after)) for rival in after}
        rival = max(margins, key=lambda name: min(margins[name]))
        if min(margins[rival]) >= margin:
            found.append((split, q["id"], q["question"], q["passage"], rival, *(round(value, 6) for value in margins[rival])))
    return [dict(zip(SUSPECT, row)) for row in sorted(found, key=lambda row: -min(row[5:]))]
