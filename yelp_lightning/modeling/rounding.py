"""Rounding: one number of stars from the probabilities of all, and how far off each rule is."""

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating]
# n rows, C classes


def expected_stars(probabilities: Probabilities) -> npt.NDArray[np.float64]:
    """Mean over the probabilities, the number with the smallest expected squared error.

    Args:
        probabilities: ``(n, C)``, rows sum to 1.

    Returns:
        ``(n,)``, 1..C, not whole.
    """
    return probabilities.astype(np.float64) @ np.arange(1, probabilities.shape[1] + 1)


def median_stars(probabilities: Probabilities) -> npt.NDArray[np.int64]:
    """Median of the probabilities, the whole number with the smallest expected absolute error.

    Args:
        probabilities: ``(n, C)``, rows sum to 1.

    Returns:
        ``(n,)``, 1..C.
    """
    below = probabilities.astype(np.float64).cumsum(1)[:, :-1]
    return np.asarray(1 + np.count_nonzero(below < 0.5, axis=1), np.int64)


def rounding_errors(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Mean absolute error of each rule, in stars.

    Args:
        probabilities: ``(n, C)``, rows sum to 1.
        labels: ``(n,)``, 0..C-1.

    Returns:
        ``mae_median``; ``mae_expected``, of the mean as it is; ``mae_rounded``, of the nearest whole number. The most
        probable stars have ``mae``.
    """
    mean = expected_stars(probabilities)
    rules = {"mae_median": median_stars(probabilities), "mae_expected": mean, "mae_rounded": np.round(mean)}
    return {name: float(np.abs(stars - 1 - labels).mean()) for name, stars in rules.items()}
