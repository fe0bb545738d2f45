"""Build the report page of one run from its metrics: results, intervals, and every question.

Charts are Vega-Lite specifications that Altair checks. The page carries Vega itself (from
vl-convert), so that it needs no network and can be mailed, or read years later.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import jinja2
import pandas as pd
import vl_convert

from tunerank.evaluation.significance import best_first_stage, verdict
from tunerank.publishing.questions import first_ranks, question_rows
from tunerank.reranking.ways import system_title

TEMPLATE = Path(__file__).with_name("report.html.j2")
RANKS = {
    "1": (1, 1),
    "2": (2, 2),
    "3": (3, 3),
    "4-5": (4, 5),
    "6-10": (6, 10),
    "11+": (11, math.inf),
}
NOT_FOUND = "none"
COLOURS = {
    "bm25": "#9aa0a6", "dense": "#4e79a7", "retriever": "#86bcd8", "base": "#f28e2b",
    "reranker": "#59a14f", "fused": "#d1495b",
    "base_whole": "#ffbe7d", "reranker_whole": "#8cd17d", "fused_whole": "#e8919b"
}  # fmt: skip
OTHER_COLOURS = ("#b07aa1", "#9c755f", "#edc948", "#76b7b2", "#ff9da7")
"""Of the rerankers in `evaluate.compare`."""
DEPTHS = (1, 3, 5)
"""The k of hit@k and recall@k in the table of measures."""
LABELS = alt.Axis(labelLimit=220)


def page(values: Mapping[str, dict], tables: Mapping[str, pd.DataFrame], params: str) -> str:
    """Return the page as HTML.

    Args:
        values: NAME -> the content of metrics/NAME.json: `eval`, `data`, `samples`, `pretrain`,
            `train` and `environment`.
        tables: NAME -> the rows of metrics/NAME.csv: `hit_at_k`, `per_query`, `first`, `passages`,
            `by_document`, `suspects`, `train` and `valid`.
        params: the text of params.yaml.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    result = values["eval"]
    systems = [name for name in result["all"] if name != "questions"]
    gains = {rival: result["against"]["all"]["fused"][rival]["hit@1"] for rival in rivals(result)}
    shown = [f"{name}@{k}" for name in ("hit", "recall") for k in DEPTHS]
    measures = [
        name
        for name in result["all"]["fused"]
        if not name.startswith(("hit@", "recall@")) or name in shown
    ]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        result=result,
        systems=systems,
        several=bool(tables["per_query"]["id"].duplicated().any()),
        graded="grade" in tables["per_query"],
        titles={name: system_title(name) for name in systems},
        columns=measures,
        groups=[name for name in ("all", "unseen", "seen") if name in result],
        gains={rival: gain | {"verdict": verdict(gain)} for rival, gain in gains.items()},
        charts={name: chart.to_dict() for name, chart in charts(result, tables).items()},
        questions=question_rows(tables["first"], tables["per_query"], systems),
        passages={
            row.passage: [row.title, row.text] for row in tables["passages"].fillna("").itertuples()
        },
        suspects=tables["suspects"].to_dict("records"),
        values=values,
        params=params,
        vega=vl_convert.javascript_bundle(),
    )


def rivals(result: Mapping[str, dict]) -> list[str]:
    """Return what is deployed without the fine-tuned reranker: the base, the best first stage."""
    mrr = next(name for name in result["all"]["base"] if name.startswith("MRR@"))
    return ["base", best_first_stage(result, mrr)]


def rank_band(rank: float) -> str:
    """Return the key of RANKS for a rank; NOT_FOUND for NaN."""
    return next((name for name, (low, high) in RANKS.items() if low <= rank <= high), NOT_FOUND)


def charts(
    result: Mapping[str, dict], tables: Mapping[str, pd.DataFrame]
) -> dict[str, alt.Chart | alt.LayerChart]:
    """Return name -> chart, without those that have nothing to show.

    Axes are in English and Chinese.
    """
    hits = tables["hit_at_k"]
    article = [name for name in hits if name.startswith("article_")]
    article_hits = hits[["k", *article]].rename(columns=lambda name: name.removeprefix("article_"))
    found = {
        "hit_at_k": hit_curves(hits.drop(columns=article)),
        "article": hit_curves(article_hits),
        "ranks": gold_ranks(tables["per_query"]),
        "differences": differences(result["against"]["all"]),
        "loss": step_curve(tables["train"], "loss", "training loss · 训练损失"),
    }
    if len(tables["valid"]):
        valid = tables["valid"].melt("step", var_name="measure", value_name="value")
        found["valid"] = step_curve(valid, "value", "validation · 验证集", "measure")
    if len(tables["by_document"]) > 1:
        found["documents"] = document_hits(tables["by_document"])
    return found


def colour(systems: Sequence[str]) -> alt.Color:
    """Return the colours of systems; a system has the same colour in every chart."""
    others = itertools.cycle(OTHER_COLOURS)
    shades = [COLOURS.get(name) or next(others) for name in systems]
    return alt.Color("system:N", scale=alt.Scale(domain=list(systems), range=shades), title=None)


