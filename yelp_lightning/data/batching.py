"""Batches: which rows go together, on which device; like lengths together, every row exactly once."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

# Training rows are sorted by length inside windows of this many steps: long enough to waste little on padding, short
# enough that batches differ from epoch to epoch.
WINDOW_STEPS = 50
# An evaluation batch ends before less than this share of its tokens would be real.
MIN_EFFICIENCY = 0.97


class TrainBatches(Sampler[list[int]]):
    """Row numbers of each training batch of one device.

    Every epoch is a new order. Rows are shuffled, sorted by length inside windows, cut into steps of ``batch_size``
    rows per device, and the steps are shuffled. All devices get the same number of batches, and every row comes
    exactly once: where the rows do not divide, one step is short, or, if that would leave a device without a row,
    one step is a little larger.

    Args:
        lengths: Tokens of each row, ``(n,)``.
        batch_size: Rows per device and step.
        seed: Seed of the order; the epoch's number is mixed in.
        rank: This device's number.
        world_size: Devices.
        start: Epoch to begin with, and how many of its batches have been trained already: those are left out, though
            ``len`` counts them.
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int32],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: tuple[int, int] = (0, 0),
    ) -> None:
        assert len(lengths) >= world_size, f"{len(lengths)} rows for {world_size} devices"
        self.lengths = lengths
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.step_rows = batch_size * world_size
        self.start = start
        self.epoch = start[0]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls it.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(len(self.lengths), self.step_rows)
        # A rest with fewer rows than devices joins another step.
        return max(full + (rest >= self.world_size), 1)

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        # Four bytes a row, sorted in place: there may be millions.
        order = generator.permutation(np.arange(len(self.lengths), dtype=np.int32))
        window = WINDOW_STEPS * self.step_rows
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part[:] = part[np.argsort(-self.lengths[part], kind="stable")]
        steps = len(self)
        trained = self.start[1] if self.epoch == self.start[0] else 0
        for step in generator.permutation(steps)[trained:]:
            # The last step takes what is left.
            stop = (step + 1) * self.step_rows if step < steps - 1 else None
            # Every world_size-th row of a sorted step: devices get rows of the same lengths.
            yield order[step * self.step_rows : stop][self.rank :: self.world_size].tolist()


class EvalBatches(Sampler[list[int]]):
    """Row numbers of each evaluation batch of one device.

    Longest rows first, so that a lack of memory shows at once; as many rows a batch as fit a budget of tokens and waste
    little on padding. Devices may get different numbers of batches, since nothing is exchanged per batch; every row
    comes exactly once.

    Args:
        lengths: Tokens of each row, ``(n,)``.
        batch_tokens: Most tokens in a batch, padding included; a longer row gets a batch of its own.
        rank: This device's number.
        world_size: Devices.
    """

    def __init__(self, lengths: npt.NDArray[np.int32], batch_tokens: int, rank: int = 0, world_size: int = 1) -> None:
        assert len(lengths) >= world_size, f"{len(lengths)} rows for {world_size} devices"
        # Never so many rows that a device would be left without any.
        most = len(lengths) // world_size
        order = np.argsort(-lengths, kind="stable")
        batches: list[list[int]] = []
        width = real = 0  # tokens of the batch's longest row, and of all its rows
        for row, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
            rows = len(batches[-1]) + 1 if batches else most + 1
            computed, real = rows * width, real + length
            if rows > most or computed > batch_tokens or real < MIN_EFFICIENCY * computed:
                batches.append([])
                width = real = length
            batches[-1].append(row)
        self.batches = batches[rank::world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
