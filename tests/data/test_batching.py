"""Batches: every row exactly once, on any number of devices, with little padding."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yelp_lightning.data.batching import MIN_EFFICIENCY, WINDOW_STEPS, EvalBatches, MicroBatch, TrainBatches

Lengths = npt.NDArray[np.int64]


@st.composite
def plans(draw: st.DrawFn) -> tuple[Lengths, int, int]:
    """Lengths of at least as many rows as devices, batch size, devices."""
    world_size = draw(st.integers(1, 5))
    batch_size = draw(st.integers(1, 6))
    # Around whole numbers of steps, where off-by-ones live; and past a window of small steps.
    step, most = batch_size * world_size, 3 * WINDOW_STEPS
    count = draw(
        st.integers(world_size, most) | st.builds(lambda k, d: k * step + d, st.integers(1, 8), st.integers(-5, 5))
    )
    count = max(count, world_size)
    lengths = draw(st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).integers(1, 513, count)))
    return lengths, batch_size, world_size


def train_batches(
    lengths: Lengths, batch_size: int, world_size: int, epoch: int = 0, seed: int = 42
) -> list[list[list[int]]]:
    """Batches of each device."""
    found = []
    for rank in range(world_size):
        sampler = TrainBatches(lengths, batch_size, seed, rank, world_size)
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(sampler) == len(found[-1])
    return found


def eval_batches(lengths: Lengths, budget: int, world_size: int) -> list[list[list[int]]]:
    samplers = [EvalBatches(lengths, budget, rank, world_size) for rank in range(world_size)]
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]
    return [list(sampler) for sampler in samplers]


def padding_efficiency(batches: list[list[int]], lengths: Lengths) -> float:
    """Share of the tokens in padded batches that are no padding."""
    return float(lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in batches))


# --- training


@settings(max_examples=100, deadline=None)
@given(plan=plans(), epoch=st.integers(0, 3))
def test_every_row_trains_once_an_epoch(plan: tuple[Lengths, int, int], epoch: int) -> None:
    lengths, batch_size, world_size = plan
    ranks = train_batches(lengths, batch_size, world_size, epoch)
    assert sorted(row for batches in ranks for batch in batches for row in batch) == list(range(len(lengths)))
    # Devices that run out of batches before the others would leave those waiting for ever.
    assert len({len(batches) for batches in ranks}) == 1
    full_steps = 0
    for step in zip(*ranks, strict=True):
        sizes = [len(batch) for batch in step]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_size + 1
        full_steps += sizes == [batch_size] * world_size
    # Rows per optimizer step are what was asked for, but for the one step that takes the rest.
    assert full_steps >= len(ranks[0]) - 1


@settings(max_examples=50, deadline=None)
@given(plan=plans())
def test_order_is_the_seeds_and_the_epochs(plan: tuple[Lengths, int, int]) -> None:
    assert train_batches(*plan, epoch=1, seed=7) == train_batches(*plan, epoch=1, seed=7)


def test_another_epoch_or_seed_is_another_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 513, 1000)
    orders = [
        train_batches(lengths, 8, 2, epoch, seed) for epoch, seed in ((0, 42), (1, 42), (2, 42), (0, 43), (1, 43))
    ]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])
    # Not the same batches in another order, either: rows meet other rows.
    together = [{frozenset(batch) for batches in order for batch in batches} for order in orders]
    assert len(together[0] & together[1]) < 0.05 * len(together[0])


def test_equal_lengths_are_shuffled_too() -> None:
    lengths = np.full(512, 7)
    (batches,) = train_batches(lengths, 8, 1)
    assert [row for batch in batches for row in batch] != list(range(512))
    assert not {frozenset(batch) for batch in batches} & {frozenset(range(k, k + 8)) for k in range(0, 512, 8)}


def test_steps_are_not_sorted_by_length() -> None:
    # A model that sees long reviews first, or in waves, learns length: the next step is shorter in half the cases.
    lengths = np.random.default_rng(0).integers(1, 513, 8000)
    (batches,) = train_batches(lengths, 8, 1)
    means = np.array([lengths[batch].mean() for batch in batches])
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.1
    assert 0.45 < np.mean(np.diff(means) < 0) < 0.55


@pytest.mark.parametrize("world_size", [1, 4])
def test_little_padding(world_size: int) -> None:
    rng = np.random.default_rng(0)
    # About the lengths of Yelp reviews in tokens: median 110, a long tail, cut at 512.
    lengths = np.clip(rng.lognormal(4.7, 0.8, 5000), 5, 512).astype(np.int64)
    batches = [batch for rank in train_batches(lengths, 8, world_size) for batch in rank]
    at_random = [part.tolist() for part in np.array_split(rng.permutation(5000), len(batches))]
    assert padding_efficiency(at_random, lengths) < 0.6
    assert padding_efficiency(batches, lengths) > 0.9


def test_devices_get_the_same_lengths() -> None:
    lengths = np.random.default_rng(0).integers(5, 513, 2000)
    for step in zip(*train_batches(lengths, 8, 4), strict=True):
        longest = [lengths[batch].max() for batch in step]
        assert max(longest) - min(longest) <= 40


def test_length_is_known_without_iterating() -> None:
    assert len(TrainBatches(np.ones(1_000_003, np.int64), 8, 42, 0, 4)) == 31_250
    assert len(TrainBatches(np.ones(1_000_004, np.int64), 8, 42, 0, 4)) == 31_251


# --- optimizer steps

CUTS = [(24, 1, 1), (6, 4, 1), (12, 1, 2), (2, 4, 3), (3, 2, 4), (1, 6, 4)]


def optimizer_steps(lengths: Lengths, batch_size: int, accumulate: int, world_size: int) -> list[list[MicroBatch]]:
    """All batches of all devices in each optimizer step, as Lightning counts: every so many, and at an epoch's end."""
    ranks = [list(TrainBatches(lengths, batch_size, 42, rank, world_size, accumulate)) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {
        len(TrainBatches(lengths, batch_size, 42, 0, world_size, accumulate))
    }
    starts = range(0, len(ranks[0]), accumulate)
    return [[batch for batches in ranks for batch in batches[start : start + accumulate]] for start in starts]


@settings(max_examples=50, deadline=None)
@given(count=st.integers(4, 200), seed=st.integers(0, 2**32 - 1))
def test_a_step_is_the_same_rows_however_it_is_cut(count: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 513, count)
    found = {cut: optimizer_steps(lengths, *cut) for cut in CUTS if count % 24 == 0 or count % 24 >= cut[2]}
    rows = [[frozenset(row for batch in step for row in batch) for step in steps] for steps in found.values()]
    assert all(steps == rows[0] for steps in rows)
    assert sum(map(len, rows[0])) == count
    for (batch_size, _, _), steps in found.items():
        assert all(1 <= len(batch) <= batch_size + 1 for step in steps for batch in step)


@settings(max_examples=100, deadline=None)
@given(plan=plans(), accumulate=st.integers(1, 5))
def test_every_row_of_a_step_counts_the_same(plan: tuple[Lengths, int, int], accumulate: int) -> None:
    lengths, batch_size, world_size = plan
    for step in optimizer_steps(lengths, batch_size, accumulate, world_size):
        rows = sum(map(len, step))
        # The mean over devices, and Lightning's division by the number of accumulated batches.
        counts = [batch.weight / len(batch) / world_size / accumulate for batch in step]
        assert counts == pytest.approx([1 / rows] * len(counts))
        if rows == batch_size * world_size * accumulate:
            assert {batch.weight for batch in step} == {1.0}


# --- evaluation


@settings(max_examples=100, deadline=None)
@given(plan=plans(), budget=st.integers(1, 8192))
def test_every_row_is_measured_once(plan: tuple[Lengths, int, int], budget: int) -> None:
    lengths, _, world_size = plan
    ranks = eval_batches(lengths, budget, world_size)
    assert sorted(row for batches in ranks for batch in batches for row in batch) == list(range(len(lengths)))
    # A device that shares its layers with the others would wait for ever in a batch that they have not.
    assert len({len(batches) for batches in ranks}) == 1
    most = 1 if len(lengths) % world_size == 0 or len(ranks[0]) < len(lengths) // world_size else 3
    for batches in ranks:
        assert batches
        assert all(batches)
        for batch in batches:
            assert len(batch) * lengths[batch].max() <= budget or len(batch) <= most
        longest = [lengths[batch].max() for batch in batches]
        assert longest == sorted(longest, reverse=True)
    assert lengths[ranks[0][0]].max() == lengths.max()


@settings(max_examples=50, deadline=None)
@given(plan=plans(), budget=st.integers(1, 8192))
def test_batches_are_as_large_as_budget_and_padding_let_them(plan: tuple[Lengths, int, int], budget: int) -> None:
    lengths, _, _ = plan
    (batches,) = eval_batches(lengths, budget, 1)
    for batch, following in pairwise(batches):
        larger = lengths[[*batch, following[0]]]
        computed = len(larger) * larger.max()
        assert computed > budget or larger.sum() < MIN_EFFICIENCY * computed


@pytest.mark.parametrize("count", [1, 7, 41, 1000])
@pytest.mark.parametrize("budget", [1, 512, 4096, 16_384])
def test_evaluation_never_pads_more(count: int, budget: int) -> None:
    lengths = np.random.default_rng(count).integers(1, 513, count)
    (batches,) = eval_batches(lengths, budget, 1)
    assert padding_efficiency(batches, lengths) >= MIN_EFFICIENCY


def test_evaluation_pads_little_and_repeats_itself() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(4.7, 0.8, 5000), 5, 512).astype(np.int64)
    (batches,) = eval_batches(lengths, 8 * 512, 1)
    assert padding_efficiency(batches, lengths) > 0.97
    assert eval_batches(lengths, 8 * 512, 1) == [batches]


@given(plan=plans(), epoch=st.integers(0, 3), trained=st.integers(0, 20))
def test_an_epoch_goes_on_after_the_batches_that_are_trained(
    plan: tuple[Lengths, int, int], epoch: int, trained: int
) -> None:
    lengths, batch_size, world_size = plan
    whole = TrainBatches(lengths, batch_size, 42, 0, world_size)
    rest = TrainBatches(lengths, batch_size, 42, 0, world_size, start=(epoch, trained))
    # Workers ask for batches before Lightning names the epoch.
    whole.set_epoch(epoch)
    assert (list(rest), len(rest)) == (list(whole)[trained:], len(whole))
    for batches in (whole, rest):
        batches.set_epoch(epoch + 1)
    assert list(rest) == list(whole)


# --- what must not happen


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_rows_than_devices_is_a_defect(count: int) -> None:
    lengths = np.ones(count, np.int64)
    with pytest.raises(AssertionError, match=f"{count} rows for 4 devices"):
        TrainBatches(lengths, 8, 42, 0, 4)
    with pytest.raises(AssertionError, match=f"{count} rows for 4 devices"):
        EvalBatches(lengths, 4096, 0, 4)
