"""Metrics of one split: exact over its rows, whatever the batches and devices."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanAbsoluteError, MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassCohenKappa,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)
from torchmetrics.utilities import dim_zero_cat

# B rows of a batch, n of a split, C classes (stars)
BINS = 15
"""Equal bins of the calibration error."""


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
    """Expected calibration error of the most probable stars."""

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
                "ece": StarCalibrationError(n_bins=BINS, norm="l1", **options),
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


@dataclass(frozen=True)
class Measured:
    """What a model said of each row of a split, in the split's order.

    Args:
        logits: ``(n, C)``, as the network gives them.
        labels: ``(n,)``, 0..C-1.
        rows: ``(n,)``, numbers of the rows in the split, rising: all of them, unless the trainer limits the batches.
        temperature: By which logits are divided for probabilities.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    temperature: float

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """``(n, C)``, as `predict` gives them; rows sum to 1."""
        return (torch.from_numpy(self.logits).double() / self.temperature).softmax(-1).numpy()

    def calibration(self) -> dict[str, float]:
        """Log-loss (``loss``, nats) and calibration error (``ece``) of the probabilities."""
        logits, labels = torch.from_numpy(self.logits).double() / self.temperature, torch.from_numpy(self.labels)
        ece = StarCalibrationError(  # every device has all rows
            self.logits.shape[1], n_bins=BINS, norm="l1", validate_args=False, sync_on_compute=False
        )
        ece.update(logits.float(), labels)
        return {"loss": float(cross_entropy(logits, labels)), "ece": float(ece.compute())}


class Outputs(Metric):
    """Logits and labels of all rows of a split, from all devices."""

    logits: list[Tensor]
    labels: list[Tensor]
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("logits", "labels", "rows"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C)`` float32.
            labels: ``(B,)`` int64, 0..C-1.
            rows: ``(B,)`` int64, their numbers in the split.
        """
        self.logits.append(logits)
        self.labels.append(labels)
        self.rows.append(rows)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """All rows in the split's order. Every device must call it.

        Returns:
            ``logits (n, C)`` float32, ``labels (n,)`` and ``rows (n,)`` int64.
        """
        logits, labels, rows = (dim_zero_cat(parts) for parts in (self.logits, self.labels, self.rows))
        order = rows.argsort()
        return logits[order], labels[order], rows[order]
