"""The fine-tuned reranker's scores of the candidates and of doubtful training labels -> data/scores.

    python src/score.py data/prepared data/candidates data/baseline models/reranker data/scores metrics/environment.json

A training label is doubtful where the base prefers another passage: only there can both models prefer one.
"""

from pathlib import Path

from reranker.candidate_scores import asked_candidates, prefers_another, score_labels
from reranker.device import describe_machine
from reranker.files import read_by_id, read_jsonl, replacing, write_json
from reranker.params import load
from reranker.passages import read_passages, read_questions
from reranker.scoring import CrossEncoder
from reranker.stage import run_stage
from reranker.ways import RANKED, write_scores


def main(prepared: str, candidate_folder: str, baseline: str, model: str, scores: str, environment: str) -> None:
    params = load()
    split = params.score.split
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions, training = (read_questions(Path(prepared, f"{name}.jsonl")) for name in (split, "train"))
    by_base = {row["id"]: row["scores"] for row in read_jsonl(Path(baseline, "train.jsonl"), ("id", "scores"))}
    doubtful = [question for question in training if question["id"] in by_base and prefers_another(question, by_base)]
    candidates, found = (
        read_by_id(Path(candidate_folder, f"{name}.jsonl"), "candidates", (question["id"] for question in asked))
        for name, asked in ((split, questions), ("train", doubtful))
    )
    encoder = CrossEncoder(model, params.score.max_length, params.score.precision, params.score.batch_tokens)
    with replacing(scores) as folder:
        scored = asked_candidates(questions, candidates, corpus, params).score(encoder, "with the fine-tuned")
        write_scores(folder / f"{split}.jsonl", scored)
        labels = score_labels(encoder, doubtful, found, corpus, params.retrieve, "doubtful labels with the fine-tuned")
        write_scores(folder / "train.jsonl", {RANKED: labels})
    write_json(environment, describe_machine(params.score.precision))


if __name__ == "__main__":
    run_stage(main)
