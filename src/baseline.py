"""Score the candidates with the base and the rerankers to compare with; no training changes these.

    python src/baseline.py data/prepared data/candidates models/base models/compare data/baseline

The base also scores the label audit's training questions.
"""

from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import replacing
from tunerank.core.stage import run_stage
from tunerank.data.passages import read_passages
from tunerank.data.questions import read_questions
from tunerank.models.readable import warn_unknown
from tunerank.params.load import load
from tunerank.reranking.scores import (
    candidate_task,
    load_encoder,
    read_candidates,
    sample_for_audit,
    score_labels,
)
from tunerank.reranking.ways import RANKED, write_scores


def main(prepared: str, candidate_folder: str, model: str, compared: str, baseline: str) -> None:
    params = load()
    split = params.score.split
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions = read_questions(Path(prepared, f"{split}.jsonl"))
    if not questions:
        raise InputError(
            f"{prepared}/{split}.jsonl: there is no question to rank; set score.split to another "
            "split, or prepare.valid_fraction above 0"
        )
    audited = sample_for_audit(read_questions(Path(prepared, "train.jsonl")))
    candidates, of_audit = read_candidates(candidate_folder, {split: questions, "train": audited})
    task = candidate_task(questions, candidates, corpus, params)
    with replacing(baseline) as folder:
        base = load_encoder(model, params)
        warn_unknown(base.tokenizer, model, task.texts(), "another base (base.source)")
        write_scores(folder / f"{split}.jsonl", task.score(base, "with the base"))
        what = "training labels with the base"
        labels = score_labels(base, audited, of_audit, corpus, params.retrieve, what)
        write_scores(folder / "train.jsonl", {RANKED: labels})
        del base  # one model in memory at a time
        for name in params.evaluate.compare:
            other = load_encoder(Path(compared, name), params)
            warn_unknown(other.tokenizer, name, task.texts(), "another reranker")
            write_scores(folder / name / f"{split}.jsonl", task.score(other, f"with {name}"))


if __name__ == "__main__":
    run_stage(main)
