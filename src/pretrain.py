"""Pre-train the base on the corpus (with pretrain.epochs 0 copy it), and score how it ranks.

    python src/pretrain.py data/prepared data/candidates models/base models/retriever \\
      models/pretrained data/start metrics/pretrain.json

data/start has its scores of the validation questions, which no parameter of `train` changes. An
interrupted run draws the same fragments and continues from its last checkpoint under
.cache/pretrain.
"""

import shutil
import sys
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import link_or_copy, read_by_id, replacing, write_json, write_jsonl
from tunerank.core.stage import run_stage
from tunerank.data.passages import SPLITS, Passage, read_passages
from tunerank.data.questions import read_questions
from tunerank.models.checkpoint import load_classifier
from tunerank.models.device import best_device
from tunerank.params.load import Params, load
from tunerank.params.train import Train
from tunerank.pretraining import as_training, fragment_samples, fragments
from tunerank.reranking.ways import Scores, write_scores
from tunerank.samples.negatives import held_out_passages
from tunerank.training.preflight import keep_freed_memory
from tunerank.training.validation import Validation

SCRATCH = Path(".cache/pretrain")


def main(
    prepared: str,
    candidate_folder: str,
    base: str,
    retriever: str,
    pretrained: str,
    start: str,
    metrics: str,
) -> Path:
    keep_freed_memory()
    params = load()
    settings = as_training(params) if params.pretrain.epochs else params.train
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions = {split: read_questions(Path(prepared, f"{split}.jsonl")) for split in SPLITS}
    validation = None
    if questions["valid"]:
        keys = [question["id"] for question in questions["valid"]]
        candidates = read_by_id(Path(candidate_folder, "valid.jsonl"), "candidates", keys)
        validation_params = params.model_copy(update={"train": settings})
        validation = Validation(questions["valid"], candidates, corpus, validation_params)

    if params.pretrain.epochs:
        samples = SCRATCH / "samples.jsonl"
        count = write_samples(samples, params, corpus, questions, retriever)
        inputs = [
            samples,
            Path(prepared, "corpus.jsonl"),
            Path(prepared, "valid.jsonl"),
            Path(candidate_folder, "valid.jsonl"),
        ]
        summary, scores = pretrain(params, settings, inputs, base, pretrained, validation)
        summary = {"samples": count} | summary
    else:
        scores, summary = {}, {"samples": 0}
        if validation:
            model, tokenizer = load_classifier(base)
            scores = validation.score(model.to(best_device()), tokenizer)
        with replacing(pretrained) as folder:
            shutil.copytree(base, folder, copy_function=link_or_copy)
        print("pretrain.epochs is 0: models/pretrained is the base, unchanged")
    with replacing(start) as folder:
        write_scores(folder / "valid.jsonl", scores)
    write_json(metrics, summary)
    if summary.get("merge", {}).get("chosen") == 0:
        print(
            "WARNING: pre-training ranks the validation questions no better, so models/pretrained "
            "IS the base",
            file=sys.stderr,
        )
    return SCRATCH


def write_samples(
    path: Path,
    params: Params,
    corpus: dict[str, Passage],
    questions: dict[str, list[dict]],
    retriever: str,
) -> int:
    """Write a sample for each fragment of the corpus; return how many."""
    # Imported here because they import jieba and bm25s.
    from tunerank.retrieval.candidates import Retrieval
    from tunerank.retrieval.retrievers import DenseEncoder

    left_out = held_out_passages(questions) if params.pretrain.passages == "train" else set()
    allowed = {key: passage for key, passage in corpus.items() if key not in left_out}
    asked = fragments(allowed, params.pretrain.fragments, params.seed)
    retrieval = Retrieval(corpus, DenseEncoder(retriever, params.retriever), params.retrieve)
    candidates = [found for _, found in retrieval.candidates(asked, "fragments")]
    path.parent.mkdir(parents=True, exist_ok=True)
    count = write_jsonl(path, fragment_samples(asked, candidates, corpus, left_out, params))
    if not count:
        raise InputError("pretrain: no passage has a sentence to ask for; set pretrain.epochs to 0")
    return count


def pretrain(
    params: Params,
    settings: Train,
    inputs: list[Path],
    base: str,
    pretrained: str,
    validation: Validation | None,
) -> tuple[dict, dict[str, Scores]]:
    """Train the base on the samples and write it; return the summary and the validation scores.

    Args:
        inputs: the samples, and the files of the validation questions.
    """
    # Imported here because FlagEmbedding takes seconds to import.
    from tunerank.training.resume import run_key
    from tunerank.training.selection import save_reranker, select_best
    from tunerank.training.trainer import run_training

    score_settings = params.score.max_length, params.score.batch_tokens
    scratch = SCRATCH / run_key(settings, params.seed, inputs, Path(base), *score_settings)
    runner = run_training(
        settings, params.seed, inputs[0], Path(base), scratch, validation, "pretrain"
    )
    choice, scores = select_best(runner)
    with replacing(pretrained) as folder:
        save_reranker(runner, folder, None)
    state = runner.trainer.state
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    steps = {
        "optimizer_steps": state.global_step,
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }
    return steps | choice, scores


if __name__ == "__main__":
    run_stage(main)
