"""Compare training by FlagEmbedding, sentence-transformers and this project, on the same groups.

    dvc repro samples && python benchmarks/training.py [--settings article] [--steps 7] [--turns 3]
      [--model models/base]

Each turn is a process of its own and the systems take turns. Pairs a second are those of the steps
after the first; repeated pairs count, whether a system scores them again or not. The table also has
the loss of the first and the last step, and MRR@10 of the first 48 validation questions over their
first 5 candidates, one view each, by the trained weights.

- FlagEmbedding: its runner with its defaults, the model's own dropout, all weights trained.
- sentence-transformers: its CrossEncoderTrainer with the same loss (MultipleNegativesRankingLoss
  without negatives from the batch, scale 1, no activation), bf16 if the CPU has AMX.
- the same work here: the model's own dropout, all weights trained.
- this project: as in params.yaml, without dropout and with frozen word embeddings.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import turns

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))

SETTINGS = {
    # Groups in a forward pass, forward passes in an optimizer step, passages in a group, learning
    # rate.
    "default": {"batch_size": 4, "accumulation": 1, "group_size": 5, "lr": 1e-4},
    # 32 groups of 32 are 1024 pairs: a step here has 4 of the article's 32 forward passes, which
    # does not change the speed.
    "article": {"batch_size": 1, "accumulation": 4, "group_size": 32, "lr": 1e-5},
}
SYSTEMS = ("FlagEmbedding", "sentence-transformers", "the same work here", "this project")
QUESTIONS, CANDIDATES = 48, 5


def draw_groups(settings: str, count: int) -> list[dict]:
    """Return the first groups of the training: {query, pos: [text], neg: [text]}.

    neg has group_size - 1 texts, repeated if a sample has fewer.
    """
    from tunerank.core.files import read_jsonl
    from tunerank.samples.negatives import all_negatives

    if settings == "default":
        samples = list(read_jsonl(ROOT / "data/samples/train.jsonl"))
    else:
        rows = [row for row in read_jsonl(ROOT / "data/prepared/train.jsonl") if row["context"]]
        questions = [row["question"] for row in rows]
        samples = list(all_negatives(questions, lambda _, other: rows[other]["context"], 16, 32))
    size, step = SETTINGS[settings]["group_size"] - 1, len(samples) // count
    return [
        {
            "query": row["query"],
            "pos": row["pos"][:1],
            "neg": [row["neg"][i % len(row["neg"])] for i in range(size)],
        }
        for row in samples[::step][:count]
    ]


def clock():
    """Return a trainer's callback; its `ends` are the times at which the optimizer steps ended."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.ends: list[float] = []

        def on_step_end(self, args, state, control, **kwargs):
            self.ends.append(time.perf_counter())

    return Clock()


def flag_embedding(model: str, groups: str, settings: dict, folder: str):
    from FlagEmbedding.abc.finetune.reranker import (
        AbsRerankerDataArguments,
        AbsRerankerModelArguments,
        AbsRerankerTrainingArguments,
    )
    from FlagEmbedding.finetune.reranker.encoder_only.base import EncoderOnlyRerankerRunner

    runner = EncoderOnlyRerankerRunner(
        AbsRerankerModelArguments(model_name_or_path=model),
        AbsRerankerDataArguments(
            train_data=[groups],
            train_group_size=settings["group_size"],
            query_max_len=64,
            passage_max_len=448,
            cache_path=folder,
        ),
        AbsRerankerTrainingArguments(
            output_dir=folder,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            **common(settings),
        ),
    )
    return runner.trainer, runner.model.model, runner.tokenizer


def sentence_transformers(model: str, groups: str, settings: dict, folder: str):
    import torch
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import MultipleNegativesRankingLoss
    from torch.utils.data import BatchSampler, SequentialSampler

    from tunerank.core.files import read_jsonl
    from tunerank.models.device import choose_precision

    class GroupLoss(MultipleNegativesRankingLoss):
        def get_in_batch_negatives(self, anchors, candidates):
            return iter(())

    rows = list(read_jsonl(groups))
    columns = {"query": [row["query"] for row in rows], "positive": [row["pos"][0] for row in rows]}
    columns |= {
        f"negative_{i}": [row["neg"][i] for row in rows] for i in range(settings["group_size"] - 1)
    }
    encoder = CrossEncoder(model, num_labels=1, max_length=512)
    trainer = CrossEncoderTrainer(
        model=encoder,
        args=CrossEncoderTrainingArguments(
            output_dir=folder,
            bf16=choose_precision("auto") == "bf16",
            batch_sampler=lambda data, batch_size, drop_last, **_: BatchSampler(
                SequentialSampler(data), batch_size, drop_last
            ),
            **{
                name: value
                for name, value in common(settings).items()
                if name != "train_sampling_strategy"
            },
        ),
        train_dataset=Dataset.from_dict(columns),
        loss=GroupLoss(encoder, scale=1.0, activation_fn=torch.nn.Identity()),
    )
    return trainer, encoder.model, encoder.tokenizer


