"""What waits for the model: a request for scores, or a search."""

import sys
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tunerank.core.errors import InputError, memory_ran_out
from tunerank.data.passages import Passage
from tunerank.serving.limits import Refused

SEARCH_PAIRS = 24
"""What a search is counted as in the queue; how many pairs it scores is known only later."""


@dataclass(frozen=True)
class Pairs:
    """The distinct pairs of a request.

    ids: tokens of each pair; of: (document, index of its pair in `ids`) for each view.
    cut: documents that are longer than the model reads; query_cut: whether the query is.
    """

    ids: list[list[int]]
    of: list[tuple[int, int]]
    cut: int
    query_cut: bool


@dataclass(frozen=True)
class Scored:
    """What a request for scores gets.

    logits: of each document, in the order given; tokens: read by the model.
    cut: documents that were not read to their end; query_cut: whether the query was not.
    """

    logits: list[float]
    tokens: int
    cut: int
    query_cut: bool


@dataclass(eq=False)
class Rerank:
    """A request for scores. Its future has a `Scored`.

    cost: the number of its views, counted before the tokens are known.
    left: places in `pairs.ids` that have no logit yet.
    """

    query: str
    passages: list[Passage]
    whole: bool
    max_tokens: int | None
    cost: int
    future: Future = field(default_factory=Future)
    pairs: Pairs | None = None
    left: list[int] = field(default_factory=list)
    logits: dict[int, float] = field(default_factory=dict)

    @property
    def rest(self) -> int:
        """How many pairs are still to be scored."""
        return self.cost if self.pairs is None else len(self.left)


@dataclass(eq=False)
class Search:
    """A search. Its future has a list of `Found` (searcher.py).

    candidates: of the client's own search.
    """

    query: str
    top_k: int
    system: str
    candidates: Sequence[tuple[str, float]] | None = None
    cost: int = SEARCH_PAIRS
    future: Future = field(default_factory=Future)

    @property
    def rest(self) -> int:
        return self.cost

    @property
    def kind(self) -> tuple[int, str, bool]:
        """Searches of one kind can be made in one call."""
        return self.top_k, self.system, self.candidates is not None


Job = Rerank | Search


def finish(job: Job, result: Any) -> None:
    """Give a request its result, unless it was given up in the meantime."""
    with suppress(InvalidStateError):
        job.future.set_result(result)


def fail(jobs: Iterable[Job], error: Exception) -> None:
    """Give requests an error. Only an unexpected one is printed, with its traceback."""
    if isinstance(error, Refused):
        refused = error
    elif isinstance(error, InputError):
        refused = Refused(400, str(error))
    elif memory_ran_out(error):
        refused = Refused(503, "memory ran out; try again with fewer or shorter documents", 1)
    else:
        traceback.print_exception(error, file=sys.stderr)
        refused = Refused(500, "unexpected error; the server's log has it")
    for job in jobs:
        with suppress(InvalidStateError):
            job.future.set_exception(refused)
