"""The report's counts, each counted again here in plain Python; shares against the library's intervals."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest
from tested import MAX_LENGTH, made

from yelp_lightning.modeling.intervals import mae_interval
from yelp_lightning.report.counts import (
    Group,
    by_length,
    by_truncation,
    confusions,
    group_accuracy,
    group_mae,
    mistakes,
    reliability,
    surest_wrong,
)
from yelp_lightning.report.shares import ENOUGH, Share


def test_confusions_and_mistakes() -> None:
    rows, tested = made(absent=[1])
    pairs = Counter(zip(rows.labels.tolist(), tested.measured.logits.argmax(1).tolist(), strict=True))
    matrix = confusions(rows, tested)
    assert {(i, j): int(matrix[i, j]) for i, j in np.argwhere(matrix).tolist()} == dict(pairs)
    assert matrix[1].sum() == 0
    assert matrix.sum() == 400
    found = mistakes(matrix)
    assert {(one.true, one.predicted): one.share.count for one in found} == {
        pair: count for pair, count in pairs.items() if pair[0] != pair[1]
    }
    assert [one.share.count for one in found] == sorted((one.share.count for one in found), reverse=True)
    assert all(one.share.n == (rows.labels == one.true).sum() for one in found)


def test_reliability() -> None:
    rows, tested = made(215)
    probabilities = tested.measured.probabilities
    bins = reliability(probabilities, rows.labels)
    assert len(bins) == 10
    surest_first = sorted(zip(probabilities.max(1), tested.preds == rows.labels, strict=True), key=lambda row: row[0])
    last = surest_first[-bins[-1].right.n :]
    assert bins[-1].right == Share(sum(bool(right) for _, right in last), 21)
    assert bins[-1].confidence == pytest.approx(np.mean([confidence for confidence, _ in last]))
    assert sum(one.right.n for one in bins) == 215
    assert min(one.right.n for one in bins) >= ENOUGH
    assert reliability(probabilities[: ENOUGH - 1], rows.labels[: ENOUGH - 1]) == []


def test_temperature_changes_the_confidence_alone() -> None:
    rows, tested = made(temperature=2.0)
    before, after = (
        reliability(some, rows.labels) for some in (tested.raw.probabilities, tested.measured.probabilities)
    )
    assert max(one.confidence for one in after) < max(one.confidence for one in before)
    assert sum(one.right.count for one in before) == sum(one.right.count for one in after)


def test_groups_hold_every_row_once() -> None:
    rows, tested = made()
    groups = by_length(rows)
    assert len(groups) == 5
    assert (np.sum([group.inside for group in groups], 0) == 1).all()
    for group in groups:
        low, high = map(int, group.name.split(" to "))
        assert (group.inside == ((rows.lengths >= low) & (rows.lengths <= high))).all()
        right = [p == t for p, t in zip(tested.preds[group.inside], rows.labels[group.inside], strict=True)]
        low, high = binomtest(sum(map(int, right)), len(right)).proportion_ci(method="wilson")
        assert group_accuracy(group, rows, tested) == (sum(right) / len(right), pytest.approx((low, high)))
    whole, truncated = by_truncation(rows)
    assert (truncated.inside == (rows.lengths > MAX_LENGTH)).all()
    assert (whole.inside != truncated.inside).all()


def test_mae_of_a_group() -> None:
    rows, tested = made()
    everything = Group("all", np.ones(400, np.bool_))
    value, interval = group_mae(everything, rows, tested)
    assert value == np.mean([abs(p - t) for p, t in zip(tested.preds.tolist(), rows.labels.tolist(), strict=True)])
    assert interval == mae_interval(confusions(rows, tested))


@pytest.mark.parametrize("n", [1, 2, 19, 20, 39])
def test_few_rows_make_few_groups(n: int) -> None:
    rows, _ = made(n)
    assert len(by_length(rows)) == 1
    assert sum(int(group.inside.sum()) for group in by_truncation(rows)) == n


def test_equal_lengths_are_one_group() -> None:
    rows, _ = made()
    rows.lengths[:] = 7
    (group,) = by_length(rows)
    assert group.name == "7"
    assert group.inside.all()


def test_surest_wrong() -> None:
    rows, tested = made()
    found = surest_wrong(tested)
    confidence = tested.measured.probabilities.max(1)
    wrong = [row for row in range(400) if tested.preds[row] != rows.labels[row]]
    assert found == sorted(wrong, key=lambda row: -confidence[row])[:50]


def test_shares() -> None:
    assert str(Share(31, 100)) == "31 % (31 of 100; 95 % interval 23 to 41 %)"
    assert str(Share(3, 1000)).startswith("0.3 % (3 of 1,000;")
    assert Share(5, 5).percent == "100 %"
    assert Share(0, 0).interval == (0.0, 1.0)
    assert not Share(3, ENOUGH - 1).enough
    # Newcombe 1998, table II, method 10: 56/70 and 48/80 differ by 0.0524 to 0.3339; 9/10 and 3/10 by 0.1705 or more.
    assert Share(56, 70).differs(Share(48, 80))
    assert Share(3, 10).differs(Share(9, 10))
    assert not Share(6, 10).differs(Share(5, 10))
    assert not Share(5, 10).differs(Share(5, 10))
