"""Exact resume: the place in the data, random states, running metrics and options of a run, kept in its checkpoints."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

# Where a checkpoint keeps all this.
KEY = "resume"


class Resume(Callback):
    """Adds to each checkpoint what Lightning 2.6.6 leaves out, and puts it back when a run goes on from one.

    That is how far the epoch had come, the random states and the running training metrics of every process, and the
    options that a run which goes on should have in common.

    Args:
        options: Options ``trainer.*`` to compare when the run goes on, by name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        self.loaded: dict[str, Any] | None = None
        self.fresh_groups: list[dict[str, Any]] = []

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        model: Any = pl_module
        epoch: Any = trainer.fit_loop.epoch_progress.current
        batch: Any = trainer.fit_loop.epoch_loop.batch_progress
        unfinished = epoch.ready > epoch.processed
        own = {"random": random_states(), "train_metrics": metric_states(model.train_metrics)}
        checkpoint[KEY] = {
            "epoch": epoch.processed,
            "batches": batch.current.processed if unfinished else 0,
            # Nothing is left of the epoch but its end.
            "trained": unfinished and batch.is_last_batch,
            "processes": _gather(own, trainer.world_size),
            "options": {**self.options, "devices": trainer.world_size},
        }

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint[KEY]
        pl_module.reports = checkpoint["reports"]
        # The batch was complete but for this callback hook: else Lightning would leave out the epoch's end.
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts["completed"] = counts["processed"]

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Before the optimizer's state is restored, which brings back the old run's settings as well.
        self.fresh_groups = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
        ]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.loaded is None:
            return
        self._set_options(trainer)
        if not self.loaded["batches"]:  # with --trainer.max_steps Lightning would close the new epoch at once
            trainer.fit_loop.epoch_loop.restarting = False
        if len(self.loaded["processes"]) == trainer.world_size:
            own = self.loaded["processes"][trainer.global_rank]
            model: Any = pl_module
            set_metric_states(model.train_metrics, own["train_metrics"])
            # Last: whatever drew random numbers on the way here has not been.
            set_random_states(own["random"])

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._count_steps(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._count_steps(trainer)

    def _count_steps(self, trainer: Trainer) -> None:
        # Lightning's own count for loggers is one short or not after a restart, by where the checkpoint was written.
        if self.loaded is not None:
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
            self.loaded = None

    def _set_options(self, trainer: Trainer) -> None:
        """Rates, decays and lengths that were typed anew win over those of the checkpoint's optimizer."""
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        for group, fresh in zip(groups, self.fresh_groups, strict=True):
            group.update(fresh)
        for config in trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler
            schedule.base_lrs = [group["initial_lr"] for group in schedule.optimizer.param_groups]
            # Where the new schedule is at this step: the checkpoint's rate is that of the old one, at its end 0.
            for group, base, multiplier in zip(
                schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
            ):
                group["lr"] = base * multiplier(schedule.last_epoch)


def random_states() -> dict[str, Any]:
    """The states of all random generators of this process.

    Returns:
        Tensors and numbers only, which a checkpoint may hold.
    """
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Put random generators back where they were.

    Args:
        states: From ``random_states``.
    """
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def metric_states(metrics: torch.nn.Module) -> dict[str, Any]:
    """What metrics have gathered on this process.

    Args:
        metrics: A module of torchmetrics' metrics.

    Returns:
        Each metric's states on the CPU, and how often it was updated, by the metric's name.
    """
    return {
        name: {
            "updates": metric._update_count,
            "states": {key: _copied(state, torch.device("cpu")) for key, state in metric.metric_state.items()},
        }
        for name, metric in metrics.named_modules()
        if isinstance(metric, Metric)
    }


def set_metric_states(metrics: torch.nn.Module, states: dict[str, Any]) -> None:
    """Let metrics go on from where they were.

    Args:
        metrics: A module of torchmetrics' metrics.
        states: From ``metric_states``.
    """
    for name, metric in metrics.named_modules():
        if isinstance(metric, Metric):
            metric._update_count = states[name]["updates"]
            for key, state in states[name]["states"].items():
                setattr(metric, key, _copied(state, metric.device))


def _copied(state: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    """A copy: metrics add in place, with room for more; a checkpoint's tensors are mapped from its file."""
    if isinstance(state, list):
        return [part.to(device, copy=True) for part in state]
    return state.to(device, copy=True)


def _gather(own: dict[str, Any], world_size: int) -> list[dict[str, Any]]:
    every: list[Any] = [own] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(every, own)
    return every
