"""The Trainer of a run: our defaults, and what it has beside what was typed."""

from importlib.util import find_spec
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry

from yelp_lightning.errors import UsageError
from yelp_lightning.loggers import WandbLogger
from yelp_lightning.run_folder import AtomicCheckpointIO, BestCheckpoint, wandb_id
from yelp_lightning.training.averaging import TopCheckpoints
from yelp_lightning.training.dashboard import Dashboard
from yelp_lightning.training.deaths import FirstDeath
from yelp_lightning.training.differences import COMPARED
from yelp_lightning.training.gradients import GradientNorm
from yelp_lightning.training.guards import FiniteLoss
from yelp_lightning.training.keeping import CheckpointOptions, StopEarly, direction
from yelp_lightning.training.last import LastCheckpoint
from yelp_lightning.training.overview import Overview
from yelp_lightning.training.precision import choose
from yelp_lightning.training.progress import FitProgress
from yelp_lightning.training.resume import Resume
from yelp_lightning.training.sharding import ShardedStrategy
from yelp_lightning.training.signals import Signals
from yelp_lightning.training.throughput import Throughput

StrategyRegistry.register("model_parallel", ShardedStrategy, "FSDP2, one checkpoint file")
TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 3,
    "default_root_dir": "checkpoints/run",
    "log_every_n_steps": 10,
    # A table says what is trained (Overview).
    "enable_model_summary": False,
    # The data module's batches know their device; Lightning's own sampler would measure some rows twice.
    "use_distributed_sampler": False,
    # The whole config is logged instead (SaveRunConfig).
    "enable_autolog_hparams": False,
}


def keeps_checkpoints(options: Any) -> bool:
    """Whether a `fit` leaves checkpoints, ``metrics.json`` and ``model/``.

    Args:
        options: The options ``trainer.*``.

    Returns:
        False for runs that are only tried out.
    """
    return bool(options.enable_checkpointing is not False and not options.barebones and not options.fast_dev_run)


def complete(options: Any, command: str, keeping: CheckpointOptions, quiet: bool) -> None:
    """Add what a run always has to what was typed; lists in a yaml file replace each other, so it cannot stand there.

    Args:
        options: The options ``trainer.*``, with their objects made; changed.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        keeping: The options ``checkpoint.*``, which only `fit` uses.
        quiet: Whether standard output is for predictions alone.

    Raises:
        UsageError: If the strategy cannot keep a model.
    """
    refuse_strategy(options)
    options["use_distributed_sampler"] = False
    options["precision"] = choose(options["precision"], _device(options["accelerator"]), command)
    if not options["barebones"]:
        options["plugins"] = [*as_list(options["plugins"]), AtomicCheckpointIO()]
    if quiet:
        options["enable_progress_bar"] = False
    options["callbacks"] = [*as_list(options["callbacks"]), FirstDeath()]
    if command == "fit":
        options["callbacks"] += _fit_callbacks(options, keeping)
        return
    options["callbacks"].append(Signals(None))
    if options["logger"] is None:
        options["logger"] = False  # what these measure goes to metrics.json


def refuse_strategy(options: Any) -> None:
    """Refuse strategies that are not installed, or that keep what they make in parts or to themselves.

    Args:
        options: The options ``trainer.*``.

    Raises:
        UsageError: If there is such a strategy.
    """
    strategy = options["strategy"]
    if isinstance(strategy, str) and any(way in strategy for way in ("spawn", "fork", "notebook")):
        raise UsageError(
            f"`--trainer.strategy` is {strategy!r}, whose processes keep to themselves what they measure: give ddp."
        )
    if isinstance(strategy, str) and strategy.startswith("deepspeed"):
        if find_spec("deepspeed") is None:
            raise UsageError(
                f"`--trainer.strategy` is {strategy!r}, which needs the extra `deepspeed`: "
                'pip install "yelp-lightning[deepspeed]", or give model_parallel.'
            )
        if keeps_checkpoints(options):
            raise UsageError(
                f"`--trainer.strategy` is {strategy!r}, whose checkpoints are folders of parts that no other command "
                "reads: give model_parallel, or --trainer.enable_checkpointing false to keep no model."
            )
    if isinstance(strategy, ModelParallelStrategy) and not isinstance(strategy, ShardedStrategy):
        raise UsageError(
            "`--trainer.strategy` is ModelParallelStrategy, whose checkpoints may be folders and whose devices may "
            "share rows: give --trainer.strategy model_parallel, which is this strategy over all devices."
        )


def _fit_callbacks(options: Any, keeping: CheckpointOptions) -> list[Callback]:
    if options["barebones"]:
        return []
    folder, callbacks = options["default_root_dir"], [FiniteLoss(), Overview()]
    # A bar of the user's own takes the place of ours.
    if options["enable_progress_bar"] is not False and not any(
        isinstance(callback, ProgressBar) for callback in as_list(options["callbacks"])
    ):
        callbacks.append(FitProgress(keeping.monitor))
    if options["logger"] is not False:
        # A csv log is always kept; a resumed run adds version_1 instead of replacing version_0.
        others = [] if options["logger"] in (None, True) else as_list(options["logger"])
        options["logger"] = [CSVLogger(folder, name="csv"), *others]
        callbacks += [LearningRateMonitor("step"), Throughput(), GradientNorm()]
        if any(isinstance(logger, WandbLogger) for logger in others):
            callbacks.append(Dashboard())
    if keeping.patience is not None:
        callbacks.append(StopEarly(keeping.monitor, int(keeping.patience)))
    kept = keeps_checkpoints(options)
    signals = Signals(folder if kept else None)
    callbacks += [signals]
    if kept:
        callbacks += [
            Resume({name: options[name] for name in COMPARED}),
            BestCheckpoint(folder, keeping.monitor, direction(keeping.monitor)),
        ]
        if keeping.average_best is not None:
            callbacks.append(TopCheckpoints(folder, keeping.monitor, int(keeping.average_best)))
        # Last, since it keeps what the others know.
        callbacks.append(LastCheckpoint(folder, signals, keeping.every_n_steps))
    return callbacks


def _device(accelerator: Any) -> str:
    """The kind of device that Lightning will take."""
    if accelerator in ("cpu", "mps"):
        return str(accelerator)
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def refuse_no_batch(trainer: Trainer, batches: int) -> None:
    """Refuse options that leave an epoch without a batch or without a validation.

    Args:
        trainer: The trainer.
        batches: Training batches of an epoch, per device.

    Raises:
        UsageError: If there is such an option.
    """
    limit, interval = trainer.limit_train_batches, trainer.val_check_interval
    limited = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
    if not limited:
        raise UsageError(
            f"`--trainer.limit_train_batches` is {limit}, of an epoch's {batches} batches less than one: "
            "give a larger share, or a number of batches."
        )
    if isinstance(interval, int) and interval > limited and trainer.check_val_every_n_epoch is not None:
        raise UsageError(
            f"`--trainer.val_check_interval` is {interval}, but an epoch has {limited} batches: give at most that, or "
            "count batches over epochs by --trainer.check_val_every_n_epoch null."
        )


def log_on(trainer: Trainer, checkpoint_file: str) -> None:
    """Let a run that goes on be logged where it was.

    Args:
        trainer: The trainer.
        checkpoint_file: The checkpoint that the run goes on from.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.go_on(wandb_id(trainer.default_root_dir, checkpoint_file))


def as_list(value: Any) -> list[Any]:
    """One or several as a list.

    Args:
        value: None, one, or a list of them.

    Returns:
        A new list.
    """
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
