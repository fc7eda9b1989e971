"""Precision: what `auto` means on the device at hand, by what it can do and not by what it is called."""

from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

# Lightning's own, and `auto`.
Precision = Literal[64, 32, 16] | Literal[
    "auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "transformer-engine",
    "transformer-engine-float16", "64", "32", "16", "bf16",
]  # fmt: skip
AUTO: Precision = "auto"
# Instructions that multiply bfloat16 matrices, by torch's names of them.
BF16_UNITS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "arm_bf16")


def has_bf16_units() -> bool:
    """Whether this processor multiplies bfloat16 by instructions of its own.

    Without them it is many times slower than float32.

    Returns:
        What torch reads from the processor.
    """
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in BF16_UNITS)


def choose(precision: Any, device: str, command: str) -> Any:
    """Say what ``auto`` means.

    Args:
        precision: ``trainer.precision``.
        device: ``cpu``, ``cuda`` or another.
        command: ``fit``, ``validate``, ``test`` or ``predict``.

    Returns:
        ``precision`` where it is not ``auto``. Else ``32-true`` in all but `fit`, so that other libraries get the same
        numbers; and in `fit` ``bf16-mixed`` where the device has units for it, ``16-mixed`` on an older GPU, and
        ``32-true`` elsewhere.
    """
    bf16 = has_bf16_units() if device == "cpu" else device == "cuda" and torch.cuda.is_bf16_supported(False)
    if precision != AUTO:
        if device == "cpu" and not bf16 and "bf16" in str(precision):
            rank_zero_warn(
                f"`--trainer.precision` is {precision!r}, but this processor has no units for bfloat16, without which "
                "it is many times slower than 32-true"
            )
        if command == "fit" and str(precision).endswith("16-true"):
            rank_zero_warn(
                f"`--trainer.precision` is {precision!r}, whose weights lose what is added to them below 1/256 of "
                "their size, which most steps of a fine-tuning are: bf16-mixed keeps them in float32"
            )
        return precision
    if command != "fit":
        return "32-true"
    chosen = "bf16-mixed" if bf16 else "16-mixed" if device == "cuda" else "32-true"
    reasons = {"bf16-mixed": f"this {device} has units for it", "16-mixed": "this GPU has no units for bfloat16"}
    reason = reasons.get(chosen, f"this {device} has no units for bfloat16")
    rank_zero_info(f"precision: {chosen}, since {reason} (--trainer.precision)")
    return chosen
