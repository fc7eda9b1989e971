"""Splits: which rows train and which validate, chosen by seed before anything is tokenized; no text in two of them."""

from heapq import heappop, heappush
from typing import Literal

import numpy as np
import numpy.typing as npt

from yelp_lightning.errors import UsageError

Sampling = Literal["shuffle", "stratified", "first"]
OnDuplicate = Literal["remove", "error", "keep"]
# A number of rows, or the share of them.
Size = int | float
# Row numbers; four bytes each, since there may be millions.
Order = npt.NDArray[np.int32]
Hashes = npt.NDArray[np.uint64]
# Where a source brings no validation rows and none were asked for: a tenth of train, at most this many.
MAX_DEFAULT_VAL_ROWS = 10_000
# Rows that are looked up at a time.
_BLOCK = 2**16


def row_order(labels: npt.NDArray[np.int16], sampling: Sampling, seed: int) -> Order:
    """An order of all rows whose first and whose last rows, as many as you like, are a fair sample.

    Args:
        labels: Class of each row, ``(n,)``.
        sampling: ``shuffle``: the permutation of ``datasets.Dataset.shuffle(seed)``, to the row. ``stratified``: that
            permutation, rearranged so that the first k rows hold of each class its share of k, rounded up or down,
            for every k; so do the last k. ``first``: the rows' own order.
        seed: Seed of the permutation.

    Returns:
        Row numbers, ``(n,)``, each once.

    Example:
        >>> row_order(np.array([0, 0, 1, 1]), "stratified", seed=1).tolist()
        [0, 2, 1, 3]
    """
    if sampling == "first":
        return np.arange(len(labels), dtype=np.int32)
    order = np.random.default_rng(seed).permutation(np.arange(len(labels), dtype=np.int32))
    return order if sampling == "shuffle" else order[_interleave(labels[order])]


def _interleave(labels: npt.NDArray[np.int16]) -> Order:
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
    places = np.empty(n, np.int32)
    for place in range(n):
        while waiting and waiting[-1][0] <= place:
            heappush(ready, waiting.pop()[1:])
        places[place] = heappop(ready)[1]
    return places


def take(order: Order, size: Size | None, option: str, beside: str = "") -> Order:
    """The first rows of an order.

    Args:
        order: Row numbers, ``(n,)``.
        size: How many, or the share of them; None means all.
        option: The option that gave ``size``, for the error.
        beside: What the rows are beside, for the error.

    Returns:
        The rows.

    Raises:
        UsageError: If there are fewer rows than that, or the share of them is none.
    """
    return order if size is None else order[: count_of(size, len(order), option, beside)]


def count_of(size: Size, available: int, option: str, beside: str = "") -> int:
    """A number of rows from a number or a share.

    Args:
        size: A number of rows, or the share of ``available``.
        available: Rows that there are.
        option: The option that gave ``size``, for the error.
        beside: What they are beside, for the error.

    Returns:
        The number, at least 1.

    Raises:
        UsageError: If there are fewer rows than that, or the share is less than one row.
    """
    count = size if isinstance(size, int) else round(size * available)
    if count > available:
        raise UsageError(
            f"`{option}` is {size}, but the data hold only {available} rows{beside}: "
            f"give at most {available}, or leave the option out."
        )
    if count < 1:
        raise UsageError(f"`{option}` is {size}, which is no row of {available}{beside}: give a larger share.")
    return count


def cut_validation(
    labels: npt.NDArray[np.int16], order: Order, val_size: Size | None, groups: Hashes | None = None
) -> tuple[Order, Order]:
    """Cut validation rows from the training rows: the last ones in their order, each class in its share.

    Which rows validate depends on neither the number of training rows nor on which of them are left out later, so that
    runs can be compared.

    Args:
        labels: Class of each row of the table.
        order: The rows that may train or validate, ``(n,)``, in a fair order.
        val_size: Rows to validate on, or the share of all; None means a tenth, at most 10,000.
        groups: Group of each row of the table: a group goes whole to one side, and there may then be fewer validation
            rows than asked for.

    Returns:
        Rows to train on and rows to validate on, disjoint, each in ``order``.

    Raises:
        UsageError: If there are too few rows, or no group is small enough.
    """
    n = len(order)
    if n < 2:
        raise UsageError(
            "`data.source` holds 1 row to train on, and validation rows are cut from the same: give at least 2 rows."
        )
    if val_size is None:
        val_size = min(max(n // 10, 1), MAX_DEFAULT_VAL_ROWS)
    option, beside = "data.val_size", " beside one to train on"
    count = count_of(val_size, n if isinstance(val_size, float) else n - 1, option, beside)
    if count >= n:
        raise UsageError(
            f"`data.val_size` is {val_size}, which leaves no row of {n} to train on: give a smaller share."
        )
    shares = _shares(labels[order], count)
    from_end = order[::-1]
    chosen = _last_rows(labels, from_end, shares) if groups is None else _last_groups(labels, from_end, shares, groups)
    if not chosen.any():
        raise UsageError(
            f"`data.group_column`: no group has at most {count} rows, so none can be set aside for validation: "
            "give a larger --data.val_size."
        )
    return order[~chosen[order]], order[chosen[order]]


def _shares(labels: npt.NDArray[np.int16], count: int) -> npt.NDArray[np.int64]:
    """How many of ``count`` rows each class gets: its share, rounded so that the sum is right (largest remainders)."""
    exact = np.bincount(labels) * count / len(labels)
    shares = exact.astype(np.int64)
    missing = count - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    return shares


def _last_rows(labels: npt.NDArray[np.int16], from_end: Order, shares: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    chosen = np.zeros(len(labels), bool)
    for label, share in enumerate(shares):
        chosen[from_end[labels[from_end] == label][:share]] = True
    return chosen


def _last_groups(
    labels: npt.NDArray[np.int16], from_end: Order, shares: npt.NDArray[np.int64], groups: Hashes
) -> npt.NDArray[np.bool_]:
    """Whole groups, from the end of the order: first those that keep to each class's share, then any that still fit."""
    _, first, number = np.unique(groups[from_end], return_index=True, return_inverse=True)
    members = np.split(from_end[np.argsort(number, kind="stable")], np.cumsum(np.bincount(number))[:-1])
    chosen = np.zeros(len(labels), bool)
    left = shares.copy()
    for keep_shares in (True, False):
        for group in np.argsort(first, kind="stable"):
            rows = members[group]
            counts = np.bincount(labels[rows], minlength=len(shares))
            fits = (counts <= left).all() if keep_shares else len(rows) <= left.sum()
            if fits and not chosen[rows[0]]:
                chosen[rows] = True
                left -= counts
            if left.sum() == 0:
                return chosen
    return chosen


def known(hashes: Hashes, order: Order, others: list[Hashes]) -> npt.NDArray[np.bool_]:
    """Which texts or groups also stand in other splits.

    Args:
        hashes: Those of all rows of the table.
        order: Rows to look at, ``(n,)``.
        others: Hashes of the other splits.

    Returns:
        ``(n,)`` bool.
    """
    table = np.unique(np.concatenate([np.empty(0, np.uint64), *others]))
    if not len(table):
        return np.zeros(len(order), bool)
    # A small part of the memory of numpy's isin, which sorts the millions instead of looking each up in the few.
    found = np.empty(len(order), bool)
    for start in range(0, len(order), _BLOCK):
        part = hashes[order[start : start + _BLOCK]]
        places = np.minimum(np.searchsorted(table, part), len(table) - 1)
        found[start : start + _BLOCK] = table[places] == part
    return found
