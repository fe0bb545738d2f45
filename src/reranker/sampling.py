"""Training samples: which passages a question learns to rank its own above.

Each row is FlagEmbedding's jsonl (query, pos, neg); mined rows also name the question and the passages they came from.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

from reranker.params import Samples
from reranker.passages import Passage
from reranker.units import Unit


def paired_text(question: dict, pair: str, passage: Passage, near: tuple[int, int], unit: Unit) -> str:
    """The text that stands for a question's own passage.

    Args:
        pair: as `samples.pair`; a question without context or answer falls back on what is nearest to it.
        near: the span of `passage` that is nearest to this question.
    """
    if pair == "qd" and question["context"]:
        return question["context"]
    if pair == "qa" and question["answer"]:
        return question["answer"]
    if pair == "evidence" and question["context"]:
        at = passage.text.find(question["context"])
        if at >= 0:
            near = at, at + len(question["context"])
    return unit.text(passage, near)


def all_negatives(
    questions: Sequence[str], text_of: Callable[[int, int], str], batch_size: int | None, n_batch: int
) -> Iterator[dict]:
    """The article's `build_qa_samples`: every other question's text is a negative, in table order, in batches.

    Args:
        questions: of every row; text_of: (row, other row) -> the other's text as the row's group shows it.
        batch_size: negatives in one sample; None puts all into one.
        n_batch: at most so many samples a question.

    Yields:
        a sample a batch; texts equal to the positive are dropped, and so is a batch that this leaves empty (FlagEmbedding
        divides by the number of negatives). 241 questions with 16 and 32 give 241 * ceil(240 / 16) = 3615.
    """
    size = batch_size or max(1, len(questions) - 1)
    for row, question in enumerate(questions):
        text = text_of(row, row)
        others = (other for other in range(len(questions)) if other != row)
        for batch in itertools.islice(iter(lambda: list(itertools.islice(others, size)), []), n_batch):
            negatives = [negative for negative in (text_of(row, other) for other in batch) if negative != text]
            if negatives:
                yield {"query": question, "pos": [text], "neg": negatives}


def held_out_passages(questions: Mapping[str, Iterable[dict]]) -> set[str]:
    """Passages that are never negatives: those that validation or test questions ask about and no training question does."""
    trained = {question["passage"] for question in questions["train"]}
    return {question["passage"] for split in ("valid", "test") for question in questions[split]} - trained


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
    """One sample with negatives mined from the first stage's candidates.

    Candidates below the first `skip_top`, within the next `window`, are kept if they may be negatives and are no false
    ones by the margins of NV-Retriever (Moreira et al. 2024, arXiv:2407.15831), in sentence-transformers' terms: a
    negative scores at most pos - absolute_margin, and at most pos * (1 - relative_margin). Of those `negatives` less
    `random_negatives` are drawn; random ones from all allowed passages fill the rest.

    Args:
        candidates: the question's, in fused order, as `Retrieval.candidates` gives them.
        positives: the texts that stand for its own passage.
        text_of: passage -> what stands for it as this question's negative.
        allowed: the corpus's passages that may be negatives; held_out: those that may not.

    Returns:
        the sample, or None where no negative is left. The draw depends on the seed and this question's id alone.
    """
    rng = random.Random(f"{seed}:{question['id']}")
    scores = {candidate["passage"]: candidate["dense_score"] for candidate in candidates}
    own = question["passage"]
    ceiling = math.inf
    if params.absolute_margin is not None:
        ceiling = scores[own] - params.absolute_margin
    if params.relative_margin is not None:
        ceiling = min(ceiling, scores[own] * (1 - params.relative_margin))

    def usable(passage: str) -> bool:
        return passage != own and passage not in held_out and text_of(passage) not in positives

    others = [candidate for candidate in candidates if candidate["passage"] != own]
    pool = [
        candidate["passage"]
        for candidate in others[params.skip_top : params.skip_top + params.window]
        if usable(candidate["passage"]) and candidate["dense_score"] <= ceiling
    ]
    hard = rng.sample(pool, min(len(pool), params.negatives - params.random_negatives))
    rest = (p for p in in_random_order(allowed, rng) if p not in hard and scores.get(p, -math.inf) <= ceiling and usable(p))
    chosen = hard + list(itertools.islice(rest, params.negatives - len(hard)))
    if not chosen:
        return None
    sample = {
        "id": question["id"],
        "query": question["question"],
        "pos": list(positives),
        "neg": [text_of(passage) for passage in chosen],
        "pos_passages": [own] * len(positives),
        "neg_passages": chosen,
    }
    if params.teacher == "retriever":
        lowest = min(scores.values())  # what is no candidate scores no higher than the last that is
        sample |= {
            "pos_scores": [teacher_logit(scores[own])] * len(positives),
            "neg_scores": [teacher_logit(scores.get(passage, lowest)) for passage in chosen],
        }
    return sample


def taught(samples: Sequence[dict], score: Callable[[list[tuple[str, str]]], Sequence[float]]) -> Iterator[dict]:
    """The samples with a reranker's scores of their texts as pos_scores and neg_scores.

    Args:
        score: (query, text) pairs -> logits; called once, with all of them.
    """
    scores = iter(score([(sample["query"], text) for sample in samples for text in sample["pos"] + sample["neg"]]))
    for sample in samples:
        yield sample | {f"{side}_scores": [round(float(next(scores)), 4) for _ in sample[side]] for side in ("pos", "neg")}


def without_false_negatives(sample: dict, margin: float) -> dict | None:
    """The sample without the negatives that its teacher scores above its best positive - margin; None where none is left.

    >>> without_false_negatives({"query": "q", "pos": ["p"], "neg": ["a", "b"], "pos_scores": [3.0], "neg_scores": [2.5, 1.0]}, 1.0)
    {'query': 'q', 'pos': ['p'], 'neg': ['b'], 'pos_scores': [3.0], 'neg_scores': [1.0]}
    """
    ceiling = max(sample["pos_scores"]) - margin
    kept = [i for i, score in enumerate(sample["neg_scores"]) if score <= ceiling]
    lists = {name: [sample[name][i] for i in kept] for name in ("neg", "neg_scores", "neg_passages") if name in sample}
    return sample | lists if kept else None


def in_random_order(items: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Each item once, in an order drawn as it is asked for: a few of a million cost a few draws."""
    seen: set[int] = set()
    while len(seen) < len(items):
        index = rng.randrange(len(items))
        if index not in seen:
            seen.add(index)
            yield items[index]


def teacher_logit(cosine: float) -> float:
    """A bi-encoder's cosine as the logit it was trained as: temperature 0.01 (Wang et al. 2022, arXiv:2212.03533)."""
    return round(cosine / 0.01, 4)
