"""Splits: which rows train and which validate, chosen by seed before anything is tokenized."""

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from yelp_lightning.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

Sampling = Literal["shuffle", "stratified"]
# Where a source brings no validation rows and none were asked for: a tenth of train, at most this many.
MAX_DEFAULT_VAL_ROWS = 10_000


def row_order(labels: npt.NDArray[np.int64], sampling: Sampling, seed: int) -> npt.NDArray[np.int64]:
    """An order of all rows whose first and whose last rows, as many as you like, are a fair sample.

    Args:
        labels: Class of each row, ``(n,)``.
        sampling: ``shuffle``: the permutation of ``datasets.Dataset.shuffle(seed)``, to the row. ``stratified``: that
            permutation, rearranged so that the first k rows hold of each class its share of k, rounded up or down,
            for every k; so do the last k.
        seed: Seed of the permutation.

    Returns:
        Row numbers, ``(n,)``, each once.

    Example:
        >>> row_order(np.array([0, 0, 1, 1]), "stratified", seed=1).tolist()
        [0, 2, 1, 3]
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    return order if sampling == "shuffle" else order[_interleave(labels[order])]


def _interleave(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Places of the rows, rearranged so that every beginning holds each class in proportion.

    Row k of a class with m of the n rows may stand from place ``floor(k n / m)`` on, and must stand before place
    ``ceil((k + 1) n / m)``: then the class is never more than a row ahead or behind. Taking, at each place, the row
    that is due first keeps all these dates.

    Source:
        Steiner and Yeomans 1993, "Level schedules for mixed-model, just-in-time processes".
    """
    n = len(labels)
    waiting: list[tuple[int, int, int]] = []  # (from when, due, row)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        k, m = np.arange(len(of_class)), len(of_class)
        waiting += zip((k * n // m).tolist(), (-((k + 1) * n // -m)).tolist(), of_class.tolist(), strict=True)
    waiting.sort(reverse=True)
    ready: list[tuple[int, int]] = []
    places = np.empty(n, np.int64)
    for place in range(n):
        while waiting and waiting[-1][0] <= place:
            heappush(ready, waiting.pop()[1:])
        places[place] = heappop(ready)[1]
    return places


def subsample(rows: "Dataset", size: int | None, sampling: Sampling, seed: int, option: str) -> "Dataset":
    """Choose ``size`` rows.

    Args:
        rows: Data set with a ``label`` column.
        size: Rows to keep; None keeps all of them, in their own order.
        sampling: As in ``row_order``.
        seed: Seed of the choice.
        option: The option that gave ``size``, for the error.

    Returns:
        The first ``size`` rows in ``row_order``.

    Raises:
        UsageError: If there are fewer rows than that.
    """
    if size is None:
        return rows
    _require_rows(size, len(rows), option)
    return rows.select(row_order(np.asarray(rows["label"]), sampling, seed)[:size])


def cut_validation(
    rows: "Dataset", train_size: int | None, val_size: int | None, sampling: Sampling, seed: int
) -> tuple["Dataset", "Dataset"]:
    """Cut validation rows from the training rows.

    Validation rows are the last ``val_size`` in ``row_order``, training rows the first ``train_size``: another
    ``train_size`` leaves the validation rows as they were, so that runs can be compared.

    Args:
        rows: The source's training rows.
        train_size: Rows to train on; None means all that validation leaves.
        val_size: Rows to validate on; None means a tenth of ``rows``, at most 10,000.
        sampling: As in ``row_order``.
        seed: Seed of the choice.

    Returns:
        Training rows and validation rows, disjoint.

    Raises:
        UsageError: If the source has too few rows.
    """
    if len(rows) < 2:
        raise UsageError(
            "`data.source` holds 1 row to train on, and validation rows are cut from the same: give at least 2 rows."
        )
    if val_size is None:
        val_size = min(max(len(rows) // 10, 1), MAX_DEFAULT_VAL_ROWS)
    _require_rows(val_size, len(rows) - 1, "data.val_size", " beside one to train on")
    if train_size is None:
        train_size = len(rows) - val_size
    _require_rows(train_size, len(rows) - val_size, "data.train_size", f" beside the {val_size} for validation")
    order = row_order(np.asarray(rows["label"]), sampling, seed)
    return rows.select(order[:train_size]), rows.select(order[len(rows) - val_size :])


def _require_rows(size: int, available: int, option: str, beside: str = "") -> None:
    if size > available:
        raise UsageError(
            f"`{option}` is {size}, but the data hold only {available} rows{beside}: "
            f"give at most {available}, or leave the option out."
        )
