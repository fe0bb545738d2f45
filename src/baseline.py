"""The base reranker's scores of the candidates: computed once, and not again when training changes.

    python src/baseline.py data/prepared data/candidates models/base data/baseline
"""

from pathlib import Path

from reranker.errors import run_stage
from reranker.files import read_jsonl, replacing, write_jsonl
from reranker.params import load
from reranker.passages import read_passages
from reranker.reranking import score_candidates
from reranker.scoring import CrossEncoder


def main(prepared: str, candidate_folder: str, model: str, baseline: str) -> None:
    params = load()
    split = params.score.split
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions = list(read_jsonl(Path(prepared, f"{split}.jsonl")))
    candidates = {row["id"]: row["candidates"] for row in read_jsonl(Path(candidate_folder, f"{split}.jsonl"))}
    encoder = CrossEncoder(model, params.score.max_length, params.score.precision, params.score.batch_tokens)
    scores = score_candidates(encoder, questions, candidates, corpus, params.score.depth, params.retrieve, "with the base")
    with replacing(baseline) as folder:
        write_jsonl(folder / f"{split}.jsonl", ({"id": key, "scores": found} for key, found in scores.items()))


if __name__ == "__main__":
    run_stage(main)
