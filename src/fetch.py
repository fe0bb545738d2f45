"""Checkpoints of the base reranker, of the dense retriever and, where there is one, of the teacher -> models/.

    python src/fetch.py models/bundled models/base models/retriever models/teacher

Where both are e5-small the files are the same ones: links here, and one object in DVC's cache.
"""

import shutil
from pathlib import Path

from reranker.checkpoints import complete_head
from reranker.errors import run_stage
from reranker.files import link_or_copy, replacing
from reranker.params import load
from reranker.sources import fetch


def main(packed: str, base_folder: str, retriever_folder: str, teacher_folder: str) -> None:
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
        if params.teacher.source == "none":  # DVC keeps no empty folder
            folder.mkdir()
            (folder / "none.txt").write_text("teacher.source is none\n", encoding="utf-8")
        else:
            fetch(params.teacher, "teacher", Path(packed), folder, params.seed)


if __name__ == "__main__":
    run_stage(main)
