"""Guards: a loss that is no finite number ends the run with one sentence, on every device."""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from yelp_lightning.errors import UsageError

# Most batches whose loss is looked at together.
MOST = 50


@dataclass
class _Batch:
    """A training batch whose loss has not been looked at yet.

    Args:
        step: Optimizer step that it is part of, from 1.
        learning_rate: Of that step.
        loss: Its loss ``()``, on its device.
        rows: Its row numbers ``(B,)``, on its device.
    """

    step: int
    learning_rate: float
    loss: Tensor
    rows: Tensor


class FiniteLoss(Callback):
    """Stops at the first training or validation loss that is infinite or no number, and before such weights are kept.

    On one CPU every training batch is looked at. A GPU would have to be waited for, and several devices have to agree:
    there the losses of ``trainer.log_every_n_steps`` batches are looked at together. Infinite gradients, which the loss
    scaling of ``16-mixed`` skips, are no error; where they are not skipped, the weights show it before the next loss.
    """

    def __init__(self) -> None:
        self._waiting: list[_Batch] = []

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Here, because after the batch the schedule has gone on.
        self._step = trainer.global_step + 1
        self._learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        self._waiting.append(_Batch(self._step, self._learning_rate, outputs["loss"], batch["row"]))
        alone_on_cpu = pl_module.device.type == "cpu" and trainer.world_size == 1
        together = 1 if alone_on_cpu else min(getattr(trainer, "log_every_n_steps", 0) or MOST, MOST)
        if len(self._waiting) >= together:
            self._look(trainer)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Before the checkpoints, which Lightning calls last.
        loss = float(trainer.callback_metrics.get("val/loss", 0.0))  # the same on every device
        if not trainer.sanity_checking and not torch.isfinite(torch.tensor(loss)):
            _stop(trainer, f"The validation loss is {loss} after optimizer step {trainer.global_step}")

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # A run could not go on from it. Every device is here, before the first of them writes the file.
        self._look(trainer)
        weights = checkpoint["state_dict"].values()  # none where another device holds them for all
        finite = all(weight.isfinite().all() for weight in weights if weight.is_floating_point())
        if trainer.strategy.reduce_boolean_decision(not finite, all=False):
            _stop(trainer, f"There are weights that are no finite numbers after optimizer step {trainer.global_step}")

    def _look(self, trainer: Trainer) -> None:
        waiting, self._waiting = self._waiting, []
        finite = not waiting or bool(torch.stack([batch.loss for batch in waiting]).isfinite().all())
        # Every device looks after the same batches: either all of them go on or none does.
        if not trainer.strategy.reduce_boolean_decision(not finite, all=False):
            return
        first = next((batch for batch in waiting if not batch.loss.isfinite()), None)
        said = [(first.step, _sentence(trainer, first)) if first else None]
        if trainer.world_size > 1:
            said = said * trainer.world_size
            torch.distributed.all_gather_object(said, said[0])
        _stop(trainer, min(one for one in said if one)[1])


def _sentence(trainer: Trainer, batch: _Batch) -> str:
    datamodule: Any = getattr(trainer, "datamodule", None)
    places = datamodule.reviews.places("train", batch.rows.tolist())
    return (
        f"The training loss is {batch.loss.item()} at optimizer step {batch.step} (epoch {trainer.current_epoch + 1}, "
        f"learning rate {batch.learning_rate:.3g}), in the batch of {places}"
    )


def _stop(trainer: Trainer, found: str) -> None:
    if not trainer.is_global_zero:
        # The first process speaks for all. One that ended with another status before it would have it killed.
        sys.exit(0)
    precision = str(trainer.precision)
    ways = ["give a lower --model.learning_rate", "clip gradients by --trainer.gradient_clip_val 1"]
    if precision.startswith(("16", "transformer-engine")):
        ways.append(f"give --trainer.precision bf16-mixed or 32-true instead of {precision}")
    raise UsageError(f"{found}: {', or '.join(ways)}.")
