"""Candidates of every question from BM25 and the dense retriever, fused.

    python src/retrieve.py data/prepared models/retriever data/candidates
"""

from collections.abc import Container, Iterator
from pathlib import Path

from reranker.errors import InputError
from reranker.files import read_jsonl, regular, replacing, write_jsonl
from reranker.params import load
from reranker.passages import SPLITS, read_passages
from reranker.retrieval import Encoder, Retrieval
from reranker.stage import run_stage


def main(prepared: str, retriever: str, candidates: str) -> None:
    params = load()
    passages = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    encoder = Encoder(retriever, params.retriever) if params.retrieve.dense else None
    retrieval = Retrieval(passages, encoder, params.retrieve)
    with replacing(candidates) as folder:
        for split in SPLITS:
            path = Path(prepared, f"{split}.jsonl")
            with open(regular(path), "rb") as lines:
                total = sum(1 for _ in lines)
            found = retrieval.candidates(asked(path, passages), split, total)
            write_jsonl(folder / f"{split}.jsonl", ({"id": question["id"], "candidates": listed} for question, listed in found))


def asked(path: Path, passages: Container[str]) -> Iterator[dict]:
    for question in read_jsonl(path, ("id", "question", "passage")):
        if question["passage"] not in passages:
            raise InputError(
                f"{path}: question {question['id']!r} is about passage {question['passage']!r}, which is not in corpus.jsonl; "
                "run dvc repro prepare --force"
            )
        yield question


if __name__ == "__main__":
    run_stage(main)
