"""Confidence intervals of measured metrics."""

import numpy as np
import numpy.typing as npt

# Resamples of the bootstrap: the ends of a 95 % interval then move by about 1 % of its width between seeds.
RESAMPLES = 10_000


def accuracy_interval(confusion: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Wilson's 95 % interval of the accuracy.

    Args:
        confusion: Confusion matrix ``(C, C)``, rows are true classes.

    Returns:
        Lower and upper end, shares of 1.

    Source:
        Wilson 1927, by ``scipy.stats``.
    """
    return share_interval(int(np.trace(confusion)), int(confusion.sum()))


def share_interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Args:
        right: How many are counted.
        n: Of how many.

    Returns:
        Lower and upper end, shares of 1.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mae_interval(confusion: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean absolute error, in stars.

    Rows with equal errors are alike, so drawing rows anew is drawing counts of errors from a multinomial distribution:
    the percentile bootstrap, exact in its resampling and quick for any number of rows.

    Args:
        confusion: Confusion matrix ``(C, C)``, rows are true classes.

    Returns:
        Lower and upper end, stars.

    Source:
        Efron 1979.
    """
    classes = np.arange(len(confusion))
    errors = np.abs(classes[:, None] - classes)
    counts = np.bincount(errors.ravel(), weights=confusion.ravel())
    rows = int(counts.sum())
    draws = np.random.default_rng(0).multinomial(rows, counts / rows, size=RESAMPLES)
    low, high = np.percentile(draws @ np.arange(len(counts)) / rows, [2.5, 97.5])
    return float(low), float(high)
