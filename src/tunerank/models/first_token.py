"""Compute the last layer only for the first token, because a cross-encoder's head reads no other.

Only keys and values are needed for every token. Queries, attention output and the feed-forward
network, 10 of 12 parts of the layer's work, are needed for the first token. Scores and gradients
are the same except for rounding. sentence-transformers and FlagEmbedding compute the whole layer.
"""

from types import MethodType

import torch
from transformers import PreTrainedModel

LAYERS = ("BertLayer", "RobertaLayer", "XLMRobertaLayer")
"""Layers of models with standard attention and a classification head on the first token."""


def first_token_only(model: PreTrainedModel) -> PreTrainedModel:
    """Return the sequence classifier with a last layer that computes only the first token.

    The model is changed in place; other architectures stay as they are. Weights and files do not
    change. `last_hidden_state` has one token.
    """
    encoder = getattr(model.base_model, "encoder", None)
    last = encoder.layer[-1] if hasattr(encoder, "layer") else None
    if type(last).__name__ in LAYERS and not last.is_decoder:
        last.forward = MethodType(_forward, last)
    return model


def _forward(
    layer, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *args, **kwargs
) -> torch.Tensor:
    """Return the layer's output for the first token, of shape (batch, 1, size).

    Args:
        hidden_states: of shape (batch, tokens, size).
        attention_mask: None, or of shape (batch, 1, tokens, tokens): a boolean mask, or a term to
            add to the attention scores.
    """
    attention = layer.attention.self
    first = hidden_states[:, :1]

    def heads(projected: torch.Tensor) -> torch.Tensor:
        return projected.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)

    attended = torch.nn.functional.scaled_dot_product_attention(
        heads(attention.query(first)),
        heads(attention.key(hidden_states)),
        heads(attention.value(hidden_states)),
        attn_mask=None if attention_mask is None else attention_mask[:, :, :1],
        dropout_p=attention.dropout.p if layer.training else 0.0,
        scale=attention.scaling,
    )
    return layer.feed_forward_chunk(
        layer.attention.output(attended.transpose(1, 2).flatten(2), first)
    )
