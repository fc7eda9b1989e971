"""Batches: which rows go together, on which device; like lengths together, every row exactly once."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

# Training rows are sorted by length inside windows of this many optimizer steps: long enough to waste little on
# padding, short enough that batches differ from epoch to epoch.
WINDOW_STEPS = 50
# An evaluation batch ends before less than this share of its tokens would be real.
MIN_EFFICIENCY = 0.97


class MicroBatch(list[int]):
    """Row numbers of one training batch of one device, and what its loss counts.

    Args:
        rows: The numbers.
        weight: Factor of the batch's mean loss, with which the mean over devices and accumulated batches is the mean
            over the rows of the optimizer step: 1 unless the rows of the epoch do not divide.
    """

    def __init__(self, rows: list[int], weight: float) -> None:
        super().__init__(rows)
        self.weight = weight


class TrainRows(Dataset[dict[str, Tensor]]):
    """Padded training batches, each with its ``weight ()`` float32.

    Args:
        tokens: Pads given rows: ``TokenRows``.
    """

    def __init__(self, tokens: Dataset[dict[str, Tensor]]) -> None:
        self.tokens = tokens

    def __getitem__(self, rows: MicroBatch) -> dict[str, Tensor]:
        return {**self.tokens[rows], "weight": torch.tensor(rows.weight)}


class TrainBatches(Sampler[list[int]]):
    """Row numbers of each training batch of one device.

    Every epoch is a new order. Rows are shuffled, sorted by length inside windows, cut into optimizer steps of
    ``batch_size * world_size * accumulate`` rows, and the steps are shuffled, the longest of the first epoch coming
    first of all; each step is then cut into ``accumulate`` batches, and each batch shared by the devices. So the same
    rows make a step, however it is cut. All devices get the same number of batches, and every row comes exactly once:
    where the rows do not divide, the epoch's last step is short, or, if that would leave a device without a row, a
    little larger, and its batches are weighted.

    Args:
        lengths: Tokens of each row, ``(n,)``.
        batch_size: Rows per device and batch.
        seed: Seed of the order; the epoch's number is mixed in.
        rank: This device's number.
        world_size: Devices.
        accumulate: Batches of an optimizer step, ``trainer.accumulate_grad_batches``.
        start: Epoch to begin with, and how many of its batches have been trained already: those are left out, though
            ``len`` counts them.
    """

    def __init__(
        self, lengths: npt.NDArray[np.int32], batch_size: int, seed: int, rank: int = 0, world_size: int = 1,
        accumulate: int = 1, start: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        assert len(lengths) >= world_size, f"{len(lengths)} rows for {world_size} devices"
        self.lengths = lengths
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.accumulate = accumulate
        self.batch_rows = batch_size * world_size
        self.step_rows = self.batch_rows * accumulate
        self.steps = self._parts(len(lengths), self.step_rows)
        self.start = start
        self.epoch = start[0]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls it.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        last_rows = len(self.lengths) - (self.steps - 1) * self.step_rows
        return (self.steps - 1) * self.accumulate + self._parts(last_rows, self.batch_rows)

    def __iter__(self) -> Iterator[MicroBatch]:
        generator = np.random.default_rng([self.seed, self.epoch])
        # Four bytes a row, sorted in place: there may be millions.
        order = generator.permutation(np.arange(len(self.lengths), dtype=np.int32))
        window = WINDOW_STEPS * self.step_rows
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part[:] = part[np.argsort(-self.lengths[part], kind="stable")]
        # A step of other rows than the rest comes last, where the optimizer waits for no more batches.
        whole = self.steps - (len(order) != self.steps * self.step_rows)
        trained = self.start[1] if self.epoch == self.start[0] else 0
        steps = generator.permutation(whole)
        if whole and self.epoch == 0:
            # The longest step first: if memory does not suffice, that shows at once. Windows are sorted, so the first
            # row of a step is its longest.
            longest = int(np.argmax(self.lengths[order[steps * self.step_rows]]))
            steps[[0, longest]] = steps[[longest, 0]]
        for step in [*steps, *range(whole, self.steps)]:
            rows = self._part(order, step, self.steps, self.step_rows)
            batches = self._parts(len(rows), self.batch_rows)
            for batch in range(batches):
                if trained:
                    trained -= 1
                    continue
                # Every world_size-th row of a sorted batch: devices get rows of the same lengths.
                own = self._part(rows, batch, batches, self.batch_rows)[self.rank :: self.world_size].tolist()
                yield MicroBatch(own, len(own) * self.world_size * self.accumulate / len(rows))

    def _parts(self, rows: int, size: int) -> int:
        """How many parts of a size; a rest with fewer rows than devices joins the last one."""
        full, rest = divmod(rows, size)
        return max(full + (rest >= self.world_size), 1)

    @staticmethod
    def _part(rows: npt.NDArray[np.int32], part: int, parts: int, size: int) -> npt.NDArray[np.int32]:
        # The last part takes what is left.
        return rows[part * size : (part + 1) * size if part < parts - 1 else None]


class EvalBatches(Sampler[list[int]]):
    """Row numbers of each evaluation batch of one device.

    Longest rows first, so that a lack of memory shows at once; as many rows a batch as fit a budget of tokens and waste
    little on padding. Every row comes exactly once, and all devices get the same number of batches: one that holds a
    part of each layer only needs the others for every batch.

    Args:
        lengths: Tokens of each row, ``(n,)``.
        batch_tokens: Most tokens in a batch, padding included; a longer row gets a batch of its own, which the
            shortest rows of all may join where rows do not divide.
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
        # Single rows that do not divide join others; otherwise the batches with most rows are halved.
        while len(batches) > len(lengths) // world_size * world_size:
            joining = batches.pop()
            batches[-world_size] += joining
        while len(batches) % world_size:
            most_rows = max(range(len(batches)), key=lambda batch: len(batches[batch]))
            whole = batches[most_rows]
            batches[most_rows : most_rows + 1] = [whole[: len(whole) // 2], whole[len(whole) // 2 :]]
        self.batches = batches[rank::world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
