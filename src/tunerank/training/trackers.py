"""Set up the experiment tracker that `train.report_to` names. transformers has the callbacks.

Each tracker is installed separately, and none changes what is trained. It writes under .cache,
which Git and DVC ignore, unless its own variables name another place: docs/experiments.md.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from transformers import Trainer

from tunerank.core.errors import InputError

PACKAGES = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "dvclive": ("dvclive",),
}
FOLDER = Path(".cache")


def run_name(scratch: Path) -> str:
    """Return the name of the DVC experiment that runs, or else the run's key."""
    return os.environ.get("DVC_EXP_NAME") or scratch.name


def prepare_tracker(tracker: str, name: str) -> str:
    """Set where a tracker writes, unless its variables already say so.

    Args:
        tracker: see `train.report_to`.
        name: of the run.

    Returns:
        the value of transformers' `report_to`.

    Raises:
        InputError: a package is not installed, or wandb has no login.
    """
    if missing := [package for package in PACKAGES.get(tracker, ()) if find_spec(package) is None]:
        packages = tracker if tracker != "mlflow" else "mlflow-skinny sqlalchemy alembic"
        raise InputError(
            f"train.report_to: {tracker} needs the package {missing[0]}: pip install {packages}, "
            "or set it to none"
        )
    variables = {
        # Its default is a folder that is removed when training succeeds.
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": f"{FOLDER}/tensorboard/{name}"},
        "wandb": {"WANDB_DIR": f"{FOLDER}", "WANDB_PROJECT": "reranker"},
        "mlflow": {
            "MLFLOW_TRACKING_URI": f"sqlite:///{FOLDER}/mlflow.db",
            "MLFLOW_EXPERIMENT_NAME": "reranker",
        },
    }
    for variable, value in variables.get(tracker, {}).items():
        os.environ.setdefault(variable, value)
    if tracker != "none":
        FOLDER.mkdir(exist_ok=True)
    if tracker == "wandb":
        refuse_without_login()
    return "none" if tracker == "dvclive" else tracker


def refuse_without_login() -> None:
    """Raise an InputError now; wandb itself fails only after the base has been evaluated."""
    import wandb

    if not os.environ.get("WANDB_MODE") and not wandb.api.api_key:
        raise InputError(
            "train.report_to: wandb has no login here: wandb login, or set WANDB_MODE=offline, "
            "or set it to none"
        )


def attach(tracker: str, trainer: Trainer, name: str) -> None:
    """Add DVCLive's callback.

    With `report_to` it would rewrite dvc.yaml and save its own experiment while a stage runs.
    """
    if tracker == "dvclive":
        from dvclive import Live
        from transformers.integrations import DVCLiveCallback

        folder = str(FOLDER / "dvclive" / name)
        live = Live(dir=folder, dvcyaml=None, save_dvc_exp=False, report=None)
        trainer.add_callback(DVCLiveCallback(live))