def common(settings: dict) -> dict:
    return {
        "per_device_train_batch_size": settings["batch_size"],
        "gradient_accumulation_steps": settings["accumulation"],
        "learning_rate": settings["lr"],
        "train_sampling_strategy": "sequential",
        "num_train_epochs": 1,
        "dataloader_drop_last": True,
        "warmup_steps": 0.1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 42,
    }


def ours(model: str, groups: str, settings: dict, folder: str, as_configured: bool):
    from tunerank.core.files import read_jsonl, write_jsonl
    from tunerank.params.load import load
    from tunerank.training.preflight import keep_freed_memory
    from tunerank.training.trainer import Runner

    keep_freed_memory()
    own = {} if as_configured else {"dropout": None, "freeze_embeddings": False}
    params = load(ROOT / "params.yaml").train.model_copy(
        update={
            "epochs": 1.0,
            "logging_steps": 1,
            "save_steps": 10**6,
            "distill_weight": 0.0,
            "scheduler": "linear",
            **settings,
            **own,
        }
    )
    rows, arranged = list(read_jsonl(groups)), Path(folder, "arranged.jsonl")
    order = list(range(len(rows)))
    # GroupDataset draws its first epoch like this, so that training follows the order of the file.
    random.Random("42:0").shuffle(order)
    write_jsonl(arranged, (row for _, row in sorted(zip(order, rows), key=lambda pair: pair[0])))
    runner = Runner(params, 42, arranged, Path(model), Path(folder, "scratch"))
    assert [runner.train_dataset.order(0)[i] for i in range(len(rows))] == order
    return runner.trainer, runner.model.model, runner.tokenizer


def timed(system: str, model: str, groups: str, settings: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        if system == "FlagEmbedding":
            trainer, trained, tokenizer = flag_embedding(model, groups, settings, folder)
        elif system == "sentence-transformers":
            trainer, trained, tokenizer = sentence_transformers(model, groups, settings, folder)
        else:
            trainer, trained, tokenizer = ours(
                model, groups, settings, folder, system == "this project"
            )
        steps = clock()
        trainer.add_callback(steps)
        trainer.train()
    pairs = (
        (len(steps.ends) - 1)
        * settings["batch_size"]
        * settings["accumulation"]
        * settings["group_size"]
    )
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "rate": pairs / (steps.ends[-1] - steps.ends[0]),
        "first": losses[0],
        "last": losses[-1],
        "MRR@10": quality(trained, tokenizer),
    }


def quality(model, tokenizer) -> float:
    from tunerank.core.files import read_jsonl
    from tunerank.data.passages import read_passages
    from tunerank.params.load import load
    from tunerank.training.validation import Validation

    params = load(ROOT / "params.yaml")
    params = params.model_copy(
        update={"train": params.train.model_copy(update={"valid_depth": CANDIDATES})}
    )
    questions = list(read_jsonl(ROOT / "data/prepared/valid.jsonl"))[:QUESTIONS]
    candidates = {
        row["id"]: [
            candidate | {"views": candidate["views"][:1]} for candidate in row["candidates"]
        ]
        for row in read_jsonl(ROOT / "data/candidates/valid.jsonl")
    }
    validation = Validation(
        questions,
        candidates,
        read_passages(ROOT / "data/prepared/corpus.jsonl", params.retrieve.title),
        params,
    )
    return validation.measure(validation.score(model, tokenizer))["MRR@10"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", choices=SETTINGS, default="default")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", default=str(ROOT / "models/base"))
    # One system's turn, in a process of its own.
    parser.add_argument("--turn", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = SETTINGS[options.settings]
    if options.turn:
        print(json.dumps(timed(options.turn[0], options.model, options.turn[1], settings)))
        return

    from tunerank.core.files import write_jsonl
    from tunerank.models.device import describe_machine

    with tempfile.TemporaryDirectory() as folder:
        groups = str(Path(folder, "groups.jsonl"))
        write_jsonl(
            groups,
            draw_groups(
                options.settings, options.steps * settings["batch_size"] * settings["accumulation"]
            ),
        )
        own = ["--settings", options.settings, "--model", options.model]
        found = turns.take_turns(
            SYSTEMS, options.turns, lambda system: [__file__, *own, "--turn", system, groups]
        )
    print(json.dumps(describe_machine("auto")))
    print(f"{options.settings}: {settings}, {options.steps} optimizer steps, {options.turns} turns")
    print(
        "| | pairs/s, median | each turn | ratio | loss, first and last step | MRR@10 |\n"
        "|---|---|---|---|---|---|"
    )
    first = statistics.median(one["rate"] for one in found[SYSTEMS[0]])
    for system, results in found.items():
        rates, last = [one["rate"] for one in results], results[-1]
        each = ", ".join(f"{rate:.2f}" for rate in rates)
        middle = statistics.median(rates)
        print(
            f"| {system} | {middle:.2f} | {each} | {middle / first:.2f} "
            f"| {last['first']:.3f}, {last['last']:.3f} | {last['MRR@10']:.3f} |"
        )


if __name__ == "__main__":
    main()
