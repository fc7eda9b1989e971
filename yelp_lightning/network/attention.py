"""Attention for processors: a few reviews at a time, by their own lengths, so that their scores stay in the cache."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

from yelp_lightning.network.dropout import draw_kept, is_drawn, keep

# Name of the attention below among those of transformers.
ATTENTION = "sdpa_or_reviews"
# Elements of the scores that are computed at once: 2 MB in bfloat16, what two cores have as a cache of their own.
CACHED_SCORES = 1_000_000
# Tokens are computed in multiples of this, as far as there is padding.
WIDTH_MULTIPLE = 32
# B rows, H heads, Q queries, T tokens, d width of a head


class ReviewAttention(torch.autograd.Function):
    """Attention of each review to its own first tokens, with the gradients.

    Torch's fused attention takes about twice as long forward and backward on a processor, and drops by a slow path of
    its own; products of the whole batch write their scores to memory and read them again. Here nothing is computed
    much beyond the longest review of a part, and the output there is 0. Scores are computed anew in backward: kept,
    those of long reviews take nearly as much memory as all other activations.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scaling: float, dropout: float
    ) -> Tensor:
        """Weighted means of the values.

        Args:
            ctx: What backward needs.
            query: ``(B, H, Q, d)``: of all tokens, or of the first ones.
            key: ``(B, H, T, d)``.
            value: As ``key``.
            lengths: Tokens to attend to, of each review.
            scaling: Factor of the scores.
            dropout: Rate; 0, or one that ``is_drawn``.

        Returns:
            ``(B, H, Q, d)``, the view of a ``(B, Q, H, d)`` tensor.
        """
        query = torch.mul(query, scaling, out=query.new_empty(query.shape))
        key, value = key.contiguous(), value.contiguous()
        output = _side_by_side(query)
        saved = [query, key, value]
        ctx.parts = list(_parts(lengths, query, key))
        for part in ctx.parts:
            weights = _weights(query, key, part)
            if dropout:
                saved.append(draw_kept(weights.shape, dropout))
                weights = keep(weights, saved[-1], dropout)
            _put(output, part, weights @ _heads(value, part))
        ctx.save_for_backward(*saved)
        ctx.scaling, ctx.dropout = scaling, dropout
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys and values.

        Args:
            ctx: From forward.
            grad_output: ``(B, H, Q, d)``.

        Returns:
            Three gradients, and None for what is no tensor.
        """
        query, key, value, *saved = ctx.saved_tensors
        grad_output = grad_output.contiguous()
        grads = grad_query, grad_key, grad_value = [_side_by_side(one) for one in (query, key, value)]
        for part in ctx.parts:
            queries, keys, values, grad = (_heads(one, part) for one in (query, key, value, grad_output))
            weights = dropped = _weights(query, key, part)
            grad_weights = grad @ values.transpose(1, 2)
            if ctx.dropout:
                kept = saved.pop(0)
                dropped, grad_weights = (keep(one, kept, ctx.dropout) for one in (weights, grad_weights))
            _put(grad_value, part, dropped.transpose(1, 2) @ grad)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            _put(grad_query, part, (grad_scores @ keys).mul_(ctx.scaling))
            _put(grad_key, part, grad_scores.transpose(1, 2) @ queries)
        return *grads, None, None, None


@dataclass(frozen=True)
class _Part:
    """Neighbouring reviews whose scores fit the cache: which, the tokens of each, and how many are computed."""

    rows: slice
    lengths: list[int]
    width: int


def _parts(lengths: list[int], query: Tensor, key: Tensor) -> Iterator[_Part]:
    rows, heads, queries, _ = query.shape
    size = max(CACHED_SCORES // (heads * queries * max(lengths)), 1)
    for start in range(0, rows, size):
        part = lengths[start : start + size]
        # Few widths: for each new one, torch builds and keeps new kernels.
        width = min(-(-max(part) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE, key.shape[2])
        yield _Part(slice(start, start + size), part, width)


def _weights(query: Tensor, key: Tensor, part: _Part) -> Tensor:
    """What each query takes of each token, ``(b * H, q, t)``."""
    scores = _heads(query, part) @ _heads(key, part).transpose(1, 2)
    # Padding alone is written to: a mask over all scores takes four to ten times as long.
    for review, length in zip(scores.view(len(part.lengths), -1, *scores.shape[1:]), part.lengths, strict=True):
        review[..., length:] = -torch.inf
    return scores.softmax(-1)


def _side_by_side(heads: Tensor) -> Tensor:
    """Memory whose heads lie side by side for each token, as the layers around the attention have them."""
    rows, count, tokens, width = heads.shape
    return heads.new_empty(rows, tokens, count, width).transpose(1, 2)


def _heads(whole: Tensor, part: _Part) -> Tensor:
    """The tokens of a part that are computed, ``(b * H, t, d)``, without a copy."""
    return whole[part.rows, :, : part.width].flatten(0, 1)


def _put(whole: Tensor, part: _Part, found: Tensor) -> None:
    """Write what was found for a part, and 0 for the tokens behind it."""
    rows, width = whole[part.rows], found.shape[1]
    rows[:, :, :width] = found.view(len(rows), -1, *found.shape[1:])
    rows[:, :, width:] = 0


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' models: torch's fused one, except where another is faster on a processor.

    Args:
        module: The layer.
        query: ``(B, H, Q, d)``.
        key: ``(B, H, T, d)``.
        value: As ``key``.
        attention_mask: ``(B, 1, Q, T)`` bool, true where there is a token to attend to; None means everywhere.
        dropout: Rate; 0 outside training.
        scaling: Factor of the scores; None means ``d ** -0.5``.
        **options: As transformers has them.

    Returns:
        ``(B, Q, H, d)`` and None.
    """
    lengths = None
    # Without gradients, torch's own is no slower in float32.
    pays = torch.is_grad_enabled() or query.dtype == torch.bfloat16
    known = query.device.type == "cpu" and not torch.compiler.is_compiling() and key.shape[1] == query.shape[1]
    if pays and known and (not dropout or is_drawn(dropout)):
        causal = options.get("is_causal")
        lengths = _lengths(key, attention_mask, getattr(module, "is_causal", True) if causal is None else causal)
    if lengths is None:
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
        return fused
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    attend: Callable[..., Tensor] = ReviewAttention.apply
    return attend(query, key, value, lengths, scaling, dropout).transpose(1, 2), None


