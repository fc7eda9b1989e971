"""Callbacks that clock this project's own commands: each optimizer step of `fit`, the whole of `test`."""

import json
import time
from pathlib import Path
from typing import Any

from clock import Steps
from lightning.pytorch import Callback, LightningModule, Trainer


class StepTimer(Callback):
    """Writes what was seen of each training batch, one optimizer step each, to a JSON file.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.steps = Steps()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Clock the step that just ended."""
        self.steps.add_batch(batch["attention_mask"])
        last = batch_idx + 1 == trainer.num_training_batches or trainer.global_step == trainer.max_steps
        self.steps.add_end(last)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self.steps.devices = trainer.world_size
        if trainer.is_global_zero:
            Path(self.path).write_text(json.dumps(self.steps.plain()))


class TestTimer(Callback):
    """Writes what was seen of each test batch, and the seconds of the whole evaluation, to a JSON file.

    Args:
        path: The file.
    """

    __test__ = False  # not a test of pytest's

    def __init__(self, path: str) -> None:
        self.path = path
        self.steps = Steps()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Clock the batch that just ended."""
        self.steps.add_batch(batch["attention_mask"])
        self.steps.add_end(batch_idx + 1 == trainer.num_test_batches[0])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock, after the metrics, and write the file."""
        seconds = time.perf_counter() - self.start
        self.steps.devices = trainer.world_size
        if trainer.is_global_zero:
            Path(self.path).write_text(json.dumps({**self.steps.plain(), "seconds": seconds}))
