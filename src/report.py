"""Write report/index.html, one page about a run that needs no network, from its metrics.

python src/report.py metrics params.yaml report
"""

import json
from pathlib import Path

import pandas as pd

from tunerank.core.files import replacing, write_text
from tunerank.core.stage import run_stage
from tunerank.evaluation.safe_csv import read_csv
from tunerank.publishing.report import page

VALUES = ("eval", "data", "samples", "pretrain", "train", "environment")
TABLES = ("hit_at_k", "per_query", "first", "passages", "by_document", "suspects", "train", "valid")
TEXTS = ("id", "question", "evidence", "passage", "title", "text", "document", "rival")
"""Columns of text, where a question can be the word "null", and the id of a passage a number."""


def main(metrics: str, params: str, report: str) -> None:
    values = {
        name: json.loads(Path(metrics, f"{name}.json").read_text(encoding="utf-8"))
        for name in VALUES
    }
    tables = {
        name: read_table(Path(metrics, f"{name}.csv"), list(values["eval"]["all"]))
        for name in TABLES
    }
    text = page(values, tables, Path(params).read_text(encoding="utf-8"))
    with replacing(report) as folder:
        folder.mkdir()
        write_text(folder / "index.html", text)
    print(f"{report}/index.html: open it in a browser")


def read_table(path: Path, systems: list[str]) -> pd.DataFrame:
    """Read a table of metrics; only an empty cell is missing.

    Args:
        systems: columns of passages in first.csv, and of numbers in other tables.
    """
    names = ("id", "document", "passage")
    if path.stem in ("first", "passages", "suspects"):
        names = (*TEXTS, *systems)
    return read_csv(path, dtype=dict.fromkeys(names, str), keep_default_na=False, na_values=[""])


if __name__ == "__main__":
    run_stage(main)
