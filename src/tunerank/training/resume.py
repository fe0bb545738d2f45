"""Write, find and load the checkpoints that an interrupted training continues from."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from FlagEmbedding.finetune.reranker.encoder_only.base import EncoderOnlyRerankerTrainer
from safetensors.torch import load_file

from tunerank.core.files import file_digest, write_text
from tunerank.core.inputs import files_in
from tunerank.params.train import Train
from tunerank.training.validation import Validation

DIGESTS = "digests.json"
"""The file with the SHA-256 of a checkpoint's other files, by name."""

PACKAGE = Path(__file__).parent.parent


def scores_path(scratch: str | Path, step: int) -> Path:
    """Return the file of a step's validation scores: way -> question id -> passage -> logit."""
    return Path(scratch, f"scores-{step}.json")


class ResumableTrainer(EncoderOnlyRerankerTrainer):
    """FlagEmbedding's trainer with resumable, pickle-free checkpoints.

    `evaluate` ranks the validation questions. Its scores stay in `scores_path`, for `select_best`.
    """

    validation: Validation | None = None

    def evaluate(self, *args, **kwargs):
        step, validation = self.state.global_step, self.validation
        scores = validation.start if step == 0 else None
        if scores is None:
            scores = validation.score(self.model.model, self.processing_class)
        if self.is_world_process_zero():
            write_text(scores_path(self.args.output_dir, step), json.dumps(scores))
        measured = validation.measure(scores)
        measured["value"] = validation.value(measured)
        metrics = {f"eval_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _save(self, output_dir=None, state_dict=None):
        # Without the pickled arguments that FlagEmbedding adds.
        self.model.save_pretrained(output_dir or self.args.output_dir)

    def _save_rng_state(self, output_dir):
        """Save the generators, and then the digests of all files before trainer_state.json."""
        super()._save_rng_state(output_dir)
        if self.args.should_save:
            # Each process writes its own rng_state file, maybe later than this one.
            digests = {
                path.name: file_digest(path)
                for path in sorted(Path(output_dir).iterdir())
                if not path.name.startswith("rng_state_")
            }
            write_text(Path(output_dir, DIGESTS), json.dumps(digests))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        weights = load_file(Path(resume_from_checkpoint, "model.safetensors"))
        self.model.model.load_state_dict(weights)


def latest_checkpoint(scratch: Path) -> str | None:
    """Return the newest complete checkpoint, or None.

    Its best checkpoint must be complete too, because it is loaded at the end.
    """
    checkpoints = sorted(
        scratch.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])
    )
    for checkpoint in checkpoints:
        if is_complete(checkpoint):
            state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            best = state["best_global_step"]
            if not best or is_complete(scratch / f"checkpoint-{best}"):
                return str(checkpoint)
    return None


def is_complete(checkpoint: Path) -> bool:
    """Return whether no kill, full disk or power cut has damaged a checkpoint.

    trainer_state.json, which is written last, must exist, and every file must have its digest.
    """
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        digests = json.loads((checkpoint / DIGESTS).read_text(encoding="utf-8"))
        return all(file_digest(checkpoint / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def remove_old_runs(scratch: Path) -> None:
    """Remove the folders of interrupted runs beside `scratch`, except the newest one."""
    others = [
        path
        for path in scratch.parent.glob("*")
        if path != scratch and any(path.glob("checkpoint-*"))
    ]
    for old in sorted(others, key=lambda path: path.stat().st_mtime)[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def run_key(params: Train, seed: int, inputs: Iterable[Path], base: Path, *others: int) -> str:
    """Return a key of all that an interrupted run and the one that continues it must share.

    That is inputs, base, parameters, seed, this package's code, and `others`.
    """
    values = params.model_dump(exclude={"launcher", "workers", "report_to"})
    key = hashlib.sha256(json.dumps([values, seed, *others], sort_keys=True).encode())
    for path in [*inputs, *sorted(base.glob("*.safetensors")), *files_in(PACKAGE)]:
        key.update(file_digest(path).encode())
    return key.hexdigest()[:16]
