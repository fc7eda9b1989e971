"""The run folder: config.yaml, best.ckpt, last.ckpt, metrics.json, model/, each written whole or not at all."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from typing_extensions import override

from yelp_lightning.checkpoint import BEST, LAST, read_checkpoint
from yelp_lightning.errors import UsageError
from yelp_lightning.files import atomic_file, atomic_folder, remove_unfinished, require_writable
from yelp_lightning.network.pooling import PooledClassifier, save_pooled
from yelp_lightning.pretrained import unpack_classifier, unpack_masked_words, unpack_tokenizer

CONFIG = "config.yaml"
METRICS = "metrics.json"
MODEL = "model"
WANDB_ID = "wandb-id"


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoints that appear whole or not at all, and are read without running code.

    Lightning 2.6.6 stages them in the system's temporary folder, copies them from there, and says nothing when the
    target cannot be written.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Lightning's mapping.
            path: The final name; its folder is created.
            storage_options: Not used.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            torch.save(checkpoint, temporary)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Args:
            path: A file.
            map_location: Not used: tensors are read on the CPU and copied from there.
            weights_only: Not used: it is always True.

        Returns:
            Lightning's mapping.
        """
        return read_checkpoint(Path(path))

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint.

        Args:
            path: The file.
        """
        Path(path).unlink(missing_ok=True)


class SaveRunConfig(SaveConfigCallback):
    """Keeps the resolved config of ``fit`` in the run folder and in every logger that takes one."""

    @override
    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write config.yaml; runs on one process, before the first step.

        Args:
            trainer: The trainer.
            pl_module: The model.
            stage: The Trainer stage; only ``fit`` has a config to keep.
        """
        if stage != "fit":
            return
        with atomic_file(Path(trainer.default_root_dir) / CONFIG) as temporary:
            self.parser.save(self.config, temporary, skip_none=False, overwrite=True, multifile=False)
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # config.yaml lies beside its file already
                # JSON makes plain numbers of the command line's PositiveInt and the like, which loggers would keep as
                # text or as objects, and text of paths.
                logger.log_hyperparams(json.loads(json.dumps(self.config.as_dict(), default=str)))
            if isinstance(logger, WandbLogger) and logger.version:
                # Kept before the first step: a run that is killed goes on under the same id.
                with atomic_file(Path(trainer.default_root_dir) / WANDB_ID) as temporary:
                    temporary.write_text(logger.version, encoding="utf-8")
            logger.log_metrics(_data_counts(trainer), step=0)


