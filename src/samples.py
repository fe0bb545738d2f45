"""Training questions and their candidates -> FlagEmbedding's jsonl samples.

python src/samples.py data/prepared data/candidates models/teacher data/samples metrics/samples.json
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from tqdm import tqdm

from reranker.errors import InputError
from reranker.files import read_jsonl, replacing, write_json, write_jsonl
from reranker.params import Params, load
from reranker.passages import SPLITS, Passage, read_passages
from reranker.sampling import (
    all_negatives,
    hard_negatives,
    held_out_passages,
    paired_text,
    taught,
    without_false_negatives,
)
from reranker.stage import run_stage
from reranker.units import Unit, draw_unit

TAUGHT = 4096
"""Samples that the teacher scores at a time."""


def build(
    params: Params,
    corpus: dict[str, Passage],
    asked: Iterable[tuple[dict, list[dict]]],
    held_out: Set[str],
    about: Mapping[str, Sequence[dict]],
) -> Iterator[dict]:
    """The samples of all training questions, in table order.

    Args:
        asked: each training question with its candidates; read once, as samples are asked for.
        held_out: passages that are no negatives.
        about: passage -> training questions about it, whose evidence or answer stands for it where `samples.pair` says so.
    """
    pair = params.samples.pair

    def drawn_unit(question: dict) -> Unit:
        return draw_unit(params.samples, params.retrieve.shown, params.seed, question["id"])

    def nearest(found: Sequence[dict]) -> dict[str, tuple[int, int]]:
        return {candidate["passage"]: candidate["nearest"] for candidate in found}

    if params.samples.strategy == "all":
        rows = [(question, nearest(found)[question["passage"]], drawn_unit(question)) for question, found in asked]

        def shown(row: int, other: int) -> str:
            question, near, _ = rows[other]
            return paired_text(question, pair, corpus[question["passage"]], near, rows[row][2])

        questions = [question["question"] for question, *_ in rows]
        yield from all_negatives(questions, shown, params.samples.neg_batch_size, params.samples.n_neg_batch)
        return

    allowed = [passage for passage in corpus if passage not in held_out]
    for question, found in asked:
        near, unit, passage = nearest(found), drawn_unit(question), corpus[question["passage"]]
        pairs = ("passage", "evidence") if pair == "both" else (pair,)
        own = list(dict.fromkeys(paired_text(question, one, passage, near[question["passage"]], unit) for one in pairs))

        def text_of(other: str) -> str:
            # A passage that was no candidate has no window nearest to this query: one is drawn.
            rng = random.Random(f"{params.seed}:{question['id']}:{other}")
            if unit.of(corpus[other]) == unit.of(passage):  # where titles are not shown; equal ones were merged
                return own[0]
            drawn = unit.drawn(rng, corpus[other])
            span = near.get(other, drawn)
            # A negative's window is the one nearest to this question, never the one around another question's evidence.
            if other in about:
                return paired_text(rng.choice(about[other]), pair, corpus[other], span, unit)
            return unit.text(corpus[other], span)

        sample = hard_negatives(question, found, own, text_of, allowed, held_out, params.samples, params.seed)
        if sample:
            yield sample


def evidence_shown(question: dict, candidates: Sequence[dict], corpus: dict[str, Passage]) -> bool | None:
    """Whether the question's evidence sentence is wholly in some view of its passage; None where it has none in its passage.
    Where few are, `retrieve.shown` is too narrow to learn from, or there are too few `retrieve.views`."""
    start = corpus[question["passage"]].text.find(question["context"]) if question["context"] else -1
    if start < 0:
        return None
    views = next(c["views"] for c in candidates if c["passage"] == question["passage"])
    return any(first <= start and start + len(question["context"]) <= last for first, last in views)


def matched(train: Path, found: Path, corpus: Mapping[str, Passage]) -> Iterator[tuple[dict, dict]]:
    """Each training question with its row of candidates.

    Raises:
        InputError: one of the files is of another run.
    """
    questions = read_jsonl(train, ("id", "question", "answer", "context", "passage"))
    for question, row in itertools.zip_longest(questions, read_jsonl(found, ("id", "candidates"))):
        asked, listed = question and question["id"], row and row["id"]
        if asked != listed:
            raise InputError(
                f"{found}: candidates of {listed or 'no question'} where {train} has {asked or 'no question'}; "
                "run dvc repro retrieve --force"
            )
        passages = {candidate["passage"] for candidate in row["candidates"]}
        if question["passage"] not in passages:
            raise InputError(
                f"{found}: passage {question['passage']!r} is no candidate of its own question {asked}; run dvc repro retrieve --force"
            )
        if not passages <= corpus.keys():
            unknown = min(passages - corpus.keys())
            raise InputError(f"{found}: candidate {unknown!r} of {asked} is not in corpus.jsonl; run dvc repro retrieve --force")
        yield question, row


def main(prepared: str, candidate_folder: str, teacher: str, sample_folder: str, samples_json: str) -> None:
    params = load()
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    train, found = Path(prepared, "train.jsonl"), Path(candidate_folder, "train.jsonl")
    held_out = held_out_passages({split: read_jsonl(Path(prepared, f"{split}.jsonl"), ("passage",)) for split in SPLITS})
    about: dict[str, list[dict]] = {}
    questions = 0
    for question in read_jsonl(train):
        questions += 1
        if params.samples.pair in ("qd", "qa"):
            about.setdefault(question["passage"], []).append(question)
    shown: list[bool] = []

    def asked() -> Iterator[tuple[dict, list[dict]]]:
        with tqdm(total=questions, desc="samples", unit="question") as bar:
            for question, row in matched(train, found, corpus):
                seen = evidence_shown(question, row["candidates"], corpus)
                if seen is not None:
                    shown.append(seen)
                yield question, row["candidates"]
                bar.update()

    samples = build(params, corpus, asked(), held_out, about)
    if params.samples.teacher == "reranker":
        from reranker.scoring import CrossEncoder  # which imports torch, a matter of seconds

        encoder = CrossEncoder(teacher, params.score.max_length, params.score.precision, params.score.batch_tokens)
        untaught = samples
        blocks = iter(lambda: list(itertools.islice(untaught, TAUGHT)), [])
        samples = itertools.chain.from_iterable(
            taught(block, lambda pairs: encoder.score(pairs, "with the teacher")) for block in blocks
        )
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
    share = round(sum(shown) / len(shown), 6) if shown else None
    write_json(samples_json, {"samples": count, "negatives": negatives, "questions": questions, "evidence_shown": share})
    print(f"{count} samples with {negatives / count:.1f} negatives each from {questions} questions")


if __name__ == "__main__":
    run_stage(main)
