"""The dashboard in W&B: what each validation got wrong and how sure it was, the best values, and the best model."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from yelp_lightning.data.reviews import Reviews
from yelp_lightning.loggers import WandbLogger
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.modeling.metrics import BINS, Measured
from yelp_lightning.pretrained import class_names
from yelp_lightning.run_folder import METRICS, MODEL, read_metrics
from yelp_lightning.training.keeping import DIRECTIONS

# Most rows of the table of errors, and most characters of a text there.
ERRORS, CHARACTERS = 50, 2000
# Most classes of the confusion matrix: nobody could read more, and W&B cuts tables at 200,000 rows.
CLASSES = 100


class Table(NamedTuple):
    """What becomes a ``wandb.Table``.

    Args:
        columns: Their names.
        data: Rows of one value a column.
    """

    columns: list[str]
    data: list[list[Any]]


class Dashboard(Callback):
    """Logs ``val/confusion_matrix``, ``val/reliability`` and ``val/errors`` at every validation but the sanity check.

    The run's summary holds the best value of each metric, in its right direction, and the last one. Texts of reviews go
    only to loggers with ``log_text``.
    """

    @override
    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A name of its own takes a metric out of Lightning's "*", so that its axis is to be said again.
        axis: dict[str, Any] = {"step_metric": "trainer/global_step", "step_sync": True}
        for logger in _wandb_loggers(trainer):
            for name, best in DIRECTIONS.items():
                for key in (name, name.replace("val/", "train/")):
                    logger.experiment.define_metric(key, summary=f"{best},last", **axis)

    @override
    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, StarClassifier):
            return
        for logger in _wandb_loggers(trainer):
            logger.log_metrics(_panels(trainer, pl_module, logger.has_text), step=trainer.global_step)


def keep_model(trainer: Trainer) -> None:
    """Log the best model of a finished run, ``model/`` and ``metrics.json``, where ``log_model`` asks for it.

    Args:
        trainer: Of the run; only the first process may call this.
    """
    for logger in _wandb_loggers(trainer):
        if logger.has_model:
            import wandb

            folder, run = Path(trainer.default_root_dir), logger.experiment
            artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=read_metrics(folder))
            artifact.add_dir(str(folder / MODEL), name=MODEL)
            artifact.add_file(str(folder / METRICS))
            run.log_artifact(artifact, aliases=["best", "latest"])


def _wandb_loggers(trainer: Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _panels(trainer: Trainer, model: StarClassifier, with_text: bool) -> dict[str, Any]:
    """The tables of the latest validation, two of them shown by charts of W&B's own."""
    import wandb

    measured, matrix = model.measured["val"], model.reports["val"]["val/confusion_matrix"]
    names = list(class_names(len(matrix), model.hparams["label_names"]).values())
    datamodule: Any = getattr(trainer, "datamodule", None)
    return {
        **({"val/confusion_matrix": _confusion(matrix, names)} if len(names) <= CLASSES else {}),
        "val/reliability": wandb.plot_table(
            "wandb/lineseries/v0",
            wandb.Table(*reliability_table(measured)),
            {"step": "confidence", "lineKey": "line", "lineVal": "accuracy"},
            {"title": "Reliability, validation", "xname": "confidence"},
        ),
        "val/errors": wandb.Table(*error_table(measured, names, datamodule.reviews, with_text)),
    }


def _confusion(matrix: list[list[int]], names: list[str]) -> Any:
    import wandb

    return wandb.plot_table(
        "wandb/confusion_matrix/v1",
        wandb.Table(*confusion_table(matrix, names)),
        {"Actual": "actual", "Predicted": "predicted", "nPredictions": "reviews"},
        {"title": "Confusion matrix, validation"},
    )


def confusion_table(matrix: list[list[int]], names: list[str]) -> Table:
    """Count the reviews of each true class by the class they were given.

    Args:
        matrix: A row per true class, a column per predicted class, ``(C, C)``.
        names: Names of the classes, ``(C,)``.

    Returns:
        Columns ``actual``, ``predicted`` and ``reviews``, C x C rows.
    """
    cells = [
        [actual, predicted, count]
        for actual, row in zip(names, matrix, strict=True)
        for predicted, count in zip(names, row, strict=True)
    ]
    return Table(["actual", "predicted", "reviews"], cells)


def reliability_table(measured: Measured) -> Table:
    """How often the model was right where it was how sure, in equal bins of confidence.

    The bins are the 15 of the calibration error.

    Args:
        measured: A validation.

    Returns:
        Columns ``line``, ``confidence`` (mean probability of the most probable class), ``accuracy`` (share that was
        right) and ``reviews``; a row per bin that has reviews, for the lines ``uncalibrated`` and ``calibrated`` (by
        the temperature), and the ends of the line ``perfect``, which has no reviews.
    """
    rows: list[list[Any]] = [["perfect", 0.0, 0.0, 0], ["perfect", 1.0, 1.0, 0]]
    for line, answers in (("uncalibrated", replace(measured, temperature=1.0)), ("calibrated", measured)):
        probabilities = answers.probabilities
        confidence, right = probabilities.max(1), probabilities.argmax(1) == answers.labels
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        for one in np.unique(bins):
            inside = bins == one
            rows.append([line, float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum())])
    return Table(["line", "confidence", "accuracy", "reviews"], rows)


def error_table(measured: Measured, names: list[str], reviews: Reviews, with_text: bool) -> Table:
    """The wrong answers that the model was most sure of, and where their reviews stand.

    Args:
        measured: A validation.
        names: Names of the classes, ``(C,)``.
        reviews: Where the validation rows are.
        with_text: Whether the beginning of the text is shown too.

    Returns:
        Columns ``row`` (its number among the validation rows), ``place``, ``actual``, ``predicted``, ``probability``
        (of what was predicted, calibrated) and ``text``; at most 50 rows, the surest first.
    """
    probabilities = measured.probabilities
    predicted, probability = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != measured.labels)
    # Rising again, as tables are read.
    shown = np.sort(wrong[np.argsort(-probability[wrong], kind="stable")[:ERRORS]])
    table, numbers = reviews.rows["val"].table, reviews.chosen["val"][measured.rows[shown]]
    columns: dict[str, list[Any]] = {
        "row": measured.rows[shown].tolist(),
        "place": [f"{file.unit} {line} of {file.name}" for file, line in table.places(numbers)],
        "actual": [names[label] for label in measured.labels[shown]],
        "predicted": [names[label] for label in predicted[shown]],
        "probability": probability[shown].tolist(),
    }
    if with_text:
        columns["text"] = [text[:CHARACTERS] for text in table.texts(numbers)]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return Table(list(columns), sorted(rows, key=lambda row: -row[list(columns).index("probability")]))
