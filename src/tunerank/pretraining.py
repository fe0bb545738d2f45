"""Second pre-training without labels: sentences of the corpus are the questions.

A sentence is cut out of its passage, and the text around the gap is the positive: the inverse cloze
task (Lee, Chang and Toutanova, "Latent Retrieval for Weakly Supervised Open Domain Question
Answering", ACL 2019, arXiv:1906.00300). The negatives are the passages that the first stage finds
for the sentence; its scores are distilled.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial

from tunerank.data.passages import Passage
from tunerank.data.questions import grades
from tunerank.params.data import Samples
from tunerank.params.load import Params
from tunerank.params.train import Train
from tunerank.samples.negatives import hard_negatives
from tunerank.samples.units import Unit, draw_unit

SENTENCE = re.compile(r"[^。！？!?；;\n]+")
LENGTHS = range(8, 65)
"""Characters of a sentence that can be a question."""


def fragments(passages: Mapping[str, Passage], count: int, seed: int) -> list[dict]:
    """Return at most `count` sentences of each passage as questions, in the passage's order.

    The draw depends on the seed and the passage's id alone.

    Returns:
        questions as `tunerank.data.questions` has them, each with `start`: the sentence's first
        character in its passage.
    """
    questions = []
    for key, passage in passages.items():
        sentences = []
        for match in SENTENCE.finditer(passage.text):
            sentence = match.group().strip()
            # A passage of little more than this sentence leaves no text around the gap.
            if len(sentence) in LENGTHS and len(passage.text) >= 2 * len(sentence):
                sentences.append((match.start() + match.group().index(sentence), sentence))
        drawn = random.Random(f"{seed}:{key}").sample(sentences, min(count, len(sentences)))
        questions += [
            {
                "id": f"{key}:{start}",
                "question": sentence,
                "relevant": [{"passage": key, "grade": 1, "context": "", "answer": ""}],
                "negatives": [],
                "start": start,
            }
            for start, sentence in sorted(drawn)
        ]
    return questions


def surroundings(passage: Passage, start: int, end: int, unit: Unit) -> str:
    """Return what the unit shows of a passage without [start, end), with the gap in its middle.

    >>> passage, four = Passage("T", "abcdefghij"), Unit(4, True)
    >>> surroundings(passage, 4, 6, four), surroundings(passage, 0, 2, four)
    ('T. cdgh', 'T. cdef')
    >>> surroundings(passage, 4, 6, Unit(0, True))
    'T. abcdghij'
    """
    rest = Passage(passage.title, passage.text[:start] + passage.text[end:])
    return unit.text(rest, (start, start))


def fragment_samples(
    questions: Sequence[dict],
    candidates: Sequence[Sequence[dict]],
    corpus: Mapping[str, Passage],
    left_out: Set[str],
    params: Params,
) -> Iterator[dict]:
    """Yield a sample for each fragment; all its texts are in one unit of `samples.units`.

    Args:
        questions: as `fragments` gives them.
        candidates: of each fragment, as `Retrieval.candidates` gives them.
        corpus: id -> passage.
        left_out: passages that must not be negatives.
    """
    allowed = [passage for passage in corpus if passage not in left_out]
    mining = mining_settings(params)
    for question, found in zip(questions, candidates, strict=True):
        nearest = {candidate["passage"]: candidate["nearest"] for candidate in found}
        unit = draw_unit(params.samples, params.retrieve.shown, params.seed, question["id"])
        text_of = partial(passage_text, corpus, nearest, unit, f"{params.seed}:{question['id']}")
        end = question["start"] + len(question["question"])
        (own,) = grades(question)
        positives = {own: [surroundings(corpus[own], question["start"], end, unit)]}
        sample = hard_negatives(
            question, found, positives, text_of, allowed, left_out, mining, params.seed
        )
        if sample:
            yield sample


def passage_text(
    corpus: Mapping[str, Passage],
    nearest: Mapping[str, tuple[int, int]],
    unit: Unit,
    seed: str,
    passage: str,
) -> str:
    """Return the text of a passage in a fragment's group.

    Args:
        nearest: passage -> its window nearest to the fragment, of the candidates.
        seed: of the random window of a passage that is not a candidate.
    """
    rng = random.Random(f"{seed}:{passage}")
    return unit.text(corpus[passage], unit.span(corpus[passage], nearest.get(passage), rng))


def mining_settings(params: Params) -> Samples:
    """Return `samples` with the settings that mine a fragment's negatives."""
    negatives = params.pretrain.group_size - 1
    return params.samples.model_copy(
        update={
            "negatives": negatives,
            "random_negatives": min(params.pretrain.random_negatives, negatives),
            "skip_top": 0,
            "window": params.retrieve.depth,
            "absolute_margin": None,
            "relative_margin": None,
            "teacher": "retriever",
        }
    )


def as_training(params: Params) -> Train:
    """Return `pretrain` as training settings; lengths, precision and more are those of `train`."""
    names = ("lr", "epochs", "batch_size", "group_size", "distill_weight")
    return params.train.model_copy(
        update={
            **{name: getattr(params.pretrain, name) for name in names},
            "distill_temperature": 1.0,
            "accumulation": 1,
            "drop_last": True,
            "warmup_ratio": 0.05,
            "scheduler": "cosine",
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "evals_per_epoch": 1,
            "patience": None,
            "logging_steps": 5,  # loss_first and loss_last are means over as many steps
            "report_to": "none",
            "merge": [0.0, 1.0],  # 0.0: the base, where it ranks the validation questions better
        }
    )
