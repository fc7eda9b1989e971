"""The overview of a fit: what is about to be trained, and at the end how long it took."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import Tensor
from typing_extensions import override


class Overview(Callback):
    """Prints a table before the first optimizer step, and a line after the last."""

    def __init__(self) -> None:
        self._start: float | None = None  # None where there is nothing left to train
        self._first_step = self._reviews = 0

    @override
    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start, self._first_step, self._reviews = time.perf_counter(), trainer.global_step, 0
        table = Table(show_header=False, title="Fine-tuning", title_justify="left")
        for name, value in facts(trainer, pl_module).items():
            table.add_row(name, value)
        Console().print(table)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        self._reviews += len(batch["input_ids"]) * trainer.world_size

    @override
    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._start is None:
            return
        seconds, steps = time.perf_counter() - self._start, trainer.global_step - self._first_step
        took = f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.0f} s"
        said = f"{steps:,} optimizer steps in {took}, validation included"
        Console().print(f"{said}: {self._reviews / seconds:,.1f} reviews/s", highlight=False, soft_wrap=True)


def facts(trainer: Trainer, pl_module: LightningModule) -> dict[str, str]:
    """What is about to be trained.

    Args:
        trainer: At the start of its training.
        pl_module: The ``StarClassifier``.

    Returns:
        Name to value, in words.
    """
    datamodule: Any = getattr(trainer, "datamodule", None)
    model: Any = pl_module
    options, source, counts = model.hparams, model.source, model.parameter_counts
    steps, batches = int(trainer.estimated_stepping_batches), int(trainer.num_training_batches)
    done = f", {trainer.global_step:,} of them done" if trainer.global_step else ""
    # Fewer where trainer.limit_train_batches leaves some batches out.
    share = batches / len(datamodule.train_dataloader())
    tokens = int(share * datamodule.tokens["train"].lengths.sum())
    return {
        "encoder": options["pretrained"] + (f", from {source}" if source != options["pretrained"] else ""),
        "parameters": f"{counts['all']:,}",
        "trainable": f"{counts['trained']:,} ({counts['trained'] / counts['all']:.1%})",
        "optimizer steps": f"{steps:,}{done}",
        "warm-up steps": f"{round(options['warmup_ratio'] * steps):,}",
        "tokens an epoch": f"{'about ' if share < 1 else ''}{tokens:,}",
        "precision": str(trainer.precision),
        "device": _device(trainer, pl_module.device),
    }


def _device(trainer: Trainer, device: torch.device) -> str:
    count = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    if device.type == "cuda":
        return f"{count}{torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{count}{device.type}" + (f", {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else "")
