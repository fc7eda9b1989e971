"""Splits: the rows that `datasets` itself would choose, fair shares, validation rows that stay the same."""

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from yelp_lightning.data.splits import MAX_DEFAULT_VAL_ROWS, Sampling, cut_validation, row_order, subsample
from yelp_lightning.errors import UsageError

SAMPLINGS: list[Sampling] = ["shuffle", "stratified"]


def rows(count: int) -> Dataset:
    """Reviews whose text is their row number; a skewed mix of stars, sorted, so that no slice is fair by chance."""
    labels = np.sort(np.random.default_rng(0).choice(5, count, p=[0.1, 0.1, 0.1, 0.2, 0.5]))
    return Dataset.from_dict({"text": [str(number) for number in range(count)], "label": labels.tolist()})


def numbers(found: Dataset) -> list[int]:
    return [int(text) for text in found["text"]]


# --- shuffle


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_shuffle_is_that_of_datasets(count: int) -> None:
    source = rows(count)
    for size in {1, count // 2 + 1, count}:
        expected = source.shuffle(seed=42).select(range(size))
        assert subsample(source, size, "shuffle", 42, "data.test_size").to_dict() == expected.to_dict()


def test_training_rows_are_those_of_datasets() -> None:
    source = rows(1000)
    train, val = cut_validation(source, 300, 50, "shuffle", 42)
    assert train.to_dict() == source.shuffle(seed=42).select(range(300)).to_dict()
    assert val.to_dict() == source.shuffle(seed=42).select(range(950, 1000)).to_dict()


def test_another_seed_chooses_other_rows() -> None:
    for sampling in SAMPLINGS:
        one, again, other = (
            numbers(subsample(rows(100), 20, sampling, seed, "data.test_size")) for seed in (42, 42, 43)
        )
        assert one == again
        assert set(one) != set(other)


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
def test_validation_rows_stay_and_never_train(count: int, data: st.DataObject, sampling: Sampling) -> None:
    source = rows(count)
    val_size = data.draw(st.integers(1, count - 1))
    train_size = data.draw(st.integers(1, count - val_size))
    train, val = cut_validation(source, train_size, val_size, sampling, 42)
    assert (len(train), len(val)) == (train_size, val_size)
    assert not set(numbers(train)) & set(numbers(val))
    assert len(set(numbers(train))) == train_size
    # Whatever trains, the same rows validate, in the same order; a smaller training set is part of a larger one.
    whole, same_val = cut_validation(source, None, val_size, sampling, 42)
    assert numbers(same_val) == numbers(val)
    assert numbers(whole)[:train_size] == numbers(train)
    assert sorted(numbers(whole) + numbers(val)) == list(range(count))


@pytest.mark.parametrize(("count", "val_size"), [(2, 1), (9, 1), (10, 1), (200, 20), (1234, 123)])
def test_default_is_a_tenth_and_all_the_rest(count: int, val_size: int) -> None:
    train, val = cut_validation(rows(count), None, None, "shuffle", 42)
    assert len(val) == val_size
    assert sorted(numbers(train) + numbers(val)) == list(range(count))


def test_default_has_an_upper_limit() -> None:
    assert MAX_DEFAULT_VAL_ROWS == 10_000
    train, val = cut_validation(rows(100_010), None, None, "shuffle", 42)
    assert (len(train), len(val)) == (90_010, 10_000)


def test_stratified_validation_rows_keep_the_mix() -> None:
    source = rows(1000)
    train, val = cut_validation(source, None, 100, "stratified", 42)
    for label, count in Counter(source["label"]).items():
        assert abs(list(val["label"]).count(label) - count / 10) < 1
        assert abs(list(train["label"]).count(label) - 0.9 * count) < 1


def test_whole_in_its_own_order_by_default() -> None:
    source = rows(50)
    assert numbers(subsample(source, None, "stratified", 42, "data.test_size")) == list(range(50))


# --- what is refused


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_more_rows_than_there_are(sampling: Sampling) -> None:
    with pytest.raises(UsageError) as refused:
        subsample(rows(50), 51, sampling, 42, "data.test_size")
    assert str(refused.value) == (
        "`data.test_size` is 51, but the data hold only 50 rows: give at most 50, or leave the option out."
    )


@pytest.mark.parametrize(
    ("train_size", "val_size", "sentence"),
    [
        (None, 50, "`data.val_size` is 50, but the data hold only 49 rows beside one to train on"),
        (1, 2000, "`data.val_size` is 2000, but the data hold only 49 rows beside one to train on"),
        (41, 10, "`data.train_size` is 41, but the data hold only 40 rows beside the 10 for validation"),
        (46, None, "`data.train_size` is 46, but the data hold only 45 rows beside the 5 for validation"),
    ],
)
def test_more_rows_than_both_can_have(train_size: int | None, val_size: int | None, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        cut_validation(rows(50), train_size, val_size, "shuffle", 42)
    most = sentence.split("only ")[1].split()[0]
    assert str(refused.value) == f"{sentence}: give at most {most}, or leave the option out."


@pytest.mark.parametrize("val_size", [None, 1])
def test_one_row_cannot_be_cut(val_size: int | None) -> None:
    with pytest.raises(UsageError) as refused:
        cut_validation(rows(1), None, val_size, "shuffle", 42)
    assert str(refused.value) == (
        "`data.source` holds 1 row to train on, and validation rows are cut from the same: give at least 2 rows."
    )
