"""The norm of the gradients, as the backward pass leaves them."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from typing_extensions import override


class GradientNorm(Callback):
    """Logs ``train/grad_norm``: the Euclidean norm of all gradients of an optimizer step, before they are clipped.

    Only every ``trainer.log_every_n_steps`` optimizer steps, so that it costs nothing between. DeepSpeed keeps its
    gradients to itself: there is no such value.
    """

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        # Lightning has undone the loss scaling of 16-mixed already, and logs this step's loss under the same number.
        every = getattr(trainer, "log_every_n_steps", 0)
        if not every or (trainer.global_step + 1) % every:
            return
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        norm = get_total_norm(gradients) if gradients else torch.zeros((), device=pl_module.device)
        if isinstance(norm, DTensor):  # each device has a part of every gradient
            norm = norm.full_tensor()
        elif isinstance(trainer.strategy, FSDPStrategy):  # each device has whole gradients, or none
            squares: torch.Tensor = trainer.strategy.reduce(norm.square(), reduce_op="sum")
            norm = squares.sqrt()
        elif not gradients:
            return
        pl_module.log("train/grad_norm", norm)
