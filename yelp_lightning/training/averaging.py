"""The mean of the best checkpoints: one model of several validations, kept if it is better than each."""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from yelp_lightning.checkpoint import BEST, read_checkpoint
from yelp_lightning.training.keeping import direction

FOLDER = "top"


class TopCheckpoints(ModelCheckpoint):
    """Keeps the weights of the best validations until the end of the run.

    Args:
        run_folder: Where the run is kept.
        monitor: Metric that says which validations are the best.
        count: How many.
    """

    def __init__(self, run_folder: str, monitor: str, count: int) -> None:
        super().__init__(
            f"{run_folder}/{FOLDER}", "{step}", monitor, mode=direction(monitor), save_top_k=count,
            save_on_train_epoch_end=False, save_weights_only=True,
        )  # fmt: skip

    def average(self, trainer: Trainer, model: Any, datamodule: Any) -> None:
        """Validate the mean of the kept weights; where it is better than best.ckpt, it takes its place.

        Args:
            trainer: After its training; every process must call this.
            model: The ``FineTuned``; has other weights afterwards.
            datamodule: Its data.
        """
        paths, monitor = sorted(self.best_k_models), str(self.monitor)
        trainer.strategy.barrier()
        states = [read_checkpoint(Path(path))["state_dict"] for path in paths]
        model.load_state_dict(mean_weights(states), strict=model.strict_loading)
        best = Path(trainer.default_root_dir) / BEST
        before = float(read_checkpoint(best)["reports"]["val"][monitor])
        trainer.validate(model, datamodule, verbose=False)
        after = float(trainer.callback_metrics[monitor])
        better = after > before if self.mode == "max" else after < before
        if better:
            trainer.save_checkpoint(best, weights_only=False)
        is_kept = "is kept as the best" if better else "is not better and not kept"
        of = f"{len(paths)} best validations"
        rank_zero_info(f"The mean of the {of} has {monitor} {after:.4f}, the best alone {before:.4f}: it {is_kept}")
        if trainer.is_global_zero:
            shutil.rmtree(str(self.dirpath))


def mean_weights(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of the weights of several models of one architecture.

    Args:
        states: Name to tensor of each.

    Returns:
        Name to mean, each in its own dtype; whole numbers are those of the first.

    Source:
        Wortsman et al. 2022, "Model soups", of one run as in Izmailov et al. 2018.
    """
    return {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }
