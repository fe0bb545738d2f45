"""The command `tunerank` with its subcommands. Each one's work is in the file of its name."""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from tunerank.commands.arguments import QueryCommand, UsageError, needs
from tunerank.commands.serve_options import serve
from tunerank.core.errors import run_command

app = typer.Typer(
    name="tunerank",
    help="Rank passages, search, serve, compare runs, publish, write samples, verify a run.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(cls=QueryCommand, context_settings={"ignore_unknown_options": True})
def rank(
    model: Annotated[str, typer.Argument(help="checkpoint folder")],
    query: Annotated[str, typer.Argument(help="the query; with --batch a file of queries")],
    files: Annotated[list[str] | None, typer.Argument(help="passages; none or -: stdin")] = None,
    batch: Annotated[bool, typer.Option("--batch", help="rank for each query of a file")] = False,
    top_k: Annotated[int, typer.Option(min=0, help="passages to print; 0: all")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object a query")] = False,
    first_stage: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="scores of your search, to be added; may be repeated"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="of logit and these scores, such as 2.9,158; default: the run's"),
    ] = None,
):
    """Rank passages for a query, the best first. Scores are raw logits.

    A .txt file and standard input have one passage in each line. A table (csv, xlsx, jsonl,
    parquet) has passages in a column doc, text or passage, and may have title and uuid or id.
    With --batch, QUERY is a .txt file with one query in each line, or a table with a column
    question or query. With --first-stage or --weights, scores are weighted sums of the logit and
    those columns of the tables, one named score if none is named.

    \b
        tunerank rank models/reranker "电池保修几年？" passages.txt
        tunerank rank models/reranker "电池保修几年？" data/raw/yunshan/corpus.csv --top-k 3 --json
        cat passages.txt | tunerank rank models/reranker "电池保修几年？"
        tunerank rank models/reranker --batch queries.txt passages.jsonl
        tunerank rank my-search "电池保修几年？" hits.jsonl --first-stage score --weights 2.9,0.4
    """
    from tunerank.commands.rank import rank_files

    rank_files(model, query, files or [], batch, top_k, as_json, first_stage or [], weights)


@app.command()
def compare(
    a: Annotated[str | None, typer.Argument(help="revision; with --machine: HEAD")] = None,
    b: Annotated[str | None, typer.Argument(help="revision; none: the working tree")] = None,
    system: Annotated[str, typer.Option(help="a column of metrics/per_query.csv")] = "fused",
    measure: Annotated[str, typer.Option(help="hit@k, MRR@k or nDCG@k to judge by")] = "MRR@10",
    require: Annotated[
        Literal["better", "not-worse", "unchanged"] | None,
        typer.Option(help="exit with 1 for another verdict; unchanged is for --machine"),
    ] = None,
    shown: Annotated[int, typer.Option(min=0, help="won and lost questions to list")] = 10,
    resamples: Annotated[int, typer.Option(min=100, help="of the bootstrap and the test")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="of the resamples")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    md: Annotated[bool, typer.Option("--md", help="print Markdown, for a pull request")] = False,
    machine: Annotated[
        bool, typer.Option("--machine", help="is the difference a change, or another machine?")
    ] = False,
):
    """Compare two runs question by question: better, worse or no evidence.

    A run is a Git revision, a DVC experiment or the working tree. Only metrics are read, which are
    in Git. The verdict is about one system by one measure: better or worse if the 95 % interval of
    the difference excludes 0 and p is below 0.05, which takes six questions that differ or more.
    --machine judges all systems together.

    \b
        tunerank compare main                       # main and the working tree
        tunerank compare main my-experiment --system reranker
        tunerank compare main HEAD --md >> comment.md
        tunerank compare main HEAD --require not-worse     # for CI
        tunerank compare --machine                  # HEAD and the working tree
        tunerank compare main HEAD --machine --require unchanged
    """
    with needs("pipeline"):
        from tunerank.commands.compare import compare_runs, judge_machines

    if as_json + md + machine > 1:
        raise UsageError("--json, --md and --machine exclude each other")
    if require and (require == "unchanged") != machine:
        raise UsageError(f"--require {require} is {'not for' if machine else 'for'} --machine")
    if machine:
        judge_machines(a, b, require is not None)
    elif a is None:
        raise UsageError("name the revision to compare with, for example main")
    else:
        compare_runs(a, b, system, measure, require, shown, resamples, seed, as_json, md)


@app.command()
def publish(
    repo: Annotated[str, typer.Option(help="ORGANISATION/NAME; created if missing")],
    model: Annotated[Path, typer.Argument(help="checkpoint folder")] = Path("models/reranker"),
    private: Annotated[bool, typer.Option("--private", help="refuses a public repository")] = False,
    tag: Annotated[str | None, typer.Option(help="of the commit; refused if it exists")] = None,
    license: Annotated[
        str | None,
        typer.Option(help="identifier of the Hub, such as apache-2.0; default: the base's"),
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="ISO 639 code of the data; may be repeated")
    ] = None,
    search: Annotated[bool, typer.Option("--search", help="publish the passages too")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the card and the files, without network")
    ] = False,
):
    """Publish the fine-tuned checkpoint and its model card to the Hugging Face Hub.

    Only the checkpoint that dvc.lock names is published, with metrics, parameters and code of the
    same dvc.lock, all committed to Git. Everything goes up in one commit. Its revision is printed
    and appended to models/published.jsonl. The token comes from HF_TOKEN or from `hf auth login`;
    HF_ENDPOINT is respected. --search adds what `tunerank export` writes, in a folder search.

    \b
        tunerank publish --repo my-org/my-reranker --dry-run
        tunerank publish --repo my-org/my-reranker --private --search --tag v1
    """
    with needs("pipeline,publish"):
        from tunerank.commands.publish import publish_checkpoint

    publish_checkpoint(model, repo, private, tag, license, language or [], search, dry_run)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="written; replaced if this command wrote it")],
):
    """Write reranker, retriever, corpus and indexes of this run as one folder that searches.

    It needs neither DVC nor params.yaml: `Searcher(FOLDER)`. Only what dvc.lock names is exported.
    The base and the rerankers to compare with are not.

    \b
        tunerank export my-search
    """
    with needs("pipeline"):
        from tunerank.commands.export import export_search

    export_search(folder)


@app.command()
def samples(
    folder: Annotated[Path, typer.Argument(help="written; replaced if this command wrote it")],
    form: Annotated[
        Literal["listwise", "triplets", "labelled"], typer.Option(help="what a row is")
    ] = "listwise",
):
    """Write the training samples as a folder for `datasets.load_dataset`, with a data card.

    listwise has a row for each question: query, pos, neg, scores. triplets (anchor, positive,
    negative) and labelled (query, passage, label) are for sentence-transformers' trainer.

    \b
        tunerank samples my-samples
        tunerank samples my-triplets --form triplets
    """
    with needs("pipeline"):
        from tunerank.commands.samples import write_samples

    write_samples(folder, form)


@app.command()
def verify(
    again: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", help="rerun a stage in a clone; may be repeated"),
    ] = None,
):
    """Check every byte here against dvc.lock, and optionally rerun stages and compare.

    DVC trusts size and modification time; this reads every byte: inputs, outputs, parameters, the
    cache, metrics in Git, packages. Data that was not pulled is no error; files tracked by Git must
    be there.

    \b
        tunerank verify
        tunerank verify --again prepare --again samples
    """
    with needs("pipeline"):
        from tunerank.commands.verify import verify_run

    verify_run(again or [])


@app.command()
def feedback(
    table: Annotated[Path, typer.Argument(help="file or folder, as prepare.raw")],
    folder: Annotated[Path, typer.Argument(help="written; replaced if this command wrote it")],
    rows: Annotated[Path, typer.Option("--feedback", help="of serve")] = Path("data/feedback"),
    split: Annotated[
        Literal["train", "valid", "test"] | None,
        typer.Option(help="of new questions; default: train, or a held-out passage's"),
    ] = None,
):
    """Put what people called right or wrong beside a table, as a folder for prepare.raw.

    \b
        tunerank feedback data/raw/yunshan data/raw/judged
    """
    with needs("pipeline"):
        from tunerank.commands.feedback import merge_feedback

    merge_feedback(table, folder, rows, split)


app.command()(serve)


def call(*arguments: str) -> None:
    """Run a subcommand; without arguments, print the help.

    Typer's `main` is not used: it turns Ctrl-C and a broken pipe into exit codes of its own.

    Raises:
        InputError: invalid input; UsageError: invalid arguments.
    """
    command = typer.main.get_command(app)
    with contextlib.suppress(typer.Exit):  # after --help
        with command.make_context("tunerank", list(arguments) or ["--help"]) as context:
            command.invoke(context)


def main() -> None:
    """Run the command line: one line on stderr and an exit code for every error."""
    if "_TUNERANK_COMPLETE" in os.environ:  # set by a shell that completes a line
        app(prog_name="tunerank")
    run_command(call, UsageError)
