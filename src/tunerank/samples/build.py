"""Build training samples from questions and their candidates."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl
from tunerank.data.questions import grades
from tunerank.params.load import Params
from tunerank.samples.article import article_samples
from tunerank.samples.negatives import add_teacher_scores, hard_negatives
from tunerank.samples.texts import (
    Corpus,
    negative_text,
    positive_texts,
    training_group,
    weights,
)


def build(
    params: Params,
    corpus: Corpus,
    questions: Iterable[tuple[dict, list[dict]]],
    held_out: Set[str],
    about: Mapping[str, Sequence[dict]],
    several: bool,
) -> Iterator[dict]:
    """Yield the samples of all training questions, in the table's order.

    Args:
        questions: each training question with its candidates; read once, as samples are taken.
        held_out: passages that must not be negatives.
        about: passage -> items of `relevant` of training questions that it answers, for
            `samples.pair` `qd` and `qa`: there a negative is the evidence or the answer of one.
        several: whether a question has several relevant passages. Then each sample has
            `pos_weights`: the loader of FlagEmbedding, `datasets`, takes a file's keys from its
            first rows and refuses others.
    """
    if params.samples.strategy == "all":
        yield from article_samples(params, corpus, questions, held_out, about, several)
        return
    allowed = [passage for passage in corpus if passage not in held_out]
    for question, candidates in questions:
        group = training_group(params, corpus, question, candidates)
        positives = positive_texts(params.samples.pair, corpus, group)
        sample = hard_negatives(
            question,
            candidates,
            positives,
            partial(negative_text, params, corpus, about, group),
            allowed,
            held_out,
            params.samples,
            params.seed,
        )
        if sample:
            yield sample | ({"pos_weights": weights(question, positives)} if several else {})


def scored_by_teacher(samples: Iterable[dict], params: Params, folder: str) -> Iterator[dict]:
    """Return the samples with the logits of the reranker in `folder`."""
    # Imported here because torch takes seconds to import.
    from tunerank.models.cross_encoder import CrossEncoder

    score = params.score
    teacher = CrossEncoder(folder, score.max_length, score.precision, score.batch_tokens)
    return add_teacher_scores(samples, partial(teacher.score, what="with the teacher"))


def evidence_shown(item: dict, candidates: Sequence[dict], corpus: Corpus) -> bool | None:
    """Return whether a view of a relevant passage holds its whole evidence sentence.

    None where the passage does not hold the sentence. Where few sentences are shown,
    `retrieve.shown` or `retrieve.views` is too small to learn from.

    Args:
        item: of the question's `relevant`.
        candidates: the question's.
    """
    passage, evidence = item["passage"], item["context"]
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
    questions = read_jsonl(question_file, ("id", "question", "relevant", "negatives"))
    rows = read_jsonl(candidate_file, ("id", "candidates"))
    for question, row in itertools.zip_longest(questions, rows):
        expected, key = question and question["id"], row and row["id"]
        if expected != key:
            raise InputError(
                f"{candidate_file}: candidates of {key or 'no question'} where {question_file} "
                f"has {expected or 'no question'}; {rerun}"
            )
        passages = {candidate["passage"] for candidate in row["candidates"]}
        for passage in (*grades(question), *question["negatives"]):
            if passage not in passages:
                kind = "not" if passage in grades(question) else "an explicit negative but not"
                raise InputError(
                    f"{candidate_file}: passage {passage!r} is {kind} a candidate of its own "
                    f"question {key}; {rerun}"
                )
        if not passages <= corpus.keys():
            unknown = min(passages - corpus.keys())
            raise InputError(
                f"{candidate_file}: candidate {unknown!r} of {key} is not in corpus.jsonl; {rerun}"
            )
        yield question, row["candidates"]
