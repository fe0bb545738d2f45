"""Checkpoints of the base reranker, of the dense retriever, and of the teacher and the rerankers to compare with -> models/.

    python src/fetch.py models/bundled models/base models/retriever models/teacher models/compare

Where both are e5-small the files are the same ones: links here, and one object in DVC's cache.
"""

import shutil
from pathlib import Path

from reranker.checkpoints import complete_head, has_head
from reranker.errors import InputError
from reranker.files import link_or_copy, replacing
from reranker.params import Source, load
from reranker.sources import fetch
from reranker.stage import run_stage


def main(packed: str, base_folder: str, retriever_folder: str, teacher_folder: str, compare_folder: str) -> None:
    params = load()
    with replacing(base_folder) as folder:
        fetch(params.base, "base", Path(packed), folder, params.seed)
        complete_head(folder, params.seed)
    print(f"{base_folder}: {params.base.repo or params.base.path or params.base.source}")

    with replacing(retriever_folder) as folder:
        if params.base.source == params.retriever.source == "e5-small":
            shutil.copytree(base_folder, folder, copy_function=link_or_copy)
        else:
            # What a seed draws is a head that no retriever uses: with another seed it stays the same files.
            fetch(params.retriever, "retriever", Path(packed), folder, seed=0)
    print(f"{retriever_folder}: {params.retriever.repo or params.retriever.path or params.retriever.source}")

    with replacing(teacher_folder) as folder:
        if params.teacher.source == "none":
            nothing(folder, "teacher.source is none")
        else:
            fetch_reranker(params.teacher, "teacher", Path(packed), folder)

    with replacing(compare_folder) as folder:
        if not params.evaluate.compare:
            nothing(folder, "evaluate.compare is empty")
        for name, source in params.evaluate.compare.items():
            fetch_reranker(source, f"evaluate.compare.{name}", Path(packed), folder / name)
            print(f"{compare_folder}/{name}: {source.repo or source.path or source.source}")


def fetch_reranker(source: Source, key: str, packed: Path, folder: Path) -> None:
    fetch(source, key, packed, folder, seed=0)
    if not has_head(folder):
        raise InputError(f"{key}: {source.repo or source.path} is no reranker: it has no classification head to score pairs with")


def nothing(folder: Path, why: str) -> None:
    folder.mkdir()  # DVC keeps no empty folder
    (folder / "none.txt").write_text(f"{why}\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
