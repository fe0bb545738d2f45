"""Training samples: which passages a question learns to rank its own above.

Each row is FlagEmbedding's jsonl (query, pos, neg); mined rows also name the question and the passages they came from.
"""

import math
import random
from collections.abc import Iterator, Sequence

from reranker.params import Samples


def paired_text(question: dict, pair: str, passage: str, shown: tuple[int, int], window: int) -> str:
    """The text that stands for a question's own passage.

    Args:
        pair: as `samples.pair`; a question without context or answer falls back on what the reranker is shown.
        passage: the whole passage; `shown` is the span of it that the reranker is shown for this question.
        window: characters shown; 0 is the whole passage.
    """
    if pair == "qd" and question["context"]:
        return question["context"]
    if pair == "qa" and question["answer"]:
        return question["answer"]
    if pair == "evidence" and window and question["context"]:
        at = passage.find(question["context"])
        if at >= 0:
            middle = at + len(question["context"]) // 2
            start = max(0, min(middle - window // 2, len(passage) - window))
            return passage[start : start + window]
    return passage[slice(*shown)]


def all_negatives(texts: Sequence[tuple[str, str]], batch_size: int | None, n_batch: int) -> Iterator[dict]:
    """The article's `build_qa_samples`: every other question's text is a negative, in table order, in batches.

    Args:
        texts: (question, text) of every row.
        batch_size: negatives in one sample; None puts all into one.
        n_batch: at most so many samples a question.

    Yields:
        a sample a batch; texts equal to the positive are dropped, and so is a batch that this leaves empty (FlagEmbedding
        divides by the number of negatives). 241 questions with 16 and 32 give 241 * ceil(240 / 16) = 3615.
    """
    size = batch_size or max(1, len(texts) - 1)
    batches = min(n_batch, math.ceil((len(texts) - 1) / size))
    head = [text for _, text in texts[: size * batches + 1]]
    for index, (question, text) in enumerate(texts):
        # The other rows' first size * batches texts, without a list of all of them for each question.
        others = head[:index] + head[index + 1 :] if index < len(head) else head[:-1]
        for batch in range(batches):
            negatives = [other for other in others[batch * size : (batch + 1) * size] if other != text]
            if negatives:
                yield {"query": question, "pos": [text], "neg": negatives}


def allowed_passages(questions: dict[str, Sequence[dict]], corpus: Sequence[str]) -> set[str]:
    """Passages that may be negatives: not those that validation or test questions ask about and no training question does."""
    trained = {question["passage"] for question in questions["train"]}
    held_out = {question["passage"] for split in ("valid", "test") for question in questions[split]} - trained
    return set(corpus) - held_out


def hard_negatives(
    question: dict,
    candidates: Sequence[dict],
    positive: str,
    texts: dict[str, str],
    allowed: set[str],
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
        texts: what stands for each passage as this question's negative.

    Returns:
        the sample, or None where no negative is left. The draw depends on the seed and this question's id alone.
    """
    rng = random.Random(f"{seed}:{question['id']}")
    scores = {candidate["passage"]: candidate["score"] for candidate in candidates}
    own = question["passage"]
    ceiling = math.inf
    if params.absolute_margin is not None:
        ceiling = scores[own] - params.absolute_margin
    if params.relative_margin is not None:
        ceiling = min(ceiling, scores[own] * (1 - params.relative_margin))

    def usable(passage: str) -> bool:
        return passage != own and passage in allowed and texts[passage] != positive

    others = [candidate for candidate in candidates if candidate["passage"] != own]
    pool = [
        candidate["passage"]
        for candidate in others[params.skip_top : params.skip_top + params.window]
        if usable(candidate["passage"]) and candidate["score"] <= ceiling
    ]
    hard = rng.sample(pool, min(len(pool), params.negatives - params.random_negatives))
    rest = [passage for passage in sorted(allowed) if usable(passage) and passage not in hard and scores.get(passage, 0.0) <= ceiling]
    chosen = hard + rng.sample(rest, min(len(rest), params.negatives - len(hard)))
    if not chosen:
        return None
    return {
        "id": question["id"],
        "query": question["question"],
        "pos": [positive],
        "neg": [texts[passage] for passage in chosen],
        "pos_passages": [own],
        "neg_passages": chosen,
    }
