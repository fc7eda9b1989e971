"""Intervals: Wilson's against its closed form, the bootstrap against scipy's, and how often they hold the truth."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from yelp_lightning.modeling.intervals import accuracy_interval, mae_interval

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def confusion(right: int, rows: int) -> npt.NDArray[np.int64]:
    """Confusion matrix with ``right`` rows on the diagonal and the others two classes off it."""
    matrix = np.zeros((5, 5), np.int64)
    matrix[0, 0], matrix[1, 3] = right, rows - right
    return matrix


def wilson(right: int, rows: int) -> tuple[float, float]:
    """Wilson 1927, solved for the share: centre and half width."""
    share, scale = right / rows, 1 + Z**2 / rows
    centre = (share + Z**2 / (2 * rows)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    return max(centre - half, 0), min(centre + half, 1)


def random_confusion(rows: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    truth = generator.integers(0, 5, rows)
    preds = np.clip(truth + generator.choice([-2, -1, 0, 1, 2], rows, p=[0.05, 0.15, 0.6, 0.15, 0.05]), 0, 4)
    return confusion_of(truth, preds)


def confusion_of(truth: npt.NDArray[np.int64], preds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    matrix = np.zeros((5, 5), np.int64)
    np.add.at(matrix, (truth, preds), 1)
    return matrix


def errors_of(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The error of each row, in stars."""
    return np.concatenate([np.full(count, abs(row - column)) for (row, column), count in np.ndenumerate(matrix)])


def test_wilson_of_8_in_10() -> None:
    assert accuracy_interval(confusion(8, 10)) == pytest.approx((0.4901625, 0.9433178), abs=1e-7)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.data())
def test_wilson_equals_its_closed_form(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 700_000))
    right = data.draw(st.integers(0, rows))
    low, high = accuracy_interval(confusion(right, rows))
    assert (low, high) == pytest.approx(wilson(right, rows), abs=1e-9)
    assert 0 <= low <= right / rows <= high <= 1


@pytest.mark.parametrize("right", [0, 1])
def test_one_row(right: int) -> None:
    low, high = accuracy_interval(confusion(right, 1))
    assert (low, high) == pytest.approx(wilson(right, 1))
    assert high - low > 0.7  # one row says little
    assert mae_interval(confusion(right, 1)) == ((0, 0) if right else (2, 2))


def test_no_error_at_all() -> None:
    assert mae_interval(confusion(50, 50)) == (0, 0)


@pytest.mark.parametrize("rows", [40, 300, 2000])
def test_bootstrap_equals_scipys(rows: int) -> None:
    matrix = random_confusion(rows, np.random.default_rng(rows))
    errors = errors_of(matrix)
    assert len(errors) == rows
    reference = bootstrap((errors,), np.mean, method="percentile", n_resamples=9999, batch=500, rng=1)
    # An end of 10,000 resamples has a standard error of 0.027 standard deviations of the mean; means are multiples of
    # 1 / rows.
    tolerance = 4 * math.sqrt(2) * 0.027 * errors.std() / math.sqrt(rows) + 1 / rows
    assert mae_interval(matrix) == pytest.approx(tuple(reference.confidence_interval), abs=tolerance)
    # Far narrower than the interval itself, so that this can fail.
    assert tolerance < 0.2 * (reference.confidence_interval.high - reference.confidence_interval.low)


def test_same_rows_same_interval() -> None:
    matrix = random_confusion(100, np.random.default_rng(0))
    assert mae_interval(matrix) == mae_interval(matrix.copy())
    assert mae_interval(matrix) == mae_interval(matrix.T)  # errors have no direction


def test_large_splits_are_quick_and_narrow() -> None:
    matrix = random_confusion(650_000, np.random.default_rng(0))
    low, high = mae_interval(matrix)
    assert low < errors_of(matrix).mean() < high
    assert high - low < 0.01


def test_intervals_hold_the_truth_in_about_95_of_100() -> None:
    # 19 of 20 on average; below 180 or above 199 of 200 has a probability of less than 1 in 1,000 for exact intervals.
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 5, 1_000_000)
    steps = generator.choice([-2, -1, 0, 1, 2], 1_000_000, p=[0.05, 0.15, 0.6, 0.15, 0.05])
    preds = np.clip(truth + steps, 0, 4)
    accuracy, mae = (truth == preds).mean(), np.abs(truth - preds).mean()
    held = {"accuracy": 0, "mae": 0}
    for _ in range(200):
        rows = generator.integers(0, len(truth), 200)
        matrix = confusion_of(truth[rows], preds[rows])
        low, high = accuracy_interval(matrix)
        held["accuracy"] += low <= accuracy <= high
        low, high = mae_interval(matrix)
        held["mae"] += low <= mae <= high
    assert 180 <= held["accuracy"] <= 199
    assert 180 <= held["mae"] <= 199
