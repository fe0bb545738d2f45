"""Fine-tune a cross-encoder with FlagEmbedding's runner, with its bugs fixed.

Differences to FlagEmbedding 1.4.2, beside groups.py and losses.py:

- Weights are float32, whatever the checkpoint stores.
- A run that continues loads the weights of its checkpoint, which holds no pickled arguments
  (resume.py).
- The validation questions are ranked during training (validation.py).
"""

import logging
import os
from pathlib import Path

import torch
from FlagEmbedding.abc.finetune.reranker import (
    AbsRerankerDataArguments,
    AbsRerankerModelArguments,
    AbsRerankerTrainingArguments,
)
from FlagEmbedding.finetune.reranker.encoder_only.base import EncoderOnlyRerankerRunner
from transformers import AutoConfig, PrinterCallback

from tunerank.core.errors import InputError, memory_ran_out
from tunerank.models.checkpoint import load_classifier
from tunerank.models.device import best_device, choose_precision, set_attention
from tunerank.models.first_token import first_token_only
from tunerank.models.identify import identify
from tunerank.models.readable import refuse_longer
from tunerank.params.train import Train
from tunerank.training.groups import MAX_TOKENS, OVERHEAD, GroupCollator, GroupDataset
from tunerank.training.losses import GroupModel
from tunerank.training.preflight import LESS_MEMORY, refuse_full_disk, report_memory
from tunerank.training.resume import ResumableTrainer, latest_checkpoint, remove_old_runs
from tunerank.training.trackers import attach, prepare_tracker, run_name
from tunerank.training.validation import Guide, Validation
from tunerank.training.watch import Progress, Watch


def run_training(
    params: Train,
    seed: int,
    samples: Path,
    base: Path,
    scratch: Path,
    validation: Validation | None = None,
    stage: str = "train",
) -> "Runner":
    """Train from the newest complete checkpoint under `scratch`, or else from `base`.

    Args:
        samples: FlagEmbedding's jsonl.
        scratch: the folder of this run's checkpoints and validation scores.
        stage: the stage that messages name, `train` or `pretrain`.

    Returns:
        the runner. Its model has the last weights, its trainer.state.log_history the curves.

    Raises:
        InputError: training fails (watch.py), memory runs out, or the disk is too full.
    """
    # FlagEmbedding would print every argument three times.
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("FlagEmbedding").setLevel(logging.ERROR)
    remove_old_runs(scratch)
    runner = Runner(params, seed, samples, base, scratch, validation, stage)
    is_main = runner.trainer.is_world_process_zero()
    checkpoint = latest_checkpoint(scratch)
    if checkpoint:
        print(f"resuming from {checkpoint}")
    if is_main:
        model, value_bytes = runner.model.model, 4 if runner.precision == "fp32" else 2
        report_memory(runner.train_dataset, model, params, value_bytes, LESS_MEMORY[stage])
        refuse_full_disk(model, scratch, params.save_total_limit, stage)
    try:
        runner.trainer.train(resume_from_checkpoint=checkpoint)
    except InputError as error:  # of Watch
        good = latest_checkpoint(scratch)
        where = (
            f"the last good weights are in {good}" if good else "no checkpoint had been saved yet"
        )
        raise InputError(f"{error}; {where}") from None
    except (MemoryError, RuntimeError) as error:
        if not memory_ran_out(error):
            raise
        raise InputError(f"{stage}: memory ran out; {LESS_MEMORY[stage]}") from error
    real, padded = runner.model.tokens
    if padded and is_main:
        print(f"padding: {1 - real / padded:.1%} of the {padded} tokens that were trained on")
    return runner


class Runner(EncoderOnlyRerankerRunner):
    """FlagEmbedding's runner with `params` in place of its command line.

    Its base class calls the load_* methods. The arguments are those of `run_training`.
    """

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
        self.precision = choose_precision(params.precision)
        super().__init__(
            AbsRerankerModelArguments(model_name_or_path=str(base)),
            AbsRerankerDataArguments(
                train_data=[str(samples)],
                train_group_size=params.group_size,
                knowledge_distillation=params.distill_weight > 0,
                query_max_len=params.query_max_length,
                passage_max_len=params.passage_max_length,
            ),
            training_arguments(params, self.precision, seed, scratch, validation is not None),
        )

    def load_tokenizer_and_model(self):
        folder, params = Path(self.model_args.model_name_or_path), self.params
        tokens = identify(folder, str(folder), "reranker").tokens
        lengths = {
            "train.query_max_length + train.passage_max_length": params.query_max_length
            + params.passage_max_length
        }
        refuse_longer(str(folder), tokens, lengths)
        config = AutoConfig.from_pretrained(folder, num_labels=1)
        self.base_dropout = {
            name: value for name, value in config.to_dict().items() if "dropout" in name
        }
        if params.dropout is not None:
            for name in self.base_dropout:
                setattr(config, name, params.dropout)
        model, tokenizer = load_classifier(folder, torch.float32, config)
        set_attention(model, self.precision, training=True)
        if params.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)
        grouped = GroupModel(first_token_only(model), tokenizer=tokenizer)
        grouped.params = params
        if params.gradient_checkpointing:
            grouped.enable_input_require_grads()
        return tokenizer, grouped

    def load_train_dataset(self):
        folder = Path(self.training_args.output_dir).parent / "tokens"
        params = self.params
        with self.training_args.main_process_first():  # which writes the ids that the others read
            dataset = GroupDataset(self.data_args, self.tokenizer, params.epochs, self.seed, folder)
        batch = params.batch_size * self.training_args.world_size
        if params.drop_last and len(dataset) < batch:
            keep_last = ", or set train.drop_last to false" if self.stage == "train" else ""
            raise InputError(
                f"{self.stage}: {self.stage}.epochs {params.epochs} of {len(dataset.samples)} "
                f"samples do not fill one batch of {batch}: lower {self.stage}.batch_size"
                f"{keep_last}"
            )
        return dataset

    def load_data_collator(self):
        device = best_device()
        return GroupCollator(self.tokenizer, MAX_TOKENS[device], OVERHEAD[device])

    def load_trainer(self):
        params, args = self.params, self.training_args
        trainer = ResumableTrainer(
            model=self.model,
            args=args,
            train_dataset=self.train_dataset,
            data_collator=self.data_collator,
            processing_class=self.tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        samples_per_step = params.batch_size * params.accumulation * args.world_size
        trainer.add_callback(Progress(samples_per_step, len(self.train_dataset)))
        trainer.add_callback(
            Watch(self.model, params.group_size, params.lr, self.stage, scaled=args.fp16)
        )
        attach(params.report_to, trainer, args.run_name)
        if self.validation:
            trainer.validation = self.validation
            evaluations = max(1, round(params.evals_per_epoch * params.epochs))
            trainer.add_callback(Guide(trainer, evaluations, params.patience))
        return trainer


def training_arguments(
    params: Train, precision: str, seed: int, scratch: Path, validated: bool
) -> AbsRerankerTrainingArguments:
    """Return `params` as arguments of transformers' trainer.

    Args:
        validated: whether validation questions decide which checkpoint is the best.
    """
    # transformers reads this if neither fp16 nor bf16 is set. `accelerate launch` sets it from a
    # file in the user's home.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no" if precision == "fp32" else precision
    cuda = torch.cuda.is_available()
    return AbsRerankerTrainingArguments(
        output_dir=str(scratch),
        seed=seed,
        learning_rate=params.lr,
        num_train_epochs=1,  # GroupDataset has all epochs
        train_sampling_strategy="sequential",
        per_device_train_batch_size=params.batch_size,
        gradient_accumulation_steps=params.accumulation,
        dataloader_drop_last=params.drop_last,
        dataloader_num_workers=params.workers,
        dataloader_pin_memory=cuda,
        warmup_steps=params.warmup_ratio,
        lr_scheduler_type=params.scheduler,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        fp16=precision == "fp16",
        bf16=precision == "bf16",
        use_cpu=not cuda,
        gradient_checkpointing=params.gradient_checkpointing,
        logging_steps=params.logging_steps,
        save_strategy="steps",
        save_steps=params.save_steps,
        save_total_limit=params.save_total_limit,
        metric_for_best_model="value" if validated else None,
        greater_is_better=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        run_name=run_name(scratch),
        report_to=prepare_tracker(params.report_to, run_name(scratch)),
    )
