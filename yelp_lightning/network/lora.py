"""LoRA: small matrices beside the encoder's own, which stay as they are (Hu et al. 2021), by peft."""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import xxhash
from torch import Tensor, nn

from yelp_lightning.errors import UsageError
from yelp_lightning.ranges import ClosedUnitInterval, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class LoraOptions:
    """Adapters beside an encoder that stays as it is; only they and the head are trained.

    Args:
        r: Rank of the adapters.
        alpha: Scale of the adapters; their output is multiplied by ``alpha / r``.
        dropout: Dropout of their input.
        target: Which matrices get one: ``attention`` (queries and values, as in the paper) or ``all`` of the encoder's
            layers.

    Source:
        Hu et al. 2021, sections 4.1 and 7.1.
    """

    r: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: ClosedUnitInterval = 0.0
    target: Literal["attention", "all"] = "attention"


def plain(options: LoraOptions | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Options as plain numbers and words, which a checkpoint can hold.

    Args:
        options: The options, or what a checkpoint held.

    Returns:
        A mapping, or None.
    """
    if options is None:
        return None
    values = asdict(options) if isinstance(options, LoraOptions) else dict(options)
    # The command line's numbers are of classes of their own.
    return dict(json.loads(json.dumps(values)))


def require_peft() -> None:
    """Check that peft is installed.

    Raises:
        UsageError: If it is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise UsageError(
            '`model.lora` needs an extra that is not installed: run pip install "yelp-lightning[peft]", or leave '
            "model.lora out."
        )


def add_lora(model: Any, options: Mapping[str, Any]) -> None:
    """Put adapters into an encoder and freeze the rest of it; the head, a pooler included, stays trainable.

    Args:
        model: A classifier with ``base_model``; changed in place. New adapters change no logits.
        options: From ``plain``.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = {"attention": None, "all": "all-linear"}  # None: the queries and values of each architecture
    # peft warns where there is nothing to leave out.
    pooler = options["target"] == "all" and getattr(model.base_model, "pooler", None) is not None
    config = LoraConfig(
        r=options["r"], lora_alpha=options["alpha"], lora_dropout=options["dropout"],
        target_modules=targets[options["target"]], exclude_modules=r".*pooler.*" if pooler else None,
    )  # fmt: skip
    inject_adapter_in_model(config, model.base_model)
    for name, parameter in model.base_model.named_parameters():
        if name.startswith("pooler."):
            parameter.requires_grad_(True)


def merge_lora(model: nn.Module) -> None:
    """Add the adapters' products to the matrices beside them; the model is then one of plain transformers.

    Args:
        model: With adapters, in float32; changed in place.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, BaseTunerLayer):
                child.merge()
                setattr(module, name, child.get_base_layer())


def fingerprint(model: Any) -> str:
    """What an encoder is known by: the hash of its weights, a fresh pooler left out.

    Args:
        model: A classifier with ``base_model``, before it gets adapters.

    Returns:
        XXH3-128, hexadecimal.
    """
    found = xxhash.xxh3_128()
    tensors: dict[str, Tensor] = model.base_model.state_dict()
    for name in sorted(tensors):
        if not name.startswith("pooler."):
            found.update(name.encode())
            found.update(tensors[name].cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
