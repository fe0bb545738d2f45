"""A checkpoint on disk: config, safetensors and tokenizer, with a classification head and without pickles."""

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reranker.safe_checkpoint import refuse_unsafe


def draw_head(model: PreTrainedModel, seed: int) -> None:
    """Draw the classification head anew from `seed`, leaving torch's own generator as it was.

    Hidden layers are orthogonal (Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", ICLR 2014) and the output has unit variance. The usual N(0, 0.02) leaves logits and the
    gradients behind them so small that half a short training passes before ranking begins (docs/training.md).
    """
    encoder = {id(parameter) for parameter in model.base_model.parameters()}
    model.config.untrained_head = True  # so that training does not mix its weights with trained ones
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
    """Whether the checkpoint is a classifier, which can score a pair, and not an encoder alone."""
    return any("ForSequenceClassification" in name for name in AutoConfig.from_pretrained(folder).architectures or [])


def complete_head(folder: Path, seed: int) -> None:
    """Give an encoder without a classification head one drawn from `seed`, so that every stage starts from the same."""
    if has_head(folder):
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of what else the checkpoint lacks, such as a pooler
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    draw_head(model, seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    shutil.rmtree(folder)
    save(model, tokenizer, folder)


def load_reranker(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The checkpoint as training starts from it, where training would be done."""
    refuse_unsafe(Path(folder), str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), AutoTokenizer.from_pretrained(folder)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config, safetensors and tokenizer, so that transformers 4 and 5 and what builds on them can load it."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config_path = folder / "tokenizer_config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":  # a name that only transformers 5 knows
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config_path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
