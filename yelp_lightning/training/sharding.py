"""The strategy `model_parallel`: weights, gradients and optimizer shared out over the devices (FSDP2)."""

from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.optim import Optimizer
from typing_extensions import override


class ShardedStrategy(ModelParallelStrategy):
    """Each device holds a part of every layer and borrows the rest while it computes: for models that do not fit one.

    Lightning's ``ModelParallelStrategy``, all devices in its data-parallel dimension (its own default puts the devices
    of a machine in the tensor-parallel one). Checkpoints are single files, as on one device: they are trained on,
    tested and used on any number of devices, by any strategy.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    @override
    def setup_environment(self) -> None:
        """Start the group of processes, with all of them in the data-parallel dimension."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint and give each device its part.

        Lightning's own takes an optimizer's parameters to be numbered in the model's order, which ours, in groups, are
        not, and does not ask the ``CheckpointIO``.

        Args:
            checkpoint_path: A file that any strategy wrote.
            weights_only: Not used: it is always True.

        Returns:
            Lightning's mapping, without the weights.
        """
        checkpoint = self.checkpoint_io.load_checkpoint(checkpoint_path)
        options = StateDictOptions(full_state_dict=True)
        assert self.model is not None
        set_model_state_dict(self.model, checkpoint.pop("state_dict"), options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=False):  # none to test
            set_optimizer_state_dict(self.model, optimizer, self._named(state, optimizer), options=options)
        return checkpoint

    def _named(self, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's state by the names of the parameters; in a file they are numbers, in the groups' order."""
        assert self.model is not None
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        numbers = chain.from_iterable(group["params"] for group in state["param_groups"])
        own = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        name_of = {number: names[parameter] for number, parameter in zip(numbers, own, strict=True)}
        return {
            "state": {name_of[number]: values for number, values in state["state"].items()},
            "param_groups": [
                {**group, "params": [name_of[number] for number in group["params"]]} for group in state["param_groups"]
            ],
        }
