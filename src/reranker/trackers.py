"""Experiment trackers that follow a training, `train.report_to`. transformers has the callbacks; this is what they need beside.

Each is installed apart, and none changes what is trained. They write under .cache, which Git and DVC leave alone, unless their own
variables name another place: docs/trackers.md.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from transformers import Trainer

from reranker.errors import InputError

PACKAGES = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "dvclive": ("dvclive",),
}
FOLDER = Path(".cache")


def run_name(scratch: Path) -> str:
    """What a tracker calls the run: the experiment's name where DVC runs one, or else the key of what it is made from."""
    return os.environ.get("DVC_EXP_NAME") or scratch.name


def prepare(tracker: str, name: str) -> str:
    """Say where it writes, unless that is said already.

    Args:
        tracker: as `train.report_to`; name: of the run.

    Returns:
        what transformers' `report_to` is.

    Raises:
        InputError: its package is not installed, or it cannot begin.
    """
    if missing := [package for package in PACKAGES.get(tracker, ()) if find_spec(package) is None]:
        installed = tracker if tracker != "mlflow" else "mlflow-skinny sqlalchemy alembic"
        raise InputError(f"train.report_to: {tracker} needs the package {missing[0]}: pip install {installed}, or set it to none")
    places = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": f"{FOLDER}/tensorboard/{name}"},  # its default goes when training succeeds
        "wandb": {"WANDB_DIR": f"{FOLDER}", "WANDB_PROJECT": "reranker"},
        "mlflow": {"MLFLOW_TRACKING_URI": f"sqlite:///{FOLDER}/mlflow.db", "MLFLOW_EXPERIMENT_NAME": "reranker"},
    }
    for variable, value in places.get(tracker, {}).items():
        os.environ.setdefault(variable, value)
    if tracker != "none":
        FOLDER.mkdir(exist_ok=True)
    if tracker == "wandb":
        refuse_without_login()
    return "none" if tracker == "dvclive" else tracker


def refuse_without_login() -> None:
    """wandb itself would say so only after the base is loaded and its ranking of the validation questions is there."""
    import wandb

    if not os.environ.get("WANDB_MODE") and not wandb.api.api_key:
        raise InputError("train.report_to: wandb has no login here: wandb login, or set WANDB_MODE=offline, or set it to none")


def attach(tracker: str, trainer: Trainer, name: str) -> None:
    """DVCLive by hand: by `report_to` it would rewrite dvc.yaml, and save an experiment of its own, in the midst of a stage."""
    if tracker == "dvclive":
        from dvclive import Live
        from transformers.integrations import DVCLiveCallback

        trainer.add_callback(
            DVCLiveCallback(Live(dir=str(FOLDER / "dvclive" / name), dvcyaml=None, save_dvc_exp=False, report=None))
        )
