"""Calibration: a temperature that makes probabilities as sure as they are right, fitted on validation rows."""

import numpy as np
import numpy.typing as npt

LOWEST, HIGHEST = 0.25, 10.0
# Standard deviation of the logarithm of temperatures before any row is seen: few rows, all of them right for one, would
# ask for a temperature of 0. From some hundred rows on it does not matter.
PRIOR = 0.5


def fit_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """The most likely temperature to divide logits by; it changes no row's most probable class.

    Args:
        logits: ``(n, C)``, of rows that were not trained on.
        labels: ``(n,)``, 0..C-1.

    Returns:
        A number in [0.25, 10]; above 1 means that the model is surer than it is right. 1 where logits are no finite
        numbers: then every metric of these rows is none either.

    Source:
        Guo et al. 2017, with a normal prior on the temperature's logarithm, which is worth a few rows.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    scores = logits.astype(np.float64)
    if not np.isfinite(scores).all():
        return 1.0
    right = scores[np.arange(len(labels)), labels]

    def unlikelihood(logarithm: float) -> float:
        inverse = np.exp(-logarithm)
        loss = np.sum(logsumexp(inverse * scores, axis=1) - inverse * right)
        return float(loss + (logarithm / PRIOR) ** 2 / 2) / len(labels)

    bounds = np.log(LOWEST), np.log(HIGHEST)
    found = minimize_scalar(unlikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
