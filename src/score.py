"""Score the candidates and the doubtful training labels with the fine-tuned reranker.

    python src/score.py data/prepared data/candidates data/baseline models/reranker data/scores \\
      metrics/environment.json

A training label is doubtful where the base prefers another passage. `evaluate` lists a label only
where both models prefer the same one.
"""

from pathlib import Path

from tunerank.core.files import read_jsonl, replacing, write_json
from tunerank.core.stage import run_stage
from tunerank.data.passages import read_passages
from tunerank.data.questions import read_questions
from tunerank.models.device import describe_machine
from tunerank.models.readable import warn_unknown
from tunerank.params.load import load
from tunerank.reranking.scores import (
    candidate_task,
    load_encoder,
    prefers_another,
    read_candidates,
    score_labels,
)
from tunerank.reranking.ways import RANKED, write_scores


def main(
    prepared: str, candidate_folder: str, baseline: str, model: str, scores: str, environment: str
) -> None:
    params = load()
    split = params.score.split
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions, training = (
        read_questions(Path(prepared, f"{name}.jsonl")) for name in (split, "train")
    )
    base_labels = {
        row["id"]: row["scores"]
        for row in read_jsonl(Path(baseline, "train.jsonl"), ("id", "scores"))
    }
    doubtful = [
        question
        for question in training
        if question["id"] in base_labels and prefers_another(question, base_labels)
    ]
    candidates, of_doubtful = read_candidates(
        candidate_folder, {split: questions, "train": doubtful}
    )
    encoder = load_encoder(model, params)
    with replacing(scores) as folder:
        task = candidate_task(questions, candidates, corpus, params)
        warn_unknown(encoder.tokenizer, model, task.texts(), "another base (base.source)")
        write_scores(folder / f"{split}.jsonl", task.score(encoder, "with the fine-tuned"))
        what = "doubtful labels with the fine-tuned"
        labels = score_labels(encoder, doubtful, of_doubtful, corpus, params.retrieve, what)
        write_scores(folder / "train.jsonl", {RANKED: labels})
    write_json(environment, describe_machine(params.score.precision))


if __name__ == "__main__":
    run_stage(main)
