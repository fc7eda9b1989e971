"""Rounding: the median is the best whole number for the absolute error, the mean the best for the squared one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mean_absolute_error

from yelp_lightning.modeling.rounding import expected_stars, median_stars, rounding_errors

FEW = settings(deadline=None, max_examples=60, derandomize=True)
WEIGHTS = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 6)), elements=st.floats(0.01, 1))


@FEW
@given(WEIGHTS)
def test_the_median_has_the_smallest_expected_absolute_error(weights: np.ndarray) -> None:
    probabilities = weights / weights.sum(1, keepdims=True)
    stars = np.arange(1, weights.shape[1] + 1)
    errors = probabilities @ np.abs(stars[:, None] - stars)  # (n, C): expected error of each answer
    chosen = errors[np.arange(len(errors)), median_stars(probabilities) - 1]
    np.testing.assert_allclose(chosen, errors.min(1), atol=1e-12)


@FEW
@given(WEIGHTS)
def test_the_mean_is_the_mean(weights: np.ndarray) -> None:
    probabilities = weights / weights.sum(1, keepdims=True)
    stars = np.arange(1, weights.shape[1] + 1)
    np.testing.assert_allclose(expected_stars(probabilities), [np.average(stars, weights=row) for row in weights])


def test_the_errors_of_the_rules() -> None:
    probabilities = np.array([[0.4, 0.0, 0.3, 0.3, 0.0], [0.0, 0.0, 0.0, 0.1, 0.9]])
    labels = np.array([3, 4])
    assert median_stars(probabilities).tolist() == [3, 5]  # the most probable ones are 1 and 5
    found = rounding_errors(probabilities, labels)
    assert found == {
        "mae_median": mean_absolute_error([4, 5], [3, 5]),
        "mae_expected": pytest.approx(mean_absolute_error([4, 5], [2.5, 4.9])),
        "mae_rounded": mean_absolute_error([4, 5], [2, 5]),
    }
