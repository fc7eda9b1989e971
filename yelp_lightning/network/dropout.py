"""Dropout: its rate, and a mask for processors that costs a tenth of torch's random numbers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout as torch_dropout
from typing_extensions import override

# Values of the random byte that each element of a mask gets.
LEVELS = 256
# Integers of as many bytes as a value has.
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


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
    # A compiler has random numbers of its own, and would stop at ours.
    drawn = values.device.type == "cpu" and is_drawn(p) and not torch.compiler.is_compiling()
    if not training or not drawn:
        return torch_dropout(values, p, training)
    drop: Callable[..., Tensor] = _ByteDropout.apply
    return drop(values, p)


class _ByteDropout(torch.autograd.Function):
    """Dropout that keeps one byte of each element for backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, p: float) -> Tensor:
        kept = draw_kept(values.shape, p)
        ctx.save_for_backward(kept)
        ctx.p = p
        return keep(values, kept, p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return keep(grad_output, kept, ctx.p), None


def is_drawn(p: float) -> bool:
    """Whether a rate drops something, but not everything, when it is rounded.

    Args:
        p: The rate.

    Returns:
        False where the nearest multiple of 1/256 is 0 or 1.
    """
    return 0 < round(p * LEVELS) < LEVELS


def draw_kept(shape: Sequence[int], p: float) -> Tensor:
    """Draw what is kept, from torch's generator of processors.

    Args:
        shape: Of the values.
        p: Probability of an element to be dropped; the nearest multiple of 1/256 is meant.

    Returns:
        Int8 of the given shape: -1, which has all bits, where an element is kept, and 0.
    """
    count, dropped = math.prod(shape), round(p * LEVELS)
    draws = torch.empty(-(-count // 8), dtype=torch.int64)
    # From the smallest number on, so that all 64 bits are random.
    bytes_ = draws.random_(torch.iinfo(torch.int64).min, None).view(torch.uint8)[:count].view(shape)
    # A comparison would do the same, by bits and bytes instead of 64 at a time.
    return bytes_.clamp(dropped - 1, dropped).sub_(dropped - 1).view(torch.int8).neg_()


def keep(values: Tensor, kept: Tensor, p: float) -> Tensor:
    """Zeros for what is dropped, and the rest scaled so that the expectation stays.

    Args:
        values: Floating point.
        kept: From ``draw_kept``, of the same shape.
        p: As there.

    Returns:
        A new tensor, outside of autograd.
    """
    bits = INTEGERS[values.dtype.itemsize]
    scale = LEVELS / (LEVELS - round(p * LEVELS))
    return kept.to(bits).bitwise_and_(values.view(bits)).view(values.dtype).mul_(scale)


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
