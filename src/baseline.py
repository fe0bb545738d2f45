"""The base reranker's scores of the candidates, and of training questions' labels: computed once, and not again when training
changes.

    python src/baseline.py data/prepared data/candidates models/base data/baseline
"""

from pathlib import Path

from reranker.errors import run_stage
from reranker.files import read_jsonl, replacing, write_jsonl
from reranker.params import load
from reranker.passages import read_passages
from reranker.reranking import audited, score_candidates, score_labels
from reranker.scoring import CrossEncoder


def main(prepared: str, candidate_folder: str, model: str, baseline: str) -> None:
    params = load()
    split = params.score.split
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions = list(read_jsonl(Path(prepared, f"{split}.jsonl")))
    candidates = {row["id"]: row["candidates"] for row in read_jsonl(Path(candidate_folder, f"{split}.jsonl"))}
    encoder = CrossEncoder(model, params.score.max_length, params.score.precision, params.score.batch_tokens)
    scores = score_candidates(encoder, questions, candidates, corpus, params.score.depth, params.retrieve, "with the base")
    trained = audited(list(read_jsonl(Path(prepared, "train.jsonl"))))
    names = {question["id"] for question in trained}
    found = {row["id"]: row["candidates"] for row in read_jsonl(Path(candidate_folder, "train.jsonl")) if row["id"] in names}
    labels = score_labels(encoder, trained, found, corpus, params.retrieve, "training labels with the base")
    with replacing(baseline) as folder:
        for name, made in ((split, scores), ("train", labels)):
            write_jsonl(folder / f"{name}.jsonl", ({"id": key, "scores": value} for key, value in made.items()))


if __name__ == "__main__":
    run_stage(main)
