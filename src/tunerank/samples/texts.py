"""Make the texts of a training group: of the relevant passages, and of others as negatives."""

import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from tunerank.data.passages import Passage
from tunerank.data.questions import grades
from tunerank.params.load import Params
from tunerank.samples.units import Unit, draw_unit

Corpus = Mapping[str, Passage]
"""id -> passage."""


@dataclass(frozen=True)
class Group:
    """What the training group of a question shows.

    Args:
        nearest: passage -> its window nearest to the question, of the candidates.
        relevant: the relevant passages as the unit shows them.
    """

    question: dict
    unit: Unit
    nearest: Mapping[str, tuple[int, int]]
    relevant: Set[Passage]

    def answers(self, passage: Passage) -> bool:
        """Return whether a passage is relevant, or looks like a relevant one.

        Without titles, two passages that `prepare` kept apart can have the same text.
        """
        return self.unit.of(passage) in self.relevant


def training_group(
    params: Params, corpus: Corpus, question: dict, candidates: Sequence[dict]
) -> Group:
    """Return the group of a question; its unit depends on the seed and the question's id alone."""
    unit = draw_unit(params.samples, params.retrieve.shown, params.seed, question["id"])
    nearest = {candidate["passage"]: candidate["nearest"] for candidate in candidates}
    relevant = {unit.of(corpus[passage]) for passage in grades(question)}
    return Group(question, unit, nearest, relevant)


def paired_text(item: dict, pair: str, passage: Passage, near: tuple[int, int], unit: Unit) -> str:
    """Return the text that a question is paired with.

    Args:
        item: of the question's `relevant`.
        pair: as `samples.pair`; without the evidence or answer it names, the text around `near`.
        passage: that of the item.
        near: the window of `passage` nearest to the question.
    """
    evidence, answer = item["context"], item["answer"]
    if pair == "qd" and evidence:
        return evidence
    if pair == "qa" and answer:
        return answer
    if pair == "evidence" and evidence:
        start = passage.text.find(evidence)
        if start >= 0:
            near = start, start + len(evidence)
    return unit.text(passage, near)


def positive_texts(pair: str, corpus: Corpus, group: Group) -> dict[str, list[str]]:
    """Return relevant passage -> its texts, each once; only the pair `both` can give two."""
    kinds = ("passage", "evidence") if pair == "both" else (pair,)
    texts = {}
    for item in group.question["relevant"]:
        passage = item["passage"]
        near = group.nearest[passage]
        found = (paired_text(item, kind, corpus[passage], near, group.unit) for kind in kinds)
        texts[passage] = list(dict.fromkeys(found))
    return texts


def weights(question: dict, positives: Mapping[str, Sequence[str]]) -> list[float]:
    """Return a weight for each text of `positives`: a group's positive is drawn in proportion.

    A passage's weight is its grade, and its texts share it.

    >>> question = {"relevant": [{"passage": "a", "grade": 3}, {"passage": "b", "grade": 1}]}
    >>> weights(question, {"a": ["text"], "b": ["one text", "another"]})
    [3.0, 0.5, 0.5]
    """
    return [
        grade / len(positives[passage])
        for passage, grade in grades(question).items()
        for _ in positives[passage]
    ]


def negative_text(
    params: Params, corpus: Corpus, about: Mapping[str, Sequence[dict]], group: Group, passage: str
) -> str | None:
    """Return the text of another passage in a question's group; None if it looks relevant.

    Its window is the one nearest to this question, never one around another question's evidence.

    Args:
        about: as in `build`.
    """
    text = corpus[passage]
    if group.answers(text):
        return None
    rng = random.Random(f"{params.seed}:{group.question['id']}:{passage}")
    window = group.unit.span(text, group.nearest.get(passage), rng)
    if passage in about:
        item = rng.choice(about[passage])
        return paired_text(item, params.samples.pair, text, window, group.unit)
    return group.unit.text(text, window)
