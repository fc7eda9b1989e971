"""Calibration: the fitted temperature is the likeliest, on any logits, and does no harm where rows are few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from yelp_lightning.modeling.calibration import HIGHEST, LOWEST, PRIOR, fit_temperature

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
def test_no_other_temperature_is_likelier(seed: int, rows: int, temperature: float) -> None:
    logits, labels = drawn(seed, rows, temperature)

    def loss(value: float) -> float:
        plain = log_loss(labels, softmax(logits.astype(np.float64) / value, axis=1), labels=range(5))
        return plain + (np.log(value) / PRIOR) ** 2 / 2 / rows

    found = fit_temperature(logits, labels)
    assert LOWEST <= found <= HIGHEST
    assert loss(found) <= min(loss(value) for value in np.geomspace(LOWEST, HIGHEST, 50)) + 1e-5


def test_rows_that_are_all_right_do_not_make_a_model_certain() -> None:
    logits = np.eye(5, dtype=np.float32)
    assert 0.4 < fit_temperature(logits, np.arange(5)) < 0.8
    # However many they are, there is an end.
    assert fit_temperature(np.tile(9 * logits, (1000, 1)), np.tile((np.arange(5) + 1) % 5, 1000)) == pytest.approx(
        HIGHEST, rel=1e-3
    )


def test_few_rows_do_little_harm() -> None:
    # A calibrated model of two classes, twenty rows to fit on: without the prior, the loss rises from 0.22 to 0.28.
    generator, before, after = np.random.default_rng(0), [], []
    for _ in range(200):
        logits = generator.normal(size=(520, 2), scale=4).astype(np.float32)
        probabilities = softmax(logits.astype(np.float64), axis=1)
        labels = (generator.random(520) < probabilities[:, 1]).astype(np.int64)
        temperature = fit_temperature(logits[:20], labels[:20])
        for losses, value in ((before, 1.0), (after, temperature)):
            losses.append(log_loss(labels[20:], softmax(logits[20:].astype(np.float64) / value, axis=1)))
    assert np.mean(after) < np.mean(before) + 0.02


def test_logits_that_are_no_numbers_have_no_temperature() -> None:
    assert fit_temperature(np.array([[np.nan, 1.0]], np.float32), np.array([0])) == 1.0
