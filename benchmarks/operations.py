"""The fewest floating-point operations that the real tokens of some reviews need, and the rate of matrix products."""

import time
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

# A product of an (n, m) matrix with an (m, k) one: n m k multiplications and as many additions.
PER_WEIGHT = 2
# Backward, each product becomes two of the same size: the gradients of both of its factors.
FORWARD_AND_BACKWARD = 3
REPEATS = 7  # of which the median counts
SECONDS = 0.1  # of one repeat, about
# Rows of the timed products, tokens: enough for their full rate on a processor, and on an accelerator.
TOKENS, ACCELERATOR_TOKENS = 4096, 32768


def linear_sizes(model: Any) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Sizes of a model's linear layers.

    Args:
        model: A classifier of transformers: an encoder under ``base_model``, a head beside it.

    Returns:
        ``(in, out)`` of each layer that must see every token, and of each that need see a review once: pooler and head
        and, where the head reads the first token alone, all of the encoder's last layer but keys and values.
    """
    import torch

    from yelp_lightning.network.first_token import reads_first_token
    from yelp_lightning.network.layers import encoder_layers

    sizes: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    prefix = f"{model.base_model_prefix}."
    last: set[torch.nn.Module] = set()
    if reads_first_token(model):
        layer: Any = encoder_layers(model)[-1]
        last = {*layer.modules()} - {layer.attention.self.key, layer.attention.self.value}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            once = not name.startswith(prefix) or "pooler" in name or layer in last
            sizes[once].append((layer.in_features, layer.out_features))
    return sizes


def operations(model: Any, lengths: Iterable[int], backward: bool) -> int:
    """Operations of the matrix products that reviews need, without any padding.

    With ``W`` the weights (without biases) of all linear layers that must see every token, ``V`` those of the others
    (``linear_sizes``), ``L`` layers, ``H`` the width of all heads together, and ``t`` the tokens of a review::

        forward(t) = 2 W t + 4 (L - 1) H t² + 4 H t + 2 V
        forward and backward = 3 forward

    ``4 H t²`` is attention: scores and weighted values, ``2 H t²`` each, by the review's own length; in the last layer
    ``4 H t`` where the head reads the first token alone, and ``4 H t²`` elsewhere. Lookups of embeddings, biases,
    norms, activations, softmax, dropout and the optimizer are not counted: the time that they take is what keeps the
    fraction below 1.

    Args:
        model: A classifier of transformers.
        lengths: Real tokens of each review.
        backward: Whether to count the backward pass too.

    Returns:
        Multiplications and additions.
    """
    from yelp_lightning.network.first_token import reads_first_token

    every, once = (sum(one * other for one, other in sizes) for sizes in linear_sizes(model))
    attention, layers = 2 * PER_WEIGHT * model.config.hidden_size, model.config.num_hidden_layers
    alone = int(reads_first_token(model))  # layers in which one token's attention suffices
    lengths = list(lengths)
    forward = sum(
        PER_WEIGHT * every * length + attention * ((layers - alone) * length**2 + alone * length) for length in lengths
    )
    forward += PER_WEIGHT * once * len(lengths)
    return forward * (FORWARD_AND_BACKWARD if backward else 1)


def _products(model: Any, dtype: Any, device: str) -> Iterator[tuple[int, int, Any]]:
    """How often each product occurs in the layers, its operations, and a function that does it."""
    import torch

    every, _ = linear_sizes(model)
    tokens = TOKENS if device == "cpu" else ACCELERATOR_TOKENS
    for size in sorted(set(every)):
        inner, outer = size
        values = torch.randn(tokens, inner, device=device, dtype=dtype)
        weights = torch.randn(outer, inner, device=device, dtype=dtype)
        gradients = torch.randn(tokens, outer, device=device, dtype=dtype)
        products = (
            lambda x=values, w=weights: x @ w.T,
            lambda g=gradients, w=weights: g @ w,
            lambda g=gradients, x=values: g.T @ x,
        )
        for product in products:
            yield every.count(size), PER_WEIGHT * tokens * inner * outer, product


def matrix_rate(model: Any, dtype: Any, device: str) -> float:
    """Rate of the matrix products of a model's layers, alone and in the same dtype.

    Each product of the linear layers, forward and both backward ones, over many tokens: the operations of all of them,
    as often as they occur, over the seconds that they take, each the median of repeats.

    Args:
        model: A classifier of transformers.
        dtype: Numbers to multiply.
        device: Where.

    Returns:
        GFLOP/s.
    """
    import torch

    def seconds(product: Any, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            product()
        if device != "cpu":
            torch.accelerator.synchronize()
        return (time.perf_counter() - start) / times

    total = needed = 0.0
    for count, amount, product in _products(model, dtype, device):
        seconds(product, 2)  # the first ones choose and build kernels
        times = max(1, round(SECONDS / seconds(product, 1)))
        total += count * amount
        needed += count * median(seconds(product, times) for _ in range(REPEATS))
    return total / needed / 1e9
