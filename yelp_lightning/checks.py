"""Options against a checkpoint and against each other: what the parser alone cannot refuse."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from yelp_lightning.data.inputs import STDIN
from yelp_lightning.errors import UsageError
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.modeling.masked_words import MaskedWords

# What a checkpoint fixes: another value needs another run.
ARCHITECTURE = ("pretrained", "num_labels", "pooling", "lora")
# What decides the rows of train and validation: a run that goes on, or is validated again, keeps them.
ROWS = (
    "source", "config_name", "revision", "text_column", "label_column", "label_offset", "label_names", "column_names",
    "backslash_escapes", "on_bad_row", "train_size", "val_size", "sampling", "seed", "group_column", "on_duplicate",
)  # fmt: skip
# What decides their tokens: a run that goes on compares its epochs.
TOKENS = ("max_length", "truncation")
# Lightning takes 0 and less of these; -1 of max_* means no limit.
NEVER_ZERO = {
    "max_epochs", "max_steps", "limit_train_batches", "limit_val_batches", "val_check_interval",
    "check_val_every_n_epoch", "accumulate_grad_batches",
}  # fmt: skip


def set_checkpoint_defaults(parser: LightningArgumentParser, checkpoint: dict[str, Any]) -> None:
    """Make the options that a checkpoint was trained with the defaults, so that whatever is typed wins over them.

    Args:
        parser: Parser with the groups ``model`` and ``data``, or ``data`` alone.
        checkpoint: From ``read_checkpoint``.
    """
    known = parser.get_defaults(skip_validation=True)
    saved = {f"{group}.{name}": value for group, values in _saved(checkpoint).items() for name, value in values.items()}
    parser.set_defaults({name: value for name, value in saved.items() if name in known})


def refuse_other(options: Any, command: str, path: Path, checkpoint: dict[str, Any]) -> None:
    """Refuse options that a checkpoint fixes and that were typed with another value.

    Args:
        options: The parsed options.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        path: The checkpoint's file.
        checkpoint: From ``read_checkpoint``.

    Raises:
        UsageError: If there is such an option.
    """
    fixed = {"model": ARCHITECTURE, "data": {"fit": ROWS + TOKENS, "validate": ROWS}.get(command, ())}
    if command == "fit":
        fixed["checkpoint"] = ("monitor",)  # scores of two metrics cannot be compared
    for group, names in fixed.items():
        saved = _saved(checkpoint)[group]
        for name in names:
            typed = getattr(options[group], name)
            typed = typed.as_dict() if isinstance(typed, Namespace) else typed
            if name in saved and typed != saved[name]:  # an older run may lack the option
                measured = group == "data" and command == "validate"
                other = "measure other reviews by `test`" if measured else "train a new run"
                raise UsageError(
                    f"`{group}.{name}` is {typed!r}, but {path} was trained with {saved[name]!r}: "
                    f"leave the option out (the run's own config.yaml has the same value), or {other}."
                )


def refuse_other_task(options: Any, command: str, checkpoint: dict[str, Any] | None) -> None:
    """Refuse what a task has no use for.

    Args:
        options: The parsed options.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        checkpoint: From ``read_checkpoint``, where one is given.

    Raises:
        UsageError: If the checkpoint is of another task, or the task has no use for an option.
    """
    if command != "fit":
        return
    trained = options.task if checkpoint is None else checkpoint["encoder"].get("task", "stars")
    if trained != options.task:
        raise UsageError(
            f"`--task` is {options.task!r}, but {options.ckpt_path} was trained on {trained}: "
            + ("give its run folder as --model.pretrained." if trained == "masked_words" else "leave the option out.")
        )
    if options.task == "stars":
        if options.data.label_column is None:
            raise UsageError("`data.label_column` is null, but the stars are what is learned: name their column.")
        return
    defaults = {name: parameter.default for name, parameter in inspect.signature(StarClassifier).parameters.items()}
    known = set(inspect.signature(MaskedWords).parameters)
    for name in sorted(set(defaults) - known - {"label_names"}):
        if options.model[name] != defaults[name]:
            raise UsageError(
                f"`model.{name}` is {options.model[name]!r}, which means nothing for --task masked_words: leave it out."
            )


def _saved(checkpoint: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options that a checkpoint was written with, by group."""
    watched = [state["monitor"] for name, state in checkpoint["callbacks"].items() if name.startswith("BestCheckpoint")]
    return {
        "model": checkpoint["hyper_parameters"],
        "data": checkpoint["datamodule_hyper_parameters"],
        "checkpoint": dict(zip(["monitor"], watched, strict=False)),
    }


