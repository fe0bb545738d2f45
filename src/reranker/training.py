"""Fine-tune a cross-encoder with FlagEmbedding's runner, model and loss, with what goes wrong in them mended.

Loss: cross-entropy of a group's logits with the positive first, "localized contrastive estimation" (Gao, Dai and Callan,
"Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline", ECIR 2021). What differs from FlagEmbedding 1.4.2:

- Groups are drawn by a generator of their own for each sample and epoch, never by the global `random`, so that neither the
  number of workers nor anything else that draws can change them. A sample's negatives are taken in turn, all before any
  twice (the schedule of Tevatron, https://github.com/texttron/tevatron).
- A last batch that is smaller is grouped by the real group size (the original reshapes it into wrong groups).
- Weights are float32 whatever the checkpoint stores; a resumed run loads them; no pickle is in the output.
"""

import hashlib
import json
import logging
import math
import random
from pathlib import Path

import torch
from FlagEmbedding.abc.finetune.reranker import (
    AbsRerankerDataArguments,
    AbsRerankerModelArguments,
    AbsRerankerTrainDataset,
    AbsRerankerTrainingArguments,
)
from FlagEmbedding.finetune.reranker.encoder_only.base import (
    CrossEncoderModel,
    EncoderOnlyRerankerRunner,
    EncoderOnlyRerankerTrainer,
)
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback, TrainerCallback

from reranker.checkpoints import save
from reranker.errors import InputError
from reranker.files import read_jsonl
from reranker.params import Train
from reranker.scoring import choose_precision


class GroupDataset(AbsRerankerTrainDataset):
    """The whole training, sample after sample: item i belongs to epoch i // rows, in that epoch's own order.

    Items are groups tokenised by FlagEmbedding: the positive, then group_size - 1 negatives.
    """

    def __init__(self, args: AbsRerankerDataArguments, tokenizer, epochs: float, seed: int):
        self.args, self.tokenizer, self.seed = args, tokenizer, seed
        self.dataset = list(read_jsonl(args.train_data[0]))
        self.length = max(1, math.floor(len(self.dataset) * epochs))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int):
        epoch, position = divmod(item, len(self.dataset))
        query, passages, scores = self.group(self.order(epoch)[position], epoch)
        return [self.create_one_example(query, passage) for passage in passages], scores

    def order(self, epoch: int) -> list[int]:
        if getattr(self, "_order", (None,))[0] != epoch:  # a worker asks for one epoch's at a time
            rows = list(range(len(self.dataset)))
            random.Random(f"{self.seed}:{epoch}").shuffle(rows)
            self._order = (epoch, rows)
        return self._order[1]

    def group(self, row: int, epoch: int) -> tuple[str, list[str], list[float] | None]:
        """The query, its passages, the positive first, and their teacher's scores if there is one: those of this row in
        this epoch, whoever asks and when."""
        data = self.dataset[row]
        positive = random.Random(f"{self.seed}:{row}:{epoch}").choice(range(len(data["pos"])))
        negatives = list(range(len(data["neg"])))
        random.Random(f"{self.seed}:{row}").shuffle(negatives)
        size = self.args.train_group_size - 1
        drawn = [negatives[(epoch * size + i) % len(negatives)] for i in range(size)]
        scores = None
        if self.args.knowledge_distillation:
            scores = [data["pos_scores"][positive], *(data["neg_scores"][i] for i in drawn)]
        return data["query"], [data["pos"][positive], *(data["neg"][i] for i in drawn)], scores


class GroupModel(CrossEncoderModel):
    """FlagEmbedding's model, reshaping logits by the groups that are there, with a distillation loss that has a
    temperature (Hinton, Vinyals and Dean 2015, arXiv:1503.02531)."""

    group_size: int
    distill_weight = 0.0
    distill_temperature = 1.0

    def forward(self, pair=None, teacher_scores=None):
        self.train_batch_size = len(pair["input_ids"]) // self.group_size
        output = super().forward(pair)
        if teacher_scores is not None and self.training:
            logits = output.scores.view(self.train_batch_size, -1)
            teacher = torch.tensor(teacher_scores, device=logits.device).view_as(logits)
            output.loss = output.loss + self.distill_weight * distillation(logits, teacher, self.distill_temperature)
        return output


