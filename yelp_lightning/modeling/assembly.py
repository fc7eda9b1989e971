"""Assembly: the network that the options `model.*` describe, from a pretrained encoder or from a checkpoint."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.errors import UsageError
from yelp_lightning.network.attention import ATTENTION
from yelp_lightning.network.dropout import set_dropout
from yelp_lightning.network.first_token import reads_first_token, skip_other_tokens
from yelp_lightning.network.head import output_layer
from yelp_lightning.network.layers import encoder_layers, freeze, reinitialize
from yelp_lightning.network.lora import add_lora, fingerprint, require_peft
from yelp_lightning.pretrained import Classifier, encoder_config, load_classifier


def check_options(options: Mapping[str, Any], source: str) -> None:
    """Check the options against each other and the encoder's config, before anything is loaded.

    Args:
        options: The options ``model.*``.
        source: Where the encoder comes from, or a checkpoint.

    Raises:
        UsageError: If one does not fit.
    """
    config = encoder_config(source)
    # Of a run that goes on, the task has been compared, and its checkpoint is not read once more.
    given = source.endswith(".ckpt") and source == options["pretrained"]
    if given and read_checkpoint(Path(source))["encoder"].get("task") == "masked_words":
        raise UsageError(
            f"`model.pretrained` is {source!r}, of a run on masked words, which has no head for stars: give its run "
            f"folder, {Path(source).parent}."
        )
    layers = config.num_hidden_layers
    for name in ("frozen_layers", "reinit_layers"):
        if (options[name] or 0) > layers:
            raise UsageError(
                f"`model.{name}` is {options[name]}, but {options['pretrained']} has {layers} layers: give at most "
                f"{layers}."
            )
    if options["frozen_layers"] is not None or options["reinit_layers"] or options["layer_decay"] != 1:
        with torch.device("meta"):  # no memory, no weights: only which layers there are
            encoder_layers(AutoModel.from_config(config))
    if options["lora"] is not None:
        require_peft()
        for name in ("frozen_layers", "reinit_layers"):
            if options[name]:
                raise UsageError(
                    f"`model.{name}` is {options[name]} together with model.lora, which keeps the whole encoder as it "
                    "is: give one of them."
                )
    weights = options["class_weights"]
    if isinstance(weights, list) and (
        len(weights) != options["num_labels"] or not all(0 <= weight < math.inf for weight in weights)
    ):
        raise UsageError(
            f"`model.class_weights` is {weights}, but must be {options['num_labels']} numbers of at least 0, one for "
            "each class in order: give such a list, or balanced."
        )


def assemble(options: Mapping[str, Any], source: str) -> tuple[Classifier, dict[str, Any] | None, float]:
    """Load the encoder with its head, and make of it what the options say.

    Args:
        options: The options ``model.*``.
        source: Where the encoder comes from, or a checkpoint.

    Returns:
        The network in training mode; where it has adapters, what a checkpoint needs to build it again; and the
        temperature of its probabilities, 1 where there was no validation yet.

    Raises:
        UsageError: If nothing can be loaded.
    """
    model = load_classifier(source, options["num_labels"], options["label_names"], options["pooling"])
    output_layer(model)  # refuses, before anything is trained, what could not be left behind
    adapters: dict[str, Any] | None = None
    temperature = 1.0
    if source.endswith(".ckpt"):
        packed = read_checkpoint(Path(source))["encoder"]
        adapters, temperature = packed.get("adapters"), packed.get("temperature", 1.0)
    else:
        if options["reinit_layers"]:
            reinitialize(model, options["reinit_layers"])
        if options["lora"] is not None:
            adapters = {"options": options["lora"], "base": {"source": source, "fingerprint": fingerprint(model)}}
            add_lora(model, options["lora"])
    prepare(model, options)
    return model, adapters, temperature


def prepare(model: Classifier, options: Mapping[str, Any]) -> None:
    """Make a network ready to be trained: dropout, attention, what is frozen, what is computed anew or compiled.

    Args:
        model: Changed in place.
        options: The options ``model.*``.
    """
    # In memory of their own: where a file is mapped, tensors lie as it has them, and products of single rows then round
    # otherwise than those of a run that goes on from a checkpoint.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    set_dropout(model, options["dropout"])
    kind = options["attn_implementation"]
    try:
        model.base_model.set_attn_implementation(ATTENTION if kind == "auto" else kind)
    except (ImportError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UsageError(
            f"`model.attn_implementation` is {kind!r}, which cannot be used here ({reason}): give auto."
        ) from error
    if kind == "auto" and options.get("pooling") == "cls" and reads_first_token(model):
        skip_other_tokens(model)
    if options["frozen_layers"] is not None:
        freeze(model, options["frozen_layers"])
    if options["gradient_checkpointing"]:
        model.base_model.activation_checkpointing_enable({"use_reentrant": False})
    if options["compile"]:
        model.compile(dynamic=True)  # one program for all lengths; on a processor, one for each was no faster
    # transformers loads in evaluation mode, and Lightning keeps the mode it finds: without this, no dropout.
    model.train()
