"""Contestants: the models of a comparison, and what each says of the same test rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer, seed_everything

from yelp_lightning.checkpoint import BEST, find_checkpoint
from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.errors import UsageError
from yelp_lightning.evaluation.baseline import ROWS, baseline
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.modeling.metrics import Measured
from yelp_lightning.network.head import draw_head
from yelp_lightning.run_folder import METRICS

# Options that seeds of one another need not share.
FREE = {"seed", "cache_dir", "num_workers", "num_proc", "eval_tokens"}


@dataclass(frozen=True)
class Run:
    """A tuned model and the rows that it is tested on.

    Args:
        path: Its checkpoint.
        checkpoint: The checkpoint's content.
        datamodule: Its data, with the options that were typed.
    """

    path: Path
    checkpoint: dict[str, Any]
    datamodule: ReviewDataModule

    @property
    def options(self) -> dict[str, Any]:
        """The options ``model.*`` that it was trained with."""
        saved = self.checkpoint["hyper_parameters"].items()
        return {name: value for name, value in saved if not name.startswith("_")}


def find_runs(ckpt_path: str) -> list[Path]:
    """Turn what was typed for ``--ckpt_path`` into checkpoints.

    Args:
        ckpt_path: A ``.ckpt`` file, a run folder (its best), or a folder of run folders.

    Returns:
        One file, or one of each run in the folder.

    Raises:
        UsageError: If there is none.
    """
    folder = Path(ckpt_path)
    inside = sorted(path for path in folder.glob(f"*/{BEST}")) if folder.is_dir() else []
    if not inside or (folder / BEST).exists():
        return [find_checkpoint(ckpt_path)]
    unfinished = [path.parent for path in inside if not path.with_name(METRICS).exists()]
    if unfinished:
        raise UsageError(
            f"`--ckpt_path` {ckpt_path} holds the unfinished run {unfinished[0]}: finish it by fit --ckpt_path last, "
            "or give the others one by one."
        )
    return inside


def require_seeds(runs: Sequence[Run]) -> None:
    """Refuse to count runs as seeds of one another that differ in more than their seed.

    Args:
        runs: Of one folder.

    Raises:
        UsageError: If two differ in an option.
    """
    first = runs[0]
    for run in runs:
        for group in ("hyper_parameters", "datamodule_hyper_parameters"):
            one, other = first.checkpoint[group], run.checkpoint[group]
            for name in sorted((one.keys() | other.keys()) - FREE):
                if one.get(name) != other.get(name):
                    raise UsageError(
                        f"`--ckpt_path` {run.path.parent.parent} holds runs that differ in more than their seed: "
                        f"{first.path.parent.name} has {name} {one.get(name)!r}, {run.path.parent.name} "
                        f"{other.get(name)!r}: keep such runs apart, a folder for each kind."
                    )


def require_same_rows(runs: Sequence[Run]) -> None:
    """Refuse runs that would not be tested on the same rows with the same classes.

    Args:
        runs: All of the comparison.

    Raises:
        UsageError: If two differ.
    """
    first = runs[0]
    for run in runs:
        for option in ("num_labels", "label_names", "ordered"):
            one, other = first.options[option], run.options[option]
            if one != other:
                raise UsageError(
                    f"`--ckpt_path` {run.path} has model.{option} {other!r}, but {first.path} has {one!r}: compare "
                    "runs with the same classes."
                )
    for run in runs:
        run.datamodule.check("test")
        one, other = (_rows(each.datamodule) for each in (first, run))
        if not np.array_equal(one, other):
            raise UsageError(
                f"`--ckpt_path` {run.path} is tested on other rows ({len(other):,} of "
                f"{run.datamodule.hparams['source']!r}) than {first.path} ({len(one):,} of "
                f"{first.datamodule.hparams['source']!r}): say by --data.source, and the other data options, on which "
                "rows all are to be compared."
            )


def tuned(run: Run) -> Measured:
    """Test a run.

    Args:
        run: The run.

    Returns:
        What its best model says of each row.
    """
    model = StarClassifier(**run.options)
    model.restore(str(run.path))
    return _test(model, run.datamodule)


def untuned(run: Run, seed: int) -> Measured:
    """Test what a run has started from: the pretrained encoder with a fresh head.

    Args:
        run: The run.
        seed: Of the head.

    Returns:
        What it says of each row.

    Raises:
        UsageError: If the encoder cannot be loaded.
    """
    seed_everything(seed, verbose=False)
    # Fresh adapters change nothing.
    model = StarClassifier(**{**run.options, "lora": None})
    model.check()
    model.configure_model()
    draw_head(model.model)
    return _test(model, run.datamodule)


def tfidf(run: Run) -> Measured:
    """Train the cheap baseline on a run's training rows and test it.

    Args:
        run: The run.

    Returns:
        What it says of each row.

    Raises:
        UsageError: If the training rows can no longer be read, are others than they were, or teach nothing.
    """
    saved = run.checkpoint["datamodule_hyper_parameters"].items()
    data = ReviewDataModule(**{name: value for name, value in saved if not name.startswith("_")})
    data.restore(str(run.path), run.checkpoint)
    splits = []
    for split in ("train", "val"):
        data.choose(split)
        data.reviews.require_same(split)
        texts = list(islice(data.reviews.texts(split), ROWS))
        splits.append((texts, _labels(data, split)[: len(texts)]))
    reviews = run.datamodule.reviews
    try:
        probabilities = baseline(splits[0], splits[1], list(reviews.texts("test")), run.options["num_labels"])
    except ValueError as error:
        raise UsageError(f"its training rows teach nothing ({str(error).splitlines()[0].rstrip('.')}).") from error
    labels = _labels(run.datamodule, "test")
    logits = np.log(probabilities.clip(np.finfo(np.float32).tiny)).astype(np.float32)
    return Measured(logits, labels, np.arange(len(labels)), 1.0)


def _labels(data: ReviewDataModule, split: str) -> Any:
    return data.reviews.rows[split].labels[data.reviews.chosen[split]].astype(np.int64)


def _rows(data: ReviewDataModule) -> Any:
    """Text and label of each test row, ``(n, 2)``."""
    return np.column_stack([data.reviews.hashes("test"), _labels(data, "test").astype(np.uint64)])


def _test(model: StarClassifier, datamodule: ReviewDataModule) -> Measured:
    model.check()
    trainer = Trainer(
        logger=False, enable_checkpointing=False, devices=1, enable_model_summary=False, enable_progress_bar=False
    )
    trainer.test(model, datamodule, verbose=False)
    return model.measured["test"]
