"""Choose the passages that a question learns to rank below its relevant ones.

A sample is a row of FlagEmbedding's jsonl: query, pos, neg. Mined samples also name the question
and the passages of the texts. Where questions have several relevant passages, a sample has
`pos_weights`, in proportion to which the positive of a training group is drawn. The entry
`explicit_negatives`, how many texts come first because somebody has judged them, is not written.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from tunerank.data.questions import relevant_passages
from tunerank.params.data import Samples

TEACHER_BLOCK = 4096
"""Samples that the teacher scores at a time."""

TEMPERATURE = 0.01
"""Divides a bi-encoder's cosines in its training (Wang et al. 2022, arXiv:2212.03533)."""


@dataclass(frozen=True)
class Sides:
    """What the samples of one question are made of, with numbers that `text_of` takes.

    Args:
        own: the numbers of its positives.
        explicit: the texts of its explicit negatives, which come first.
        others: the numbers of the other negatives, in order.
        weights: the samples' `pos_weights`; None: they have none.
    """

    own: Sequence[int]
    explicit: Sequence[str]
    others: Iterable[int]
    weights: Sequence[float] | None = None


def all_negatives(
    questions: Sequence[str],
    text_of: Callable[[int, int], str],
    batch_size: int | None,
    n_batch: int,
    sides_of: Callable[[int], Sides] | None = None,
) -> Iterator[dict]:
    """Yield the article's `build_qa_samples`: the negatives are all other questions' texts.

    The texts are taken in the table's order, one sample a batch. Texts equal to a positive are
    dropped, and so is a sample left without negatives (FlagEmbedding divides by their number).
    241 questions with 16 and 32 give 241 * ceil(240 / 16) = 3615 samples.

    Args:
        text_of: (question, number of a text) -> that text as the question's group shows it.
        batch_size: negatives in one sample; None: all of them.
        n_batch: samples of one question, at most.
        sides_of: question -> its texts and those of others; None: question i has text i alone.
    """
    numbers = range(len(questions))
    for asked, question in enumerate(questions):
        if sides_of:
            sides = sides_of(asked)
        else:
            sides = Sides([asked], [], (other for other in numbers if other != asked))
        positives = [text_of(asked, number) for number in sides.own]
        explicit = [text for text in sides.explicit if text not in positives]
        texts = itertools.chain(explicit, (text_of(asked, number) for number in sides.others))
        if batch_size:
            texts = itertools.islice(texts, n_batch * batch_size)
        left = len(explicit)
        while batch := list(itertools.islice(texts, batch_size)):
            negatives = [text for text in batch if text not in positives]
            if negatives:
                sample = {"query": question, "pos": positives, "neg": negatives}
                if sides.weights is not None:
                    sample["pos_weights"] = list(sides.weights)
                if left:
                    sample["explicit_negatives"] = min(left, len(batch))
                yield sample
            left = max(0, left - len(batch))


def held_out_passages(questions: Mapping[str, Iterable[dict]]) -> set[str]:
    """Return the passages that answer only validation or test questions: never negatives.

    Args:
        questions: split -> its questions.
    """
    passages = {split: relevant_passages(rows) for split, rows in questions.items()}
    return (passages["valid"] | passages["test"]) - passages["train"]


def hard_negatives(
    question: dict,
    candidates: Sequence[dict],
    positives: Mapping[str, Sequence[str]],
    text_of: Callable[[str], str | None],
    allowed: Sequence[str],
    held_out: Set[str],
    params: Samples,
    seed: int,
) -> dict | None:
    """Return a sample with explicit and mined negatives, or None without a negative.

    The question's explicit negatives come first, up to `negatives` of them. No margin drops them,
    because somebody has judged them. The pool is the `window` candidates after the first
    `skip_top`, counted without relevant passages and explicit negatives. Passages drawn from it
    make the hard ones, explicit ones included, `negatives` less `random_negatives`; passages drawn
    from all that are allowed fill the rest. The draw depends on the seed and the question's id
    alone.

    Args:
        candidates: the question's, in fused order, as `Retrieval.candidates` gives them, all of
            its relevant passages among them. The margins compare with the one of these that has
            the highest dense score.
        positives: relevant passage -> its texts.
        text_of: passage -> its text as a negative of this question; None if it looks relevant.
        allowed: the passages that may be negatives; held_out: those that may not.
    """
    rng = random.Random(f"{seed}:{question['id']}")
    texts = [text for passage in positives for text in positives[passage]]
    scores = {candidate["passage"]: candidate["dense_score"] for candidate in candidates}
    highest = highest_score(max(scores[passage] for passage in positives), params)
    judged = dict.fromkeys(question["negatives"])

    def differs(passage: str) -> bool:
        if passage in positives or passage in held_out:
            return False
        text = text_of(passage)
        return text is not None and text not in texts

    def usable(passage: str) -> bool:
        return (
            passage not in judged and scores.get(passage, -math.inf) <= highest and differs(passage)
        )

    explicit = list(itertools.islice(filter(differs, judged), params.negatives))
    others = [passage for passage in scores if passage not in positives and passage not in judged]
    pool = others[params.skip_top : params.skip_top + params.window]
    pool = [passage for passage in pool if usable(passage)]
    share = max(0, params.negatives - params.random_negatives - len(explicit))
    hard = explicit + rng.sample(pool, min(len(pool), share))
    rest = (p for p in lazy_shuffle(allowed, rng) if p not in hard and usable(p))
    negatives = hard + list(itertools.islice(rest, params.negatives - len(hard)))
    if not negatives:
        return None
    sample = {
        "id": question["id"],
        "query": question["question"],
        "pos": texts,
        "neg": [text_of(passage) for passage in negatives],
        "pos_passages": [passage for passage in positives for _ in positives[passage]],
        "neg_passages": negatives,
    }
    if explicit:
        sample["explicit_negatives"] = len(explicit)
    return sample | (retriever_scores(sample, scores) if params.teacher == "retriever" else {})


def highest_score(own: float, params: Samples) -> float:
    """Return the dense score that a negative may have at most, by the margins of NV-Retriever.

    At most own - absolute_margin, and at most own * (1 - relative_margin), as sentence-transformers
    names the two (Moreira et al. 2024, arXiv:2407.15831).

    Args:
        own: the dense score of the question's relevant passage, the highest if it has several.
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

    A negative is false where its teacher score exceeds the best positive's less `margin`. Explicit
    negatives stay: somebody has judged them.

    >>> sample = {"pos": ["p"], "neg": ["a", "b"], "pos_scores": [3.0], "neg_scores": [2.5, 1.0]}
    >>> without_false_negatives(sample, 1.0)
    {'pos': ['p'], 'neg': ['b'], 'pos_scores': [3.0], 'neg_scores': [1.0]}
    """
    highest = max(sample["pos_scores"]) - margin
    explicit = sample.get("explicit_negatives", 0)
    kept = [
        index
        for index, score in enumerate(sample["neg_scores"])
        if index < explicit or score <= highest
    ]
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
