"""Calibration: a temperature that makes probabilities as sure as they are right, fitted on validation rows."""

import numpy as np
import numpy.typing as npt

# Where rows are few and all of them right, the likelihood asks for a temperature of 0: this far and no further.
LOWEST, HIGHEST = 0.25, 10.0


def fit_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """The temperature by which logits are divided for the smallest log-loss; it changes no row's most probable class.

    Args:
        logits: ``(n, C)``, of rows that were not trained on.
        labels: ``(n,)``, 0..C-1.

    Returns:
        A number in [0.25, 10]; above 1 means that the model is surer than it is right. 1 where logits are no finite
        numbers.

    Source:
        Guo et al. 2017. The log-loss is convex in the inverse of the temperature, so there is one minimum.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    scores = logits.astype(np.float64)
    if not np.isfinite(scores).all():
        return 1.0
    right = scores[np.arange(len(labels)), labels]

    def loss(inverse: float) -> float:
        return float(np.mean(logsumexp(inverse * scores, axis=1) - inverse * right))

    found = minimize_scalar(loss, bounds=(1 / HIGHEST, 1 / LOWEST), method="bounded", options={"xatol": 1e-6})
    return 1 / float(found.x)
