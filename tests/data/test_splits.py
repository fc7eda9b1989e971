"""Splits: the rows that `datasets` itself would choose, fair shares, validation rows that stay the same."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from yelp_lightning.data.splits import (
    MAX_DEFAULT_VAL_ROWS,
    Order,
    Sampling,
    Size,
    count_of,
    cut_validation,
    known,
    row_order,
    take,
)
from yelp_lightning.errors import UsageError

SAMPLINGS: list[Sampling] = ["shuffle", "stratified", "first"]


def skewed(count: int) -> npt.NDArray[np.int16]:
    """A skewed mix of stars, sorted, so that no slice is fair by chance."""
    mix = [0.1, 0.1, 0.1, 0.2, 0.5]
    return np.sort(np.random.default_rng(0).choice(5, count, p=mix)).astype(np.int16)


def cut(
    labels: npt.NDArray[np.int16], val_size: Size | None, sampling: Sampling = "shuffle", groups: Any = None
) -> tuple[Order, Order]:
    return cut_validation(labels, row_order(labels, sampling, 42), val_size, groups)


# --- shuffle and first


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_shuffle_is_that_of_datasets(count: int) -> None:
    order = row_order(skewed(count), "shuffle", 42)
    assert order.tolist() == Dataset.from_dict({"row": range(count)}).shuffle(seed=42)["row"][:]


def test_training_rows_are_those_of_datasets() -> None:
    train, _ = cut(skewed(1000), 50)
    shuffled = Dataset.from_dict({"row": range(1000)}).shuffle(seed=42)["row"][:300]
    _, val = cut(skewed(1000), 50)
    # But for rows that validate, which come from the order's end.
    assert take(train, 300, "data.train_size").tolist() == shuffled
    assert not set(val.tolist()) & set(shuffled)


def test_another_seed_chooses_other_rows() -> None:
    for sampling in ("shuffle", "stratified"):
        one, again, other = (row_order(skewed(100), sampling, seed)[:20].tolist() for seed in (42, 42, 43))
        assert one == again
        assert set(one) != set(other)


def test_first_is_the_files_order() -> None:
    assert row_order(skewed(50), "first", 42).tolist() == list(range(50))


# --- stratified

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60) | st.lists(
    # Skewed: many rows of one class among a few of others.
    st.sampled_from([0] * 20 + [1, 2, 3, 4]), min_size=1, max_size=60,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 10))
def test_stratified_keeps_every_share_within_a_row(labels: list[int], seed: int) -> None:
    order = row_order(np.array(labels), "stratified", seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    count, all_rows = len(labels), Counter(labels)
    for size in range(count + 1):
        first = Counter(labels[row] for row in order[:size])
        last = Counter(labels[row] for row in order[count - size :])
        for label, of_class in all_rows.items():
            # The share of `size` rows, rounded down or up, in whole numbers.
            allowed = {size * of_class // count, -(-size * of_class // count)}
            assert first[label] in allowed
            assert last[label] in allowed


@settings(max_examples=50, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 10), start=st.integers(0, 60), size=st.integers(0, 60))
def test_stratified_slice_is_within_two_rows(labels: list[int], seed: int, start: int, size: int) -> None:
    chosen = [labels[row] for row in row_order(np.array(labels), "stratified", seed)[start : start + size]]
    for label, of_class in Counter(labels).items():
        assert abs(chosen.count(label) - len(chosen) * of_class / len(labels)) < 2


def test_stratified_takes_random_rows_of_a_class() -> None:
    labels = np.array([0] * 500 + [1] * 500)
    first = np.sort(row_order(labels, "stratified", 42)[:100])
    of_class = first[first < 500]
    assert len(of_class) == 50
    # Not the first fifty, and from all over the class: 50 of 500 at random miss no tenth of it altogether.
    assert set((of_class // 100).tolist()) == {0, 1, 2, 3, 4}
    assert set(first.tolist()) != set(np.sort(row_order(labels, "stratified", 43)[:100]).tolist())


# --- validation rows


@settings(max_examples=60, deadline=None)
@given(count=st.integers(2, 80), data=st.data(), sampling=st.sampled_from(SAMPLINGS))
def test_validation_rows_are_fair_and_never_train(count: int, data: st.DataObject, sampling: Sampling) -> None:
    labels = skewed(count)
    val_size = data.draw(st.integers(1, count - 1))
    train, val = cut(labels, val_size, sampling)
    assert len(val) == val_size
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(count))
    for label, of_class in Counter(labels.tolist()).items():
        assert abs(np.count_nonzero(labels[val] == label) - val_size * of_class / count) < 1
    # Both keep the order, and of each class the last rows validate.
    order = row_order(labels, sampling, 42).tolist()
    places = {row: place for place, row in enumerate(order)}
    for rows in (train, val):
        assert [places[row] for row in rows.tolist()] == sorted(places[row] for row in rows.tolist())
    for label in set(labels.tolist()):
        validating = [places[row] for row in val.tolist() if labels[row] == label]
        training = [places[row] for row in train.tolist() if labels[row] == label]
        assert not validating or not training or min(validating) > max(training)


@pytest.mark.parametrize(("count", "val_size"), [(2, 1), (9, 1), (10, 1), (200, 20), (1234, 123)])
def test_default_is_a_tenth_and_all_the_rest(count: int, val_size: int) -> None:
    train, val = cut(skewed(count), None)
    assert len(val) == val_size
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(count))


def test_default_has_an_upper_limit() -> None:
    assert MAX_DEFAULT_VAL_ROWS == 10_000
    train, val = cut(skewed(100_010), None)
    assert (len(train), len(val)) == (90_010, 10_000)


@pytest.mark.parametrize(("share", "count"), [(0.1, 100), (0.25, 250), (0.0004, None), (0.999, 999)])
def test_shares(share: float, count: int | None) -> None:
    if count is None:
        with pytest.raises(UsageError, match=r"`data.val_size` is 0.0004, which is no row of 1000 beside one"):
            cut(skewed(1000), share)
        return
    train, val = cut(skewed(1000), share)
    assert (len(train), len(val)) == (1000 - count, count)
    assert len(take(train, share, "data.train_size")) == round(share * len(train))


# --- groups


@settings(max_examples=80, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=80),
    val_size=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_a_group_stands_on_one_side(groups: list[int], val_size: int, seed: int) -> None:
    hashes = np.array(groups, np.uint64)
    labels = np.random.default_rng(seed).integers(0, 5, len(groups)).astype(np.int16)
    val_size = min(val_size, len(groups) - 1)
    if min(Counter(groups).values()) > val_size:
        with pytest.raises(UsageError, match=r"give a larger --data\.val_size"):
            cut(labels, val_size, groups=hashes)
        return
    train, val = cut(labels, val_size, groups=hashes)
    assert 0 < len(val) <= val_size
    assert not set(hashes[train].tolist()) & set(hashes[val].tolist())
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(len(groups)))
    # No group that would still fit was left out.
    counts = Counter(groups)
    left = val_size - len(val)
    assert all(counts[group] > left for group in set(hashes[train].tolist()))


def test_groups_keep_the_mix() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 400, 4000).astype(np.uint64)
    labels = rng.choice(5, 4000, p=[0.1, 0.1, 0.1, 0.2, 0.5]).astype(np.int16)
    _, val = cut(labels, 400, groups=groups)
    assert len(val) >= 390
    for label in range(5):
        assert abs(np.mean(labels[val] == label) - np.mean(labels == label)) < 0.03


# --- what other splits have too


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9)),
    st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9)), max_size=3),
)
def test_known(hashes: list[int], others: list[list[int]]) -> None:
    found = known(
        np.array(hashes, np.uint64),
        np.arange(len(hashes), dtype=np.int32),
        [np.array(other, np.uint64) for other in others],
    )
    assert found.tolist() == [any(one in other for other in others) for one in hashes]


# --- what is refused


def test_more_rows_than_there_are() -> None:
    with pytest.raises(UsageError) as refused:
        take(np.arange(50), 51, "data.test_size")
    assert str(refused.value) == (
        "`data.test_size` is 51, but the data hold only 50 rows: give at most 50, or leave the option out."
    )
    assert count_of(50, 50, "data.test_size") == 50


@pytest.mark.parametrize("val_size", [50, 2000])
def test_more_validation_rows_than_there_can_be(val_size: int) -> None:
    with pytest.raises(UsageError) as refused:
        cut(skewed(50), val_size)
    assert str(refused.value) == (
        f"`data.val_size` is {val_size}, but the data hold only 49 rows beside one to train on: give at most 49, or "
        "leave the option out."
    )


@pytest.mark.parametrize("val_size", [None, 1])
def test_one_row_cannot_be_cut(val_size: int | None) -> None:
    with pytest.raises(UsageError) as refused:
        cut(skewed(1), val_size)
    assert str(refused.value) == (
        "`data.source` holds 1 row to train on, and validation rows are cut from the same: give at least 2 rows."
    )
