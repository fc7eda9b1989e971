"""Calibration: the fitted temperature is the best one, on any logits, and finds the one that made the labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from yelp_lightning.modeling.calibration import HIGHEST, LOWEST, fit_temperature

FEW = settings(deadline=None, max_examples=40, derandomize=True)


def drawn(seed: int, rows: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn from their probabilities at a temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, 5), scale=2).astype(np.float32)
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    labels = np.array([generator.choice(5, p=row) for row in probabilities])
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_the_labels_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(0, 20_000, temperature)) == pytest.approx(temperature, rel=0.05)


@FEW
@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([0.3, 1.0, 4.0]))
def test_no_other_temperature_has_a_smaller_loss(seed: int, rows: int, temperature: float) -> None:
    logits, labels = drawn(seed, rows, temperature)

    def loss(value: float) -> float:
        return log_loss(labels, softmax(logits.astype(np.float64) / value, axis=1), labels=range(5))

    found = fit_temperature(logits, labels)
    assert LOWEST <= found <= HIGHEST
    assert loss(found) <= min(loss(value) for value in np.geomspace(LOWEST, HIGHEST, 50)) + 1e-5


def test_rows_that_are_all_right_do_not_make_a_model_certain() -> None:
    logits = np.eye(5, dtype=np.float32)
    assert fit_temperature(logits, np.arange(5)) == pytest.approx(LOWEST, rel=1e-3)
    # And where it knows nothing at all, that is said.
    assert fit_temperature(logits, (np.arange(5) + 1) % 5) == pytest.approx(HIGHEST, rel=1e-3)


def test_logits_that_are_no_numbers_have_no_temperature() -> None:
    assert fit_temperature(np.array([[np.nan, 1.0]], np.float32), np.array([0])) == 1.0
