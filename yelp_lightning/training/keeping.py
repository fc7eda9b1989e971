"""The options `checkpoint.*`: which states of the model a fit keeps, and when it stops."""

from dataclasses import dataclass

from yelp_lightning.ranges import PositiveInt


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
