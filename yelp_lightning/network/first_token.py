"""The first token: where a head reads it alone, the last layer need not be computed for the others."""

from types import MethodType
from typing import Any

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from yelp_lightning.network.attention import ATTENTION
from yelp_lightning.network.layers import encoder_layers

# Architectures of transformers with BERT's layer, whose heads read the first token.
MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


def reads_first_token(model: Any) -> bool:
    """Whether a classifier's head reads nothing of its encoder but the first token, by a layer that is known here.

    Args:
        model: A classifier of transformers, with ``config``.

    Returns:
        False for other architectures, for heads of ours, and for encoders with a cache or a second input.
    """
    config = model.config
    headed = type(model).__name__.endswith("ForSequenceClassification")
    return headed and config.model_type in MODEL_TYPES and not (config.is_decoder or config.add_cross_attention)


def skip_other_tokens(model: Any) -> None:
    """Let the last layer compute the first token's output alone: keys and values for all tokens, the rest for one.

    The logits stay what they are, within rounding; of six layers this saves a seventh of all operations. Needs the
    attention ``ATTENTION``.

    Args:
        model: A classifier for which ``reads_first_token``; changed in place. The encoder's ``last_hidden_state`` then
            is ``(B, 1, D)``.
    """
    layer: Any = encoder_layers(model)[-1]
    layer.forward = MethodType(_first_token, layer)


def _first_token(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any
) -> Tensor:
    """BERT's layer for ``hidden_states (B, T, D)``, of which the first token's come back, ``(B, 1, D)``."""
    attention, first = self.attention.self, hidden_states[:, :1]
    inputs = {"query": first, "key": hidden_states, "value": hidden_states}
    query, key, value = (
        getattr(attention, name)(states).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
        for name, states in inputs.items()
    )
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    dropout = attention.dropout.p if self.training else 0.0
    output, _ = ALL_ATTENTION_FUNCTIONS[ATTENTION](
        attention, query, key, value, mask, dropout=dropout, scaling=attention.scaling
    )
    found: Tensor = self.feed_forward_chunk(self.attention.output(output.flatten(2), first))
    return found
