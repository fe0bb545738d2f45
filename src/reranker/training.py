"""Fine-tune a cross-encoder with FlagEmbedding's runner, with its bugs fixed.

What differs from FlagEmbedding 1.4.2, beside the groups and the loss (groups.py): weights are float32 whatever the
checkpoint stores; a resumed run loads them; validation questions guide it (validation.py); no pickle is in the output.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from FlagEmbedding.abc.finetune.reranker import (
    AbsRerankerDataArguments,
    AbsRerankerModelArguments,
    AbsRerankerTrainingArguments,
)
from FlagEmbedding.finetune.reranker.encoder_only.base import EncoderOnlyRerankerRunner, EncoderOnlyRerankerTrainer
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
)

from reranker.checkpoints import save
from reranker.device import choose_precision, set_attention
from reranker.errors import InputError, memory_ran_out
from reranker.files import file_digest, write_text
from reranker.first_token import first_token_only
from reranker.groups import MOST_TOKENS, OVERHEAD, GroupCollator, GroupDataset, GroupModel
from reranker.memory import free_memory, training_memory
from reranker.params import Train
from reranker.safe_checkpoint import refuse_unsafe
from reranker.trackers import attach, prepare, run_name
from reranker.validation import Guide, Validation, choose_merge, curve
from reranker.watch import Watch

DIGESTS = "digests.json"
"""Of a resume point's files, by name."""

LESS_MEMORY = {
    "train": "lower train.batch_size (and raise train.accumulation as much), train.group_size, train.passage_max_length or "
    "retrieve.shown, or set train.gradient_checkpointing to true",
    "pretrain": "lower pretrain.batch_size, pretrain.group_size, train.passage_max_length or retrieve.shown, or set "
    "train.gradient_checkpointing to true",
}


