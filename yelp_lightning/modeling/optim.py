"""Optimizer groups and the learning-rate schedule, counted in optimizer steps."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from yelp_lightning.network.layers import depths

Schedule = Literal["linear", "cosine", "constant", "warmup_stable_decay"]
# Share of a warm-up-stable-decay run over which the rate falls; Hägele et al. 2024 find 10 to 20 % enough.
DECAY_RATIO = 0.2


@dataclass(frozen=True)
class OptimizerOptions:
    """Rates and schedule of AdamW.

    Args:
        learning_rate: Peak learning rate of the encoder's highest layer.
        head_learning_rate: That of the head (and pooler); None means ``learning_rate``.
        layer_decay: Factor from each layer to the one below it.
        weight_decay: Decay of the matrices, per optimizer step and unit of learning rate.
        warmup_ratio: Share of all steps over which the rate rises, in [0, 1].
        schedule: How it falls after that.
        fused: Whether one kernel updates all parameters.
    """

    learning_rate: float
    head_learning_rate: float | None = None
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    warmup_ratio: float = 0.0
    schedule: Schedule = "linear"
    fused: bool = True


def parameter_groups(model: nn.Module, options: OptimizerOptions) -> list[dict[str, Any]]:
    """Parameters by learning rate and decay: matrices decay, biases and LayerNorm weights do not.

    Args:
        model: A classifier with ``base_model``; frozen parameters are left out.
        options: Rates and decay.

    Returns:
        Groups for AdamW, the highest rate first.

    Source:
        Devlin et al. 2019, the released training code (``exclude_from_weight_decay``); Howard and Ruder 2018, section
        3.1, for rates by layer.
    """
    plain = options.layer_decay == 1 and options.head_learning_rate is None
    below = {} if plain else depths(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in below:
            rate = options.learning_rate * options.layer_decay ** below[id(parameter)]
        else:
            rate = options.head_learning_rate or options.learning_rate
        # Biases and LayerNorm weights are exactly the parameters with one dimension.
        groups[rate, options.weight_decay if parameter.ndim >= 2 else 0.0].append(parameter)
    order = sorted(groups, reverse=True)
    return [{"params": groups[rate, decay], "lr": rate, "weight_decay": decay} for rate, decay in order]


def adamw(model: nn.Module, options: OptimizerOptions, total_steps: int) -> tuple[AdamW, LambdaLR]:
    """AdamW and its schedule, to be stepped after each optimizer step.

    Args:
        model: A classifier with ``base_model``.
        options: Rates and schedule.
        total_steps: Optimizer steps of the whole run.

    Returns:
        The optimizer and its schedule.

    Source:
        Devlin et al. 2019, appendix A.2; the schedules are transformers' own.
    """
    from transformers import get_scheduler

    optimizer = AdamW(parameter_groups(model, options), lr=options.learning_rate, fused=options.fused)
    # A fused step can undo the loss scaling of float16 by itself, for which Lightning would refuse to clip gradients in
    # bfloat16 too, where there is no scaling.
    optimizer._step_supports_amp_scaling = False
    warmup_steps = round(options.warmup_ratio * total_steps)
    names = {"constant": "constant_with_warmup"}
    specific = {}
    if options.schedule == "warmup_stable_decay":
        specific = {"num_decay_steps": min(round(DECAY_RATIO * total_steps), total_steps - warmup_steps)}
    schedule = get_scheduler(
        names.get(options.schedule, options.schedule),
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=total_steps,
        scheduler_specific_kwargs=specific,
    )
    return optimizer, schedule
