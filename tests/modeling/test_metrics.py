"""Metrics against scikit-learn, and the calibration error against its formula, for any rows in any batches."""

import itertools
import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from yelp_lightning.modeling.metrics import StarMetrics

CLASSES = 5
NAMES = {"loss", "accuracy", "macro_f1", "mae", "within_1", "qwk", "ece"}
# The same examples in every run, and no file beside the sources.
FEW = settings(deadline=None, max_examples=40, derandomize=True)


def measure(logits: Tensor, labels: Tensor, cuts: list[int]) -> tuple[dict[str, float], list[list[int]]]:
    """What StarMetrics gives for the rows in the batches between ``cuts``."""
    metrics = StarMetrics(CLASSES)
    feed(metrics, logits, labels, cuts)
    return metrics.compute()


def feed(metrics: StarMetrics, logits: Tensor, labels: Tensor, cuts: list[int]) -> None:
    edges = sorted({0, len(labels), *cuts})
    for start, stop in itertools.pairwise(edges):
        batch, target = logits[start:stop], labels[start:stop]
        metrics.update(cross_entropy(batch, target), batch, target)


def sklearn_values(logits: Tensor, labels: Tensor) -> dict[str, float]:
    truth, preds = labels.numpy(), logits.numpy().argmax(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that are absent
        return {
            "loss": sklearn.metrics.log_loss(truth, logits.double().softmax(-1).numpy(), labels=range(CLASSES)),
            "accuracy": sklearn.metrics.accuracy_score(truth, preds),
            "macro_f1": sklearn.metrics.f1_score(truth, preds, average="macro"),
            "mae": sklearn.metrics.mean_absolute_error(truth, preds),
            "within_1": sklearn.metrics.accuracy_score(np.abs(truth - preds) <= 1, np.ones(len(truth), bool)),
            "qwk": sklearn.metrics.cohen_kappa_score(truth, preds, weights="quadratic", labels=range(CLASSES)),
        }


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Naeini et al. 2015: over 15 equal bins, the gap between accuracy and confidence, weighted by the bin's rows."""
    probabilities = logits.double().softmax(-1).numpy()
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels.numpy()
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    return float(sum(gaps))


def draw_rows(data: st.DataObject, numbers: st.SearchStrategy[float]) -> tuple[Tensor, Tensor, list[int]]:
    rows = data.draw(st.integers(1, 30), label="rows")
    present = data.draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, unique=True), label="classes present")
    row = st.lists(numbers, min_size=CLASSES, max_size=CLASSES)
    logits = data.draw(st.lists(row, min_size=rows, max_size=rows), label="logits")
    labels = data.draw(st.lists(st.sampled_from(present), min_size=rows, max_size=rows), label="labels")
    cuts = data.draw(st.lists(st.integers(0, rows), max_size=6), label="cuts")
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels), cuts


@FEW
@given(st.data())
def test_values_equal_sklearn(data: st.DataObject) -> None:
    # Few distinct logits: rows with ties are the rule.
    logits, labels, cuts = draw_rows(data, st.sampled_from([-4.0, 0.0, 1.0, 7.5]))
    values, matrix = measure(logits, labels, cuts)
    assert set(values) == NAMES
    expected = sklearn_values(logits, labels)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-5, nan_ok=True)
    truth, preds = labels.numpy(), logits.numpy().argmax(-1)
    assert matrix == sklearn.metrics.confusion_matrix(truth, preds, labels=range(CLASSES)).tolist()


@FEW
@given(st.data())
def test_calibration_error_equals_its_formula(data: st.DataObject) -> None:
    numbers = st.one_of(st.floats(0, 1, width=32), st.floats(-20, 20, width=32))
    logits, labels, cuts = draw_rows(data, numbers)
    # A confidence on the edge of two bins belongs to the one or the other by rounding.
    confidence = logits.double().softmax(-1).amax(-1)
    edges = torch.arange(15) / 15
    assume(bool(((confidence[:, None] - edges).abs() > 1e-6).all()))
    assert measure(logits, labels, cuts)[0]["ece"] == pytest.approx(calibration_error(logits, labels), abs=1e-5)