class ResumableTrainer(EncoderOnlyRerankerTrainer):
    """FlagEmbedding's trainer with resumable, pickle-free checkpoints. `evaluate` reranks the validation questions."""

    validation: Validation | None = None

    def _save(self, output_dir=None, state_dict=None):
        self.model.save_pretrained(output_dir or self.args.output_dir)

    def _save_rng_state(self, output_dir):
        """The last of a resume point's files but trainer_state.json: what is there by now gets its digest."""
        super()._save_rng_state(output_dir)
        if self.args.should_save:
            names = sorted(path.name for path in Path(output_dir).iterdir() if not path.name.startswith("rng_state_"))
            write_text(Path(output_dir, DIGESTS), json.dumps({name: file_digest(Path(output_dir, name)) for name in names}))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        self.model.model.load_state_dict(load_file(Path(resume_from_checkpoint, "model.safetensors")))

    def evaluate(self, *args, **kwargs):
        scores = self.validation.start if self.state.global_step == 0 else None
        if scores is None:
            scores = self.validation.score(self.model.model, self.processing_class)
        if self.is_world_process_zero():  # for keep_best, which may be another process after a resumption
            write_text(scores_path(self.args.output_dir, self.state.global_step), json.dumps(scores))
        measured = self.validation.measure(scores)
        metrics = {f"eval_{name}": value for name, value in {**measured, "value": self.validation.value(measured)}.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class Progress(TrainerCallback):
    """Progress bar in samples, so that rate and ETA stay right after a resume."""

    def __init__(self, samples_per_step: int, total: int):
        self.samples_per_step, self.total = samples_per_step, total

    def on_train_begin(self, args, state, control, **kwargs):
        done = min(self.total, state.global_step * self.samples_per_step)
        self.bar = tqdm(total=self.total, initial=done, desc="train", unit="sample", disable=not state.is_world_process_zero)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(min(self.samples_per_step, self.total - self.bar.n))
        # A curve ends where training ends; and a mean that began before a resume point would be another after it.
        control.should_log |= control.should_save or state.global_step == state.max_steps

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", lr=f"{float(logs['learning_rate']):.2g}")

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class Runner(EncoderOnlyRerankerRunner):
    """FlagEmbedding's runner, with `params` in place of its command line; `stage` as `train` below."""

    def __init__(
        self,
        params: Train,
        seed: int,
        samples: Path,
        base: Path,
        scratch: Path,
        validation: Validation | None = None,
        stage: str = "train",
    ):
        self.params, self.seed, self.validation, self.stage = params, seed, validation, stage
        self.precision = precision = choose_precision(params.precision)
        # transformers takes this where neither fp16 nor bf16 is asked for, and `accelerate launch` sets it from a file at home.
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no" if precision == "fp32" else precision
        super().__init__(
            AbsRerankerModelArguments(model_name_or_path=str(base)),
            AbsRerankerDataArguments(
                train_data=[str(samples)],
                train_group_size=params.group_size,
                knowledge_distillation=params.distill_weight > 0,
                query_max_len=params.query_max_length,
                passage_max_len=params.passage_max_length,
            ),
            AbsRerankerTrainingArguments(
                output_dir=str(scratch),
                seed=seed,
                learning_rate=params.lr,
                num_train_epochs=1,  # GroupDataset holds all epochs
                train_sampling_strategy="sequential",
                per_device_train_batch_size=params.batch_size,
                gradient_accumulation_steps=params.accumulation,
                dataloader_drop_last=params.drop_last,
                dataloader_num_workers=params.workers,
                dataloader_pin_memory=torch.cuda.is_available(),
                warmup_steps=params.warmup_ratio,
                lr_scheduler_type=params.scheduler,
                weight_decay=params.weight_decay,
                max_grad_norm=params.max_grad_norm,
                fp16=precision == "fp16",
                bf16=precision == "bf16",
                use_cpu=not torch.cuda.is_available(),
                gradient_checkpointing=params.gradient_checkpointing,
                logging_steps=params.logging_steps,
                save_strategy="steps",
                save_steps=params.save_steps,
                save_total_limit=params.save_total_limit,
                metric_for_best_model="value" if validation else None,
                greater_is_better=True,
                remove_unused_columns=False,
                disable_tqdm=True,
                run_name=run_name(scratch),
                report_to=prepare(params.report_to, run_name(scratch)),
            ),
        )

    def load_tokenizer_and_model(self):
        folder = self.model_args.model_name_or_path
        refuse_unsafe(Path(folder), folder)
        config = AutoConfig.from_pretrained(folder, num_labels=1)
        self.own_dropout = {name: value for name, value in config.to_dict().items() if "dropout" in name}
        if self.params.dropout is not None:
            for name in self.own_dropout:
                setattr(config, name, self.params.dropout)
        model = AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32)
        set_attention(model, self.precision, training=True)
        if self.params.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        grouped = GroupModel(first_token_only(model), tokenizer=tokenizer)
        grouped.group_size = self.params.group_size
        grouped.distill_weight, grouped.distill_temperature = self.params.distill_weight, self.params.distill_temperature
        if self.params.gradient_checkpointing:
            grouped.enable_input_require_grads()
        return tokenizer, grouped

    def load_train_dataset(self):
        with self.training_args.main_process_first():  # one process writes the ids, the others find them
            folder = Path(self.training_args.output_dir).parent / "tokens"
            dataset = GroupDataset(self.data_args, self.tokenizer, self.params.epochs, self.seed, folder)
        batch = self.params.batch_size * self.training_args.world_size
        if self.params.drop_last and len(dataset) < batch:
            raise InputError(
                f"train: train.epochs {self.params.epochs} of {len(dataset.samples)} samples do not fill one batch of {batch}: "
                "lower train.batch_size, or set train.drop_last to false"
            )
        return dataset

    def load_data_collator(self):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return GroupCollator(self.tokenizer, MOST_TOKENS[device], OVERHEAD[device])

    def load_trainer(self):
        trainer = ResumableTrainer(
            model=self.model,
            args=self.training_args,
            train_dataset=self.train_dataset,
            data_collator=self.data_collator,
            processing_class=self.tokenizer,
        )
        processes = self.training_args.world_size
        per_step = self.params.batch_size * self.params.accumulation * processes
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Progress(per_step, len(self.train_dataset)))
        trainer.add_callback(Watch(self.model, self.params.group_size, self.params.lr, self.stage, self.training_args.fp16))
        attach(self.params.report_to, trainer, self.training_args.run_name)
        if self.validation:
            trainer.validation = self.validation
            evaluations = max(1, round(self.params.evals_per_epoch * self.params.epochs))
            trainer.add_callback(Guide(trainer, evaluations, self.params.patience))
        return trainer


