"""Likely label errors: planted ones are found; where cleanlab is missing, the page says how to get it."""

import sys

import numpy as np
import pytest
from tested import made

from yelp_lightning.modeling.metrics import Measured
from yelp_lightning.report.noise import label_errors
from yelp_lightning.report.reviews import label_errors_section
from yelp_lightning.report.rows import Tested

pytest.importorskip("cleanlab", reason="cleanlab is not installed")


def test_planted_errors_are_found() -> None:
    rows, tested = made(skill=6.0)
    labels = rows.labels.copy()
    labels[:10] = (labels[:10] + 2) % 5
    measured = Measured(tested.measured.logits, labels, tested.measured.rows, 1.0)
    found = label_errors(measured)
    assert len(set(range(10)) & set(found)) >= 8
    assert len(found) <= 12
    own = measured.probabilities[found, labels[found]]
    assert (np.diff(own) >= 0).all()


@pytest.mark.parametrize(
    "options",
    [{"n": 1}, {"n": 19}, {"n": 25}, {"absent": [0, 3]}, {"absent": [0, 1, 2, 3]}, {"n": 100, "classes": 300}],
)
def test_any_rows_are_survived(options: dict[str, object]) -> None:
    rows, tested = made(**options)
    assert label_errors_section(rows, tested).startswith("<p>")


def test_a_faultless_model_finds_none() -> None:
    rows, tested = made(skill=50.0)
    assert label_errors_section(rows, tested) == "<p>None was found among 400 reviews.</p>"


def test_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, tested = made(skill=6.0)
    for module in [name for name in sys.modules if name.startswith("cleanlab")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = label_errors_section(rows, Tested("mine", tested.measured))
    assert 'pip install "yelp-lightning[report]"' in said
