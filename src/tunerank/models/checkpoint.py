"""Load, save and complete checkpoints: config, safetensors, tokenizer and a classification head."""

import json
import shutil
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tunerank.core.errors import InputError, one_line
from tunerank.models.identify import identify


def draw_head(model: PreTrainedModel, seed: int) -> None:
    """Initialise the classification head from `seed`; torch's own generator does not change.

    Hidden layers are orthogonal (Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear
    dynamics of learning in deep linear neural networks", ICLR 2014) and the output has unit
    variance. With the usual N(0, 0.02) logits and gradients are so small that a short training is
    half over before it starts to rank (docs/training.md).
    """
    encoder = {id(parameter) for parameter in model.base_model.parameters()}
    # Training must not average an untrained head with a trained one.
    model.config.untrained_head = True
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if id(parameter) in encoder:
                continue
            if parameter.dim() != 2:
                parameter.zero_()
            elif parameter.shape[0] == model.config.num_labels:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
            else:
                torch.nn.init.orthogonal_(parameter)


def complete_head(folder: Path, seed: int) -> None:
    """Add a head initialised from `seed` to an encoder, so that all stages use the same head.

    Raises:
        InputError: weights of the encoder are missing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for other missing parts, such as a pooler
        kind, options = AutoModelForSequenceClassification, {"num_labels": 1}
        model = load_whole(kind, folder, str(folder), but_head=True, dtype=torch.float32, **options)
    draw_head(model, seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    shutil.rmtree(folder)
    save(model, tokenizer, folder)


def load_classifier(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    config: PreTrainedConfig | None = None,
    name: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a reranker, and its tokenizer.

    Args:
        config: replaces the checkpoint's own config; name: in messages, the folder if None.

    Raises:
        InputError: it is not a reranker (models/identify.py), or weights of it are missing, which
            transformers would draw at random.
    """
    name = name or str(folder)
    identify(Path(folder), name, "reranker")
    options = {"config": config} if config else {}
    model = load_whole(AutoModelForSequenceClassification, folder, name, dtype=dtype, **options)
    return model, AutoTokenizer.from_pretrained(folder)


def load_whole(
    kind: type, folder: str | Path, name: str, but_head: bool = False, **options
) -> PreTrainedModel:
    """Load a model by one of transformers' Auto classes, and refuse one that lacks weights.

    Args:
        name: in messages; but_head: head and pooler may be missing.

    Raises:
        InputError: with one of the missing weights, or they do not fit the config.
    """
    try:
        model, found = kind.from_pretrained(folder, output_loading_info=True, **options)
    except (RuntimeError, ValueError) as error:  # of weights in other shapes
        raise InputError(f"{name}: cannot be loaded ({one_line(error)})") from None
    missing = sorted(found["missing_keys"])
    if but_head:
        encoder = "" if model.base_model is model else f"{model.base_model_prefix}."
        missing = [name for name in missing if name.startswith(encoder) and "pooler." not in name]
    if missing:
        raise InputError(
            f"{name}: {len(missing)} of the weights that its config.json describes are missing, "
            f"such as {missing[0]}; get the whole checkpoint"
        )
    return model


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config, safetensors and tokenizer; transformers 4 and 5 can load them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config_path = folder / "tokenizer_config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":  # only in transformers 5
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config_path.write_text(
        json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
