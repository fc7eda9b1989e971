"""The progress of a fit: a bar over the whole run in a terminal, and a line after each validation anywhere."""

import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor
from typing_extensions import override

# Seconds between two looks at the loss: a GPU has to be waited for.
LOOK = 0.5
# Share of the newest batch in the loss and accuracy that are shown: the mean of about the last 20 batches.
NEWEST = 0.05
# Characters of the monitored metric's name, so that the bar fits 80 columns; the line after a validation has all of it.
NAME = 10


class FitProgress(ProgressBar):
    """Shows loss and accuracy of the latest training batches, the monitored metric, reviews per second, the time left.

    Reviews per second are those trained since the start, validation left out, all devices together (each is taken to
    do as much as the first). The time left is that of the whole run, validation included.

    Args:
        monitor: Key of the validation metric to show.
    """

    def __init__(self, monitor: str) -> None:
        super().__init__()
        self.monitor = monitor
        self._enabled = True
        self._bar: Progress | None = None
        self._recent: Tensor | None = None  # loss and accuracy (2,), on the device
        self._reviews, self._start, self._validating, self._looked = 0, 0.0, 0.0, 0.0

    @override
    def disable(self) -> None:
        """Show nothing; Lightning calls it on all devices but the first."""
        self._enabled = False

    @override
    def enable(self) -> None:
        """Show everything."""
        self._enabled = True

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reviews, self._recent, self._validating = 0, None, 0.0
        self._start, self._first_step = time.perf_counter(), trainer.global_step
        self._console = Console()
        if self._enabled and self._console.is_terminal:
            texts = [TextColumn(f"{{task.fields[{name}]}}") for name in ("recent", "metric", "speed", "left")]
            columns = TextColumn("{task.description}"), BarColumn(None), *texts
            self._bar = Progress(*columns, console=self._console, expand=True, transient=True)
            self._bar.start()
            waiting: dict[str, Any] = {
                "recent": "loss -     acc -  ",
                "metric": self._metric(trainer),
                "speed": "- reviews/s",
                "left": "-:--:-- left",
            }
            total = trainer.estimated_stepping_batches
            self._task = self._bar.add_task(_epoch(trainer), total=total, completed=trainer.global_step, **waiting)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        self._reviews += len(batch["labels"]) * trainer.world_size
        # Lightning has divided it by what is accumulated, and the model has weighted it.
        loss = outputs["loss"] * trainer.accumulate_grad_batches / batch["weight"]
        newest = torch.stack([loss, outputs["accuracy"]])
        self._recent = newest if self._recent is None else torch.lerp(self._recent, newest, NEWEST)
        if self._bar is not None and time.perf_counter() - self._looked >= LOOK:
            self._looked = time.perf_counter()
            shown, accuracy = self._recent.tolist()
            self._bar.update(
                self._task, completed=trainer.global_step, description=_epoch(trainer),
                recent=f"loss {shown:.3f} acc {accuracy:.0%}", speed=self._speed(), left=self._left(trainer),
            )  # fmt: skip

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused = time.perf_counter()

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._bar is not None and trainer.training is False and trainer.state.fn == "fit":
            share = (batch_idx + 1) / sum(trainer.num_val_batches)
            self._bar.update(self._task, description=f"val {share:.0%}")

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or self._recent is None:
            return
        self._validating += time.perf_counter() - self._paused
        if not self._enabled:
            return
        measured = dict.fromkeys(["val/loss", "val/accuracy", self.monitor])
        values = [f"{key} {float(trainer.callback_metrics[key]):.3f}" for key in measured]
        said = [f"{_epoch(trainer)} step {trainer.global_step}: loss {self._recent[0]:.3f}", *values, self._speed()]
        self._console.print(", ".join(said), highlight=False, soft_wrap=True)
        if self._bar is not None:
            self._bar.update(
                self._task, completed=trainer.global_step, description=_epoch(trainer), metric=self._metric(trainer)
            )

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _metric(self, trainer: Trainer) -> str:
        value = trainer.callback_metrics.get(self.monitor)
        name = self.monitor.removeprefix("val/")
        name = {"accuracy": "val acc", "loss": "val loss"}.get(name, name)  # training has those too
        short = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
        # As wide as a value, so that the bar keeps its length.
        return f"{short} {'-    ' if value is None else format(float(value), '.3f')}"

    def _speed(self) -> str:
        seconds = time.perf_counter() - self._start - self._validating
        speed = self._reviews / seconds
        return f"{speed:,.{1 if speed < 100 else 0}f} reviews/s"

    def _left(self, trainer: Trainer) -> str:
        done = trainer.global_step - self._first_step
        if not done:
            return "-:--:-- left"
        step_seconds = (time.perf_counter() - self._start) / done
        seconds = int(step_seconds * (trainer.estimated_stepping_batches - trainer.global_step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"


def _epoch(trainer: Trainer) -> str:
    last = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{last}"
