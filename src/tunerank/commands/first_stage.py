"""Scores of a first stage in the tables of `tunerank rank`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.searching.weights import features_of, fitted_weights, number

SCORE = "score"
"""The column that is taken if none is named."""


class FirstStage:
    """Scores of a first stage in columns of the passages' tables.

    Without `columns` and `weights` there are none, but where the run that made the checkpoint had
    one search of the user's own (`retrieve.run`): a column `score` of all tables is its score then.

    Args:
        columns, weights: as the command line has them; the weights of the run if there are none.

    Raises:
        InputError: the weights are no numbers, or damaged, or there are many queries.
    """

    def __init__(self, model: Path, columns: Sequence[str], weights: str | None, batch: bool):
        self.asked = bool(columns) or weights is not None
        if self.asked and batch:
            raise InputError("--first-stage is for one query: a column has the scores of one")
        self.weights, self.fitted = weights, None
        if weights is None and not batch:
            try:
                self.fitted = fitted_weights(model)
            except InputError:
                if self.asked:
                    raise
        if weights is not None:
            self.weights = [number(one.strip(), "--weights") for one in weights.split(",")]
        fits = self.fitted is not None and len(self.fitted) == 2
        self.columns = list(columns or [SCORE]) if self.asked or fits else []

    def cells(self, row: dict, place: str) -> list[float] | None:
        """Return the scores in a row of a table, None if the table has not all of the columns.

        Raises:
            InputError: a cell is no finite number; the message begins with `place`.
        """
        if not set(self.columns) <= set(row):
            return None
        return [number(row[one], f"{place}: the cell of {one}") for one in self.columns]

    def scores(
        self, found: Sequence[tuple[str, list[float] | None]]
    ) -> dict[str, list[float]] | None:
        """Return column -> a score of each passage; None where the reranker alone ranks.

        Args:
            found: (name, scores) of each passage, as `cells` returns them.

        Raises:
            InputError: scores are missing, or the weights are of others.
        """
        if not self.columns or not self.asked and any(cells is None for _, cells in found):
            return None
        if missing := [name for name, cells in found if cells is None]:
            raise InputError(
                f"{missing[0]}: no column {' and '.join(map(repr, self.columns))} of a first "
                "stage's scores there; name the columns of the table by --first-stage"
            )
        scores = dict(zip(self.columns, map(list, zip(*(cells for _, cells in found)))))
        if self.fitted and len(self.fitted) == 2 and len(scores) == 1:
            scores = dict(zip(list(self.fitted)[1:], scores.values()))
        features_of(scores, self.weights, self.fitted, len(found))
        if not self.asked:
            print("ordered by logit and column score, by the weights of the run", file=sys.stderr)
        return scores
