"""Stage fetch: base, retriever, teacher and the rerankers to compare with -> models/.

    python src/fetch.py models/bundled models/base models/retriever models/teacher models/compare

If base and retriever are both e5-small, their files are hard links, and DVC's cache has them once.
"""

import shutil
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import link_or_copy, replacing
from tunerank.core.stage import run_stage
from tunerank.models.checkpoint import complete_head, has_head
from tunerank.params.base import Source
from tunerank.params.load import load
from tunerank.sources.fetch import fetch


def main(
    packed: str, base_folder: str, retriever_folder: str, teacher_folder: str, compare_folder: str
) -> None:
    params = load()
    with replacing(base_folder) as folder:
        fetch(params.base, "base", Path(packed), folder, params.seed)
        complete_head(folder, params.seed)
    print(f"{base_folder}: {name_of(params.base)}")

    with replacing(retriever_folder) as folder:
        if params.base.source == params.retriever.source == "e5-small":
            shutil.copytree(base_folder, folder, copy_function=link_or_copy)
        else:
            # The seed initialises a head, which the retriever does not use: with a fixed seed its
            # files do not depend on `seed`.
            fetch(params.retriever, "retriever", Path(packed), folder, seed=0)
    print(f"{retriever_folder}: {name_of(params.retriever)}")

    with replacing(teacher_folder) as folder:
        if params.teacher.source == "none":
            write_placeholder(folder, "teacher.source is none")
        else:
            fetch_reranker(params.teacher, "teacher", Path(packed), folder)

    with replacing(compare_folder) as folder:
        if not params.evaluate.compare:
            write_placeholder(folder, "evaluate.compare is empty")
        for name, source in params.evaluate.compare.items():
            fetch_reranker(source, f"evaluate.compare.{name}", Path(packed), folder / name)
            print(f"{compare_folder}/{name}: {name_of(source)}")


def name_of(source: Source) -> str:
    return source.repo or source.path or source.source


def fetch_reranker(source: Source, key: str, packed: Path, folder: Path) -> None:
    """Fetch a checkpoint and refuse one that cannot score pairs."""
    fetch(source, key, packed, folder, seed=0)
    if not has_head(folder):
        raise InputError(
            f"{key}: {name_of(source)} is not a reranker: it has no classification head to score "
            "pairs with; use another checkpoint"
        )


def write_placeholder(folder: Path, reason: str) -> None:
    """Write a folder with one file, because DVC does not store empty folders."""
    folder.mkdir()
    (folder / "none.txt").write_text(f"{reason}\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
