"""Dropout: its rate, and a mask for processors that costs an eighth of torch's random numbers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as torch_dropout
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from typing_extensions import override

# Name of the attention below among those of transformers.
ATTENTION = "sdpa_or_bytes"
# Values of the random byte that each element of a mask gets.
LEVELS = 256


class ByteDropout(nn.Dropout):
    """Dropout whose mask, on a processor, is made of random bytes, eight from one draw of torch's generator.

    torch draws a number for each element, one after the other: a third of a training step of a small BERT. A byte makes
    the probability a multiple of 1/256 (0.1 becomes 0.1016); what is kept is scaled by what that asks for, so means are
    exact. On other devices it is torch's own.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        return byte_dropout(input, self.p, self.training)


def byte_dropout(values: Tensor, p: float, training: bool) -> Tensor:
    """Drop elements, as ``torch.nn.functional.dropout`` does.

    Args:
        values: Any shape, floating point.
        p: Probability of an element to become 0; on a processor the nearest multiple of 1/256.
        training: Without it, ``values`` come back as they are.

    Returns:
        The values, what is kept scaled up so that the expectation stays.
    """
    dropped = round(p * LEVELS)
    if not training or values.device.type != "cpu" or not 0 < dropped < LEVELS:
        return torch_dropout(values, p, training)
    draws = torch.empty(-(-values.numel() // 8), dtype=torch.int64)
    # From the smallest number on, so that all 64 bits are random.
    bytes_ = draws.random_(torch.iinfo(torch.int64).min, None).view(torch.uint8)
    kept = bytes_[: values.numel()].view(values.shape) >= dropped
    return values * kept.to(values.dtype).mul_(LEVELS / (LEVELS - dropped))


def set_dropout(network: nn.Module, p: float | None) -> None:
    """Give every dropout of a network the mask above and, where it is given, another rate.

    Args:
        network: Changed in place.
        p: The rate; None keeps each layer's own.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, ByteDropout(child.p if p is None else p))


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' models: torch's fused one, except in training with dropout on a processor.

    There the fused one takes a slow path; this one multiplies out and drops by bytes.

    Args:
        module: The layer.
        query: ``(B, heads, T, d)``.
        key: As ``query``.
        value: As ``query``.
        attention_mask: ``(B, 1, T, T)`` bool, true where there is a token to attend to; None means everywhere.
        dropout: Rate; 0 outside training.
        scaling: Factor of the scores; None means ``d ** -0.5``.
        **options: As transformers has them.

    Returns:
        ``(B, T, heads, d)`` and None.
    """
    if not dropout or query.device.type != "cpu":
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
        return fused
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = byte_dropout(scores.softmax(-1), dropout, True)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