@FEW
@given(st.data())
@example(None)
def test_batches_do_not_matter(data: st.DataObject | None) -> None:
    if data is None:
        generator = torch.Generator().manual_seed(0)
        logits, labels = torch.randn(97, CLASSES, generator=generator), torch.arange(97) % CLASSES
        cuts = [1, 2, 3, 50, 96]
    else:
        logits, labels, cuts = draw_rows(data, st.floats(-9, 9, width=32))
    whole, whole_matrix = measure(logits, labels, [])
    parts, parts_matrix = measure(logits, labels, cuts)
    assert parts == pytest.approx(whole, abs=1e-5, nan_ok=True)
    assert parts_matrix == whole_matrix


def test_values_by_hand() -> None:
    # Predictions 0, 1, 4, 4 for the labels 0, 0, 4, 1: errors 0, 1, 0, 3.
    preds = torch.tensor([0, 1, 4, 4])
    logits = torch.log(torch.nn.functional.one_hot(preds, CLASSES) * 0.5 + 0.1)  # probabilities 0.6 and 0.1
    labels = torch.tensor([0, 0, 4, 1])
    values, matrix = measure(logits, labels, [])
    assert values["accuracy"] == 0.5
    assert values["mae"] == 1
    assert values["within_1"] == 0.75
    # F1 of 0: 2/3, of 1: 0, of 4: 2/3; classes 2 and 3 are absent.
    assert values["macro_f1"] == pytest.approx(4 / 9)
    assert values["loss"] == pytest.approx(-(math.log(0.6) + math.log(0.1)) / 2)
    # Observed disagreement 1 + 9 = 10. Expected: truths 0, 0, 1, 4 against predictions 0, 1, 4, 4, all pairs / 4.
    pairs = sum((truth - pred) ** 2 for truth in (0, 0, 1, 4) for pred in (0, 1, 4, 4)) / 4
    assert values["qwk"] == pytest.approx(1 - 10 / pairs)
    assert values["ece"] == pytest.approx(0.1)  # half are right at a confidence of 0.6
    assert matrix[0] == [1, 1, 0, 0, 0]
    assert matrix[1] == [0, 0, 0, 0, 1]
    assert matrix[4] == [0, 0, 0, 0, 1]


def test_logits_between_0_and_1_are_no_probabilities() -> None:
    # Five equal logits are probabilities of 0.2; label 0 is met, label 1 is not.
    values, _ = measure(torch.zeros(2, CLASSES), torch.tensor([0, 1]), [])
    assert values["ece"] == pytest.approx(0.5 - 0.2)


def test_certainty_shares_the_last_bin() -> None:
    # Confidences 1 (wrong) and 0.95 (right) lie in one bin: |1/2 - 0.975|; apart, they would give (1 + 0.05) / 2.
    sure, nearly = [100.0, 0, 0, 0, 0], [math.log(0.95), *[math.log(0.0125)] * 4]
    values, _ = measure(torch.tensor([sure, nearly]), torch.tensor([1, 0]), [])
    assert values["ece"] == pytest.approx(abs(0.5 - 0.975), abs=1e-6)


@pytest.mark.parametrize(("label", "expected"), [(0, math.nan), (3, 0.0)])
def test_kappa_of_one_predicted_class(label: int, expected: float) -> None:
    # All truths and predictions alike: 0 / 0, nan as in scikit-learn. All predictions alike: no better than chance.
    logits, labels = torch.tensor([[3.0, 0, 0, 0, 0]] * 4), torch.full((4,), label)
    values, _ = measure(logits, labels, [2])
    assert values["qwk"] == pytest.approx(expected, nan_ok=True)
    assert all(math.isfinite(value) for name, value in values.items() if name != "qwk")


def test_compute_resets() -> None:
    generator = torch.Generator().manual_seed(0)
    metrics = StarMetrics(CLASSES)
    for rows in (7, 13):
        logits, labels = torch.randn(rows, CLASSES, generator=generator), torch.arange(rows) % CLASSES
        feed(metrics, logits, labels, [3])
        values, matrix = metrics.compute()
        assert np.sum(matrix) == rows
        alone, alone_matrix = measure(logits, labels, [])
        assert values == pytest.approx(alone, abs=1e-6)
        assert matrix == alone_matrix
