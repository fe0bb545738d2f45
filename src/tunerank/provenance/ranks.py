"""Read metrics/per_query.csv of a run: the ranks of each question's relevant passages.

No stage imports this module: dvc.yaml would have to name it.
"""

import io

import numpy as np
import pandas as pd

from tunerank.core.errors import InputError
from tunerank.evaluation.safe_csv import read_csv
from tunerank.provenance.runs import RANKS, Run

ABOUT = ["id", "passage", "grade", "qa_type", "seen"]
"""The columns of metrics/per_query.csv that describe question and passage. The others are
systems."""


def ranks_of(run: Run) -> pd.DataFrame:
    """Return the ranks of a run, a row for each relevant passage, by (id of the question, passage).

    The columns are `grade`, 1 where the table has none, and one per system: float, infinity if the
    passage was not found.

    Raises:
        InputError: the table is not one of ranks: damaged, or merged by hand.
    """
    try:
        table = read_csv(
            io.BytesIO(run.ranks),
            dtype={"id": str, "passage": str},
            keep_default_na=False,  # "NA" can be an id
            na_values=[""],
        ).set_index("id")
        systems = [name for name in table if name not in ABOUT]
        ranks = table[systems].astype("float64").fillna(np.inf)
        if table.empty or table["passage"].isna().any() or not (ranks >= 1).all(axis=None):
            raise ValueError("no rows, or a row without passage, or a rank below 1")
        grades = table["grade"].astype("int64") if "grade" in table else 1
        ranks = ranks.assign(passage=table["passage"], grade=grades)
        if (ranks["grade"] < 1).any():
            raise ValueError("a grade below 1")
        ranks = ranks.set_index("passage", append=True, verify_integrity=True)
        for name in systems:
            found = ranks.loc[np.isfinite(ranks[name]), name].reset_index("id")
            if found.duplicated().any():
                raise ValueError(f"two passages of a question at one rank of {name}")
        return ranks[["grade", *systems]]
    except (ValueError, KeyError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"{RANKS} of {run.name} is not a table of ranks ({why}); run dvc repro there"
        ) from None


def systems_of(ranks: pd.DataFrame) -> list[str]:
    """Return the systems in a result of `ranks_of`."""
    return [name for name in ranks if name != "grade"]


def relevant_of(ranks: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return question id -> relevant passage -> grade of a result of `ranks_of`."""
    found: dict[str, dict[str, int]] = {}
    for (question, passage), grade in ranks["grade"].items():
        found.setdefault(question, {})[passage] = grade
    return found


def moved_questions(before: pd.DataFrame, after: pd.DataFrame) -> tuple[list[str], str]:
    """Return the questions with other relevant passages or grades, and how to say that.

    Args:
        before, after: of `ranks_of`, with the same questions.
    """
    old, new = relevant_of(before), relevant_of(after)
    moved = [question for question in old if old[question] != new[question]]
    single = len(before) == len(old) and len(after) == len(new)
    return moved, "another passage" if single else "other relevant passages"


def other_questions(before: pd.DataFrame, after: pd.DataFrame, a: str, b: str) -> str | None:
    """Return why two results of `ranks_of` cannot be compared, None if they can."""
    old, new = (set(ranks.index.get_level_values("id")) for ranks in (before, after))
    if old != new:
        both = len(old & new)
        return f"other questions ({len(old)} in {a}, {len(new)} in {b}, {both} in both)"
    moved, what = moved_questions(before, after)
    return f"{len(moved)} of {len(old)} questions have {what}" if moved else None