def distillation(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """temperature^2 * KL(softmax(teacher / temperature) || softmax(logits / temperature)), the mean over groups.

    Args:
        logits, teacher: of shape (groups, group size), raw scores.
    """
    log_student = torch.log_softmax(logits.float() / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * torch.nn.functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


class ResumableTrainer(EncoderOnlyRerankerTrainer):
    """FlagEmbedding's trainer, whose checkpoints hold no pickled arguments and can be loaded again."""

    def _save(self, output_dir=None, state_dict=None):
        self.model.save_pretrained(output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        self.model.model.load_state_dict(load_file(Path(resume_from_checkpoint, "model.safetensors")))


class Progress(TrainerCallback):
    """A bar that counts samples, so that its rate is samples a second and its estimate holds over resumed runs."""

    def __init__(self, samples_per_step: int, total: int):
        self.samples_per_step, self.total = samples_per_step, total

    def on_train_begin(self, args, state, control, **kwargs):
        done = min(self.total, state.global_step * self.samples_per_step)
        self.bar = tqdm(total=self.total, initial=done, desc="train", unit="sample", disable=not state.is_world_process_zero)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(min(self.samples_per_step, self.total - self.bar.n))
        control.should_log |= state.global_step == state.max_steps  # a curve ends where training ends

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", lr=f"{float(logs['learning_rate']):.2g}")

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class Runner(EncoderOnlyRerankerRunner):
    """FlagEmbedding's runner, with `params` in place of its command line."""

    def __init__(self, params: Train, seed: int, samples: Path, base: Path, scratch: Path):
        self.params, self.seed = params, seed
        precision = choose_precision(params.precision)
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
                remove_unused_columns=False,
                disable_tqdm=True,
                report_to="none",
            ),
        )

    def load_tokenizer_and_model(self):
        folder = self.model_args.model_name_or_path
        config = AutoConfig.from_pretrained(folder, num_labels=1)
        self.own_dropout = {name: value for name, value in config.to_dict().items() if "dropout" in name}
        if self.params.dropout is not None:
            for name in self.own_dropout:
                setattr(config, name, self.params.dropout)
        model = AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32)
        if self.params.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        grouped = GroupModel(model, tokenizer=tokenizer)
        grouped.group_size = self.params.group_size
        grouped.distill_weight, grouped.distill_temperature = self.params.distill_weight, self.params.distill_temperature
        if self.params.gradient_checkpointing:
            grouped.enable_input_require_grads()
        return tokenizer, grouped

    def load_train_dataset(self):
        dataset = GroupDataset(self.data_args, self.tokenizer, self.params.epochs, self.seed)
        batch = self.params.batch_size * self.training_args.world_size
        if self.params.drop_last and len(dataset) < batch:
            raise InputError(
                f"train: train.epochs {self.params.epochs} of {len(dataset.dataset)} samples do not fill one batch of {batch}: "
                "lower train.batch_size, or set train.drop_last to false"
            )
        return dataset

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
        return trainer


def resume_point(scratch: Path) -> str | None:
    """The newest complete checkpoint under `scratch`: the one whose trainer_state.json, written last, is there."""
    points = sorted(scratch.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name.split("-")[1]))
    return str(points[-1].parent) if points else None


def run_key(params: Train, seed: int, samples: Path, base: Path) -> str:
    """What a resumed run must share with the interrupted one: samples, base, parameters, seed and this code."""
    key = hashlib.sha256(json.dumps([params.model_dump(exclude={"launcher", "workers"}), seed], sort_keys=True).encode())
    for path in [samples, *sorted(base.glob("*.safetensors")), Path(__file__)]:
        with open(path, "rb") as content:
            key.update(hashlib.file_digest(content, "sha256").digest())
    return key.hexdigest()[:16]


def train(params: Train, seed: int, samples: Path, base: Path, scratch: Path) -> Runner:
    """Train, from the newest resume point under `scratch` if there is one.

    Returns:
        the runner, whose model is the trained one and whose trainer.state.log_history has the curve.
    """
    logging.basicConfig(level=logging.WARNING)  # FlagEmbedding would print every argument three times
    logging.getLogger("FlagEmbedding").setLevel(logging.ERROR)
    runner = Runner(params, seed, samples, base, scratch)
    point = resume_point(scratch)
    if point:
        print(f"resuming from {point}")
    runner.trainer.train(resume_from_checkpoint=point)
    return runner


def save_reranker(runner: Runner, folder: Path, inference: dict) -> None:
    """Write the fine-tuned checkpoint, its own dropout restored.

    Args:
        inference: what ranking needs to know (maximum length, window), kept in config.json under `reranker`.
    """
    model = runner.model.model
    for name, value in runner.own_dropout.items():
        setattr(model.config, name, value)
    model.config.reranker = inference
    runner.tokenizer.model_max_length = inference["max_length"]
    save(model, runner.tokenizer, folder)
