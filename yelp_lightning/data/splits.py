"""Splits: which rows train and which validate, chosen by seed before anything is tokenized."""

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
    """An order of all rows whose every slice is a fair sample.

    Args:
        labels: Class of each row, ``(n,)``.
        sampling: ``shuffle``: the permutation of ``datasets.Dataset.shuffle(seed)``, to the row. ``stratified``: that
            permutation, rearranged so that every slice keeps the share of each class within one row.
        seed: Seed of the permutation.

    Returns:
        Row numbers, ``(n,)``, each once.

    Example:
        >>> row_order(np.array([0, 0, 1, 1]), "stratified", seed=1).tolist()
        [0, 3, 1, 2]
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    if sampling == "shuffle":
        return order
    # The k-th row of a class with m rows belongs at (k + 1/2) / m of the way: classes interleave in proportion.
    place = np.empty(len(order))
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels[order] == label)
        place[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    return order[np.argsort(place, kind="stable")]


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
    if val_size is None:
        val_size = min(max(len(rows) // 10, 1), MAX_DEFAULT_VAL_ROWS)
    _require_rows(val_size, len(rows) - 1, "data.val_size")
    if train_size is None:
        train_size = len(rows) - val_size
    _require_rows(train_size, len(rows) - val_size, "data.train_size", f" beside the {val_size} for validation")
    order = row_order(np.asarray(rows["label"]), sampling, seed)
    return rows.select(order[:train_size]), rows.select(order[len(rows) - val_size :])


def _require_rows(size: int, available: int, option: str, beside: str = "") -> None:
    if size > available:
        raise UsageError(
            f"`{option}` is {size}, but the data hold only {available} rows{beside}: "
            f"give at most {available}, or leave the option out to take all."
        )
