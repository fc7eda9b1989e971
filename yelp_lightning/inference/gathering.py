"""Gathering: the predictions of all devices, in the order of the rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def gather(batches: Sequence[dict[str, Tensor]], world_size: int) -> npt.NDArray[np.float32]:
    """Put together what ``predict_step`` returned. Every device must call it.

    Args:
        batches: This device's: ``row (B,)`` and ``probabilities (B, C)``.
        world_size: Devices.

    Returns:
        Probabilities ``(n, C)``, each row exactly once, in order.
    """
    own = {name: torch.cat([batch[name] for batch in batches]).cpu().numpy() for name in batches[0]}
    parts: list[Any] = [own] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(parts, own)
    rows = np.concatenate([part["row"] for part in parts])
    order = np.argsort(rows)
    assert np.array_equal(rows[order], np.arange(len(rows))), "some rows are missing or were predicted twice"
    probabilities: npt.NDArray[np.float32] = np.concatenate([part["probabilities"] for part in parts])[order]
    return probabilities
