"""Metrics of one split: exact over its rows, whatever the batches and devices."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassCohenKappa,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

# B rows, C classes (stars)


class StarMeanAbsoluteError(MeanAbsoluteError):
    """Mean distance between the most probable and the true stars, in stars."""

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C)`` float.
            labels: ``(B,)`` int64.
        """
        super().update(logits.argmax(-1).float(), labels.float())


class StarWithinOne(MeanMetric):
    """Share of rows whose most probable stars are at most one off the true ones."""

    def update(self, logits: Tensor, labels: Tensor) -> None:  # type: ignore[override]
        """Add a batch.

        Args:
            logits: ``(B, C)`` float.
            labels: ``(B,)`` int64.
        """
        super().update(((logits.argmax(-1) - labels).abs() <= 1).float())


class StarCalibrationError(MulticlassCalibrationError):
    """Expected calibration error, 15 equal bins, of the most probable stars."""

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C)`` float.
            labels: ``(B,)`` int64.
        """
        # torchmetrics 1.9 takes logits that all lie in [0, 1] for probabilities, and of two probabilities that float32
        # cannot tell apart the first, though the other's logit may be the larger one, as accuracy has it.
        preds = logits.argmax(-1)
        confidences = logits.softmax(-1).gather(-1, preds.unsqueeze(-1)).squeeze(-1)  # (B,)
        # It gives a probability of exactly 1 a sixteenth bin; 1 - 2**-24 is the float32 just below 1.
        self.confidences.append(confidences.clamp(max=1 - 2**-24))
        self.accuracies.append((preds == labels).float())


class StarMetrics(torch.nn.Module):
    """All metrics of one stage: loss, accuracy, macro_f1, mae, within_1, qwk, ece and the confusion matrix.

    Args:
        num_labels: Classes ``C``.
        ordered: Whether the classes are ordered; otherwise there is no mae, within_1 and qwk.
    """

    def __init__(self, num_labels: int, ordered: bool = True) -> None:
        super().__init__()
        # Logits are computed by our own model: checking every batch again would cost a synchronisation each.
        options: dict[str, Any] = {"num_classes": num_labels, "validate_args": False}
        # torchmetrics leaves nan out of a mean unless told what to take for it, and "disable" of 1.9 drops the weights.
        self.loss = MeanMetric(nan_strategy=float("nan"))
        ordinal: dict[str, Metric | MetricCollection] = {
            "mae": StarMeanAbsoluteError(),
            "within_1": StarWithinOne(),
            "qwk": MulticlassCohenKappa(weights="quadratic", **options),
        }
        self.scores = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(average="micro", **options),
                "macro_f1": MulticlassF1Score(average="macro", **options),
                **(ordinal if ordered else {}),
                "ece": StarCalibrationError(n_bins=15, norm="l1", **options),
            }
        )
        self.confusion = MulticlassConfusionMatrix(**options)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            loss: ``()`` mean loss of the batch, nats.
            logits: ``(B, C)`` float32.
            labels: ``(B,)`` int64, 0..C-1.
        """
        self.loss.update(loss, weight=len(labels))
        self.scores.update(logits, labels)
        self.confusion.update(logits, labels)

    def compute(self) -> tuple[dict[str, float], list[list[int]]]:
        """Values over all rows of all devices; resets for the next round. Every device must call it.

        Returns:
            The metrics by name, and the confusion matrix: one row per true class, one column per predicted class.
            ``qwk`` is nan where all rows have one class and were given it, as in scikit-learn.
        """
        values = {"loss": self.loss.compute(), **self.scores.compute()}
        confusion = self.confusion.compute()
        self.loss.reset()
        self.scores.reset()
        self.confusion.reset()
        return {name: float(value) for name, value in values.items()}, confusion.tolist()
