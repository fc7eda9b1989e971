"""A callback for runs that a test kills: it writes down each batch, and dies or takes its time where it is told to."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Witness(Callback):
    """Appends the rows of each batch to ``FOLDER/rank.jsonl``.

    Args:
        folder: Where to.
        die_at: Batch of the whole run, from 0, in whose middle the first process kills itself; -1 for none.
        seconds: How long each batch takes at least.
        waits_in: Where validation waits for a minute, once ``FOLDER/waits`` says so: in the ``sanity_check``, or in one
            of its own, after the training, which is ``validate``.
    """

    def __init__(self, folder: str, die_at: int = -1, seconds: float = 0, waits_in: str = "") -> None:
        self.folder, self.die_at, self.seconds, self.waits_in = Path(folder), die_at, seconds, waits_in

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        number = trainer.fit_loop.total_batch_idx
        if number == self.die_at and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGKILL)
        line = json.dumps({"batch": number, "epoch": trainer.current_epoch, "rows": batch["row"].tolist()})
        with (self.folder / f"{trainer.global_rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        time.sleep(self.seconds)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.waits_in == ("sanity_check" if trainer.sanity_checking else trainer.state.fn):
            (self.folder / "waits").touch()
            time.sleep(60)
