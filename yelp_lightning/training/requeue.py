"""Requeue: a SLURM job whose time is nearly over keeps its state and goes back into the queue."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from yelp_lightning.checkpoint import LAST


class Requeue(Callback):
    """After SIGUSR1 (``sbatch --signal=SIGUSR1@90``): last.ckpt, ``scontrol requeue``, and the end.

    Lightning's own handler saves wherever the signal finds each process, in the middle of a step, and waits there for
    the others, which may be waiting for a part of a sum. This one waits for the end of an optimizer step, where all
    processes agree. Elsewhere than under SLURM it does nothing.

    Args:
        run_folder: Where last.ckpt is kept.
    """

    def __init__(self, run_folder: str) -> None:
        self.run_folder = run_folder
        self.asked = False
        self.active = False
        self._steps = 0
        self._before: Any = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.active = stage == "fit" and SLURMEnvironment.detect()
        if self.active:  # Lightning leaves a handler that it finds
            self._before = signal.signal(signal.SIGUSR1, self._ask)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.active:
            signal.signal(signal.SIGUSR1, self._before)

    @override
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not self.active or trainer.global_step == self._steps:  # gradients are still accumulated
            return
        self._steps = trainer.global_step
        if trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            trainer.save_checkpoint(Path(self.run_folder) / LAST, weights_only=False)
            sys.exit(requeue() if trainer.is_global_zero else 0)

    def _ask(self, *_: Any) -> None:
        self.asked = True


def requeue() -> int:
    """Put this job back into SLURM's queue.

    Returns:
        The status of ``scontrol``: 0 if it did.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return subprocess.run(["scontrol", "requeue", job], check=False).returncode
