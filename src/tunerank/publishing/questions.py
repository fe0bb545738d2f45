"""The table of questions on the report page, from metrics/per_query.csv and metrics/first.csv."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

MOST_QUESTIONS = 5000
"""Rows in the table of questions. Those that only some systems answer first come first."""


def question_rows(
    first: pd.DataFrame, per_query: pd.DataFrame, systems: Sequence[str]
) -> list[dict]:
    """Return the table of questions: {id, question, evidence, relevant, ranks, first}.

    `ranks`, of the first relevant passage, and `first` are by system. `relevant` lists {passage,
    grade, ranks}; the grade is None where the table has none.
    """
    best = first_ranks(per_query, systems)
    right = best.eq(1).sum(axis=1)
    disputed = right.gt(0) & right.lt(len(systems))
    order = [*best.index[disputed], *best.index[~disputed]][:MOST_QUESTIONS]
    shown, relevant = set(order), {}
    for row in per_query.to_dict("records"):
        if row["id"] in shown:
            found = {"passage": row["passage"], "grade": row.get("grade")}
            relevant.setdefault(row["id"], []).append(found | {"ranks": whole(row, systems)})
    ranks = best.to_dict("index")
    texts = first.astype(object).where(first.notna(), None).set_index("id")
    rows = []
    for key in order:
        row = {name: texts.at[key, name] or "" for name in ("question", "evidence")}
        firsts = {name: texts.at[key, name] for name in systems}
        found = {"relevant": relevant[key], "ranks": whole(ranks[key], systems), "first": firsts}
        rows.append({"id": key, **row, **found})
    return rows


def first_ranks(per_query: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return question id -> the rank of its first relevant passage by system, NaN without any."""
    return per_query.groupby("id", sort=False)[list(systems)].min()


def whole(ranks: Mapping[str, float], systems: Sequence[str]) -> dict[str, int | None]:
    """Return the ranks by system as integers, None for NaN."""
    return {name: None if math.isnan(ranks[name]) else int(ranks[name]) for name in systems}
