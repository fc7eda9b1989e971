"""Deaths: when one process of a run dies, the first says which and how, before its own error that follows from it."""

import signal
import subprocess
import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from yelp_lightning.orphans import POLL_SECONDS

# How long an error waits to see whether it follows from another process's death.
WAIT_SECONDS = 2 * POLL_SECONDS


class FirstDeath(Callback):
    """Names the process that died first.

    The others see no more than a closed connection. What that process has to say itself, it says before it ends.
    """

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, Exception):  # meant: an exit
            return
        if trainer.local_rank > 0:
            time.sleep(WAIT_SECONDS)  # if the process that started this one is gone, that is said, and this one ends
            return
        processes: list[subprocess.Popen[Any]] = getattr(trainer.strategy.launcher, "procs", [])
        end = time.monotonic() + WAIT_SECONDS
        while processes and time.monotonic() < end:
            for rank, process in enumerate(processes, start=1):
                if code := process.poll():
                    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
                    print(f"error: process {rank} {how}; the others end, too", file=sys.stderr, flush=True)
                    return
            time.sleep(0.1)
