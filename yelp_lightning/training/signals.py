"""SIGTERM, SIGINT and SLURM's requeue signal: acted on after the running optimizer step, by all processes together."""

import os
import signal
import subprocess
import time
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

STOPPING = (signal.SIGTERM, signal.SIGINT)
# Launchers pass on a signal that the terminal has sent to every process already: that is no second one. Seconds.
ECHO = 1.0


class Signals(Callback):
    """Ends a command at SIGTERM or SIGINT, with exit status 143 or 130: training after the running optimizer step.

    Whichever process of a training is sent the signal, all of them end after the same step; a second signal ends at
    once. So does the first outside of training, where nothing is left to save; if another process than the first alone
    is sent it there, Lightning kills the first within seconds. Lightning's own handler ends with status 0, and waits
    for ever where one process alone gets the signal. Under SLURM, SIGUSR1 says that the job's time is nearly over: it
    goes back into the queue and ends with status 0.

    Args:
        run_folder: Where the run is kept, for the line that says how to go on; None where it is not kept.
    """

    def __init__(self, run_folder: str | None) -> None:
        self.run_folder = run_folder
        self.training = False
        self.received = 0
        self.stop = 0
        """The signal that all processes have agreed to end by; 0 for none."""
        self.step = 0
        self.since = 0.0
        self.group: Any = None
        self.trainer: Trainer | None = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)
        self.step = trainer.global_step
        if trainer.world_size > 1:
            # On the CPU, whatever the devices: the flag must not make a GPU wait.
            self.group = torch.distributed.new_group(backend="gloo")
        self.training = True

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training = False
        if self.received:  # after the last step
            self._end(self.received)

    def _listen(self, trainer: Trainer) -> None:
        """Lightning has set its own handlers, and takes all of these back at the end."""
        self.trainer = trainer
        for number in STOPPING:
            signal.signal(number, self._receive)
        if SLURMEnvironment.detect():  # sbatch --signal=SIGUSR1@90
            signal.signal(signal.SIGUSR1, self._receive)
        if trainer.received_sigterm:  # by Lightning's handler, a moment ago
            self._receive(signal.SIGTERM, None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again = self.received in STOPPING
        if again and time.monotonic() - self.since < ECHO:
            return
        self.received, self.since = number, time.monotonic()
        if again or not self.training:
            self._end(number, at_once=again)

    def _end(self, number: int, at_once: bool = False) -> None:
        assert self.trainer is not None
        status = self._requeue(self.trainer) if number == signal.SIGUSR1 else 128 + number
        if self.trainer.world_size == 1 and not at_once:
            raise SystemExit(status)
        # Processes that wait for each other in a collective call would not get as far as that.
        launcher = self.trainer.strategy.launcher
        if launcher is not None:
            launcher.kill(signal.SIGKILL)
        os._exit(status)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:  # gradients are being accumulated
            return
        self.step = trainer.global_step
        self._agree()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._act(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree()  # on a signal that came during the validation
        self._act(trainer)

    def _agree(self) -> None:
        number = torch.tensor(self.received)
        if self.group is not None:
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, group=self.group)
        self.stop = int(number)

    def _act(self, trainer: Trainer) -> None:
        """Between two batches; last.ckpt, where there is one, holds the latest step."""
        number, self.stop = self.stop, 0
        if number == signal.SIGUSR1:
            raise SystemExit(self._requeue(trainer))
        if number:
            name, how = signal.Signals(number).name, "nothing was kept (--trainer.enable_checkpointing false)"
            if self.run_folder is not None:
                how = f"go on by python -m yelp_lightning fit --config {self.run_folder}/config.yaml --ckpt_path last"
            rank_zero_info(f"{name}: stopped after optimizer step {trainer.global_step}; {how}")
            # Lightning kills the first process where another that it started ends with another status than 0.
            raise SystemExit(128 + number if trainer.is_global_zero else 0)

    @staticmethod
    def _requeue(trainer: Trainer) -> int:
        return requeue() if trainer.is_global_zero else 0


def requeue() -> int:
    """Put this job back into SLURM's queue.

    Returns:
        The status of ``scontrol``: 0 if it did.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return subprocess.run(["scontrol", "requeue", job], check=False).returncode
