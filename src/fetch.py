"""Stage fetch: base, retriever, teacher and the rerankers to compare with -> models/.

    python src/fetch.py models/bundled models/base models/retriever models/teacher models/compare

If base and retriever are both e5-small, their files are hard links, and DVC's cache has them once.
"""

import shutil
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import link_or_copy, replacing
from tunerank.core.stage import run_stage
from tunerank.models.checkpoint import complete_head, load_classifier
from tunerank.models.identify import identify, pooling_of
from tunerank.models.readable import refuse_longer
from tunerank.params.base import Source
from tunerank.params.load import Params, load
from tunerank.sources.fetch import fetch


def main(
    packed: str, base_folder: str, retriever_folder: str, teacher_folder: str, compare_folder: str
) -> None:
    params = load()
    with replacing(base_folder) as folder:
        fetch_base(params, Path(packed), folder)
    print(f"{base_folder}: {name_of(params.base)}")

    with replacing(retriever_folder) as folder:
        if params.base.source == params.retriever.source == "e5-small":
            shutil.copytree(base_folder, folder, copy_function=link_or_copy)
        else:
            fetch_retriever(params, Path(packed), folder)
    print(f"{retriever_folder}: {name_of(params.retriever)}")

    with replacing(teacher_folder) as folder:
        if params.teacher.source == "none":
            write_placeholder(folder, "teacher.source is none")
        else:
            fetch_reranker(params.teacher, "teacher", params, Path(packed), folder)

    with replacing(compare_folder) as folder:
        if not params.evaluate.compare:
            write_placeholder(folder, "evaluate.compare is empty")
        for name, source in params.evaluate.compare.items():
            key = f"evaluate.compare.{name}"
            fetch_reranker(source, key, params, Path(packed), folder / name)
            print(f"{compare_folder}/{name}: {name_of(source)}")


def name_of(source: Source) -> str:
    return source.repo or source.path or source.source


def fetch_base(params: Params, packed: Path, folder: Path) -> None:
    """Fetch the base, and add a head to an encoder without one.

    Raises:
        InputError: it cannot become a reranker, or read as many tokens as training shows it.
    """
    fetch(params.base, "base", packed, folder, params.seed)
    name, train = f"base: {name_of(params.base)}", params.train
    base = identify(folder, name, "base")
    trained = train.query_max_length + train.passage_max_length
    lengths = {
        "score.max_length": params.score.max_length,
        "train.query_max_length + train.passage_max_length": trained,
    }
    refuse_longer(name, base.tokens, lengths)
    if base.has_head:
        load_classifier(folder, name=name)
    else:
        complete_head(folder, params.seed)


def fetch_retriever(params: Params, packed: Path, folder: Path) -> None:
    """Fetch the retriever.

    Raises:
        InputError: it is no embedding model, or not one of these settings.
    """
    settings = params.retriever
    # The seed initialises a head, which the retriever does not use: with a fixed seed its files do
    # not depend on `seed`.
    fetch(settings, "retriever", packed, folder, seed=0)
    if settings.source == "e5-small":  # rebuilt with a head
        return
    name = f"retriever: {name_of(settings)}"
    found = identify(folder, name, "retriever")
    refuse_longer(name, found.tokens, {"retriever.max_length": settings.max_length})
    pooling = pooling_of(folder, name)
    if pooling not in (None, settings.pooling):
        raise InputError(
            f"retriever.pooling is {settings.pooling}, but {name} pools by {pooling}; "
            + (
                f"set retriever.pooling to {pooling}"
                if pooling in ("mean", "cls")
                else "give an embedding model that pools by mean or cls"
            )
        )


def fetch_reranker(source: Source, key: str, params: Params, packed: Path, folder: Path) -> None:
    """Fetch a reranker.

    Raises:
        InputError: it cannot score pairs of `score.max_length` tokens.
    """
    fetch(source, key, packed, folder, seed=0)
    name = f"{key}: {name_of(source)}"
    found = identify(folder, name, "reranker")
    refuse_longer(name, found.tokens, {"score.max_length": params.score.max_length})
    load_classifier(folder, name=name)


def write_placeholder(folder: Path, reason: str) -> None:
    """Write a folder with one file, because DVC does not store empty folders."""
    folder.mkdir()
    (folder / "none.txt").write_text(f"{reason}\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
