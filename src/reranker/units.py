"""What of its passages a training group shows: a view, a window or the whole, with titles or without.

A reranker that has only ever seen a few characters ranks whole passages badly, and one that has seen only whole passages ranks
windows worse (docs/quality.md). All passages of a group show the same, so that their lengths say nothing about which is right.
"""

import random
from dataclasses import dataclass

from reranker.params import Samples
from reranker.passages import Passage, around, drawn_window


@dataclass(frozen=True)
class Unit:
    """`size`: characters, 0 for the whole passage; `titled`: whether the title stands before them."""

    size: int
    titled: bool

    def of(self, passage: Passage) -> Passage:
        """The passage as this unit has it: its title left out where it is not shown."""
        return passage if self.titled else Passage("", passage.text)

    def text(self, passage: Passage, near: tuple[int, int]) -> str:
        """The text that is shown, with the characters `near` in its middle.

        >>> Unit(4, True).text(Passage("T", "abcdefgh"), (5, 7)), Unit(0, False).text(Passage("T", "abcdefgh"), (5, 7))
        ('T. efgh', 'abcdefgh')
        """
        return self.of(passage).view(*around(*near, self.size, len(passage.text)))

    def drawn(self, rng: random.Random, passage: Passage) -> tuple[int, int]:
        """What to show of a passage for which nothing says what is near the query."""
        return drawn_window(rng, len(passage.text), self.size)


def draw_unit(params: Samples, shown: int, seed: int, key: str) -> Unit:
    """The unit of a question's group, drawn from the seed and the question's id alone.

    Args:
        shown: characters of a view, as `retrieve.shown`.
    """
    rng = random.Random(f"{seed}:{key}:unit")
    shares = params.units.model_dump()
    kind = rng.choices(list(shares), list(shares.values()))[0]
    size = {"view": shown, "window": rng.randint(*params.window_sizes), "whole": 0}[kind]
    return Unit(size, rng.random() >= params.untitled)
