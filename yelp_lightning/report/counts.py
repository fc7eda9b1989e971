"""Counts of a tested model: confusion, calibration, accuracy by length, and the wrong rows it is surest of."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix

from yelp_lightning.modeling.intervals import mae_interval
from yelp_lightning.report.rows import Tested, TestedRows
from yelp_lightning.report.shares import ENOUGH, Share

# Bins of the reliability diagram and groups of lengths, at the most.
BINS, LENGTHS = 10, 5
# Wrong reviews that are shown.
WRONG = 50

# n rows, C classes


class Confusion(NamedTuple):
    """How often one class is read as another.

    Args:
        true: The true class.
        predicted: What it is read as.
        share: Of the rows of the true class.
    """

    true: int
    predicted: int
    share: Share


class Bin(NamedTuple):
    """Rows of near confidence.

    Args:
        confidence: Their mean probability of the predicted class.
        right: Share that was read right.
    """

    confidence: float
    right: Share


class Estimate(NamedTuple):
    """A measured value.

    Args:
        value: The value.
        interval: Its 95 % interval.
    """

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Group:
    """Some rows of a kind.

    Args:
        name: What they share, such as ``81 to 140``, tokens.
        inside: Which rows these are, ``(n,)``.
    """

    name: str
    inside: npt.NDArray[np.bool_]


def confusions(rows: TestedRows, tested: Tested) -> npt.NDArray[np.int64]:
    """The confusion matrix.

    Args:
        rows: The rows.
        tested: The model.

    Returns:
        ``(C, C)``: a line per true class, a column per predicted one.
    """
    classes = range(len(rows.class_names))
    matrix: npt.NDArray[np.int64] = confusion_matrix(rows.labels, tested.preds, labels=classes)
    return matrix


def mistakes(matrix: npt.NDArray[np.int64]) -> list[Confusion]:
    """All kinds of mistakes that were made.

    Args:
        matrix: Confusion matrix, ``(C, C)``.

    Returns:
        The most frequent first.
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    n = matrix.sum(1).tolist()
    found = [Confusion(i, j, Share(int(wrong[i, j]), n[i])) for i, j in np.argwhere(wrong).tolist()]
    return sorted(found, key=lambda one: (-one.share.count, -one.share.value, one.true, one.predicted))


def reliability(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> list[Bin]:
    """How often predictions of some confidence are right, in bins of as many rows each.

    Bins of equal width, as in the calibration error, would leave some with few rows or none.

    Args:
        probabilities: ``(n, C)``.
        labels: True classes, ``(n,)``.

    Returns:
        Up to ``BINS`` bins of ``ENOUGH`` rows or more, in rising order of confidence; none where there are fewer rows.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    count = min(BINS, len(labels) // ENOUGH)
    bins = np.array_split(np.argsort(confidence, kind="stable"), count) if count else []
    return [Bin(float(confidence[rows].mean()), Share.of(right[rows])) for rows in bins]


def by_length(rows: TestedRows) -> list[Group]:
    """Rows in groups of about as many each, by their tokens before truncation.

    Args:
        rows: The rows.

    Returns:
        Up to ``LENGTHS`` groups of about ``ENOUGH`` rows or more, the shortest first; one where all are as long.
    """
    count = max(1, min(LENGTHS, len(rows.labels) // ENOUGH))
    ends = np.unique(np.quantile(rows.lengths, np.arange(1, count + 1) / count, method="lower"))
    place = np.searchsorted(ends, rows.lengths)
    groups = []
    for number in range(len(ends)):
        inside = place == number
        low, high = int(rows.lengths[inside].min()), int(rows.lengths[inside].max())
        groups.append(Group(f"{low:,}" if low == high else f"{low:,} to {high:,}", inside))
    return groups


def by_truncation(rows: TestedRows) -> list[Group]:
    """Rows that the model saw whole, and those of which it saw a part.

    Args:
        rows: The rows.

    Returns:
        The groups that have rows.
    """
    groups = [Group("whole", ~rows.truncated), Group("truncated", rows.truncated)]
    return [group for group in groups if group.inside.any()]


def group_accuracy(group: Group, rows: TestedRows, tested: Tested) -> Estimate:
    """Accuracy of a group.

    Args:
        group: The group.
        rows: All rows.
        tested: The model.

    Returns:
        A share of 1.
    """
    share = Share.of((tested.preds == rows.labels)[group.inside])
    return Estimate(share.value, share.interval)


def group_mae(group: Group, rows: TestedRows, tested: Tested) -> Estimate:
    """Mean absolute error of a group.

    Args:
        group: The group.
        rows: All rows, of ordered classes.
        tested: The model.

    Returns:
        In classes, such as stars.
    """
    true, predicted = rows.labels[group.inside], tested.preds[group.inside]
    matrix = confusion_matrix(true, predicted, labels=range(len(rows.class_names)))
    return Estimate(float(np.abs(predicted - true).mean()), mae_interval(matrix))


def surest_wrong(tested: Tested) -> list[int]:
    """The wrong rows of the highest confidence.

    Args:
        tested: The model.

    Returns:
        Up to ``WRONG`` row numbers, the surest first.
    """
    wrong = np.flatnonzero(tested.preds != tested.measured.labels)
    confidence = tested.measured.probabilities.max(1)[wrong]
    surest: list[int] = wrong[np.argsort(-confidence, kind="stable")][:WRONG].tolist()
    return surest
