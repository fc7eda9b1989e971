"""Optimizer groups and the learning-rate schedule, counted in optimizer steps."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from yelp_lightning.network.layers import depths

Schedule = Literal["linear", "cosine", "constant", "warmup_stable_decay"]
# Share of a warm-up-stable-decay run over which the rate falls; Hägele et al. 2024 find 10 to 20 % enough. Theirs falls
# as 1 - sqrt, ours in half a cosine, transformers' default.
DECAY_RATIO = 0.2
# Where the head stands: above the highest layer, whose depth is 0.
HEAD = -1


@dataclass(frozen=True)
class OptimizerOptions:
    """Rates and schedule of AdamW.

    Args:
        learning_rate: Peak learning rate of the encoder's highest layer.
        head_learning_rate: That of the head (and pooler); None means ``learning_rate``.
        layer_decay: Factor from each layer to the one below it.
        weight_decay: Decay of the matrices, per optimizer step and unit of learning rate.
        warmup_ratio: Share of all steps over which the rate rises, in [0, 1].
        schedule: How it falls after that: ``linear`` in a line and ``cosine`` in half a cosine, to 0 at the end;
            ``constant`` not at all; ``warmup_stable_decay`` in half a cosine over the last fifth of the run.
        fused: Whether one kernel updates all parameters.
    """

    learning_rate: float
    head_learning_rate: float | None = None
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    warmup_ratio: float = 0.0
    schedule: Schedule = "linear"
    fused: bool = True


def parameter_groups(model: Any, options: OptimizerOptions) -> list[dict[str, Any]]:
    """Parameters by what they are, so that a run goes on with other rates in the same groups.

    The head, a pooler included, is apart from the encoder; where ``layer_decay`` is not 1, so is each layer. In each
    group either all parameters decay or none: biases and the weights of norms do not.

    Args:
        model: A classifier with ``base_model``; frozen parameters are left out.
        options: Rates and decay.

    Returns:
        Groups for AdamW: the head, then the encoder from its highest layer down; of each, what decays comes first.

    Source:
        Devlin et al. 2019, the released training code (``exclude_from_weight_decay``); Howard and Ruder 2018, section
        3.1, for rates by layer.
    """
    if options.layer_decay == 1:
        below = {id(value): 0 for name, value in model.base_model.named_parameters() if not name.startswith("pooler.")}
    else:
        below = depths(model)
    undecayed = _undecayed(model)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[below.get(id(parameter), HEAD), id(parameter) in undecayed].append(parameter)
    head_rate = options.head_learning_rate or options.learning_rate
    return [
        {
            "params": groups[depth, plain],
            "lr": head_rate if depth == HEAD else options.learning_rate * options.layer_decay**depth,
            "weight_decay": 0.0 if plain else options.weight_decay,
        }
        for depth, plain in sorted(groups)
    ]


def _undecayed(model: nn.Module) -> set[int]:
    """Biases and what norms have, by ``id``.

    Told by where they stand: on a device that holds a part of it (FSDP1, ZeRO-3), a matrix has one dimension too.
    """
    return {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if "bias" in name or "norm" in type(module).__name__.lower()
    }


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