def hit_curves(hits: pd.DataFrame) -> alt.Chart:
    """Return the chart of hit@k by system; `hits` has the column k and one for each system."""
    share = alt.Y(
        "share:Q",
        title="right passage in the top k · 前 k 条命中率",
        axis=alt.Axis(format=".0%"),
        scale=alt.Scale(zero=False),
    )
    chart = alt.Chart(hits.melt("k", var_name="system", value_name="share"))
    encoded = chart.mark_line(point=True).encode(
        x=alt.X("k:O", title="k", axis=alt.Axis(labelAngle=0)),
        y=share,
        color=colour([name for name in hits if name != "k"]),
        tooltip=["system:N", "k:O", alt.Tooltip("share:Q", format=".1%")],
    )
    return encoded.properties(width="container", height=300)


def gold_ranks(per_query: pd.DataFrame) -> alt.Chart:
    """Return the chart of the ranks of each question's first relevant passage, before and after."""
    systems = ["base", "reranker", "fused"]
    best = first_ranks(per_query, systems)
    bands = best.map(rank_band).melt(var_name="system", value_name="rank")
    counts = bands.groupby(["system", "rank"]).size().reset_index(name="questions")
    title = "rank of the right passage · 正确段落的名次"
    if len(best) < len(per_query):
        title = "rank of the first right passage · 首个正确段落的名次"
    rank = alt.X(
        "rank:N",
        sort=[*RANKS, NOT_FOUND],
        title=title,
        axis=alt.Axis(labelAngle=0),
    )
    encoded = (
        alt.Chart(counts)
        .mark_bar()
        .encode(
            x=rank,
            xOffset=alt.XOffset("system:N", sort=systems),
            y=alt.Y("questions:Q", title="questions · 问题数"),
            color=colour(systems),
            tooltip=["system:N", "rank:N", "questions:Q"],
        )
    )
    return encoded.properties(width="container", height=260)


def differences(against: Mapping[str, Mapping[str, dict]]) -> alt.LayerChart:
    """Return the chart of the differences of hit@1, each with its 95 % interval."""
    rows = [
        {"system": system, "comparison": f"{system} - {rival}", **measures["hit@1"]}
        for system, rivals in against.items()
        for rival, measures in rivals.items()
    ]
    comparisons = [row["comparison"] for row in rows]
    values = [alt.Tooltip(f"{name}:Q", format="+.3f") for name in ("difference", "low", "high")]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("comparison:N", sort=comparisons, title=None, axis=LABELS),
        color=colour(list(against)).legend(None),
        tooltip=["comparison:N", *values, alt.Tooltip("p:Q", format=".2g")],
    )
    low = alt.X("low:Q", title="difference of hit@1 · hit@1 之差", axis=alt.Axis(format="+.0%"))
    zero = alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(strokeDash=[4, 4], color="gray")
    return alt.layer(
        zero.encode(x="zero:Q"),
        base.mark_rule(strokeWidth=2).encode(x=low, x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x="difference:Q"),
    ).properties(width="container", height=22 * len(rows))


def step_curve(
    table: pd.DataFrame, column: str, title: str, series: str | None = None
) -> alt.Chart:
    """Return the chart of a column over the optimizer's steps, one line for each of `series`."""
    encoding = {
        "x": alt.X("step:Q", title="optimizer step · 步"),
        "y": alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=False)),
        "tooltip": ["step:Q", alt.Tooltip(f"{column}:Q", format=".4f")],
    }
    if series:
        encoding["color"] = alt.Color(f"{series}:N", title=None)
        encoding["tooltip"] = [f"{series}:N", *encoding["tooltip"]]
    chart = alt.Chart(table).mark_line(point=True).encode(**encoding)
    return chart.properties(width="container", height=220)


def document_hits(by_document: pd.DataFrame) -> alt.LayerChart:
    """Return the chart of each document's hit@1 before and after, the lowest document first."""
    order = by_document.sort_values(["fused", "document"])["document"].tolist()
    base = alt.Chart(by_document).encode(y=alt.Y("document:N", sort=order, title=None, axis=LABELS))
    hits = by_document.melt(["document", "questions"], ["base", "fused"], "system", "share")
    points = alt.Chart(hits).mark_point(filled=True, size=70, opacity=1)
    before = alt.X("base:Q", title="hit@1", axis=alt.Axis(format=".0%"))
    share = alt.Tooltip("share:Q", format=".1%")
    return alt.layer(
        base.mark_rule(color="gray").encode(x=before, x2="fused:Q"),
        points.encode(
            x="share:Q",
            y=alt.Y("document:N", sort=order, title=None),
            color=colour(["base", "fused"]),
            tooltip=["document:N", "questions:Q", "system:N", share],
        ),
    ).properties(width="container", height=20 * len(order))
