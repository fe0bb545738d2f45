"""One page about one run, for people: what came out and how sure it is, question by question. Made from the metrics alone.

Charts are Vega-Lite specifications that Altair checks; the page carries Vega itself (vl-convert has it), so that it asks no
network for anything and can be mailed, or read years later.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import jinja2
import pandas as pd
import vl_convert

from reranker.evidence import best_first_stage, verdict

TEMPLATE = Path(__file__).with_name("report.html.j2")
RANKS = {"1": (1, 1), "2": (2, 2), "3": (3, 3), "4-5": (4, 5), "6-10": (6, 10), "11+": (11, math.inf)}
NOT_FOUND = "none"
COLOURS = {
    "bm25": "#9aa0a6", "dense": "#4e79a7", "retriever": "#86bcd8", "base": "#f28e2b", "reranker": "#59a14f", "fused": "#d1495b",
    "base_whole": "#ffbe7d", "reranker_whole": "#8cd17d", "fused_whole": "#e8919b"
}  # fmt: skip
OTHERS = ("#b07aa1", "#9c755f", "#edc948", "#76b7b2", "#ff9da7")  # of evaluate.compare
MOST_QUESTIONS = 5000
"""Rows of the table of questions; those that some system has first and another has not stand before the others."""


def page(values: Mapping[str, dict], tables: Mapping[str, pd.DataFrame], params: str) -> str:
    """The page.

    Args:
        values: `eval`, `data`, `samples`, `pretrain`, `train` and `environment`, as in metrics/NAME.json.
        tables: `hit_at_k`, `per_query`, `first`, `passages`, `by_document`, `suspects`, `train` and `valid`, as in metrics/NAME.csv.
        params: the text of params.yaml.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    result = values["eval"]
    systems = [name for name in result["all"] if name != "questions"]
    gains = {rival: result["against"]["all"]["fused"][rival]["hit@1"] for rival in rivals(result)}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        result=result,
        systems=systems,
        columns=[name for name in result["all"]["fused"] if not name.startswith("hit@") or name in ("hit@1", "hit@3", "hit@5")],
        groups=[name for name in ("all", "unseen", "seen") if name in result],
        gains={rival: found | {"verdict": verdict(found)} for rival, found in gains.items()},
        charts={name: chart.to_dict() for name, chart in charts(result, tables).items()},
        questions=questions(tables["first"], tables["per_query"], systems),
        passages={row.passage: [row.title, row.text] for row in tables["passages"].fillna("").itertuples()},
        suspects=tables["suspects"].to_dict("records"),
        values=values,
        params=params,
        vega=vl_convert.javascript_bundle(),
    )


def rivals(result: Mapping[str, dict]) -> list[str]:
    """What a deployment without the fine-tuned reranker could use: the base, and the best first stage by MRR."""
    measured = result["all"]
    return ["base", best_first_stage(measured, next(name for name in measured["base"] if name.startswith("MRR@")))]


def rank_band(rank: float) -> str:
    """The RANKS name of a rank, NaN for a passage that was not found."""
    return next((name for name, (low, high) in RANKS.items() if low <= rank <= high), NOT_FOUND)


def questions(first: pd.DataFrame, per_query: pd.DataFrame, systems: Sequence[str]) -> list[dict]:
    """What the table of questions shows: {id, question, evidence, passage, ranks, first}, the last two by system."""
    ranks = per_query.set_index("id")[list(systems)]
    right = ranks.eq(1).sum(axis=1)
    disputed = right.gt(0) & right.lt(len(systems))
    order = [*ranks.index[disputed], *ranks.index[~disputed]][:MOST_QUESTIONS]
    ranks = ranks.astype(object).where(ranks.notna(), None)
    texts = first.astype(object).where(first.notna(), None).set_index("id")
    return [
        {"id": key, **{name: texts.at[key, name] or "" for name in ("question", "evidence", "passage")}}
        | {"ranks": {name: None if ranks.at[key, name] is None else int(ranks.at[key, name]) for name in systems}}
        | {"first": {name: texts.at[key, name] for name in systems}}
        for key in order
    ]


def charts(result: Mapping[str, dict], tables: Mapping[str, pd.DataFrame]) -> dict[str, alt.Chart | alt.LayerChart]:
    """Name -> chart; those without anything to show are left out. Axes are in English and Chinese."""
    hits = tables["hit_at_k"]
    article = [name for name in hits if name.startswith("article_")]
    found = {
        "hit_at_k": curves(hits.drop(columns=article)),
        "article": curves(hits[["k", *article]].rename(columns=lambda name: name.removeprefix("article_"))),
        "ranks": gold_ranks(tables["per_query"]),
        "differences": differences(result["against"]["all"]),
        "loss": line(tables["train"], "loss", "training loss · 训练损失"),
    }
    if len(tables["valid"]):
        found["valid"] = line(
            tables["valid"].melt("step", var_name="measure", value_name="value"), "value", "validation · 验证集", "measure"
        )
    if len(tables["by_document"]) > 1:
        found["documents"] = documents(tables["by_document"])
    return found


def colour(systems: Sequence[str]) -> alt.Color:
    """A system has the same colour in every chart."""
    others = itertools.cycle(OTHERS)
    shades = [COLOURS.get(name) or next(others) for name in systems]
    return alt.Color("system:N", scale=alt.Scale(domain=list(systems), range=shades), title=None)


def curves(hits: pd.DataFrame) -> alt.Chart:
    """hit@k of every system: columns k and one a system."""
    systems = [name for name in hits if name != "k"]
    share = alt.Y(
        "share:Q", title="right passage in the top k · 前 k 条命中率", axis=alt.Axis(format=".0%"), scale=alt.Scale(zero=False)
    )
    return (
        alt.Chart(hits.melt("k", var_name="system", value_name="share"))
        .mark_line(point=True)
        .encode(
            x=alt.X("k:O", title="k", axis=alt.Axis(labelAngle=0)),
            y=share,
            color=colour(systems),
            tooltip=["system:N", "k:O", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width="container", height=300)
    )


def gold_ranks(per_query: pd.DataFrame) -> alt.Chart:
    """How many questions have their passage at which rank, before and after."""
    systems = ["base", "reranker", "fused"]
    bands = per_query[systems].map(rank_band).melt(var_name="system", value_name="rank")
    counts = bands.groupby(["system", "rank"]).size().reset_index(name="questions")
    return (
        alt.Chart(counts)
        .mark_bar()
        .encode(
            x=alt.X(
                "rank:N",
                sort=[*RANKS, NOT_FOUND],
                title="rank of the right passage · 正确段落的名次",
                axis=alt.Axis(labelAngle=0),
            ),
            xOffset=alt.XOffset("system:N", sort=systems),
            y=alt.Y("questions:Q", title="questions · 问题数"),
            color=colour(systems),
            tooltip=["system:N", "rank:N", "questions:Q"],
        )
        .properties(width="container", height=260)
    )


def differences(against: Mapping[str, Mapping[str, dict]]) -> alt.LayerChart:
    """Of hit@1: each comparison with its 95 % interval, beside the line of no difference."""
    rows = [
        {"system": system, "comparison": f"{system} - {rival}", **measures["hit@1"]}
        for system, rivals in against.items()
        for rival, measures in rivals.items()
    ]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("comparison:N", sort=[row["comparison"] for row in rows], title=None, axis=alt.Axis(labelLimit=220)),
        color=colour(list(against)).legend(None),
        tooltip=[
            "comparison:N",
            *(alt.Tooltip(f"{name}:Q", format="+.3f") for name in ("difference", "low", "high")),
            alt.Tooltip("p:Q", format=".2g"),
        ],
    )
    interval = alt.X("low:Q", title="difference of hit@1 · hit@1 之差", axis=alt.Axis(format="+.0%"))
    zero = alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(strokeDash=[4, 4], color="gray").encode(x="zero:Q")
    return alt.layer(
        zero,
        base.mark_rule(strokeWidth=2).encode(x=interval, x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x="difference:Q"),
    ).properties(width="container", height=22 * len(rows))


def line(table: pd.DataFrame, value: str, title: str, by: str | None = None) -> alt.Chart:
    """A column over the optimizer's steps."""
    encoding = {
        "x": alt.X("step:Q", title="optimizer step · 步"),
        "y": alt.Y(f"{value}:Q", title=title, scale=alt.Scale(zero=False)),
        "tooltip": ["step:Q", alt.Tooltip(f"{value}:Q", format=".4f")],
    }
    if by:
        encoding |= {"color": alt.Color(f"{by}:N", title=None), "tooltip": [f"{by}:N", *encoding["tooltip"]]}
    return alt.Chart(table).mark_line(point=True).encode(**encoding).properties(width="container", height=220)


def documents(by_document: pd.DataFrame) -> alt.LayerChart:
    """hit@1 of each document before and after, the least answered document first."""
    order = by_document.sort_values(["fused", "document"])["document"].tolist()
    base = alt.Chart(by_document).encode(y=alt.Y("document:N", sort=order, title=None, axis=alt.Axis(labelLimit=220)))
    long = by_document.melt(["document", "questions"], ["base", "fused"], "system", "hit@1")
    points = alt.Chart(long.rename(columns={"hit@1": "share"})).mark_point(filled=True, size=70, opacity=1)
    return alt.layer(
        base.mark_rule(color="gray").encode(x=alt.X("base:Q", title="hit@1", axis=alt.Axis(format=".0%")), x2="fused:Q"),
        points.encode(
            x="share:Q",
            y=alt.Y("document:N", sort=order, title=None),
            color=colour(["base", "fused"]),
            tooltip=["document:N", "questions:Q", "system:N", alt.Tooltip("share:Q", format=".1%")],
        ),
    ).properties(width="container", height=20 * len(order))
