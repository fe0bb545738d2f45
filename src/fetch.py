"""Checkpoints of the base reranker and of the dense retriever -> models/.

    python src/fetch.py models/bundled models/base models/retriever

Where both are e5-small the files are the same ones: links here, and one object in DVC's cache.
"""

import os
import shutil
from pathlib import Path

from reranker.checkpoints import complete_head
from reranker.errors import run_stage
from reranker.files import replacing
from reranker.params import load
from reranker.sources import fetch


def main(packed: str, base_folder: str, retriever_folder: str) -> None:
    params = load()
    with replacing(base_folder) as folder:
        fetch(params.base, "base", Path(packed), folder, params.seed)
        complete_head(folder, params.seed)
    print(f"{base_folder}: {params.base.repo or params.base.path or params.base.source}")

    with replacing(retriever_folder) as folder:
        if params.base.source == params.retriever.source == "e5-small":
            shutil.copytree(base_folder, folder, copy_function=link_or_copy)
        else:
            fetch(params.retriever, "retriever", Path(packed), folder, params.seed)
    print(f"{retriever_folder}: {params.retriever.repo or params.retriever.path or params.retriever.source}")


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


if __name__ == "__main__":
    run_stage(main)