def refuse_training_file(source: str, path: Path, checkpoint: dict[str, Any]) -> None:
    """Refuse to test on the file that a run was trained on.

    Args:
        source: ``data.source``.
        path: The checkpoint's file.
        checkpoint: From ``read_checkpoint``.

    Raises:
        UsageError: If it is that file.
    """
    trained_on, file = Path(checkpoint["datamodule_hyper_parameters"]["source"]).resolve(), Path(source).resolve()
    if file.is_file() and (file == trained_on or (file.parent == trained_on and file.stem == "train")):
        raise UsageError(
            f"`data.source` is {source!r}, the file that {path} was trained on: "
            "give --data.source a file or folder with reviews that it has not seen."
        )


def refuse_idle_training(trainer: Mapping[str, Any]) -> None:
    """Refuse what Lightning takes although nothing would then be trained, or no best epoch be found.

    Args:
        trainer: The options ``trainer.*``.

    Raises:
        UsageError: If there is such an option.
    """
    names = NEVER_ZERO if trainer["enable_checkpointing"] is not False else NEVER_ZERO - {"limit_val_batches"}
    for name in sorted(names):
        value = trainer[name]
        if isinstance(value, int | float) and value <= 0 and not (value == -1 and name.startswith("max_")):
            raise UsageError(
                f"`--trainer.{name}` is {value}, with which `fit` would train or validate nothing: "
                "give a number above 0, or leave the option out."
            )


def refuse_limits(trainer: Mapping[str, Any], command: str) -> None:
    """Refuse limits by which `validate` and `test` would measure nothing, or `predict` leave rows out.

    Args:
        trainer: The options ``trainer.*``.
        command: ``validate``, ``test`` or ``predict``.

    Raises:
        UsageError: If there is such an option.
    """
    name = {"validate": "limit_val_batches"}.get(command, f"limit_{command}_batches")
    limit, shortened = trainer[name], trainer["fast_dev_run"]
    # A whole number counts batches, a float is a share of them.
    partial = isinstance(limit, int) or (limit is not None and limit < 1)
    if command == "predict" and (shortened or partial):
        name, limit = ("fast_dev_run", shortened) if shortened else (name, limit)
        raise UsageError(
            f"`--trainer.{name}` is {limit}, which may leave rows out, but `predict` writes every row: leave the "
            "option out; for fewer rows, give a file that has fewer."
        )
    if limit == 0:
        raise UsageError(
            f"`--trainer.{name}` is {limit}, with which `{command}` would measure nothing: give a number above 0, or "
            "leave the option out."
        )


def refuse_inputs(text: str | None, explain: bool, predict_path: str | None, processes: int) -> None:
    """Refuse inputs of `predict` that exclude each other.

    Args:
        text: ``--text``.
        explain: ``--explain``.
        predict_path: ``--data.predict_path``.
        processes: That would read it.

    Raises:
        UsageError: If there is a second input, a second reader of standard input, or no one text to explain.
    """
    if text is not None and predict_path is not None:
        raise UsageError(f"`--text` is given together with --data.predict_path {predict_path}: give one of them.")
    if explain and text is None:
        raise UsageError("`--explain` is for one review, but --text is not given: give the review by --text.")
    if predict_path == STDIN and processes > 1:
        raise UsageError(
            f"`--data.predict_path` is {STDIN!r}, which only one process can read, but there are {processes}: "
            "give a file, or --trainer.devices 1."
        )
