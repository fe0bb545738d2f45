"""Choose how much of its passages a training group shows: a view, a window or all, titled or not.

A reranker trained on a few characters ranks whole passages badly, and one trained on whole passages
ranks windows worse (docs/quality.md). All passages of a group are shown in the same unit, so that
their lengths do not tell which one is the positive.
"""

import random
from dataclasses import dataclass

from tunerank.data.passages import Passage, centered_span, random_view
from tunerank.params.data import Samples


@dataclass(frozen=True)
class Unit:
    """`size`: characters, 0 for the whole passage. `titled`: whether the title comes first."""

    size: int
    titled: bool

    def of(self, passage: Passage) -> Passage:
        """Return the passage, without its title if this unit does not show titles."""
        return passage if self.titled else Passage("", passage.text)

    def text(self, passage: Passage, near: tuple[int, int]) -> str:
        """Return the text that the group shows, with the characters `near` in its middle.

        >>> passage = Passage("T", "abcdefgh")
        >>> Unit(4, True).text(passage, (5, 7)), Unit(0, False).text(passage, (5, 7))
        ('T. efgh', 'abcdefgh')
        """
        return self.of(passage).view(*centered_span(*near, self.size, len(passage.text)))

    def span(
        self, passage: Passage, nearest: tuple[int, int] | None, rng: random.Random
    ) -> tuple[int, int]:
        """Return the window nearest to the question, or a random one where it is not known.

        Only the question's candidates have a nearest window.
        """
        # Drawn in any case, so that the next draw of `rng` does not depend on the candidates.
        random_span = random_view(rng, len(passage.text), self.size)
        return nearest or random_span


def draw_unit(params: Samples, view_size: int, seed: int, question: str) -> Unit:
    """Draw the unit of a question's group; it depends on the seed and the question's id alone.

    Args:
        view_size: characters of a view, as `retrieve.shown`.
    """
    rng = random.Random(f"{seed}:{question}:unit")
    shares = params.units.model_dump()
    kind = rng.choices(list(shares), list(shares.values()))[0]
    size = {"view": view_size, "window": rng.randint(*params.window_sizes), "whole": 0}[kind]
    return Unit(size, rng.random() >= params.untitled)
