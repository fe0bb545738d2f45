"""What a model can read: texts of so many tokens, in the languages of its vocabulary."""

import sys
from collections.abc import Mapping, Sequence
from typing import TypeVar

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from tunerank.core.errors import InputError

COUNTED_FROM_PADDING = (
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Types of models that number positions from pad_token_id + 1, as fairseq does. XLM-RoBERTa has 514
positions and reads 512 tokens."""
UNKNOWN = 0.05
"""The share of unknown tokens that is warned about. The bundled base knows all of the bundled data
and of STARD; of a text in Korean, Japanese or Russian it does not know a third to a half."""
SAMPLED = 1000

Value = TypeVar("Value")


def most_tokens(config: PreTrainedConfig) -> int | None:
    """Return the most tokens of a text that a model has positions for; None: any number."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.model_type in COUNTED_FROM_PADDING:
        positions -= (config.pad_token_id or 0) + 1
    return positions


def refuse_longer(name: str, tokens: int | None, lengths: Mapping[str, int]) -> None:
    """Refuse lengths that a model has no positions for.

    Args:
        name: of the model, in the message.
        tokens: the most that it can read, see `most_tokens`.
        lengths: parameter, or a sum of parameters -> its value.

    Raises:
        InputError: with the parameter and the value that it can have.
    """
    for setting, length in lengths.items():
        if tokens is not None and length > tokens:
            raise InputError(
                f"{setting} is {length}, but {name} reads at most {tokens} tokens; set {setting} "
                f"to {tokens} or less"
            )


def unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Return the share of the tokens of texts that are the unknown token, from 0 to 1.

    At most SAMPLED of the texts are read, evenly spaced.
    """
    read = sampled(texts)
    if tokenizer.unk_token_id is None or not read:
        return 0.0
    encoded = tokenizer(read, add_special_tokens=False)["input_ids"]
    total = sum(len(ids) for ids in encoded)
    return sum(ids.count(tokenizer.unk_token_id) for ids in encoded) / max(1, total)


def sampled(values: Sequence[Value]) -> list[Value]:
    """Return at most SAMPLED of the values, evenly spaced."""
    return list(values[:: max(1, -(-len(values) // SAMPLED))])


def warn_unknown(
    tokenizer: PreTrainedTokenizerBase, name: str, texts: Sequence[str], other: str
) -> None:
    """Print a warning if more than UNKNOWN of the tokens of texts are unknown.

    Args:
        name: of the model; other: what to use in its place.
    """
    share = unknown_share(tokenizer, texts)
    if share > UNKNOWN:
        print(
            f"WARNING: {name} does not know {share:.0%} of the tokens of these texts, and ranks "
            f"different texts alike; use {other} for their language, see docs/models.md",
            file=sys.stderr,
        )
