"""The fused row's weights of a checkpoint, and scores of a caller's own first stage.

It needs none of the pipeline's packages, so that plain ranking can use it.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tunerank.core.errors import InputError

EXPORTED, CHECKPOINT = "search.json", "reranker"
"""What `tunerank export` writes: its description, and the folder of the checkpoint."""

SEARCH = "search"
"""The folder of a repository of the Hub with what was exported."""

DIGITS = 4
"""Decimals of a logit in the weighted sum, those of reranking/maxp.py."""

FirstStage = Sequence[float] | Mapping[str, Sequence[float]]
"""A score of each passage, or such scores by the name of a part."""

Weights = Sequence[float] | Mapping[str, float]
"""The reranker's weight and those of the first stage's parts, in order or by name."""


def checkpoint_in(folder: Path) -> Path:
    """Return the folder of the checkpoint: `folder`, or the reranker of an exported folder."""
    exported = (folder / EXPORTED).is_file() and not (folder / "config.json").exists()
    return folder / CHECKPOINT if exported else folder


def fitted_weights(folder: Path) -> dict[str, float] | None:
    """Return the weights that were fitted for a checkpoint: {"reranker": ..., part: ...}, or None.

    They are in search.json of an exported folder, or in metrics/eval.json of the repository where
    `folder` is models/reranker.

    Raises:
        InputError: the file is damaged.
    """
    home = Path(os.path.abspath(checkpoint_in(folder)))
    exported, evaluated = home.parent / EXPORTED, home.parent.parent / "metrics/eval.json"
    if home.name != CHECKPOINT:
        return None
    if exported.is_file():
        path = exported
    elif home.parent.name == "models" and evaluated.is_file():
        path = evaluated
    else:
        return None
    try:
        weights = json.loads(path.read_text(encoding="utf-8"))["fusion_weights"]
        weights = {str(name): float(weight) for name, weight in weights.items()}
        if next(iter(weights)) != "reranker" or not all(map(math.isfinite, weights.values())):
            raise ValueError("the reranker's is not the first, or one is not finite")
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise InputError(
            f"{path}: no fusion weights ({' '.join(str(error).split())}); run dvc repro evaluate, "
            "or tunerank export"
        ) from None
    return weights


def features_of(
    first_stage: FirstStage, weights: Weights | None, fitted: Mapping[str, float] | None, count: int
) -> tuple[list[float], np.ndarray]:
    """Return the weights, the reranker's first, and the parts' scores of shape (count, parts).

    A part of weight 0 may be missing.

    Args:
        fitted: the weights of the checkpoint, for `weights` None.
        count: the number of passages.

    Raises:
        InputError: there are no weights, weights and parts do not belong together, or a score is
            missing or not finite.
    """
    if weights is None and fitted is None:
        raise InputError(
            "there are no fusion weights beside this checkpoint: give those of its logit and of "
            "the first stage's scores, or rank with a folder of tunerank export"
        )
    weights = fitted if weights is None else weights
    parts = dict(first_stage) if isinstance(first_stage, Mapping) else None
    if isinstance(weights, Mapping):
        weights = {name: number(weight, f"weight of {name}") for name, weight in weights.items()}
        if "reranker" not in weights:
            raise InputError("weights: 'reranker' is missing")
        names = [name for name in weights if name != "reranker"]
        if parts is None and len(names) == 1:
            parts = {names[0]: first_stage}
        used = [name for name in names if weights[name]]
        if parts is None or set(parts) - set(names) or set(used) - set(parts):
            raise InputError(
                f"the fusion weights are of {', '.join(names)}: name the first stage's scores so "
                f"({', '.join(used) or 'any'} at least), or give other weights"
            )
        parts = {name: parts[name] for name in names if name in parts}
        given = [weights["reranker"], *(weights[name] for name in parts)]
    else:
        parts = {"first_stage": first_stage} if parts is None else parts
        given = [number(weight, f"weight {place}") for place, weight in enumerate(weights, 1)]
        if len(given) != 1 + len(parts):
            raise InputError(
                f"{len(given)} weights for the reranker and {', '.join(parts)}; give "
                f"{1 + len(parts)}, the reranker's first"
            )
    return given, scores_of(parts, count)


def scores_of(parts: Mapping[str, Sequence[float]], count: int) -> np.ndarray:
    """Return float64 of shape (count, parts)."""
    columns = np.zeros((count, len(parts)))
    for column, (name, scores) in enumerate(parts.items()):
        if len(scores) != count:
            raise InputError(
                f"{name}: {len(scores)} scores for {count} passages; give one for each"
            )
        for row, score in enumerate(scores):
            columns[row, column] = number(score, f"{name}: score {row + 1}")
    return columns


def number(value: object, what: str) -> float:
    """Return a finite number as a float.

    Raises:
        InputError: it is none; the message begins with `what`.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        shown = repr(value) if isinstance(value, str) else str(value)
        raise InputError(f"{what} is {shown[:40]}; give a finite number")
    return found
