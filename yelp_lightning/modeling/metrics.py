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


def _keep(kept: list[Tensor], values: Tensor) -> None:
    """Keep what was computed of a batch, in one tensor for all batches.

    With a small tensor for each, between the large ones that come and go, memory that is free is not used again: a
    test of 100,000 reviews took 280 MB more.

    Args:
        kept: Nothing, or the tensor; its storage has room for more.
        values: ``(B, ...)``.
    """
    if not kept:
        kept.append(values.clone(memory_format=torch.contiguous_format))  # which is what resize_ takes it for
        return
    known, rows = len(kept[0]), len(kept[0]) + len(values)
    if kept[0].untyped_storage().nbytes() < (kept[0].numel() + values.numel()) * values.element_size():
        kept[0].resize_(2 * rows, *values.shape[1:])
    kept[0].resize_(rows, *values.shape[1:])[known:] = values


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
        _keep(self.confidences, confidences.clamp(max=1 - 2**-24))
        _keep(self.accuracies, (preds == labels).float())


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
    """What was computed of each row of a split, from all devices.

    Args:
        *names: Of the values that each row has.
    """

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = ("row", *names)
        for name in self.names:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, **values: Tensor) -> None:
        """Add a batch.

        Args:
            **values: ``row (B,)`` int64, the rows' numbers in the split, and ``(B, ...)`` of each name.
        """
        for name in self.names:
            _keep(getattr(self, name), values[name])

    def compute(self) -> dict[str, Tensor]:
        """All rows in the split's order; what has one element is a scalar. Every device must call it."""
        values = {name: dim_zero_cat(getattr(self, name)) for name in self.names}
        order = values["row"].argsort()
        return {name: of_rows[order] for name, of_rows in values.items()}

    def collect(self) -> dict[str, npt.NDArray[Any]]:
        """All rows in the split's order; resets for the next round. Every device must call it.

        Returns:
            ``row (n,)`` and the values of each name, ``(n, ...)``.
        """
        # torchmetrics makes a scalar of what has one element.
        values = {name: np.atleast_1d(of_rows.cpu().numpy()) for name, of_rows in self.compute().items()}
        self.reset()
        return values
