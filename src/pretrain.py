"""The base and the corpus -> a base that knows the corpus; with pretrain.epochs 0, the base as it is. And its scores of the
validation questions, which no parameter of training changes.

    python src/pretrain.py data/prepared data/candidates models/base models/retriever models/pretrained data/start metrics/pretrain.json

An interrupted run finds its fragments again and goes on from its last resume point under .cache/pretrain.
"""

import shutil
import sys
from pathlib import Path

from reranker.checkpoints import load_reranker
from reranker.errors import InputError
from reranker.files import link_or_copy, read_by_id, replacing, write_json, write_jsonl
from reranker.memory import keep_freed_memory
from reranker.params import Params, load
from reranker.passages import SPLITS, Passage, read_passages, read_questions
from reranker.pretraining import as_training, fragments, samples
from reranker.sampling import held_out_passages
from reranker.stage import run_stage
from reranker.validation import Validation
from reranker.ways import write_scores

SCRATCH = Path(".cache/pretrain")


def main(prepared: str, candidate_folder: str, base: str, retriever: str, pretrained: str, start: str, metrics: str) -> Path:
    keep_freed_memory()
    params = load()
    settings = as_training(params) if params.pretrain.epochs else params.train
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions = {split: read_questions(Path(prepared, f"{split}.jsonl")) for split in SPLITS}
    validation = None
    if questions["valid"]:
        keys = [question["id"] for question in questions["valid"]]
        candidates = read_by_id(Path(candidate_folder, "valid.jsonl"), "candidates", keys)
        validation = Validation(questions["valid"], candidates, corpus, params.model_copy(update={"train": settings}))

    if params.pretrain.epochs:
        # Imported here because FlagEmbedding takes seconds to import.
        from reranker.training import keep_best, run_key, save_reranker, train

        made = SCRATCH / "samples.jsonl"
        count = write_samples(made, params, corpus, questions, retriever)
        valid = [Path(prepared, "corpus.jsonl"), Path(prepared, "valid.jsonl"), Path(candidate_folder, "valid.jsonl")]
        shown = (params.score.max_length, params.score.batch_tokens)  # how the validation questions are scored on the way
        resume = SCRATCH / run_key(settings, params.seed, [made, *valid], Path(base), *shown)
        runner = train(settings, params.seed, made, Path(base), resume, validation, "pretrain")
        best, scores = keep_best(runner)
        with replacing(pretrained) as folder:
            save_reranker(runner, folder, None)
        losses = [entry["loss"] for entry in runner.trainer.state.log_history if "loss" in entry]
        steps = {"optimizer_steps": runner.trainer.state.global_step, "loss_first": losses[0], "loss_last": losses[-1]}
        summary = {"samples": count} | steps | best
    else:
        scores, summary = validation.score(*load_reranker(base)) if validation else {}, {"samples": 0}
        with replacing(pretrained) as folder:
            shutil.copytree(base, folder, copy_function=link_or_copy)
        print("pretrain.epochs is 0: the base as it is")
    with replacing(start) as folder:
        write_scores(folder / "valid.jsonl", scores)
    write_json(metrics, summary)
    if summary.get("merge", {}).get("chosen") == 0:
        print("WARNING: pre-training ranks the validation questions no better, so models/pretrained IS the base", file=sys.stderr)
    return SCRATCH


def write_samples(
    made: Path, params: Params, corpus: dict[str, Passage], questions: dict[str, list[dict]], retriever: str
) -> int:
    from reranker.retrieval import Encoder, Retrieval  # which imports jieba and bm25s

    left_out = held_out_passages(questions) if params.pretrain.passages == "train" else set()
    seen = {key: passage for key, passage in corpus.items() if key not in left_out}
    asked = fragments(seen, params.pretrain.fragments, params.seed)
    retrieval = Retrieval(corpus, Encoder(retriever, params.retriever), params.retrieve)
    found = [listed for _, listed in retrieval.candidates(asked, "fragments")]
    made.parent.mkdir(parents=True, exist_ok=True)
    count = write_jsonl(made, samples(asked, found, corpus, left_out, params))
    if not count:
        raise InputError("pretrain: no passage has a sentence to ask for; set pretrain.epochs to 0")
    return count


if __name__ == "__main__":
    run_stage(main)
