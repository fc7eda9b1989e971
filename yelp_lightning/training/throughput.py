"""Throughput of training: reviews and real tokens per second, and the share of computed tokens that are real."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override


class Throughput(Callback):
    """Logs ``train/reviews_per_second``, ``train/tokens_per_second`` and ``train/padding_efficiency``.

    Each value covers the batches since the one before, validation left out, all devices together (each is taken to do
    as much as the first). Lightning's own ThroughputMonitor waits for the GPU after every batch; this one only where it
    logs, every ``trainer.log_every_n_steps`` batches.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.since = time.perf_counter()
        self.batches = self.reviews = self.computed_tokens = 0
        self.real_tokens: torch.Tensor | int = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.paused = time.perf_counter()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.since += time.perf_counter() - self.paused

    @override
    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, torch.Tensor], batch_idx: int
    ) -> None:
        mask = batch["attention_mask"]
        self.batches += 1
        self.reviews += len(mask)
        self.computed_tokens += mask.numel()
        self.real_tokens += mask.sum()
        if self.batches % (getattr(trainer, "log_every_n_steps", 0) or 1) or not trainer.loggers:
            return
        real_tokens = int(self.real_tokens)  # waits for the device
        seconds = time.perf_counter() - self.since
        values = {
            "train/reviews_per_second": trainer.world_size * self.reviews / seconds,
            "train/tokens_per_second": trainer.world_size * real_tokens / seconds,
            "train/padding_efficiency": real_tokens / self.computed_tokens,
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        self._start()
