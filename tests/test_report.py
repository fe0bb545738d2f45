"""Test the report of the committed metrics, in a real browser if one is installed."""

import io
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import vl_convert
from conftest import at_head

from report import main
from tunerank.evaluation.significance import verdict
from tunerank.publishing.questions import question_rows
from tunerank.publishing.report import gold_ranks, rank_band

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
RANKS = pd.read_csv(io.BytesIO(at_head("metrics/per_query.csv")), dtype={"id": str})
FIRST = pd.read_csv(io.BytesIO(at_head("metrics/first.csv")), dtype=str)


def make(folder: Path) -> Path:
    """Write the report of the metrics and parameters under `folder`; return the page's path."""
    main(str(folder / "metrics"), str(folder / "params.yaml"), str(folder / "report"))
    return folder / "report/index.html"


@pytest.fixture(scope="module")
def report(committed, tmp_path_factory) -> Path:
    return make(shutil.copytree(committed, tmp_path_factory.mktemp("report") / "run"))


def test_the_report_shows_the_metrics_and_is_reproducible(report, committed, tmp_path):
    text = report.read_text(encoding="utf-8")
    result = json.loads((committed / "metrics/eval.json").read_text())
    found = result["against"]["all"]["fused"]["base"]["hit@1"]
    assert (
        f"<b>{100 * result['all']['fused']['hit@1']:.1f} %</b> of\n"
        f"{result['all']['questions']} test questions" in text
    )
    line = (
        f"{100 * found['difference']:+.1f} points, "
        f"95 % interval {100 * found['low']:+.1f} to {100 * found['high']:+.1f}"
    )
    assert line in text and verdict(found) == "better"
    assert make(shutil.copytree(committed, tmp_path / "run")).read_bytes() == report.read_bytes()


def test_the_report_requests_no_other_address(report):
    text = report.read_text(encoding="utf-8")
    assert "default-src 'none'" in text  # the browser refuses all requests of the page
    ours = text.replace(vl_convert.javascript_bundle(), "")
    assert len(ours) < len(text) - 500_000 and not re.findall(
        r"<(?:script|link|img|iframe)[^>]*(?:src|href)=|@import|url\(", ours
    )


@pytest.mark.parametrize(
    "low, high, p, expected",
    [
        (0.01, 0.1, 0.049, "better"),
        (-0.1, -0.01, 0.049, "worse"),
        (-0.01, 0.1, 0.049, "no evidence"),
        (0.0, 0.1, 0.049, "no evidence"),
        (0.01, 0.1, 0.05, "no evidence"),
        (-0.1, -0.01, 0.05, "no evidence"),
    ],
)
def test_a_verdict_follows_from_interval_and_p(low, high, p, expected):
    assert verdict({"difference": 0.05, "low": low, "high": high, "p": p}) == expected


def test_a_rank_belongs_to_a_band():
    ranks = [1, 2, 3, 4, 5, 6, 10, 11, 500, float("nan")]
    assert [rank_band(rank) for rank in ranks] == [
        "1",
        "2",
        "3",
        "4-5",
        "4-5",
        "6-10",
        "6-10",
        "11+",
        "11+",
        "none",
    ]


def test_disputed_questions_come_first():
    ranks = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "passage": ["p", "p", "p"],
            "base": [1, 2, None],
            "fused": [1, 1, 2],
        }
    )
    first = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "question": "?",
            "evidence": None,
            "passage": "p",
            "base": ["p", "x", None],
            "fused": ["p", "p", "y"],
        }
    )
    rows = question_rows(first, ranks, ["base", "fused"])
    assert [row["id"] for row in rows] == ["b", "a", "c"]
    assert rows[0] == {
        "id": "b",
        "question": "?",
        "evidence": "",
        "relevant": [{"passage": "p", "grade": None, "ranks": {"base": 2, "fused": 1}}],
        "ranks": {"base": 2, "fused": 1},
        "first": {"base": "x", "fused": "p"},
    }
    assert rows[2]["ranks"] == {"base": None, "fused": 2} and rows[2]["first"]["base"] is None


