"""Choose the passages that a question learns to rank below its own.

A sample is a row of FlagEmbedding's jsonl: query, pos, neg. Mined samples also name the question
and the passages of the texts.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

from tunerank.data.passages import Passage
from tunerank.params.data import Samples
from tunerank.samples.units import Unit

TEACHER_BLOCK = 4096
"""Samples that the teacher scores at a time."""

TEMPERATURE = 0.01
"""Divides a bi-encoder's cosines in its training (Wang et al. 2022, arXiv:2212.03533)."""


def paired_text(
    question: dict, pair: str, passage: Passage, near: tuple[int, int], unit: Unit
) -> str:
    """Return the text that a question is paired with.

    Args:
        pair: as `samples.pair`; without the evidence or answer it names, the text around `near`.
        passage: the question's own.
        near: the window of `passage` nearest to the question.
    """
    evidence, answer = question["context"], question["answer"]
    if pair == "qd" and evidence:
        return evidence
    if pair == "qa" and answer:
        return answer
    if pair == "evidence" and evidence:
        start = passage.text.find(evidence)
        if start >= 0:
            near = start, start + len(evidence)
    return unit.text(passage, near)


def all_negatives(
    questions: Sequence[str],
    text_of: Callable[[int, int], str],
    batch_size: int | None,
    n_batch: int,
) -> Iterator[dict]:
    """Yield the article's `build_qa_samples`: the negatives are all other questions' texts.

    The texts are taken in the table's order, one sample a batch. Texts equal to the positive are
    dropped, and so is a sample left without negatives (FlagEmbedding divides by their number).
    241 questions with 16 and 32 give 241 * ceil(240 / 16) = 3615 samples.

    Args:
        text_of: (row, other row) -> the other row's text as the group of `row` shows it.
        batch_size: negatives in one sample; None: all of them.
        n_batch: samples of one question, at most.
    """
    size = batch_size or max(1, len(questions) - 1)
    for row, question in enumerate(questions):
        positive = text_of(row, row)
        others = (other for other in range(len(questions)) if other != row)
        others = list(itertools.islice(others, n_batch * size))
        for start in range(0, len(others), size):
            texts = (text_of(row, other) for other in others[start : start + size])
            negatives = [text for text in texts if text != positive]
            if negatives:
                yield {"query": question, "pos": [positive], "neg": negatives}


def held_out_passages(questions: Mapping[str, Iterable[dict]]) -> set[str]:
    """Return the passages that only validation or test questions are about: never negatives.

    Args:
        questions: split -> its questions.
    """
    passages = {split: {row["passage"] for row in rows} for split, rows in questions.items()}
    return (passages["valid"] | passages["test"]) - passages["train"]


def hard_negatives(
    question: dict,
    candidates: Sequence[dict],
    positives: Sequence[str],
    text_of: Callable[[str], str],
    allowed: Sequence[str],
    held_out: Set[str],
    params: Samples,
    seed: int,
) -> dict | None:
    """Return a sample with negatives mined from the first stage, or None without a negative.

    The pool is the `window` candidates after the first `skip_top`. `negatives` less
    `random_negatives` are drawn from it; passages drawn from all that are allowed fill the rest.
    The draw depends on the seed and the question's id alone.

    Args:
        candidates: the question's, in fused order, as `Retrieval.candidates` gives them.
        positives: the texts of its own passage.
        text_of: passage -> its text as a negative of this question.
        allowed: the passages that may be negatives; held_out: those that may not.
    """
    rng = random.Random(f"{seed}:{question['id']}")
    own = question["passage"]
    scores = {candidate["passage"]: candidate["dense_score"] for candidate in candidates}
    highest = highest_score(scores[own], params)

    def usable(passage: str) -> bool:
        return (
            passage != own
            and passage not in held_out
            and scores.get(passage, -math.inf) <= highest
            and text_of(passage) not in positives
        )

    others = [passage for passage in scores if passage != own]
    pool = others[params.skip_top : params.skip_top + params.window]
    pool = [passage for passage in pool if usable(passage)]
    hard = rng.sample(pool, min(len(pool), params.negatives - params.random_negatives))
    rest = (p for p in lazy_shuffle(allowed, rng) if p not in hard and usable(p))
    negatives = hard + list(itertools.islice(rest, params.negatives - len(hard)))
    if not negatives:
        return None
    sample = {
        "id": question["id"],
        "query": question["question"],
        "pos": list(positives),
        "neg": [text_of(passage) for passage in negatives],
        "pos_passages": [own] * len(positives),
        "neg_passages": negatives,
    }
    return sample | (retriever_scores(sample, scores) if params.teacher == "retriever" else {})


def highest_score(own: float, params: Samples) -> float:
    """Return the dense score that a negative may have at most, by the margins of NV-Retriever.

    At most own - absolute_margin, and at most own * (1 - relative_margin), as sentence-transformers
    names the two (Moreira et al. 2024, arXiv:2407.15831).

    Args:
        own: the dense score of the question's own passage.
    """
    highest = math.inf
    if params.absolute_margin is not None:
        highest = own - params.absolute_margin
    if params.relative_margin is not None:
        highest = min(highest, own * (1 - params.relative_margin))
    return highest


def retriever_scores(sample: dict, scores: Mapping[str, float]) -> dict[str, list[float]]:
    """Return pos_scores and neg_scores of a sample: logits of the dense retriever.

    Args:
        scores: candidate -> dense score. Another passage scores as high as the lowest of them.
    """
    lowest = min(scores.values())
    return {
        f"{side}_scores": [
            round(scores.get(passage, lowest) / TEMPERATURE, 4)
            for passage in sample[f"{side}_passages"]
        ]
        for side in ("pos", "neg")
    }


def add_teacher_scores(
    samples: Iterable[dict],
    score: Callable[[list[tuple[str, str]]], Iterable[float]],
    block_size: int = TEACHER_BLOCK,
) -> Iterator[dict]:
    """Yield the samples with a reranker's logits of their texts as pos_scores and neg_scores.

    Args:
        score: (query, text) pairs -> logits; called once for each `block_size` samples.
    """
    samples = iter(samples)
    while block := list(itertools.islice(samples, block_size)):
        pairs = [(row["query"], text) for row in block for text in row["pos"] + row["neg"]]
        logits = iter(score(pairs))
        for sample in block:
            yield sample | {
                f"{side}_scores": [round(float(next(logits)), 4) for _ in sample[side]]
                for side in ("pos", "neg")
            }


def without_false_negatives(sample: dict, margin: float) -> dict | None:
    """Return the sample without its false negatives, or None without a negative.

    A negative is false where its teacher score exceeds the best positive's less `margin`.

    >>> sample = {"pos": ["p"], "neg": ["a", "b"], "pos_scores": [3.0], "neg_scores": [2.5, 1.0]}
    >>> without_false_negatives(sample, 1.0)
    {'pos': ['p'], 'neg': ['b'], 'pos_scores': [3.0], 'neg_scores': [1.0]}
    """
    highest = max(sample["pos_scores"]) - margin
    kept = [index for index, score in enumerate(sample["neg_scores"]) if score <= highest]
    lists = {
        name: [sample[name][index] for index in kept]
        for name in ("neg", "neg_scores", "neg_passages")
        if name in sample
    }
    return sample | lists if kept else None


def lazy_shuffle(items: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Yield each item once, in random order; taking a few of a million costs a few draws."""
    seen: set[int] = set()
    while len(seen) < len(items):
        index = rng.randrange(len(items))
        if index not in seen:
            seen.add(index)
            yield items[index]
