"""Likely label errors, by confident learning (Northcutt et al. 2021) as cleanlab has it."""

import importlib.util
import warnings

import numpy as np
import numpy.typing as npt

from yelp_lightning.modeling.metrics import Measured
from yelp_lightning.report.shares import ENOUGH

EXTRA = "report"


def can_find() -> bool:
    """Whether cleanlab is installed.

    Returns:
        False if the extra ``report`` is missing.
    """
    return importlib.util.find_spec("cleanlab") is not None


def enough(measured: Measured) -> bool:
    """Whether the rows tell how sure the model usually is, and of what.

    Args:
        measured: Of rows that the model was not trained on.

    Returns:
        False of fewer than ``ENOUGH`` rows, or of a single class.
    """
    return len(measured.labels) >= ENOUGH and len(np.unique(measured.labels)) > 1


def label_errors(measured: Measured) -> list[int]:
    """Rows whose label is likely wrong: the model is surer of another class than it usually is of that class's rows.

    Args:
        measured: Of rows that the model was not trained on; ``enough`` of them.

    Returns:
        Row numbers, those whose label has the lowest probability first.
    """
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        # It warns of classes whose rows are so few that it calls none of them wrong.
        warnings.filterwarnings("ignore", module="cleanlab")
        found: npt.NDArray[np.int64] = find_label_issues(
            measured.labels, measured.probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    rows: list[int] = found.tolist()
    return rows
