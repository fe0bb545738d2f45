"""The options of `tunerank serve`. Its work is in serve.py."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tunerank.commands.arguments import needs


def serve(
    source: Annotated[str, typer.Argument(help="checkpoint, repository (.) or exported folder")],
    host: Annotated[str, typer.Option(help="other than this machine: with a key")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 8080,
    name: Annotated[
        list[str] | None, typer.Option(help="accepted as `model`; may be repeated")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole/--views", help="read whole documents, or views as rank does")
    ] = True,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="of the model")
    ] = "auto",
    feedback: Annotated[
        Path | None, typer.Option(help="keep what people call right or wrong in this folder")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="requests waiting or scored; then 429")] = 64,
    queue_pairs: Annotated[int, typer.Option(min=1, help="their pairs of query and view")] = 2048,
    max_texts: Annotated[int, typer.Option(min=1, help="documents of a request")] = 1000,
    max_characters: Annotated[int, typer.Option(min=1, help="of a document")] = 100_000,
    max_body: Annotated[int, typer.Option(min=1, help="MiB of a request")] = 8,
    connections: Annotated[int, typer.Option(min=1, help="at the same time")] = 1024,
):
    """Serve a reranker over HTTP, with the protocols that other tools speak, and /search.

    /rerank takes requests of text-embeddings-inference, Infinity and vLLM, /v1/rerank those of Jina
    and Cohere, /v2/rerank those of Cohere. A repository or an export also answers /search, with
    the systems of metrics/eval.json, and has a page to try it at /. TUNERANK_API_KEY in the
    environment is the key that clients must send.

    \b
        tunerank serve models/reranker
        tunerank serve . --feedback data/feedback
        TUNERANK_API_KEY=... tunerank serve . --host 0.0.0.0
    """
    with needs("serve"):
        from tunerank.commands.serve import Limits
        from tunerank.commands.serve import serve as serve_source

    limits = Limits(
        texts=max_texts,
        characters=max_characters,
        body=max_body << 20,
        bodies=8 * max_body << 20,
        requests=queue,
        pairs=queue_pairs,
        connections=connections,
    )
    serve_source(source, host, port, name or [], whole, precision, feedback, limits)
