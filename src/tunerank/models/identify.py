"""Say what a checkpoint is, from its files, before it is loaded and before any other work.

A file of weights does not tell: transformers loads an embedding model as a reranker, with a head
drawn at random, and a reranker as an embedding model. Both rank, badly, without an error.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from tunerank.core.errors import InputError, one_line
from tunerank.models.readable import most_tokens
from tunerank.models.safety import INDEX, WEIGHTS, read_json, refuse_unsafe

Role = Literal["reranker", "base", "retriever"]
"""What a checkpoint is for: a reranker scores pairs, a base may lack the head for that, and a
retriever has embeddings."""
LAYERS = ("Transformer", "Pooling", "Normalize")
"""Layers of sentence-transformers' modules.json that `DenseEncoder` computes."""


@dataclass(frozen=True)
class Checkpoint:
    """What the files of a checkpoint say about it.

    name: in messages.
    has_head: it has a classification head, of one label.
    tokens: the longest text or pair that it can read, special tokens included; None: no limit.
    """

    name: str
    has_head: bool
    tokens: int | None


def identify(
    folder: Path, name: str, role: Role, weights: Iterable[str] = (WEIGHTS, INDEX)
) -> Checkpoint:
    """Return what the checkpoint in `folder` is.

    Args:
        weights: as for `refuse_unsafe`.

    Raises:
        InputError: it contains more than data, cannot be read, or cannot have that role.
    """
    refuse_unsafe(folder, name, weights)
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # of any type, by each model's own checks
        raise InputError(f"{name}: config.json cannot be read ({one_line(error)})") from None
    architectures = config.architectures or ["none"]
    has_head = any("ForSequenceClassification" in str(one) for one in architectures)
    kind = config.model_type
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise InputError(
            f"{name}: a decoder (model_type {kind!r}), which needs a prompt around each text; only "
            "encoders such as BERT and XLM-RoBERTa are used here"
        )
    if role == "reranker" and not has_head:
        raise InputError(
            f"{name}: no reranker, its config.json has the architecture {architectures[0]} without "
            "a classification head; give a cross-encoder, or fine-tune this one as base"
        )
    if role == "retriever":
        refuse_unpooled(folder, name)
    if role == "retriever" and has_head:
        raise InputError(
            f"{name}: a classifier ({architectures[0]}), which has no embeddings to retrieve with; "
            "give an embedding model"
        )
    if has_head and config.num_labels != 1:
        raise InputError(
            f"{name}: a classifier of {config.num_labels} labels; a reranker has one, its score"
        )
    return Checkpoint(name, has_head, most_tokens(config))


def refuse_unpooled(folder: Path, name: str) -> None:
    """Refuse an embedding model with layers of sentence-transformers that are not computed here."""
    path = folder / "modules.json"
    if not path.is_file():
        return
    for layer in read_json(path, name, list):
        kind = str(layer.get("type") if isinstance(layer, dict) else layer).rpartition(".")[2]
        if kind not in LAYERS:
            raise InputError(
                f"{name}: modules.json has the layer {kind}, which is not computed here; give an "
                f"embedding model of {', '.join(LAYERS[:-1])} and {LAYERS[-1]}"
            )


def pooling_of(folder: Path, name: str) -> str | None:
    """Return how a sentence-transformers model pools, "mean", "cls" or another name.

    None: 1_Pooling/config.json does not exist.
    """
    path = folder / "1_Pooling/config.json"
    if not path.is_file():
        return None
    config = read_json(path, name)
    if isinstance(mode := config.get("pooling_mode"), str):
        return mode
    chosen = [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    return " and ".join(chosen) or None
