"""Training questions and their candidates -> FlagEmbedding's jsonl samples.

    python src/samples.py data/prepared data/candidates models/teacher data/samples metrics/samples.json
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from reranker.errors import InputError, run_stage
from reranker.files import read_jsonl, replacing, write_json, write_jsonl
from reranker.params import Params, load
from reranker.passages import Passage, drawn_window, read_passages
from reranker.questions import SPLITS
from reranker.sampling import (
    all_negatives,
    hard_negatives,
    held_out_passages,
    paired_text,
    taught,
    without_false_negatives,
)
from reranker.scoring import CrossEncoder


def build(
    params: Params, corpus: dict[str, Passage], questions: dict[str, list[dict]], candidates: dict[str, list[dict]]
) -> Iterator[dict]:
    """The samples of all training questions, in table order."""
    train, pair, window = questions["train"], params.samples.pair, params.retrieve.shown
    spans = {question["id"]: {c["passage"]: c["views"][0] for c in candidates[question["id"]]} for question in train}

    def positive(question: dict, pair: str = pair) -> str:
        own = question["passage"]
        return paired_text(question, pair, corpus[own], spans[question["id"]][own], window)

    def positives(question: dict) -> list[str]:
        if pair == "both":
            return list(dict.fromkeys(positive(question, one) for one in ("passage", "evidence")))
        return [positive(question)]

    if params.samples.strategy == "all":
        texts = [(question["question"], positive(question)) for question in train]
        yield from all_negatives(texts, params.samples.neg_batch_size, params.samples.n_neg_batch)
        return

    held_out = held_out_passages(questions)
    allowed = [passage for passage in corpus if passage not in held_out]
    about: dict[str, list[dict]] = {}
    for question in train:
        about.setdefault(question["passage"], []).append(question)
    for question in train:
        shown = spans[question["id"]]

        def text_of(passage: str) -> str:
            # A passage that was no candidate has no window nearest to this query: one is drawn.
            rng = random.Random(f"{params.seed}:{question['id']}:{passage}")
            whole = corpus[passage]
            drawn = drawn_window(rng, len(whole.text), window)
            span = shown.get(passage, drawn)
            other = rng.choice(about[passage]) if passage in about else {"context": "", "answer": ""}
            # A negative's window is the one that would be shown, never the one around another question's evidence.
            return paired_text(other, pair if pair in ("qd", "qa") else "passage", whole, span, window)
        sample = hard_negatives(
            question, candidates[question["id"]], positives(question), text_of, allowed, held_out, params.samples, params.seed
        )
        if sample:
            yield sample


def evidence_shown(questions: Sequence[dict], candidates: dict[str, list[dict]], corpus: dict[str, Passage]) -> float | None:
    """The share of questions whose evidence sentence is wholly in some view of its passage; None where no question has one in
    its passage. Where it is low, `retrieve.shown` is too narrow to learn from, or there are too few `retrieve.views`."""
    held = []
    for question in questions:
        start = corpus[question["passage"]].text.find(question["context"]) if question["context"] else -1
        if start >= 0:
            views = next(c["views"] for c in candidates[question["id"]] if c["passage"] == question["passage"])
            held.append(any(first <= start and start + len(question["context"]) <= last for first, last in views))
    return round(sum(held) / len(held), 6) if held else None


def main(prepared: str, candidate_folder: str, teacher: str, sample_folder: str, samples_json: str) -> None:
    params = load()
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions = {split: list(read_jsonl(Path(prepared, f"{split}.jsonl"))) for split in SPLITS}
    candidates = {row["id"]: row["candidates"] for row in read_jsonl(Path(candidate_folder, "train.jsonl"))}

    samples = build(params, corpus, questions, candidates)
    if params.samples.teacher == "reranker":
        encoder = CrossEncoder(teacher, params.score.max_length, params.score.precision, params.score.batch_tokens)
        samples = taught(list(samples), lambda pairs: encoder.score(pairs, "with the teacher"))
    margin = params.samples.teacher_margin
    if margin is not None:
        samples = filter(None, (without_false_negatives(sample, margin) for sample in samples))

    negatives = 0
    with replacing(sample_folder) as folder:

        def counted() -> Iterator[dict]:
            nonlocal negatives
            for sample in samples:
                negatives += len(sample["neg"])
                yield sample

        count = write_jsonl(folder / "train.jsonl", counted())
        if not count:
            raise InputError(
                "samples: no negative is left for any training question; loosen samples.absolute_margin, "
                "samples.relative_margin and samples.teacher_margin, or add passages"
            )
    shown = evidence_shown(questions["train"], candidates, corpus)
    write_json(
        samples_json, {"samples": count, "negatives": negatives, "questions": len(questions["train"]), "evidence_shown": shown}
    )
    print(f"{count} samples with {negatives / count:.1f} negatives each from {len(questions['train'])} questions")


if __name__ == "__main__":
    run_stage(main)