def _data_counts(trainer: Trainer) -> dict[str, float]:
    """How many rows were taken, refused and left out, and which share of them is truncated, by split."""
    datamodule: Any = getattr(trainer, "datamodule", None)
    counts: dict[str, float] = {}
    for split, found in datamodule.reviews.summary.items():
        counts[f"data/{split}_rows"] = found["rows"]
        counts[f"data/{split}_refused"] = sum(found["refused"].values())
        counts[f"data/{split}_removed"] = sum(found["removed"].values())
        counts[f"data/{split}_truncated"] = found["truncated"]
    return counts


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``.

    Args:
        run_folder: Where it is kept.
        monitor: Metric that says which validation is the best.
        mode: ``max`` where more of it is better, ``min`` where less is.
    """

    def __init__(self, run_folder: str, monitor: str, mode: str = "max") -> None:
        # Right after the validation, so that last.ckpt, which comes next, knows of it.
        super().__init__(
            run_folder, BEST.removesuffix(".ckpt"), monitor, mode=mode,
            save_on_train_epoch_end=False, enable_version_counter=False,
        )  # fmt: skip

    @override
    def check_monitor_top_k(self, trainer: Trainer, current: torch.Tensor | None = None) -> bool:
        # Lightning keeps the first value even where it is no number.
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # What is to be beaten stands in best.ckpt itself, which may be newer than the checkpoint that is gone on from:
        # a mean of weights, or the state at the end of a run that stopped before its first validation. Lightning would
        # forget the score, besides, where the folder's name differs: it may be moved, copied, or named by another path.
        best = Path(str(self.dirpath)) / BEST
        if best.exists():
            score = torch.tensor(read_checkpoint(best)["reports"]["val"][str(self.monitor)])
            own = {"dirpath": self.dirpath, "best_model_path": str(best), "kth_best_model_path": str(best)}
            scores = {"best_model_score": score, "kth_value": score, "best_k_models": {str(best): score}}
            super().load_state_dict({**state_dict, **own, **scores})


def claim(run_folder: str, checkpoint_file: str | None = None) -> None:
    """Make sure that a run folder may be written to and holds no other run; clear up after one that was killed.

    Args:
        run_folder: ``trainer.default_root_dir``.
        checkpoint_file: The checkpoint that the run goes on from; a run goes on in its own folder.

    Raises:
        UsageError: If it cannot be written to, or holds a run.
    """
    folder = Path(run_folder)
    require_writable(folder, "trainer.default_root_dir")
    remove_unfinished(folder, (CONFIG, BEST, LAST, METRICS, MODEL))
    if checkpoint_file and Path(checkpoint_file).resolve().parent == folder.resolve():
        return
    if (folder / METRICS).exists():
        raise UsageError(
            f"`trainer.default_root_dir` is {run_folder!r}, which already holds a finished run: give this run a folder "
            "of its own, such as --trainer.default_root_dir checkpoints/NAME, or delete the old one."
        )
    if (folder / LAST).exists():
        raise UsageError(
            f"`trainer.default_root_dir` is {run_folder!r}, which holds an unfinished run: go on with it by "
            "--ckpt_path last, or give this run a folder of its own, such as --trainer.default_root_dir "
            "checkpoints/NAME."
        )


def wandb_id(run_folder: str, checkpoint_file: str) -> str | None:
    """The W&B run that a run goes on under.

    Args:
        run_folder: ``trainer.default_root_dir``.
        checkpoint_file: The checkpoint that the run goes on from.

    Returns:
        Its id; None where the folder is not the checkpoint's own, or the run was not logged to W&B.
    """
    path = Path(run_folder) / WANDB_ID
    own = Path(checkpoint_file).resolve().parent == path.parent.resolve()
    return path.read_text(encoding="utf-8") if own and path.is_file() else None


def is_finished(checkpoint_file: Path) -> bool:
    """Whether a run wrote its results after a checkpoint.

    Args:
        checkpoint_file: In the run's folder.

    Returns:
        False if it was stopped before.
    """
    metrics = checkpoint_file.with_name(METRICS)
    return metrics.exists() and metrics.stat().st_mtime >= checkpoint_file.stat().st_mtime


def finish(run_folder: str) -> dict[str, Any]:
    """Write ``model/`` and ``metrics.json`` from ``best.ckpt``; the latter comes last and marks the run as finished.

    Args:
        run_folder: Folder with ``best.ckpt``.

    Returns:
        What metrics.json holds.

    Raises:
        UsageError: If there is no ``best.ckpt``, because nothing was validated.
    """
    folder = Path(run_folder)
    if not (folder / BEST).is_file():
        raise UsageError(
            f"The run in {run_folder!r} ended before its first validation, so there is no best model: train longer "
            "(--trainer.max_epochs, --trainer.max_steps), or validate sooner (--trainer.val_check_interval)."
        )
    checkpoint = read_checkpoint(folder / BEST)
    with atomic_folder(folder / MODEL) as model:
        masked_words = checkpoint["encoder"].get("task") == "masked_words"
        network: Any = unpack_masked_words(checkpoint) if masked_words else unpack_classifier(checkpoint)
        tokenizer = unpack_tokenizer(checkpoint["encoder"])
        data = checkpoint["datamodule_hyper_parameters"]
        if data.get("truncation") == "tail":
            tokenizer.truncation_side = "left"
        if isinstance(network, PooledClassifier):
            save_pooled(network, tokenizer, data["max_length"], model)
        else:
            network.save_pretrained(model)
            tokenizer.save_pretrained(model)
    report = {**checkpoint["reports"]["val"], "data": json.loads(checkpoint["ReviewDataModule"]["summary"])}
    if (folder / METRICS).exists() and not report.items() <= read_metrics(folder).items():
        # A resumed run found a better model: what was measured of the old one is not its own.
        (folder / METRICS).unlink()
    return write_metrics(folder, "val", report)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read ``metrics.json``.

    Args:
        folder: The run folder.

    Returns:
        Its content; nothing where there is no such file.
    """
    path = folder / METRICS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write_metrics(folder: Path, stage: str, report: dict[str, Any]) -> dict[str, Any]:
    """Add what a stage measured to ``metrics.json``.

    Args:
        folder: The run folder.
        stage: ``val`` or ``test``.
        report: The stage's metrics, ``{stage}/n``, intervals and confusion matrix.

    Returns:
        The whole content: every stage's latest report under its own keys, and the latest stage's ``n`` and
        ``confusion_matrix`` under those names as well.
    """
    latest = {"stage": stage, "n": report[f"{stage}/n"]}
    if f"{stage}/confusion_matrix" in report:  # words have none
        latest["confusion_matrix"] = report[f"{stage}/confusion_matrix"]
    metrics = {**read_metrics(folder), **latest, **report}
    with atomic_file(folder / METRICS) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics
