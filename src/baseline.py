"""The base's scores of the candidates, those of the rerankers to compare with, and the base's of training questions' labels:
computed once, and not again when training changes.

    python src/baseline.py data/prepared data/candidates models/base models/compare data/baseline
"""

from pathlib import Path

from reranker.candidate_scores import asked_candidates, audited, score_labels
from reranker.files import read_by_id, replacing
from reranker.params import load
from reranker.passages import read_passages, read_questions
from reranker.scoring import CrossEncoder
from reranker.stage import run_stage
from reranker.ways import RANKED, write_scores


def main(prepared: str, candidate_folder: str, model: str, compared: str, baseline: str) -> None:
    params = load()
    split = params.score.split
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions = read_questions(Path(prepared, f"{split}.jsonl"))
    trained = audited(read_questions(Path(prepared, "train.jsonl")))
    candidates, found = (
        read_by_id(Path(candidate_folder, f"{name}.jsonl"), "candidates", (question["id"] for question in asked))
        for name, asked in ((split, questions), ("train", trained))
    )

    asked = asked_candidates(questions, candidates, corpus, params)

    def encoder(folder: str | Path) -> CrossEncoder:
        return CrossEncoder(folder, params.score.max_length, params.score.precision, params.score.batch_tokens)

    with replacing(baseline) as folder:
        base = encoder(model)
        write_scores(folder / f"{split}.jsonl", asked.score(base, "with the base"))
        labels = score_labels(base, trained, found, corpus, params.retrieve, "training labels with the base")
        write_scores(folder / "train.jsonl", {RANKED: labels})
        del base  # one model in memory at a time
        for name in params.evaluate.compare:
            other = encoder(Path(compared, name))
            write_scores(folder / name / f"{split}.jsonl", asked.score(other, f"with {name}"))


if __name__ == "__main__":
    run_stage(main)
