"""Losses: what an answer costs, of classes alone or of stars, which have distances."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Loss = Literal["cross_entropy", "soft_stars"]
# B rows, C classes


def star_targets(labels: Tensor, num_labels: int, softness: float) -> Tensor:
    """Targets that give near stars a part: ``softmax(-distance / softness)``.

    Args:
        labels: ``(B,)`` int64, 0..C-1.
        num_labels: Classes ``C``.
        softness: Stars over which a part falls to 1/e of the one before.

    Returns:
        ``(B, C)`` float32, rows sum to 1.

    Source:
        Diaz and Marathe 2019, "Soft Labels for Ordinal Regression".

    Example:
        >>> [round(part, 3) for part in star_targets(torch.tensor([0]), 3, 0.5)[0].tolist()]
        [0.867, 0.117, 0.016]
    """
    distances = (torch.arange(num_labels, device=labels.device) - labels.unsqueeze(-1)).abs()  # (B, C)
    return (-distances / softness).softmax(-1)


def star_loss(
    logits: Tensor,
    labels: Tensor,
    loss: Loss = "cross_entropy",
    softness: float = 0.5,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """What is minimised: the weighted mean over the rows of a batch.

    Args:
        logits: ``(B, C)`` float32.
        labels: ``(B,)`` int64.
        loss: ``cross_entropy``, or ``soft_stars``: cross-entropy against ``star_targets``.
        softness: Of ``star_targets``.
        label_smoothing: Share of each target that is spread over all classes.
        class_weights: ``(C,)`` float32, weight of each row by its class; their mean over the training rows should be 1,
            since the sum is divided by B, so that batches of any classes count alike.

    Returns:
        ``()`` float32, nats.
    """
    num_labels = logits.shape[-1]
    target = star_targets(labels, num_labels, softness) if loss == "soft_stars" else labels
    losses = cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)  # (B,)
    return (losses if class_weights is None else losses * class_weights[labels]).mean()


def balanced_weights(counts: Tensor) -> Tensor:
    """Weights by which all classes count alike: ``n / (C * count)``, as scikit-learn's ``balanced``.

    Args:
        counts: ``(C,)`` training rows of each class; a class without rows gets weight 0.

    Returns:
        ``(C,)`` float32; their mean over the training rows is 1.
    """
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, 0.0).float()
