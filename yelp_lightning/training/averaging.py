"""The mean of the best checkpoints: one model of several validations, kept if it is better than each."""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from typing_extensions import override

from yelp_lightning.checkpoint import BEST, read_checkpoint
from yelp_lightning.errors import UsageError
from yelp_lightning.training.keeping import CheckpointOptions, direction

FOLDER = "top"


class TopCheckpoints(ModelCheckpoint):
    """Keeps the weights of the best validations until the run is finished; one that goes on after that starts anew.

    Args:
        run_folder: Where the run is kept.
        monitor: Metric that says which validations are the best.
        count: How many.
    """

    def __init__(self, run_folder: str, monitor: str, count: int) -> None:
        # What a killed run wrote after its last.ckpt is written again, under the same name.
        super().__init__(
            f"{run_folder}/{FOLDER}", "{step}", monitor, mode=direction(monitor), save_top_k=count,
            save_on_train_epoch_end=False, save_weights_only=True, enable_version_counter=False,
        )  # fmt: skip

    @classmethod
    def of(cls, trainer: Trainer) -> "TopCheckpoints | None":
        """That of a trainer.

        Args:
            trainer: The trainer.

        Returns:
            None where nothing is averaged.
        """
        return next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, cls)), None)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Some may be gone: all with the end of a run; one that was beaten after last.ckpt, which will be beaten again.
        # The run folder may be moved, and --checkpoint.average_best be less than it was.
        worst, best = (max, min) if self.mode == "min" else (min, max)
        here = {Path(str(self.dirpath)) / Path(path).name: score for path, score in state_dict["best_k_models"].items()}
        kept = {str(path): score for path, score in here.items() if path.exists()}
        while len(kept) > self.save_top_k:
            kept.pop(worst(kept, key=kept.__getitem__))
        self.best_k_models = kept
        if len(kept) == self.save_top_k:
            self.kth_best_model_path = worst(kept, key=kept.__getitem__)
            self.kth_value = kept[self.kth_best_model_path]
        if kept:
            self.best_model_path = best(kept, key=kept.__getitem__)
            self.best_model_score = kept[self.best_model_path]

    def average(self, trainer: Trainer, model: Any, datamodule: Any) -> None:
        """Validate the mean of the kept weights; where it is better than best.ckpt, it takes its place.

        Args:
            trainer: After its training; every process must call this.
            model: The ``FineTuned``; has other weights afterwards, if there are two to average.
            datamodule: Its data.
        """
        paths, monitor = sorted(self.best_k_models), str(self.monitor)
        if len(paths) < 2:
            return
        trainer.strategy.barrier()
        states = [read_checkpoint(Path(path))["state_dict"] for path in paths]
        mean: dict[str, Any] = mean_weights(states)
        # Weights may be shared out over devices: each takes its part.
        set_model_state_dict(model, mean, options=StateDictOptions(full_state_dict=True, strict=model.strict_loading))
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

    def remove(self) -> None:
        """Remove the kept weights; for one process, once the run is finished."""
        shutil.rmtree(str(self.dirpath), ignore_errors=True)


def refuse_averages(options: Any, keeping: CheckpointOptions, lora: Any) -> None:
    """Refuse to average weights where that cannot be kept or gone on from, before anything is trained.

    Args:
        options: The options ``trainer.*``, with their objects made.
        keeping: The options ``checkpoint.*``.
        lora: ``model.lora``.

    Raises:
        UsageError: If there is such a pair of options.
    """
    strategy, callbacks = options["strategy"], options["callbacks"]
    sharded = isinstance(strategy, FSDPStrategy) or (isinstance(strategy, str) and strategy.startswith("fsdp"))
    if keeping.average_best is not None and sharded:
        raise UsageError(
            f"`--checkpoint.average_best` is {keeping.average_best}, but --trainer.strategy fsdp cannot load the mean: "
            "give --trainer.strategy model_parallel, which shares out weights as well, or leave the option out."
        )
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    moving = next((type(one).__name__ for one in callbacks if isinstance(one, WeightAveraging)), None)
    if moving is not None and keeping.average_best is not None:
        raise UsageError(
            f"`--checkpoint.average_best` is {keeping.average_best}, but {moving} in --trainer.callbacks averages the "
            "weights already: give one of them."
        )
    if moving is not None and lora is not None:
        raise UsageError(
            f"`--trainer.callbacks` has {moving}, which keeps whole models, but with --model.lora checkpoints hold the "
            "adapters alone: leave one of them out, or average by --checkpoint.average_best."
        )


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
