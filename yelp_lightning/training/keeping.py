"""The options `checkpoint.*`: which states of the model a fit keeps, and when it stops."""

import difflib
import math
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from yelp_lightning.errors import UsageError
from yelp_lightning.ranges import PositiveInt

Direction = Literal["min", "max"]
# Whether less or more of a validation metric is better.
DIRECTIONS: dict[str, Direction] = {
    "val/accuracy": "max", "val/macro_f1": "max", "val/mae": "min", "val/mae_median": "min", "val/mae_expected": "min",
    "val/mae_rounded": "min", "val/within_1": "max", "val/qwk": "max", "val/ece": "min", "val/ece_calibrated": "min",
    "val/loss": "min", "val/loss_calibrated": "min", "val/perplexity": "min",
}  # fmt: skip
# What only ordered classes have.
ORDERED = {"val/mae", "val/mae_median", "val/mae_expected", "val/mae_rounded", "val/within_1", "val/qwk"}
# What a run on masked words measures.
WORDS = {"val/accuracy", "val/loss", "val/perplexity"}


@dataclass(frozen=True)
class CheckpointOptions:
    """Which states of the model a `fit` keeps, and when it stops.

    Args:
        monitor: Metric that says which validation is the best, any key such as ``val/accuracy``, ``val/mae`` or
            ``val/loss``; whether more or less is better is known.
        patience: Validations without a better one after which the run stops; null means that it never stops early.
        every_n_steps: Optimizer steps between two writings of last.ckpt, beside the one after each validation; null
            means none between.
        average_best: How many of the best validations have their weights averaged at the end; the mean becomes
            best.ckpt if it is better than each of them (Wortsman et al. 2022). null means none.
    """

    monitor: str = "val/accuracy"
    patience: PositiveInt | None = None
    every_n_steps: PositiveInt | None = None
    average_best: PositiveInt | None = None


def direction(monitor: str) -> Direction:
    """Whether less or more of a metric is better.

    Args:
        monitor: Key of a validation metric.

    Returns:
        ``min`` or ``max``.

    Example:
        >>> direction("val/mae"), direction("val/accuracy")
        ('min', 'max')
    """
    return DIRECTIONS[monitor]


def check_monitor(monitor: str, ordered: bool, words: bool = False) -> None:
    """Refuse a metric that the run's validations do not measure.

    Args:
        monitor: ``checkpoint.monitor``.
        ordered: ``model.ordered``.
        words: Whether masked words are guessed, and not stars.

    Raises:
        UsageError: If there is no such metric.
    """
    measured = [
        key
        for key in DIRECTIONS
        if (key in WORDS if words else key != "val/perplexity" and (ordered or key not in ORDERED))
    ]
    if monitor in measured:
        return
    said = f"`checkpoint.monitor` is {monitor!r}, but "
    if monitor in ORDERED and not words:
        raise UsageError(
            f"{said}`model.ordered` is false, and only ordered classes have that: give one of {', '.join(measured)}."
        )
    close = difflib.get_close_matches(f"val/{monitor.rpartition('/')[2]}", measured, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    raise UsageError(f"{said}must be what validations measure: give one of {', '.join(measured)}{meant}.")


def require_score(monitor: str, score: float) -> None:
    """Stop where there is no best validation because the metric was never a number.

    Args:
        monitor: ``checkpoint.monitor``.
        score: Its value at the latest validation.

    Raises:
        UsageError: If it is infinite or no number.
    """
    if not math.isfinite(score):
        raise UsageError(
            f"`checkpoint.monitor` is {monitor!r}, which is {score} on these validation rows, so that no validation is "
            "the best: watch another metric in a new run."
        )


class StopEarly(EarlyStopping):
    """Stops a run whose validations have not become better for a while, or are not finite.

    Args:
        monitor: Key of the metric.
        patience: Validations without a better one.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        # Every validation counts, not every epoch.
        super().__init__(monitor, patience=patience, mode=direction(monitor), check_on_train_epoch_end=False)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning lets the checkpoint's patience win over what was typed.
        super().load_state_dict({**state_dict, "patience": self.patience})
        # A run that had stopped early, and goes on, has not stopped again.
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.should_stop and self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            reason = str(self.stopping_reason_message).removesuffix(" Signaling Trainer to stop.")
            rank_zero_info(f"Stopped early, at optimizer step {trainer.global_step}: {reason}")
