"""Retrieve the candidates of every question by BM25 and the dense retriever, fused.

python src/retrieve.py data/prepared models/retriever data/candidates
"""

from collections.abc import Container, Iterator
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl, regular, replacing, write_jsonl
from tunerank.core.stage import run_stage
from tunerank.data.passages import SPLITS, read_passages
from tunerank.params.load import load
from tunerank.retrieval.candidates import Retrieval
from tunerank.retrieval.retrievers import DenseEncoder


def main(prepared: str, retriever: str, candidate_folder: str) -> None:
    params = load()
    passages = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    encoder = DenseEncoder(retriever, params.retriever) if params.retrieve.dense else None
    retrieval = Retrieval(passages, encoder, params.retrieve)
    with replacing(candidate_folder) as folder:
        for split in SPLITS:
            path = Path(prepared, f"{split}.jsonl")
            with open(regular(path), "rb") as lines:
                total = sum(1 for _ in lines)
            retrieved = retrieval.candidates(read_checked(path, passages), split, total)
            write_jsonl(
                folder / f"{split}.jsonl",
                ({"id": question["id"], "candidates": found} for question, found in retrieved),
            )


def read_checked(path: Path, passages: Container[str]) -> Iterator[dict]:
    """Yield the questions of a split.

    Raises:
        InputError: a question is about a passage that is not in the corpus.
    """
    for question in read_jsonl(path, ("id", "question", "passage")):
        if question["passage"] not in passages:
            raise InputError(
                f"{path}: question {question['id']!r} is about passage {question['passage']!r}, "
                "which is not in corpus.jsonl; run dvc repro prepare --force"
            )
        yield question


if __name__ == "__main__":
    run_stage(main)
