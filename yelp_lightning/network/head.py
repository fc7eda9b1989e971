"""The head of a classifier: the linear layer that the logits come from."""

from typing import Any

import torch
from torch import nn

from yelp_lightning.errors import UsageError


def output_layer(model: Any) -> nn.Linear:
    """The last layer of a classifier.

    Args:
        model: A classifier with ``config.num_labels``.

    Returns:
        The linear layer whose outputs are the logits.

    Raises:
        UsageError: If the architecture has none.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels
    ]
    if not layers:
        raise UsageError(
            f"`model.pretrained` is a {type(model).__name__}, whose logits come from no linear layer, so that no "
            "calibrated model can be left behind: give another encoder, such as google-bert/bert-base-cased."
        )
    return layers[-1]


def draw_head(model: Any) -> None:
    """Draw the last layer anew, from torch's global generator, in case the encoder comes with one that was trained.

    Args:
        model: A classifier, changed in place.
    """
    layer = output_layer(model)
    nn.init.normal_(layer.weight, std=getattr(model.config, "initializer_range", 0.02))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def divide_logits(model: Any, temperature: float) -> None:
    """Make a temperature part of the head, so that whoever loads the model has calibrated probabilities.

    Args:
        model: A classifier, changed in place: its logits are divided.
        temperature: A positive number.
    """
    layer = output_layer(model)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.div_(temperature)
