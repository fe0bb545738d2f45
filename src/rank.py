"""Rank passages for a query.

    python src/rank.py models/reranker "电池保修几年？" passages.txt
    python src/rank.py models/reranker "电池保修几年？" data/raw/yunshan/corpus.csv --top-k 3 --json
    cat passages.txt | python src/rank.py models/reranker "电池保修几年？"
    python src/rank.py models/reranker --batch queries.txt passages.jsonl

A .txt file, or standard input, has a passage in each line; a table (csv, xlsx, jsonl, parquet) has them in a column doc, text or
passage, and may have title and uuid or id. With --batch the first file has a query in each line. Scores are raw logits.
"""

import argparse
import contextlib
import gc
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from reranker.errors import InputError, run
from reranker.files import decode, regular
from reranker.passages import Passage

TEXTS, NAMES = ("doc", "text", "passage"), ("uuid", "id")


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(prog="rank.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="checkpoint folder")
    parser.add_argument("query", help="the query, or with --batch a file with one in each line")
    parser.add_argument("files", nargs="*", metavar="file", help="passages; none: standard input")
    parser.add_argument("--batch", action="store_true", help="rank for each line of the file QUERY")
    parser.add_argument("--top-k", type=int, default=10, help="passages shown, 0: all (default: 10)")
    parser.add_argument("--json", action="store_true", help="an object for each query, one a line")
    options = parser.parse_args(arguments)
    if options.top_k < 0:
        raise InputError(f"--top-k {options.top_k}: give the number of passages to show, or 0 for all")

    queries = (
        [text for _, text in lines(decode(Path(options.query)), options.query)] if options.batch else [options.query.strip()]
    )
    try:
        "".join(queries).encode()
    except UnicodeEncodeError:  # how Python keeps an argument's bytes that are no text
        raise InputError("query: not UTF-8") from None
    if not all(queries) or not queries:
        raise InputError(f"{options.query or 'query'}: there is no query in it")
    with contextlib.redirect_stdout(sys.stderr):  # what a reader says of an encoding is no result
        passages = [found for file in options.files for found in read_passages(Path(file))] if options.files else standard_input()
    if not passages:
        raise InputError(f"{', '.join(options.files) or 'standard input'}: there is no passage to rank")

    # Here, because loading torch takes seconds, and the errors above come without it.
    with no_collection():
        from transformers import logging

        from reranker.ranking import Ranker

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        ranker = Ranker(options.model)
    for query, ranked in zip(queries, ranker.rank_many(queries, [passage for _, passage in passages], options.top_k or None)):
        rows = [
            {
                "rank": rank,
                "score": round(found.score, 4),
                "id": passages[found.index][0],
                "passage": passages[found.index][1].text,
            }
            | ({"view": found.view} if found.view != passages[found.index][1].text else {})
            for rank, found in enumerate(ranked, 1)
        ]
        if options.json:
            print(json.dumps({"query": query, "ranked": rows}, ensure_ascii=False))
            continue
        if options.batch:
            print(f"# {query}")
        for row in rows:
            text = " ".join(row.get("view", row["passage"]).split())  # a passage is one line here, whatever is in its cell
            print(f"{row['rank']:3d}  {row['score']:8.4f}  {row['id']}  {text}")


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Load without searches for garbage: torch and transformers create 600,000 objects, almost all of which stay to the end.

    The searches took a fifth of the processor time to the first answer, and more at exit. Those that come later, the ones at
    exit too, leave out what was loaded here.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def read_passages(path: Path) -> list[tuple[str, Passage]]:
    """(name, passage): a table's id, or the file's name and line."""
    if regular(path).suffix.lower() == ".txt":
        return lines_as_passages(decode(path), path.name)
    with no_collection():
        from reranker.tables import read_table  # which loads pandas

    table = read_table(path)
    column = next((name for name in TEXTS if name in table), None)
    if column is None:
        raise InputError(
            f"{path}: no column {' or '.join(TEXTS)} among {', '.join(map(repr, table.columns))}; rename the passages'"
        )
    named = next((name for name in NAMES if name in table), None)
    return [
        (row[named] if named else f"{path.name}:{number}", Passage(row.get("title", ""), row[column]))
        for number, row in zip(table.index, table.to_dict("records"))
        if row[column]
    ]


def lines(text: str, name: str) -> Iterable[tuple[str, str]]:
    """(name:line, line) of every line that is not blank."""
    return ((f"{name}:{number}", line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def lines_as_passages(text: str, name: str) -> list[tuple[str, Passage]]:
    return [(key, Passage("", line)) for key, line in lines(text, name)]


def standard_input() -> list[tuple[str, Passage]]:
    try:
        return lines_as_passages(sys.stdin.read(), "stdin")
    except UnicodeDecodeError:
        raise InputError("standard input: not UTF-8; give a file, or convert it") from None


if __name__ == "__main__":
    run(main)