SEVERAL = pd.DataFrame(
    {
        "id": ["a", "a", "b", "b", "c"],
        "passage": ["p", "q", "p", "r", "q"],
        "grade": [2, 1, 1, 1, 1],
        "base": [3, 1, 4, None, None],
        "reranker": [2, 7, 4, 12, None],
        "fused": [2, 1, 5, 1, None],
    }
)


def test_a_question_shows_all_its_passages_and_has_the_best_rank():
    first = pd.DataFrame({"id": ["a", "b", "c"], "question": "?", "evidence": "e", "passage": "p"})
    first = first.assign(base="q", reranker="x", fused="r")
    rows = question_rows(first, SEVERAL, ["base", "reranker", "fused"])
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert rows[0]["ranks"] == {"base": 1, "reranker": 2, "fused": 1}
    assert rows[0]["relevant"] == [
        {"passage": "p", "grade": 2, "ranks": {"base": 3, "reranker": 2, "fused": 2}},
        {"passage": "q", "grade": 1, "ranks": {"base": 1, "reranker": 7, "fused": 1}},
    ]
    assert rows[1]["ranks"] == {"base": 4, "reranker": 4, "fused": 1}
    assert rows[2]["ranks"] == {"base": None, "reranker": None, "fused": None}
    assert [one["passage"] for one in rows[2]["relevant"]] == ["q"]


def test_the_chart_of_ranks_counts_each_question_once():
    chart = gold_ranks(SEVERAL).to_dict()
    (counts,) = chart["datasets"].values()
    assert {(row["system"], row["rank"]): row["questions"] for row in counts} == {
        ("base", "1"): 1, ("base", "4-5"): 1, ("base", "none"): 1,
        ("reranker", "2"): 1, ("reranker", "4-5"): 1, ("reranker", "none"): 1,
        ("fused", "1"): 2, ("fused", "none"): 1,
    }  # fmt: skip
    assert chart["encoding"]["x"]["title"].startswith("rank of the first right passage")
    single = gold_ranks(SEVERAL.drop_duplicates("id")).to_dict()
    assert single["encoding"]["x"]["title"].startswith("rank of the right passage")


def test_a_run_without_validation_suspects_or_documents_has_a_page(committed, tmp_path):
    shutil.copytree(committed, tmp_path, dirs_exist_ok=True)
    for name in ("valid", "suspects"):
        path = tmp_path / f"metrics/{name}.csv"
        path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    path = tmp_path / "metrics/by_document.csv"
    path.write_text(
        "\n".join(path.read_text(encoding="utf-8").splitlines()[:2]) + "\n", encoding="utf-8"
    )
    text = make(tmp_path).read_text(encoding="utf-8")
    assert {name for name in ("loss", "valid", "documents") if f'data-chart="{name}"' in text} == {
        "loss"
    }
    assert 'id="suspects"' not in text


@pytest.fixture
def opened(report):
    """Return a function that opens the page, and the list of the browser's errors and requests."""
    if not CHROMIUM:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        troubles: list[str] = []

        def go(path: Path = report, **options):
            page = browser.new_page(**{"locale": "en-GB", **options})
            page.on(
                "console",
                lambda message: (
                    troubles.append(message.text) if message.type in ("error", "warning") else None
                ),
            )
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on(
                "request",
                lambda request: (
                    troubles.append(request.url)
                    if not request.url.startswith(("file:", "data:"))
                    else None
                ),
            )
            page.goto(path.as_uri())
            page.wait_for_function(
                "document.querySelectorAll('.chart svg').length == "
                "document.querySelectorAll('.chart').length"
            )
            return page

        yield go, troubles
        browser.close()


def won_and_lost(before: str, after: str) -> tuple[int, int]:
    was, now = RANKS[before] == 1, RANKS[after] == 1
    return int((~was & now).sum()), int((was & ~now).sum())


