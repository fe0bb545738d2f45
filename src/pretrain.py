"""The base and the corpus -> a base that knows the corpus; with pretrain.epochs 0, the base as it is.

    python src/pretrain.py data/prepared data/candidates models/base models/retriever models/pretrained metrics/pretrain.json

An interrupted run finds its fragments again and goes on from its last resume point under .cache/pretrain.
"""

import shutil
import sys
from pathlib import Path

from reranker.allocator import keep_freed_memory
from reranker.errors import InputError, run_stage
from reranker.files import link_or_copy, read_jsonl, replacing, write_json, write_jsonl
from reranker.params import Params, load
from reranker.passages import read_passages
from reranker.pretraining import as_training, fragments, samples
from reranker.questions import SPLITS
from reranker.sampling import held_out_passages


def main(prepared: str, candidate_folder: str, base: str, retriever: str, pretrained: str, metrics: str) -> None:
    params = load()
    if params.pretrain.epochs:
        pretrain(params, prepared, candidate_folder, base, retriever, pretrained, metrics)
        return
    with replacing(pretrained) as folder:
        shutil.copytree(base, folder, copy_function=link_or_copy)
    write_json(metrics, {"samples": 0})
    print("pretrain.epochs is 0: the base as it is")


def pretrain(params: Params, prepared: str, candidate_folder: str, base: str, retriever: str, pretrained: str, metrics: str) -> None:
    # Imported here because loading torch and FlagEmbedding takes longer than linking a base that is left as it is.
    from reranker.retrieval import Encoder, Retrieval
    from reranker.training import keep_best, run_key, save_reranker, train
    from reranker.validation import Validation

    keep_freed_memory()
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    questions = {split: list(read_jsonl(Path(prepared, f"{split}.jsonl"))) for split in SPLITS}

    scratch = Path(".cache/pretrain")
    scratch.mkdir(parents=True, exist_ok=True)
    made = scratch / "samples.jsonl"
    left_out = held_out_passages(questions) if params.pretrain.passages == "train" else set()
    seen = {key: passage for key, passage in corpus.items() if key not in left_out}
    asked = fragments(seen, params.pretrain.fragments, params.seed)
    found = list(Retrieval(corpus, Encoder(retriever, params.retriever), params.retrieve).candidates(asked, "fragments"))
    count = write_jsonl(made, samples(asked, found, corpus, left_out, params))
    if not count:
        raise InputError("pretrain: no passage has a sentence to ask for; set pretrain.epochs to 0")

    settings, validation = as_training(params), None
    if questions["valid"]:
        candidates = {row["id"]: row["candidates"] for row in read_jsonl(Path(candidate_folder, "valid.jsonl"))}
        validation = Validation(questions["valid"], candidates, corpus, params.model_copy(update={"train": settings}))
    inputs = [made, *(Path(prepared, f"{name}.jsonl") for name in ("corpus", "valid")), Path(candidate_folder, "valid.jsonl")]
    resume = scratch / run_key(settings, params.seed, inputs, Path(base))
    runner = train(settings, params.seed, made, Path(base), resume, validation)
    best, _ = keep_best(runner)
    with replacing(pretrained) as folder:
        save_reranker(runner, folder, None)
    losses = [entry["loss"] for entry in runner.trainer.state.log_history if "loss" in entry]
    summary = {"samples": count, "optimizer_steps": runner.trainer.state.global_step, "loss_first": losses[0], "loss_last": losses[-1]}
    write_json(metrics, summary | best)
    if best.get("merge", {}).get("chosen") == 0:
        print("WARNING: pre-training ranks the validation questions no better, so models/pretrained IS the base", file=sys.stderr)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
