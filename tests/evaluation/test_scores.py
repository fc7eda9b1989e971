"""Scores against scikit-learn and against the project's own metrics, for any rows, drawn anew too."""

import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from yelp_lightning.evaluation.scores import METRICS, Answers, metrics, scores
from yelp_lightning.modeling.metrics import StarMetrics

FEW = settings(deadline=None, max_examples=40, derandomize=True)


def answers(seed: int, rows: int, classes: int = 5) -> Answers:
    generator = np.random.default_rng(seed)
    weights = generator.exponential(size=(rows, classes)) ** 2 + 1e-3
    labels = generator.integers(classes, size=rows)
    return Answers(weights / weights.sum(1, keepdims=True), labels)


def reference(given: Answers) -> dict[str, float]:
    """By scikit-learn."""
    true, stars = given.labels, given.probabilities.argmax(1)
    classes = given.probabilities.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are absent
        return {
            "accuracy": sklearn.metrics.accuracy_score(true, stars),
            "macro_f1": sklearn.metrics.f1_score(true, stars, average="macro"),
            "mae": sklearn.metrics.mean_absolute_error(true, stars),
            "within_1": float((np.abs(true - stars) <= 1).mean()),
            "qwk": sklearn.metrics.cohen_kappa_score(true, stars, weights="quadratic", labels=range(classes)),
            "loss": sklearn.metrics.log_loss(true, given.probabilities, labels=range(classes)),
        }


@FEW
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([2, 5, 40]))
def test_scores_are_those_of_scikit_learn(seed: int, rows: int, classes: int) -> None:
    given_ = answers(seed, rows, classes)
    found = scores(given_)
    assert tuple(found) == METRICS
    for name, value in reference(given_).items():
        assert found[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


@FEW
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_scores_are_those_of_training(seed: int, rows: int) -> None:
    given_ = answers(seed, rows)
    logits, labels = torch.from_numpy(given_.probabilities).log().float(), torch.from_numpy(given_.labels)
    own = StarMetrics(5)
    own.update(cross_entropy(logits, labels), logits, labels)
    values = own.compute()[0]
    found = scores(given_)
    for name in METRICS:
        assert found[name] == pytest.approx(values[name], abs=1e-5, nan_ok=True), name


def test_rows_drawn_anew_are_measured_as_if_they_were_all() -> None:
    given_, generator = answers(1, 30), np.random.default_rng(2)
    drawn = generator.integers(30, size=(6, 30))
    counts = np.stack([np.bincount(rows, minlength=30) for rows in drawn])
    found = metrics(np.asarray(counts @ given_.statistics), 30, 5)
    for number, rows in enumerate(drawn):
        alone = scores(Answers(given_.probabilities[rows], given_.labels[rows]))
        for name in METRICS:
            assert found[name][number] == pytest.approx(alone[name], abs=1e-9), (number, name)
