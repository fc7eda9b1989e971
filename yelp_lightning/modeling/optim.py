"""Optimizer groups and the learning-rate schedule, counted in optimizer steps."""

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups: matrices decay, biases and LayerNorm weights do not.

    Args:
        model: The model; frozen parameters are left out.
        weight_decay: Decay of the matrices, per optimizer step and unit of learning rate.

    Returns:
        Two groups for AdamW.

    Source:
        Devlin et al. 2019, the released training code (``exclude_from_weight_decay``).
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Biases and LayerNorm weights are exactly the parameters with one dimension.
    return [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def adamw_with_linear_decay(
    model: nn.Module, learning_rate: float, weight_decay: float, warmup_ratio: float, total_steps: int
) -> tuple[AdamW, LambdaLR]:
    """AdamW with a linear rise of the learning rate, then a linear fall to 0.

    Args:
        model: The model.
        learning_rate: Peak learning rate.
        weight_decay: As in ``decay_groups``.
        warmup_ratio: Share of ``total_steps`` that the rise takes, in [0, 1].
        total_steps: Optimizer steps of the whole run.

    Returns:
        The optimizer and its schedule, to be stepped after each optimizer step.

    Source:
        Devlin et al. 2019, appendix A.2; the schedule is transformers' own.
    """
    from transformers import get_linear_schedule_with_warmup

    optimizer = AdamW(decay_groups(model, weight_decay), lr=learning_rate)
    return optimizer, get_linear_schedule_with_warmup(optimizer, round(warmup_ratio * total_steps), total_steps)
