"""Build training samples from questions and their candidates."""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl
from tunerank.data.passages import Passage
from tunerank.params.load import Params
from tunerank.samples.negatives import (
    add_teacher_scores,
    all_negatives,
    hard_negatives,
    paired_text,
)
from tunerank.samples.units import Unit, draw_unit

Corpus = Mapping[str, Passage]
"""id -> passage."""


@dataclass(frozen=True)
class Group:
    """What the training group of a question shows.

    Args:
        nearest: passage -> its window nearest to the question, of the candidates.
        positives: texts of the question's own passage.
    """

    question: dict
    unit: Unit
    nearest: Mapping[str, tuple[int, int]]
    positives: Sequence[str]


def build(
    params: Params,
    corpus: Corpus,
    questions: Iterable[tuple[dict, list[dict]]],
    held_out: Set[str],
    about: Mapping[str, Sequence[dict]],
) -> Iterator[dict]:
    """Yield the samples of all training questions, in the table's order.

    Args:
        questions: each training question with its candidates; read once, as samples are taken.
        held_out: passages that must not be negatives.
        about: passage -> training questions about it, for `samples.pair` `qd` and `qa`: there a
            negative is the evidence or the answer of one of them.
    """
    if params.samples.strategy == "all":
        yield from article_samples(params, corpus, questions)
        return
    allowed = [passage for passage in corpus if passage not in held_out]
    for question, candidates in questions:
        group = training_group(params, corpus, question, candidates)
        sample = hard_negatives(
            question,
            candidates,
            group.positives,
            partial(negative_text, params, corpus, about, group),
            allowed,
            held_out,
            params.samples,
            params.seed,
        )
        if sample:
            yield sample


def article_samples(
    params: Params, corpus: Corpus, questions: Iterable[tuple[dict, list[dict]]]
) -> Iterator[dict]:
    """Yield the article's samples; every group shows all texts in the unit of its question."""
    settings = params.samples
    rows = [
        (question, nearest_windows(candidates)[question["passage"]], unit_of(params, question))
        for question, candidates in questions
    ]
    yield from all_negatives(
        [question["question"] for question, _, _ in rows],
        partial(article_text, settings.pair, corpus, rows),
        settings.neg_batch_size,
        settings.n_neg_batch,
    )


def article_text(
    pair: str,
    corpus: Corpus,
    rows: Sequence[tuple[dict, tuple[int, int], Unit]],
    row: int,
    other: int,
) -> str:
    """Return the text of another row's passage, in the unit of `row`."""
    question, window, _ = rows[other]
    return paired_text(question, pair, corpus[question["passage"]], window, rows[row][2])


def training_group(
    params: Params, corpus: Corpus, question: dict, candidates: Sequence[dict]
) -> Group:
    """Return the unit, nearest windows and positives of a question's group."""
    nearest, unit = nearest_windows(candidates), unit_of(params, question)
    pair, passage = params.samples.pair, question["passage"]
    texts = [
        paired_text(question, kind, corpus[passage], nearest[passage], unit)
        for kind in (("passage", "evidence") if pair == "both" else (pair,))
    ]
    return Group(question, unit, nearest, list(dict.fromkeys(texts)))


def negative_text(
    params: Params,
    corpus: Corpus,
    about: Mapping[str, Sequence[dict]],
    group: Group,
    passage: str,
) -> str:
    """Return the text of another passage in a question's group; a positive if the two look alike.

    Its window is the one nearest to this question, never one around another question's evidence.
    """
    question, unit, text = group.question, group.unit, corpus[passage]
    # Without titles, two passages that `prepare` kept apart can have the same text.
    if unit.of(text) == unit.of(corpus[question["passage"]]):
        return group.positives[0]
    rng = random.Random(f"{params.seed}:{question['id']}:{passage}")
    window = unit.span(text, group.nearest.get(passage), rng)
    if passage in about:
        return paired_text(rng.choice(about[passage]), params.samples.pair, text, window, unit)
    return unit.text(text, window)


def unit_of(params: Params, question: dict) -> Unit:
    """Return the unit of a question's group."""
    return draw_unit(params.samples, params.retrieve.shown, params.seed, question["id"])


def nearest_windows(candidates: Sequence[dict]) -> dict[str, tuple[int, int]]:
    """Return passage -> its window nearest to the question, of the question's candidates."""
    return {candidate["passage"]: candidate["nearest"] for candidate in candidates}


def scored_by_teacher(samples: Iterable[dict], params: Params, folder: str) -> Iterator[dict]:
    """Return the samples with the logits of the reranker in `folder`."""
    # Imported here because torch takes seconds to import.
    from tunerank.models.cross_encoder import CrossEncoder

    score = params.score
    teacher = CrossEncoder(folder, score.max_length, score.precision, score.batch_tokens)
    return add_teacher_scores(samples, partial(teacher.score, what="with the teacher"))


def evidence_shown(question: dict, candidates: Sequence[dict], corpus: Corpus) -> bool | None:
    """Return whether a view of the question's passage holds its whole evidence sentence.

    None where the passage does not hold the sentence. Where few sentences are shown,
    `retrieve.shown` or `retrieve.views` is too small to learn from.
    """
    passage, evidence = question["passage"], question["context"]
    start = corpus[passage].text.find(evidence) if evidence else -1
    if start < 0:
        return None
    views = next(c["views"] for c in candidates if c["passage"] == passage)
    return any(first <= start and start + len(evidence) <= last for first, last in views)


def join_candidates(
    question_file: Path, candidate_file: Path, corpus: Corpus
) -> Iterator[tuple[dict, list[dict]]]:
    """Yield each training question with its candidates.

    Raises:
        InputError: the two files and the corpus are not of one run.
    """
    rerun = "run dvc repro retrieve --force"
    questions = read_jsonl(question_file, ("id", "question", "answer", "context", "passage"))
    rows = read_jsonl(candidate_file, ("id", "candidates"))
    for question, row in itertools.zip_longest(questions, rows):
        expected, key = question and question["id"], row and row["id"]
        if expected != key:
            raise InputError(
                f"{candidate_file}: candidates of {key or 'no question'} where {question_file} "
                f"has {expected or 'no question'}; {rerun}"
            )
        passages = {candidate["passage"] for candidate in row["candidates"]}
        if question["passage"] not in passages:
            raise InputError(
                f"{candidate_file}: passage {question['passage']!r} is not a candidate of its own "
                f"question {key}; {rerun}"
            )
        if not passages <= corpus.keys():
            unknown = min(passages - corpus.keys())
            raise InputError(
                f"{candidate_file}: candidate {unknown!r} of {key} is not in corpus.jsonl; {rerun}"
            )
        yield question, row["candidates"]
