"""Losses by hand, against torch and scikit-learn, and what they must do to the logits."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from yelp_lightning.modeling.losses import balanced_weights, star_loss, star_targets

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, -2.0], [0.0, 0.5, 0.0, 0.0, 3.0]])
LABELS = torch.tensor([0, 3])


def test_the_default_is_plain_cross_entropy() -> None:
    assert star_loss(LOGITS, LABELS) == cross_entropy(LOGITS, LABELS)


def test_soft_targets_by_hand() -> None:
    # Distances 1, 0, 1 in units of 0.5: e**-2, 1, e**-2.
    part = math.exp(-2)
    expected = torch.tensor([[part, 1, part]]) / (1 + 2 * part)
    torch.testing.assert_close(star_targets(torch.tensor([1]), 3, 0.5), expected)


def test_soft_stars_against_the_sum() -> None:
    target = star_targets(LABELS, 5, 0.7)
    expected = -(target * LOGITS.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(star_loss(LOGITS, LABELS, "soft_stars", 0.7), expected)


def test_soft_stars_become_cross_entropy_as_softness_falls() -> None:
    torch.testing.assert_close(star_loss(LOGITS, LABELS, "soft_stars", 0.01), cross_entropy(LOGITS, LABELS))


def test_a_near_miss_costs_less_than_a_far_one() -> None:
    near, far = torch.eye(5)[[1]] * 4, torch.eye(5)[[4]] * 4
    true = torch.tensor([0])
    assert star_loss(near, true, "soft_stars") < star_loss(far, true, "soft_stars")
    assert star_loss(near, true) == pytest.approx(star_loss(far, true).item())


@pytest.mark.parametrize("loss", ["cross_entropy", "soft_stars"])
def test_label_smoothing_is_torchs(loss: str) -> None:
    target = star_targets(LABELS, 5, 0.5) if loss == "soft_stars" else torch.eye(5)[LABELS]
    expected = cross_entropy(LOGITS, 0.9 * target + 0.1 / 5)
    torch.testing.assert_close(star_loss(LOGITS, LABELS, loss, label_smoothing=0.1), expected)


def test_weights_multiply_each_row() -> None:
    weights = torch.tensor([2.0, 1.0, 1.0, 0.5, 1.0])
    each = cross_entropy(LOGITS, LABELS, reduction="none")
    expected = (2.0 * each[0] + 0.5 * each[1]) / 2
    torch.testing.assert_close(star_loss(LOGITS, LABELS, class_weights=weights), expected)


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.repeat(np.arange(5), [1, 7, 2, 30, 4])
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    found = balanced_weights(torch.from_numpy(np.bincount(labels)))
    torch.testing.assert_close(found, torch.from_numpy(expected).float())
    assert found[torch.from_numpy(labels)].mean().item() == pytest.approx(1)


def test_a_class_without_rows_has_no_weight() -> None:
    found = balanced_weights(torch.tensor([3, 0, 1]))
    assert found.tolist() == [pytest.approx(4 / 6), 0.0, pytest.approx(2.0)]
