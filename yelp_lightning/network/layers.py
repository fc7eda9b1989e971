"""Layers of an encoder: which they are, freezing the lowest, drawing the highest anew."""

from typing import Any

from torch import nn

from yelp_lightning.errors import UsageError


def encoder_layers(model: Any) -> nn.ModuleList:
    """The layers of an encoder, lowest first.

    Args:
        model: A transformers encoder, or a classifier with ``base_model`` and ``config.num_hidden_layers``.

    Returns:
        Its layers, ``config.num_hidden_layers`` of them.

    Raises:
        UsageError: If it has none of its own, as ALBERT, whose layers are one.
    """
    if (found := _layers(model)) is None:
        raise UsageError(
            f"`model.frozen_layers`, `model.reinit_layers` and `model.layer_decay` need layers with weights of their "
            f"own, which {type(model.base_model).__name__} does not have: leave them out."
        )
    return found


def _layers(model: Any) -> nn.ModuleList | None:
    count = model.config.num_hidden_layers
    lists = (module for module in model.base_model.modules() if isinstance(module, nn.ModuleList))
    return next((one for one in lists if len(one) == count), None)


def freeze(model: Any, layers: int) -> None:
    """Keep the embeddings and the lowest layers as they are.

    Args:
        model: A classifier with ``base_model``; changed in place.
        layers: How many layers; 0 freezes the embeddings alone.

    Source:
        Lee et al. 2019, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning".
    """
    every = encoder_layers(model)
    trained = {id(parameter) for layer in every[layers:] for parameter in layer.parameters()}
    for name, parameter in model.base_model.named_parameters():
        # A pooler belongs to the head; with all layers frozen, nothing but the head is trained.
        if id(parameter) not in trained and not name.startswith("pooler."):
            parameter.requires_grad_(False)


def reinitialize(model: Any, layers: int) -> None:
    """Draw the highest layers anew, from torch's global generator: they know most of what is now not asked for.

    Args:
        model: A classifier with ``base_model``; changed in place.
        layers: How many layers.

    Source:
        Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning", section 5.
    """
    every = encoder_layers(model)
    for layer in every[len(every) - layers :]:
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()


def depths(model: Any) -> dict[int, int]:
    """How far below the head each parameter of an encoder lies.

    Args:
        model: A classifier with ``base_model``.

    Returns:
        Depth by the parameter's ``id``: 0 in the highest layer, the number of layers in the embeddings and what else
        lies outside of the layers; parameters of the head, a pooler among them, are not in it. 0 throughout where
        layers share their weights.
    """
    every = _layers(model) or nn.ModuleList()
    found = {
        id(parameter): len(every)
        for name, parameter in model.base_model.named_parameters()
        if not name.startswith("pooler.")
    }
    for number, layer in enumerate(every):
        found |= {id(parameter): len(every) - 1 - number for parameter in layer.parameters()}
    return found
