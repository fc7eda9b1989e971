"""The Trainer of a run: our defaults, and what it has beside what was typed."""

from importlib.util import find_spec
from typing import Any

from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry

from yelp_lightning.errors import UsageError
from yelp_lightning.run_folder import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from yelp_lightning.training.deaths import FirstDeath
from yelp_lightning.training.keeping import CheckpointOptions
from yelp_lightning.training.requeue import Requeue
from yelp_lightning.training.sharding import ShardedStrategy
from yelp_lightning.training.throughput import Throughput

StrategyRegistry.register("model_parallel", ShardedStrategy, "FSDP2, one checkpoint file")
TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 3,
    "default_root_dir": "checkpoints/run",
    "log_every_n_steps": 10,
    # A line says how many parameters are trained (StarClassifier.on_fit_start).
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
    refuse_parts(options)
    options["use_distributed_sampler"] = False
    if not options["barebones"]:
        options["plugins"] = [*as_list(options["plugins"]), AtomicCheckpointIO()]
    if quiet:
        options["enable_progress_bar"] = False
    options["callbacks"] = [*as_list(options["callbacks"]), FirstDeath()]
    if command == "fit":
        options["callbacks"] += _fit_callbacks(options, keeping)
    elif options["logger"] is None:
        options["logger"] = False  # what these measure goes to metrics.json


def refuse_parts(options: Any) -> None:
    """Refuse strategies that are not installed, or whose checkpoints are no single file, before anything is trained.

    Args:
        options: The options ``trainer.*``.

    Raises:
        UsageError: If there is such a strategy.
    """
    strategy = options["strategy"]
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
    folder, callbacks = options["default_root_dir"], []
    if options["logger"] is not False and not options["barebones"]:
        # A csv log is always kept; a resumed run adds version_1 instead of replacing version_0.
        others = [] if options["logger"] in (None, True) else as_list(options["logger"])
        options["logger"] = [CSVLogger(folder, name="csv"), *others]
        callbacks += [LearningRateMonitor("step"), Throughput()]
    if keeps_checkpoints(options):
        callbacks += [BestCheckpoint(folder, keeping.monitor), LastCheckpoint(folder), Requeue(folder)]
    return callbacks


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