def scores_path(scratch: str | Path, step: int) -> Path:
    """Where the validation scores of an optimizer step are kept: way -> question id -> passage -> logit."""
    return Path(scratch, f"scores-{step}.json")


def resume_point(scratch: Path) -> str | None:
    """The newest complete checkpoint. Its best checkpoint must be complete too, because it is loaded at the end."""
    for point in sorted(scratch.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        if whole(point):
            best = json.loads((point / "trainer_state.json").read_text(encoding="utf-8"))["best_global_step"]
            if not best or whole(scratch / f"checkpoint-{best}"):
                return str(point)
    return None


def whole(point: Path) -> bool:
    """Whether a kill while it was written, a full disk, or a power cut after which what was written is not on the disk, have spared
    a checkpoint: its trainer_state.json, written last, is there, and each file has its digest."""
    try:
        json.loads((point / "trainer_state.json").read_text(encoding="utf-8"))
        digests = json.loads((point / DIGESTS).read_text(encoding="utf-8"))
        return all(file_digest(point / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def prune(scratch: Path) -> None:
    """Of interrupted runs beside `scratch`, with other inputs or parameters, leave the newest one's resume points alone."""
    others = [path for path in scratch.parent.glob("*") if path != scratch and any(path.glob("checkpoint-*"))]
    for old in sorted(others, key=lambda path: path.stat().st_mtime)[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def run_key(params: Train, seed: int, inputs: Iterable[Path], base: Path, *others: int) -> str:
    """What a resumed run must share with the interrupted one: inputs, base, parameters, seed and this library's code."""
    key = hashlib.sha256(
        json.dumps([params.model_dump(exclude={"launcher", "workers", "report_to"}), seed, *others], sort_keys=True).encode()
    )
    for path in [*inputs, *sorted(base.glob("*.safetensors")), *sorted(Path(__file__).parent.glob("*.py"))]:
        key.update(file_digest(path).encode())
    return key.hexdigest()[:16]


def train(
    params: Train, seed: int, samples: Path, base: Path, scratch: Path, validation: Validation | None = None, stage: str = "train"
) -> Runner:
    """Train, from the newest resume point under `scratch` if there is one.

    Args:
        stage: whose parameters the messages name, `train` or `pretrain`.

    Returns:
        the runner, whose model is the trained one and whose trainer.state.log_history has the curves.
    """
    logging.basicConfig(level=logging.WARNING)  # FlagEmbedding would print every argument three times
    logging.getLogger("FlagEmbedding").setLevel(logging.ERROR)
    prune(scratch)
    runner = Runner(params, seed, samples, base, scratch, validation, stage)
    point = resume_point(scratch)
    if point:
        print(f"resuming from {point}")
    report_memory(runner, LESS_MEMORY[stage])
    refuse_full_disk(runner)
    try:
        runner.trainer.train(resume_from_checkpoint=point)
    except InputError as error:  # of watch.py
        kept = resume_point(scratch)
        raise InputError(
            f"{error}; {f'the last good weights are in {kept}' if kept else 'no checkpoint had been saved yet'}"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if not memory_ran_out(error):
            raise
        raise InputError(f"{stage}: memory ran out; {LESS_MEMORY[stage]}") from error
    real, padded = runner.model.tokens
    if padded and runner.trainer.is_world_process_zero():
        print(f"padding: {1 - real / padded:.1%} of the {padded} tokens that were trained on")
    return runner


def report_memory(runner: Runner, advice: str, looked_at: int = 64) -> None:
    """Say how much memory a step will need, from the longest of some groups at even distances, and warn where there is less."""
    if not runner.trainer.is_world_process_zero():
        return
    data, batch = runner.train_dataset, runner.params.batch_size
    groups = [data[item][0] for item in range(0, len(data), max(1, len(data) // looked_at))]
    tokens = batch * max(sum(len(pair["input_ids"]) for pair in group) for group in groups)
    half = runner.training_args.bf16 or runner.training_args.fp16
    needed = training_memory(runner.model.model, tokens, 2 if half else 4, runner.params.gradient_checkpointing)
    total, free = sum(needed.values()), free_memory()
    parts = ", ".join(f"{name} {amount:.2f}" for name, amount in needed.items())
    print(f"memory: about {total:.2f} GB ({parts}) for {batch} groups of up to {tokens // batch} tokens; {free:.1f} GB are free")
    if total > free:
        print(f"WARNING: training needs about {total:.1f} GB where {free:.1f} GB are free; {advice}", file=sys.stderr)


def refuse_full_disk(runner: Runner) -> None:
    """
    Raises:
        InputError: there is no room for the resume points and the output.
    """
    if not runner.trainer.is_world_process_zero():  # the others write nothing
        return
    weights = list(runner.model.model.parameters())
    point = 4 * sum(weight.numel() for weight in weights) + 8 * sum(weight.numel() for weight in weights if weight.requires_grad)
    scratch = Path(runner.training_args.output_dir)
    there = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    # The last ones, the best one, and the one that is being written; and the output, at most as large as one of them.
    needed, free = (runner.params.save_total_limit + 3) * point - there, shutil.disk_usage(scratch).free
    if needed > free:
        raise InputError(
            f"{runner.stage}: resume points and output need up to {needed / 1e9:.2f} GB of disk in {scratch.parent}, where "
            f"{free / 1e9:.2f} GB are free; free some space, or lower train.save_total_limit ({runner.params.save_total_limit})"
        )


def keep_best(runner: Runner) -> tuple[dict, dict]:
    """Leave in the runner's model the weights that rank the validation questions best.

    Those are of the best checkpoint, mixed with the base's in one of the shares `train.merge` where the base's head is trained
    (`choose_merge`). Without validation they stay the last ones.

    Returns:
        for metrics/train.json the chosen step, its value and the base's, the chosen share, the value of each that was scored, the
        predicted value of each other, those refused, the measures of the base and of what was kept, and the ways in which that is
        worse than the base; and its validation scores, way -> scores.
    """
    if not runner.validation:
        return {}, {}
    params, model = runner.params, runner.model.model
    base, *points = curve(runner.trainer.state.log_history)
    best = max(points, key=lambda point: point["eval_value"])
    scratch = Path(runner.training_args.output_dir)
    tuned = load_file(scratch / f"checkpoint-{best['step']}" / "model.safetensors")
    model.load_state_dict(tuned)
    known = {alpha: json.loads(scores_path(scratch, step).read_text()) for alpha, step in ((0.0, 0), (1.0, best["step"]))}
    scores = known[1.0]
    valid = {"measure": params.best, "base": base["eval_value"], "best": best["eval_value"]}
    summary = {"best_step": best["step"], "valid": valid}
    if params.merge and not getattr(model.config, "untrained_head", False):
        files = Path(runner.model_args.model_name_or_path).glob("*.safetensors")  # a large base has several
        original = {name: weight for file in files for name, weight in load_file(file).items()}
        merge = choose_merge(model, runner.tokenizer, original, tuned, known, runner.validation)
        scores = merge.scores
        summary["merge"] = {
            "chosen": merge.chosen,
            "valid": {str(alpha): value for alpha, value in merge.valid.items()},
            "predicted": {str(alpha): value for alpha, value in merge.predicted.items()},
            "worse": {str(alpha): found for alpha, found in merge.worse.items()},
        }
    summary |= {"base": runner.validation.measure(known[0.0]), "kept": runner.validation.measure(scores)}
    summary["worse"] = runner.validation.worse(scores, known[0.0])
    return summary, scores


def save_reranker(runner: Runner, folder: Path, inference: dict | None) -> None:
    """Write the fine-tuned checkpoint, its own dropout restored.

    Args:
        inference: what ranking needs to know (maximum length, window), kept in config.json under `reranker`; None for a
            checkpoint that training goes on from.
    """
    model = runner.model.model
    for name, value in runner.own_dropout.items():
        setattr(model.config, name, value)
    model.config.__dict__.pop("untrained_head", None)
    if inference:
        model.config.reranker = inference
        runner.tokenizer.model_max_length = inference["max_length"]
    save(model, runner.tokenizer, folder)