def test_the_page_draws_filters_and_searches(opened):
    go, troubles = opened
    page = go()
    assert page.locator(".chart svg").count() == 7
    won, lost = won_and_lost("base", "fused")
    assert won > lost > 0

    def counted() -> int:
        return int(page.inner_text("#count").split("/")[1])

    assert counted() == won + lost
    page.select_option("#kind", "won")
    assert counted() == won
    page.select_option("#kind", "lost")
    assert counted() == lost
    page.select_option("#before", "dense")
    page.select_option("#after", "reranker")
    assert counted() == won_and_lost("dense", "reranker")[1]
    page.select_option("#kind", "all")
    assert counted() == len(RANKS) and page.locator("#questions tbody tr").count() == 20
    page.click("#more")
    assert page.locator("#questions tbody tr").count() == 40
    row = FIRST.iloc[7]
    page.fill("#search", row["question"][:12])
    assert counted() == FIRST["question"].str.contains(row["question"][:12], regex=False).sum() == 1
    ranks = RANKS.set_index("id").loc[row["id"]]
    assert f"{ranks['dense']:.0f} → {ranks['reranker']:.0f}" in page.inner_text("#questions tbody")
    assert troubles == []


def test_the_page_has_two_languages_and_fits_a_phone_in_dark_mode(opened):
    go, troubles = opened
    page = go(viewport={"width": 375, "height": 800}, color_scheme="dark", locale="zh-CN")
    assert page.inner_text("h1") == "重排模型报告"
    page.click("#language")
    assert page.inner_text("h1") == "Reranker report"
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
    )
    assert max(red, green, blue) < 60
    assert troubles == []


def test_text_from_the_data_stays_text(opened, committed, tmp_path):
    go, troubles = opened
    shutil.copytree(committed, tmp_path, dirs_exist_ok=True)
    evil = (
        "<img src=x onerror=document.title='taken'></script>"
        "<script>document.title='taken'</script>{{ 7 * 7 }}"
    )
    first = FIRST.copy()
    first["question"] = evil
    first.to_csv(tmp_path / "metrics/first.csv", index=False)
    suspects = pd.read_csv(tmp_path / "metrics/suspects.csv")
    suspects["question"] = evil
    suspects.to_csv(tmp_path / "metrics/suspects.csv", index=False)
    page = go(make(tmp_path))
    page.select_option("#kind", "all")
    assert page.title() == "Reranker report" and page.locator("img").count() == 0
    assert evil in page.inner_text("#questions tbody tr:first-child td:first-child")
    assert troubles == []


def test_the_page_lists_every_right_passage_with_its_rank(opened, committed, tmp_path):
    """The first question gets a second right passage, which is first under every system."""
    go, troubles = opened
    shutil.copytree(committed, tmp_path, dirs_exist_ok=True)
    ranks = pd.read_csv(tmp_path / "metrics/per_query.csv", dtype={"id": str, "passage": str})
    own = ranks.iloc[0]
    systems = list(ranks.columns[4:])
    second = own.to_dict() | dict.fromkeys(systems, 1) | {"passage": "0070070"}
    ranks.loc[0, systems] = range(2, 2 + len(systems))
    ranks = pd.concat([ranks.iloc[:1], pd.DataFrame([second]), ranks.iloc[1:]])
    ranks[systems] = ranks[systems].astype("Int64")
    ranks.insert(2, "grade", [1, 3, *[1] * (len(ranks) - 2)])
    ranks.to_csv(tmp_path / "metrics/per_query.csv", index=False)
    page = go(make(tmp_path))
    page.select_option("#kind", "all")
    page.fill("#search", own["id"])
    assert page.locator("#questions tbody tr").count() == 1
    cells = page.locator("#questions tbody tr td")
    base, fused = 2 + systems.index("base"), 2 + systems.index("fused")
    text = cells.nth(1).inner_text()
    assert f"{own['passage']} · 1 ({base} → {fused})" in text and "0070070 · 3 (1 → 1)" in text
    assert cells.nth(2).inner_text() == "1 → 1" and cells.nth(3).inner_text() == ""
    page.fill("#search", "0070070")
    assert page.locator("#questions tbody tr").count() == 1
    assert page.inner_text("#questions thead th:nth-child(2)") == "its passages · grade (rank)"
    assert troubles == []
