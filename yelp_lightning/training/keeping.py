"""The options `checkpoint.*`: which states of the model a fit keeps, and when it stops."""

from dataclasses import dataclass
from typing import Literal

from yelp_lightning.errors import UsageError
from yelp_lightning.ranges import PositiveInt

DIRECTIONS: dict[str, Literal["min", "max"]] = {
    "loss": "min", "mae": "min", "ece": "min",
    "accuracy": "max", "macro_f1": "max", "within_1": "max", "qwk": "max",
}  # fmt: skip


@dataclass(frozen=True)
class CheckpointOptions:
    """Which states of the model a `fit` keeps, and when it stops.

    Args:
        monitor: Metric that says which validation is the best, any key such as ``val/accuracy``, ``val/mae`` or
            ``val/loss``; whether more or less is better is known.
        patience: Validations without a better one after which the run stops; null means that it never stops early.
        every_n_steps: Optimizer steps between two writings of last.ckpt, beside the one after each validation; null
            means none between.
    """

    monitor: str = "val/accuracy"
    patience: PositiveInt | None = None
    every_n_steps: PositiveInt | None = None


def direction(monitor: str) -> Literal["min", "max"]:
    """Whether less or more of a metric is better.

    Args:
        monitor: Its key, such as ``val/mae``.

    Returns:
        ``min`` or ``max``.

    Raises:
        UsageError: If it is no metric of the validation.

    Example:
        >>> direction("val/accuracy"), direction("val/mae")
        ('max', 'min')
    """
    stage, _, name = monitor.partition("/")
    if stage != "val" or name not in DIRECTIONS:
        raise UsageError(
            f"`checkpoint.monitor` is {monitor!r}, but must be a metric of the validation: give one of "
            f"{', '.join(f'val/{known}' for known in DIRECTIONS)}."
        )
    return DIRECTIONS[name]
