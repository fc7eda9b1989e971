"""Metrics against scikit-learn and scipy, for any rows, classes, batches and devices."""

import itertools
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed
from torch.nn.functional import cross_entropy

from yelp_lightning.modeling.metrics import Outputs, StarMetrics

CLASSES = 5
NAMES = {"loss", "accuracy", "macro_f1", "mae", "within_1", "qwk", "ece"}
# The same examples in every run, and no file beside the sources.
FEW = settings(deadline=None, max_examples=60, derandomize=True)
Measured = tuple[dict[str, float], list[list[int]]]


class Rows(NamedTuple):
    """Rows to measure, and where their batches end."""

    logits: Tensor
    labels: Tensor
    cuts: list[int]


def measure(logits: Tensor, labels: Tensor, cuts: list[int]) -> Measured:
    """What StarMetrics gives for the rows in the batches between ``cuts``."""
    metrics = StarMetrics(logits.shape[1])
    feed(metrics, logits, labels, cuts)
    return metrics.compute()


def feed(metrics: StarMetrics, logits: Tensor, labels: Tensor, cuts: list[int]) -> None:
    edges = sorted({0, len(labels), *(cut for cut in cuts if cut < len(labels))})
    for start, stop in itertools.pairwise(edges):
        batch, target = logits[start:stop], labels[start:stop]
        metrics.update(cross_entropy(batch, target), batch, target)


def reference(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """All but the calibration error, by scikit-learn and scipy."""
    truth, preds, classes = labels.numpy(), logits.numpy().argmax(-1), range(logits.shape[1])
    log_probabilities = scipy.special.log_softmax(logits.double().numpy(), axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that are absent
        return {
            "loss": float(-log_probabilities[np.arange(len(truth)), truth].mean()),
            "accuracy": sklearn.metrics.accuracy_score(truth, preds),
            "macro_f1": sklearn.metrics.f1_score(truth, preds, average="macro"),
            "mae": sklearn.metrics.mean_absolute_error(truth, preds),
            "within_1": sklearn.metrics.accuracy_score(np.abs(truth - preds) <= 1, np.ones(len(truth), bool)),
            "qwk": sklearn.metrics.cohen_kappa_score(truth, preds, weights="quadratic", labels=classes),
        }


def calibration_error(logits: Tensor, labels: Tensor, shift: float) -> float:
    """Naeini et al. 2015: over 15 equal bins, the gap between accuracy and confidence, weighted by the bin's rows.

    A confidence on the edge of two bins belongs to the one or the other by rounding in float32: ``shift`` moves it.
    """
    confidence = scipy.special.softmax(logits.double().numpy(), axis=-1).max(-1)
    right = logits.numpy().argmax(-1) == labels.numpy()
    place = np.clip(confidence + shift, 0, 1)
    gaps = scipy.stats.binned_statistic(place, right - confidence, "sum", bins=15, range=(0, 1)).statistic
    return float(np.abs(gaps).sum() / len(right))


def assert_right(measured: Measured, logits: Tensor, labels: Tensor) -> None:
    values, matrix = measured
    assert set(values) == NAMES
    expected = reference(logits, labels)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-5, nan_ok=True)
    either = [calibration_error(logits, labels, shift) for shift in (-1e-7, 0, 1e-7)]
    assert min(abs(values["ece"] - error) for error in either) < 1e-5
    truth, preds = labels.numpy(), logits.numpy().argmax(-1)
    assert matrix == sklearn.metrics.confusion_matrix(truth, preds, labels=range(logits.shape[1])).tolist()


# Few distinct logits: rows with ties are the rule. Or any; or all in [0, 1], which are no probabilities.
NUMBERS = [st.sampled_from([-4.0, 0.0, 1.0, 7.5]), st.floats(-20, 20, width=32), st.floats(0, 1, width=32)]


@st.composite
def any_rows(draw: st.DrawFn) -> Rows:
    """1 to 30 rows of 2 to 6 classes, of which some may be absent, cut anywhere."""
    classes, count = draw(st.integers(2, 6)), draw(st.integers(1, 30))
    present = draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True))
    row = st.lists(draw(st.sampled_from(NUMBERS)), min_size=classes, max_size=classes)
    logits = draw(st.lists(row, min_size=count, max_size=count))
    labels = draw(st.lists(st.sampled_from(present), min_size=count, max_size=count))
    cuts = draw(st.lists(st.integers(0, count), max_size=6))
    return Rows(torch.tensor(logits, dtype=torch.float32), torch.tensor(labels), cuts)


