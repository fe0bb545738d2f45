"""Load, save and complete checkpoints: config, safetensors, tokenizer and a classification head."""

import json
import shutil
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tunerank.models.safety import refuse_unsafe


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


def has_head(folder: Path) -> bool:
    """Return whether the checkpoint is a classifier, which can score pairs, or just an encoder."""
    return any(
        "ForSequenceClassification" in name
        for name in AutoConfig.from_pretrained(folder).architectures or []
    )


def complete_head(folder: Path, seed: int) -> None:
    """Add a head initialised from `seed` to an encoder, so that all stages use the same head."""
    if has_head(folder):
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for other missing parts, such as a pooler
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.float32
        )
    draw_head(model, seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    shutil.rmtree(folder)
    save(model, tokenizer, folder)


def load_classifier(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    config: PreTrainedConfig | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint as a classifier with one label.

    Args:
        config: replaces the checkpoint's own config.

    Raises:
        InputError: the folder is not a checkpoint, or contains more than data.
    """
    refuse_unsafe(Path(folder), str(folder))
    options = {"config": config} if config else {"num_labels": 1}
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype, **options)
    return model, AutoTokenizer.from_pretrained(folder)


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
