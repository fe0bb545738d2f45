"""The last layer for the first token alone: a cross-encoder's head reads no other, so nothing else of that layer is computed.

Of the last layer only keys and values are needed of every token; queries, their output and the feed-forward network, 10 of 12
parts of its work, of the first. Scores and gradients are the same, but for rounding. sentence-transformers and FlagEmbedding
compute the whole layer.
"""

from types import MethodType

import torch
from transformers import PreTrainedModel

LAYERS = ("BertLayer", "RobertaLayer", "XLMRobertaLayer")
"""Whose sequence classifiers read the first token, and which attend by the plain formula."""


def first_token_only(model: PreTrainedModel) -> PreTrainedModel:
    """Let the last layer of a sequence classifier compute what its head reads; another architecture stays as it is.

    The model's weights and files do not change; `last_hidden_state` has one token.
    """
    encoder = getattr(model.base_model, "encoder", None)
    last = encoder.layer[-1] if hasattr(encoder, "layer") else None
    if type(last).__name__ in LAYERS and not last.is_decoder:
        last.forward = MethodType(_forward, last)
    return model


def _forward(layer, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *args, **kwargs) -> torch.Tensor:
    """(batch, tokens, size) -> (batch, 1, size).

    Args:
        attention_mask: None, or of shape (batch, 1, tokens, tokens): what may be attended to, or what is added.
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
    return layer.feed_forward_chunk(layer.attention.output(attended.transpose(1, 2).flatten(2), first))