def some_rows(count: int, label: int | None = None) -> Rows:
    """Random rows, of all classes or of one, each a batch."""
    generator = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % CLASSES if label is None else torch.full((count,), label)
    return Rows(3 * torch.randn(count, CLASSES, generator=generator), labels, list(range(count)))


ALL_TIES = Rows(torch.zeros(7, CLASSES), torch.arange(7) % CLASSES, [2])
CERTAIN_OF_ONE = Rows(torch.tensor([[0.0, 90, 0, 0, 0]] * 6), torch.ones(6, dtype=torch.int64), [1, 4])


@FEW
@given(any_rows())
@example(some_rows(1))
@example(some_rows(97))
@example(some_rows(30, label=2))
@example(ALL_TIES)
@example(CERTAIN_OF_ONE)
def test_values_are_right_in_any_batches(rows: Rows) -> None:
    assert_right(measure(*rows), rows.logits, rows.labels)


def test_values_are_right_on_three_devices(tmp_path: Path) -> None:
    devices = 3  # tests/test_ddp.py has two, by the commands
    corners = [some_rows(devices), some_rows(97), some_rows(30, label=2), ALL_TIES, CERTAIN_OF_ONE]
    drawn: list[Rows] = []

    @FEW
    @given(any_rows())
    def draw(rows: Rows) -> None:
        drawn.append(rows)

    draw()
    # Every device has a row: `fit`, `validate` and `test` refuse fewer rows than devices.
    cases = [*corners, *(rows for rows in drawn if len(rows.labels) >= devices)]
    assert len(cases) > 30
    # Processes that are started anew, as DDP's are; they meet in a file.
    torch.multiprocessing.spawn(measure_part, (devices, tmp_path, cases), nprocs=devices)
    for rank in range(devices):
        for rows, measured in zip(cases, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            assert_right(measured, rows.logits, rows.labels)


def measure_part(rank: int, devices: int, folder: Path, cases: list[Rows]) -> None:
    """One device's part: every ``devices``-th row."""
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=devices)
    measured = [measure(rows.logits[rank::devices], rows.labels[rank::devices], rows.cuts) for rows in cases]
    torch.save(measured, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_classes_without_an_order_have_no_distances() -> None:
    rows = some_rows(20)
    metrics = StarMetrics(CLASSES, ordered=False)
    feed(metrics, *rows)
    values, matrix = metrics.compute()
    ordered, ordered_matrix = measure(*rows)
    assert values == {name: ordered[name] for name in ("loss", "accuracy", "macro_f1", "ece")}
    assert matrix == ordered_matrix


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


def test_a_hair_decides_for_all_metrics_alike() -> None:
    # In float32 all three have a probability of 1/3; the second one's logit is the largest.
    values, _ = measure(torch.tensor([[0.0, 1e-9, 0.0]] * 3), torch.tensor([1, 1, 1]), [])
    assert values["accuracy"] == 1
    assert values["ece"] == pytest.approx(1 - 1 / 3)


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


def test_outputs_are_all_rows_in_order_and_little_more() -> None:
    outputs = Outputs("logits", "labels")
    rounds = []
    for count in (1, 1_000):
        rows = some_rows(count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
        for batch in order.split(3):
            logits = rows.logits[batch].T.contiguous().T  # in whatever order they lie
            outputs.update(row=batch, logits=logits, labels=rows.labels[batch])
        # However many batches there were, their values lie in one place.
        assert len(outputs.logits) == 1
        assert outputs.logits[0].untyped_storage().nbytes() <= 2 * rows.logits.nbytes
        rounds.append((rows, outputs.collect()))
    for rows, found in rounds:
        assert found["row"].tolist() == list(range(len(rows.labels)))
        assert np.array_equal(found["logits"], rows.logits.numpy())
        assert np.array_equal(found["labels"], rows.labels.numpy())
