"""Candidates of every question from BM25 and the dense retriever, fused.

    python src/retrieve.py data/prepared models/retriever data/candidates
"""

from pathlib import Path

from reranker.files import read_jsonl, replacing, write_jsonl
from reranker.params import load
from reranker.passages import read_passages
from reranker.questions import SPLITS
from reranker.retrieval import Encoder, Retrieval
from reranker.stage import run_stage


def main(prepared: str, retriever: str, candidates: str) -> None:
    params = load()
    encoder = Encoder(retriever, params.retriever) if params.retrieve.dense else None
    retrieval = Retrieval(read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title), encoder, params.retrieve)
    with replacing(candidates) as folder:
        for split in SPLITS:
            path = Path(prepared, f"{split}.jsonl")
            with open(path, "rb") as lines:
                total = sum(1 for _ in lines)
            found = retrieval.candidates(read_jsonl(path), split, total)
            write_jsonl(folder / f"{split}.jsonl", ({"id": question["id"], "candidates": listed} for question, listed in found))


if __name__ == "__main__":
    run_stage(main)
