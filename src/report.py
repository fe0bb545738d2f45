"""The metrics of a run -> report/index.html, one page that needs no network.

    python src/report.py metrics params.yaml report
"""

import json
from pathlib import Path

from reranker.files import replacing, write_text
from reranker.report import page
from reranker.spreadsheets import read_csv
from reranker.stage import run_stage

VALUES = ("eval", "data", "samples", "pretrain", "train", "environment")
TABLES = ("hit_at_k", "per_query", "first", "passages", "by_document", "suspects", "train", "valid")


def main(metrics: str, params: str, report: str) -> None:
    values = {name: json.loads(Path(metrics, f"{name}.json").read_text(encoding="utf-8")) for name in VALUES}
    # Only an empty cell is missing: a question may be the word "null", a passage's id "NA", and an id a number.
    texts = dict.fromkeys(
        ("id", "question", "evidence", "passage", "title", "text", "document", "rival", *values["eval"]["all"]), str
    )
    tables = {
        name: read_csv(
            Path(metrics, f"{name}.csv"),
            dtype=texts if name in ("first", "passages", "suspects") else {"id": str, "document": str},
            keep_default_na=False,
            na_values=[""],
        )
        for name in TABLES
    }
    with replacing(report) as folder:
        folder.mkdir()
        write_text(folder / "index.html", page(values, tables, Path(params).read_text(encoding="utf-8")))
    print(f"{report}/index.html: open it in a browser")


if __name__ == "__main__":
    run_stage(main)
