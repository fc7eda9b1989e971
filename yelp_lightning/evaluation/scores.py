"""Scores: every metric of a model's answers, for all rows or for rows drawn anew, from sums over the rows."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from yelp_lightning.modeling.metrics import BINS

Floats = npt.NDArray[np.float64]
# n rows, C classes, R resamples, K statistics of a row
METRICS = ("accuracy", "macro_f1", "mae", "within_1", "qwk", "ece", "loss")
"""In the order in which they are shown."""
ORDINAL = ("mae", "within_1", "qwk")
"""What only ordered classes have."""
# Statistics that stand before those of the classes and of the bins.
_PLAIN = 9


@dataclass(frozen=True)
class Answers:
    """What one model said of the rows.

    Args:
        probabilities: ``(n, C)``, rows sum to 1.
        labels: ``(n,)``, 0..C-1.
    """

    probabilities: Floats
    labels: npt.NDArray[np.int64]

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The most probable class of each row, ``(n,)``, 0..C-1."""
        return np.asarray(self.probabilities.argmax(1), np.int64)

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether that is the true one, ``(n,)``."""
        return np.asarray(self.predicted == self.labels)

    @cached_property
    def statistics(self) -> Any:
        """Numbers of each row, ``(n, K)``, a sparse matrix: their sums over rows decide every metric.

        The columns are: right, distance, at most one off, true class, predicted class, their squares, squared distance,
        log-loss; then for each class right, true and predicted; then for each bin of confidence right less confidence.
        """
        from scipy.sparse import csr_matrix, hstack

        rows, classes = self.probabilities.shape
        true, predicted = self.labels.astype(np.float64), self.predicted.astype(np.float64)
        distance, confidence = np.abs(true - predicted), self.probabilities.max(1)
        # As torchmetrics and scikit-learn: what is called impossible costs much, but not without end.
        of_truth = self.probabilities[np.arange(rows), self.labels].clip(np.finfo(np.float64).tiny)
        plain = [self.right, distance, distance <= 1, true, predicted, true**2, predicted**2, distance**2]
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)

        def by(column: npt.NDArray[np.int64], values: Any, columns: int) -> Any:
            return csr_matrix((np.asarray(values, np.float64), (np.arange(rows), column)), (rows, columns))

        return hstack(
            [
                csr_matrix(np.column_stack([*plain, -np.log(of_truth)]).astype(np.float64)),
                by(self.labels, self.right, classes), by(self.labels, np.ones(rows), classes),
                by(self.predicted, np.ones(rows), classes), by(bins, self.right - confidence, BINS),
            ],
            format="csr",
        )  # fmt: skip


def metrics(sums: Floats, rows: int, classes: int) -> dict[str, Floats]:
    """Every metric from the sums of ``Answers.statistics``.

    Args:
        sums: ``(R, K)``: of all rows, or of rows that were drawn anew.
        rows: How many were summed.
        classes: Classes ``C``.

    Returns:
        ``METRICS`` to values ``(R,)``. macro_f1 is over the classes that occur; qwk is nan where there is one class
        alone.
    """
    right, distance, near, true, predicted, true2, predicted2, distance2, loss = sums[:, :_PLAIN].T / rows
    hits, of_class, as_class = (sums[:, _PLAIN + part * classes :][:, :classes] for part in range(3))
    with np.errstate(invalid="ignore"):  # 0 / 0 is meant to be nan
        f1 = 2 * hits / (of_class + as_class)
        # The squared distance of two classes that are drawn apart, from their moments.
        qwk = 1 - distance2 / (true2 + predicted2 - 2 * true * predicted)
    ece = np.abs(sums[:, _PLAIN + 3 * classes :]).sum(1) / rows
    values = (right, np.nanmean(f1, axis=1), distance, near, qwk, ece, loss)
    return dict(zip(METRICS, values, strict=True))


def scores(answers: Answers) -> dict[str, float]:
    """Every metric over all rows.

    Args:
        answers: Of one model.

    Returns:
        ``METRICS`` to values.
    """
    sums = np.asarray(answers.statistics.sum(axis=0))
    found = metrics(sums.reshape(1, -1), *answers.probabilities.shape)
    return {name: float(value[0]) for name, value in found.items()}