def _lengths(key: Tensor, mask: Tensor | None, causal: bool) -> list[int] | None:
    """How many of its first tokens each review attends to; None where the mask says something else."""
    rows, _, tokens, _ = key.shape
    if mask is None:
        return None if causal else [tokens] * rows
    # A mask of padding is expanded along the queries, without a copy.
    if mask.dtype != torch.bool or (mask.stride(2) and mask.shape[2] > 1):
        return None
    real = mask[:, 0, 0].expand(rows, tokens)
    lengths = real.sum(-1)
    first = lengths.min() > 0 and torch.equal(real, torch.arange(tokens) < lengths[:, None])
    return lengths.tolist() if first else None


def attention_mask(q_length: int, mask_function: Callable[..., Any], **options: Any) -> Tensor | None:
    """The mask of ``attention``: transformers' own, but all queries share one where it is of padding alone.

    Args:
        q_length: Queries.
        mask_function: Which query may see which token.
        **options: As transformers has them.

    Returns:
        ``(B, 1, Q, T)`` bool, or None where every token may be seen.
    """
    shared = mask_function is bidirectional_mask_function
    mask: Tensor | None = sdpa_mask(q_length=1 if shared else q_length, mask_function=mask_function, **options)
    return mask if mask is None else mask.expand(-1, -1, q_length, -1)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, attention_mask)
