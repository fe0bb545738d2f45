"""Second pre-training without labels: sentences of the corpus stand for questions, their passages for answers.

A sentence is cut out of its passage, and what surrounds the gap is the positive: the inverse cloze task (Lee, Chang and
Toutanova, "Latent Retrieval for Weakly Supervised Open Domain Question Answering", ACL 2019, arXiv:1906.00300). Negatives are
what the first stage finds for the sentence, with its scores to distil from.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence, Set

from reranker.params import Params, Train
from reranker.passages import Passage
from reranker.sampling import hard_negatives
from reranker.units import Unit, draw_unit

SENTENCE = re.compile(r"[^。！？!?；;\n]+")
LENGTHS = range(8, 65)
"""Characters of a sentence that can stand for a question."""


def fragments(passages: Mapping[str, Passage], count: int, seed: int) -> list[dict]:
    """At most `count` sentences of each passage, as questions: {id, question, passage, start}, in the passage's order. The
    draw depends on the seed and a passage's id alone."""
    drawn = []
    for key, passage in passages.items():
        found = []
        for match in SENTENCE.finditer(passage.text):
            sentence = match.group().strip()
            # A passage that is this sentence and little else has no surroundings to be known by.
            if len(sentence) in LENGTHS and len(passage.text) >= 2 * len(sentence):
                found.append((match.start() + match.group().index(sentence), sentence))
        chosen = random.Random(f"{seed}:{key}").sample(found, min(count, len(found)))
        drawn += [
            {"id": f"{key}:{start}", "question": sentence, "passage": key, "start": start} for start, sentence in sorted(chosen)
        ]
    return drawn


def surroundings(passage: Passage, start: int, end: int, unit: Unit) -> str:
    """What the unit shows of a passage without [start, end), the gap in its middle.

    >>> whole, four = Passage("T", "abcdefghij"), Unit(4, True)
    >>> surroundings(whole, 4, 6, four), surroundings(whole, 0, 2, four), surroundings(whole, 4, 6, Unit(0, True))
    ('T. cdgh', 'T. cdef', 'T. abcdghij')
    """
    return unit.text(Passage(passage.title, passage.text[:start] + passage.text[end:]), (start, start))


def samples(
    asked: Sequence[dict], candidates: Sequence[Sequence[dict]], corpus: Mapping[str, Passage], left_out: Set[str], params: Params
) -> Iterator[dict]:
    """A sample for each fragment: its surroundings above what the first stage finds for it, all in one unit of `samples.units`.

    Args:
        candidates: of each fragment, as `Retrieval.candidates` gives them.
        corpus: id -> passage; left_out: passages that are in no sample.
    """
    own = params.pretrain
    allowed = [passage for passage in corpus if passage not in left_out]
    mining = params.samples.model_copy(
        update={
            "negatives": own.group_size - 1,
            "random_negatives": min(own.random_negatives, own.group_size - 1),
            "skip_top": 0,
            "window": params.retrieve.depth,
            "absolute_margin": None,
            "relative_margin": None,
            "teacher": "retriever",
        }
    )
    for fragment, found in zip(asked, candidates, strict=True):
        near = {candidate["passage"]: candidate["nearest"] for candidate in found}
        unit = draw_unit(params.samples, params.retrieve.shown, params.seed, fragment["id"])

        def shown(passage: str) -> str:
            rng = random.Random(f"{params.seed}:{fragment['id']}:{passage}")
            return unit.text(corpus[passage], near.get(passage) or unit.drawn(rng, corpus[passage]))

        end = fragment["start"] + len(fragment["question"])
        positive = surroundings(corpus[fragment["passage"]], fragment["start"], end, unit)
        sample = hard_negatives(fragment, found, [positive], shown, allowed, left_out, mining, params.seed)
        if sample:
            yield sample


def as_training(params: Params) -> Train:
    """`pretrain` as the settings of a training, with of `train` what the hardware and the ranking of validation questions ask."""
    own = params.pretrain
    return params.train.model_copy(
        update={
            **{name: getattr(own, name) for name in ("lr", "epochs", "batch_size", "group_size", "distill_weight")},
            "distill_temperature": 1.0,
            "accumulation": 1,
            "drop_last": True,
            "warmup_ratio": 0.05,
            "scheduler": "cosine",
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "evals_per_epoch": 1,
            "patience": None,
            "logging_steps": 5,  # what loss_first and loss_last are means over
            "report_to": "none",
            "merge": [0.0, 1.0],  # the base itself, where its head is trained and it ranks the validation questions better
        }
    )
