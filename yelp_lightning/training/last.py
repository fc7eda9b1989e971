"""last.ckpt: the latest state that a run can go on from."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from yelp_lightning.checkpoint import LAST
from yelp_lightning.training.signals import Signals


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: after each validation, at the end of each epoch and of the run, and every few steps.

    It is written after an optimizer step only: between two, gradients that are being accumulated would be lost.

    Args:
        run_folder: Where it is kept.
        signals: Says when the run is about to be stopped.
        every_n_steps: Optimizer steps between two writings, beside those; None means none between.
    """

    def __init__(self, run_folder: str, signals: Signals, every_n_steps: int | None = None) -> None:
        self.path = Path(run_folder) / LAST
        self.signals = signals
        self.every_n_steps = every_n_steps
        self.step = 0
        self.stepped = False
        self.overdue = False

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step = trainer.global_step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.stepped, self.step = trainer.global_step > self.step, trainer.global_step
        due = (
            self.overdue
            or self.signals.stop
            or trainer.is_last_batch
            or trainer.should_stop
            or self.step == trainer.max_steps
            or (self.every_n_steps and self.step % self.every_n_steps == 0)
        )
        loop = trainer.fit_loop
        assert loop._data_fetcher is not None
        # Where a validation comes now, what it finds belongs into the checkpoint.
        if self.stepped and due and not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            self._save(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self.stepped:
            self._save(trainer)
        else:
            self.overdue = True

    def _save(self, trainer: Trainer) -> None:
        self.overdue = False
        trainer.save_checkpoint(self.path, weights_only=False)
