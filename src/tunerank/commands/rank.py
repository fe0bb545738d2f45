"""Rank the passages of files or of standard input for one query or many."""

import contextlib
import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunerank.commands.first_stage import FirstStage
from tunerank.core.errors import InputError, quiet_libraries
from tunerank.core.files import regular
from tunerank.data.passages import Passage
from tunerank.data.readers.text import decode

TEXTS, NAMES, QUESTIONS = ("doc", "text", "passage"), ("uuid", "id"), ("question", "query")
STDIN = "-"


def rank_files(
    model: str,
    query: str,
    files: Sequence[str],
    batch: bool,
    top_k: int,
    as_json: bool,
    columns: Sequence[str] = (),
    weights: str | None = None,
) -> None:
    """Print the ranking of every query.

    Args:
        query: with `batch` a file of queries; files: of passages, `-` or none for standard input.
        top_k: passages to print, 0 for all.
        columns: of the tables, with a first stage's scores; weights: of logit and columns.

    Raises:
        InputError: a file that cannot be read, no query, no passage, or no checkpoint.
    """
    files = files or [STDIN]
    if [*files, query if batch else ""].count(STDIN) > 1:
        raise InputError("standard input (-) can be read once; give a file for the other")
    with contextlib.redirect_stdout(sys.stderr):  # readers print notes on encodings
        queries = read_queries(query) if batch else [query.strip()]
        fused = FirstStage(Path(model), columns, weights, batch)
        passages = read_passages(files, fused)
    try:
        "".join(queries).encode()
    except UnicodeEncodeError:  # Python keeps undecodable bytes of an argument as surrogates
        raise InputError("query: not UTF-8") from None
    if not all(queries) or not queries:
        raise InputError(f"{query}: there is no query in it" if batch else "the query is empty")
    if not passages:
        where = ("standard input" if name == STDIN else name for name in files)
        raise InputError(f"{', '.join(where)}: there is no passage to rank")

    scores = fused.scores(list(passages.values()))
    named = [(name, passage) for passage, (name, _) in passages.items()]
    # Loading torch takes seconds, so the errors above come before it.
    with no_collection(), no_bars_in_logs():
        from tunerank.models.readable import warn_unknown
        from tunerank.ranker import Ranker

        quiet_libraries()
        ranker = Ranker(model)
    texts, count = [passage for _, passage in named], top_k or None
    shown = [*queries, *(passage.text for passage in texts)]
    warn_unknown(ranker.encoder.tokenizer, model, shown, "another reranker")
    if scores is None:
        rankings = ranker.rank_many(queries, texts, count)
    else:
        rankings = [ranker.rank(queries[0], texts, count, scores, fused.weights)]
    for text, ranking in zip(queries, rankings):
        rows = []
        for rank, ranked in enumerate(ranking, 1):
            name, passage = named[ranked.index]
            row = {
                "rank": rank,
                "score": round(ranked.score, 4),
                "id": name,
                "passage": passage.text,
            }
            row |= {"view": ranked.view} if ranked.view != passage.text else {}
            if scores is not None:
                parts = {column: found[ranked.index] for column, found in scores.items()}
                row |= {"logit": round(ranked.logit, 4), "first_stage": parts}
            rows.append(row)
        print_ranking(text, rows, batch, as_json)


def print_ranking(query: str, rows: Sequence[dict], named: bool, as_json: bool) -> None:
    """Print one query's ranking: a JSON object, or a line for each passage."""
    if as_json:
        print(json.dumps({"query": query, "ranked": rows}, ensure_ascii=False))
        return
    if named:
        print(f"# {query}")
    for row in rows:
        text = " ".join(row.get("view", row["passage"]).split())  # a cell may hold line breaks
        print(f"{row['rank']:3d}  {row['score']:8.4f}  {row['id']}  {text}")


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Import without garbage collection.

    torch and transformers create 600,000 objects, and almost all of them stay. Collecting took a
    fifth of the processor time to the first answer, and more at exit. `freeze` leaves these objects
    out of later collections.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def no_bars_in_logs() -> Iterator[None]:
    """Import tqdm without progress bars if standard error is not a terminal.

    tqdm reads the environment when it is imported.
    """
    if sys.stderr.isatty() or "TQDM_DISABLE" in os.environ:
        yield
        return
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        del os.environ["TQDM_DISABLE"]


def read_queries(name: str) -> list[str]:
    """Return the queries of a .txt file, one a line, or of a table's column question or query."""
    if is_text(name):
        return [text for _, text in lines(name)]
    rows = read_column(Path(name), QUESTIONS, "queries")
    return list(dict.fromkeys(text for _, _, text in rows if text))


def read_passages(
    names: Sequence[str], first_stage: FirstStage | None = None
) -> dict[Passage, tuple[str, list[float] | None]]:
    """Return every distinct passage of the files, in their order, with its name and its scores.

    A passage of a table has its id as name, others have file and line. A table of questions lists a
    passage once for each question; it is ranked once. The scores are those of `FirstStage.cells`.
    """
    passages: dict[Passage, tuple[str, list[float] | None]] = {}
    for name in names:
        if is_text(name):
            for key, line in lines(name):
                passages.setdefault(Passage("", line), (key, None))
            continue
        path, columns = Path(name), first_stage.columns if first_stage else ()
        others = ("title", *NAMES, *columns)
        for number, row, text in read_column(path, TEXTS, "passages", others):
            if text:
                key = next((row[key] for key in NAMES if row.get(key)), f"{path.name}:{number}")
                where = f"{path}, row {number}"
                cells = first_stage.cells(row, where) if first_stage else None
                passages.setdefault(Passage(row.get("title", ""), text), (key, cells))
    return passages


def is_text(name: str) -> bool:
    """Return whether a file has a text in each line, not a table: standard input, or .txt.

    Raises:
        InputError: there is no such file.
    """
    return name == STDIN or regular(name).suffix.lower() == ".txt"


def read_column(
    path: Path, columns: Sequence[str], what: str, others: Sequence[str] = ()
) -> list[tuple[int, dict, str]]:
    """Return (row number, row, cell) of every row, the cell of the first of `columns` that it has.

    Args:
        others: further columns that the caller uses, where the table has them.

    Raises:
        InputError: the table has none of `columns`, or a cell that is used is not one text.
    """
    with no_collection():
        try:
            from tunerank.data.readers.tables import read_table, refuse_nested  # loads pandas
        except ModuleNotFoundError as error:
            raise InputError(
                f"{path}: reading tables needs {error.name}: pip install 'tunerank[pipeline]', "
                "or give a .txt file"
            ) from None
    table = read_table(path, extra=(".txt",))
    column = next((name for name in columns if name in table), None)
    if column is None:
        raise InputError(
            f"{path}: no column {' or '.join(columns)} among "
            f"{', '.join(map(repr, table.columns))}; rename that of the {what}"
        )
    refuse_nested(table, (column, *others), path)
    rows = zip(table.index, table.to_dict("records"))
    return [(int(number), row, row[column]) for number, row in rows]


def lines(name: str) -> list[tuple[str, str]]:
    """Return (file:line, text) of every line that is not blank; `-` is standard input, in UTF-8."""
    if name == STDIN:
        if sys.stdin is None:
            raise InputError("standard input: closed; give a file of passages")
        try:
            text, name = sys.stdin.buffer.read().decode("utf-8-sig"), "stdin"
        except UnicodeDecodeError:
            raise InputError("standard input: not UTF-8; give a file, or convert it") from None
    else:
        path = Path(name)
        text, name = decode(path), path.name
    numbered = enumerate(text.splitlines(), 1)
    return [(f"{name}:{number}", line.strip()) for number, line in numbered if line.strip()]
