"""A run that goes on against the run it was: what must be the same is refused, what may differ is said."""

import json
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

from yelp_lightning.errors import UsageError
from yelp_lightning.training.resume import KEY

# Options trainer.* that a checkpoint remembers.
COMPARED = (
    "accumulate_grad_batches", "precision", "max_epochs", "max_steps", "val_check_interval", "check_val_every_n_epoch",
    "limit_train_batches", "limit_val_batches", "gradient_clip_val", "gradient_clip_algorithm",
)  # fmt: skip
# They say which rows the next step takes: inside an epoch, others would train some rows twice and others never.
STEP = ("data.batch_size", "trainer.devices", "trainer.accumulate_grad_batches")
# They say what the optimizer's groups are, in which it has kept its state.
GROUPS = ("model.frozen_layers", "model.layer_decay")
# They change what is where, and how fast, not what is learned.
NO_MATTER = {"data.cache_dir", "data.num_workers", "data.num_proc", "data.id_column"}


def compare_run(options: Mapping[str, Mapping[str, Any]], devices: int, path: str, checkpoint: dict[str, Any]) -> None:
    """Refuse other steps in the middle of an epoch, and what the optimizer cannot follow; say what else differs.

    Args:
        options: The parsed options by group: ``model``, ``data`` and ``trainer``.
        devices: All devices of the run.
        path: The checkpoint's file.
        checkpoint: Its content.

    Raises:
        UsageError: If the checkpoint has no place to go on from, if the steps differ inside an epoch, or if other
            layers are frozen or only one of the two runs has rates by layer.
    """
    if KEY not in checkpoint:
        raise UsageError(
            f"`--ckpt_path` {path} does not say how far its run had come: go on from a last.ckpt that `fit` wrote."
        )
    place = checkpoint[KEY]
    groups = {
        "model": checkpoint["hyper_parameters"],
        "data": checkpoint["datamodule_hyper_parameters"],
        "trainer": place["options"],
    }
    now = {group: {**options[group], **({"devices": devices} if group == "trainer" else {})} for group in groups}
    differing = {
        f"{group}.{name}": (now[group][name], was)
        for group, saved in groups.items()
        for name, was in saved.items()
        if name in now[group] and _plain(now[group][name]) != was and f"{group}.{name}" not in NO_MATTER
    }
    if place["batches"] and not place["trained"]:
        for name in STEP:
            if name in differing:
                value, was = differing[name]
                raise UsageError(
                    f"`--{name}` is {value!r}, but {path} stands inside an epoch that was begun with {was!r}: go on "
                    f"with --{name} {was} to the end of an epoch, or train a new run."
                )
    for name in GROUPS:
        # From one decay to another the layers stay apart; from or to 1 they do not.
        if name in differing and (name != "model.layer_decay" or 1 in differing[name]):
            value, was = map(json.dumps, differing[name])  # as they are typed: null
            raise UsageError(
                f"`--{name}` is {value}, but {path} was trained with {was}, and what the optimizer has kept does not "
                f"fit: go on with --{name} {was}, or train a new run."
            )
    if differing:
        told = ", ".join(f"{name} {value} (was {was})" for name, (value, was) in differing.items())
        rank_zero_info(f"resumed run differs: {told}")


def _plain(value: Any) -> Any:
    """A group of options, such as ``model.lora``, as a checkpoint holds it."""
    return value.as_dict() if isinstance(value, Namespace) else value


def ends_at(checkpoint: dict[str, Any], max_epochs: int | None, max_steps: int) -> bool:
    """Whether a run would have nothing left to train.

    Args:
        checkpoint: What it goes on from.
        max_epochs: Its last epoch, or -1.
        max_steps: Its last optimizer step, or -1.

    Returns:
        True if the checkpoint has come as far.
    """
    epochs = int(checkpoint[KEY]["epoch"] + checkpoint[KEY]["trained"])
    steps = int(checkpoint["global_step"])
    return 0 <= max_steps <= steps or (max_epochs is not None and 0 <= max_epochs <= epochs)
