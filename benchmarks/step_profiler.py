"""A callback that says what the time of a training step goes to, and the groups of operations that it knows."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from clock import WARMUP_STEPS
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AttentionInterface

from yelp_lightning.network import attention, dropout

GROUPS = (
    "matrix products", "attention", "dropout", "layer norm", "GELU", "casts and copies", "optimizer", "data", "other",
)  # fmt: skip
# Operations by a part of their name: what is inside of a marked range belongs to it in any case.
BY_NAME = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "mkldnn_linear"),
    "attention": ("attention", "softmax"),
    "dropout": ("dropout", "bernoulli", "aten::random_"),
    "layer norm": ("layer_norm",),
    "GELU": ("gelu",),
    "casts and copies": ("aten::copy_", "aten::_to_copy", "aten::to", "aten::clone", "aten::contiguous"),
}
# Ranges that torch marks by itself, by how they begin.
RANGES = {"Optimizer.": "optimizer", "enumerate(DataLoader)": "data"}
OURS = {"[attention]": "attention", "[dropout]": "dropout"}
# Lightning computes loss and gradients inside of the optimizer's range, but they are none of its work.
NOT_OPTIMIZER = ("[training step]", "autograd::engine::evaluate_function")
# Ranges in which what is in no operation is Python's.
PYTHON = ("[", "Optimizer.")
SHOWN = 12  # operations that are listed one by one


def marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, as a range of the profile."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return function(*args, **kwargs)

    return call


def range_of(event: Any) -> str | None:
    """Group of the nearest marked range around an event.

    Args:
        event: ``torch.autograd.profiler_util.FunctionEvent``.
    """
    while event is not None:
        if event.name in OURS:
            return OURS[event.name]
        if event.name.startswith(NOT_OPTIMIZER):
            return None
        for beginning, group in RANGES.items():
            if event.name.startswith(beginning):
                return group
        event = event.cpu_parent
    return None


def name_group(name: str) -> str:
    """Group of an operation outside of all marked ranges."""
    for group, parts in BY_NAME.items():
        if any(name == part or ("::" not in part and part in name.lower()) for part in parts):
            return group
    return "other"


def group_times(events: Any, device: bool) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Share out the time of a profile.

    Backward operations stand outside of the ranges of their forward ones; the number that autograd gives both of them
    says to which range they belong.

    Args:
        events: ``profile.events()``.
        device: Whether to count the time of the accelerator, not that of the processor.

    Returns:
        Microseconds of each group, and of each operation in its group.
    """
    events = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    forward: dict[int, str] = {}
    for event in events:
        if event.sequence_nr >= 0 and not event.fwd_thread and (group := range_of(event)) is not None:
            forward[event.sequence_nr] = group
    groups: Counter[str] = Counter()
    operations: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.name.startswith(PYTHON):
            continue
        spent = event.self_device_time_total if device else event.self_cpu_time_total
        group = range_of(event)
        above = event
        while group is None and above is not None:
            if above.fwd_thread and above.sequence_nr >= 0:
                group = forward.get(above.sequence_nr)
                break
            above = above.cpu_parent
        group = group or name_group(event.name)
        groups[group] += spent
        operations[group, event.name] += spent
    return groups, operations


class StepProfiler(Callback):
    """Profiles training steps after the warm-up, and writes where their time goes to a JSON file.

    Args:
        path: The file.
        steps: Steps to profile.
    """

    def __init__(self, path: str, steps: int) -> None:
        self.path = path
        self.steps = steps
        self.seen = 0
        self.profile: profile | None = None
        # Only names are added: what is computed stays the same.
        dropout.byte_dropout = marked("[dropout]", dropout.byte_dropout)
        attention.draw_kept = marked("[dropout]", attention.draw_kept)
        attention.keep = marked("[dropout]", attention.keep)
        AttentionInterface.register(attention.ATTENTION, marked("[attention]", attention.attention))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the training step."""
        pl_module.training_step = marked("[training step]", pl_module.training_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start after the warm-up, stop after the ordered steps."""
        self.seen += 1
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if self.seen == WARMUP_STEPS:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self.profile = profile(activities=activities)
            self.profile.start()
            self.start = time.perf_counter()
        elif self.seen == WARMUP_STEPS + self.steps and self.profile is not None:
            seconds = time.perf_counter() - self.start
            self.profile.stop()
            Path(self.path).write_text(json.dumps(self.report(seconds)))
            self.profile = None

    def report(self, seconds: float) -> dict[str, Any]:
        """Shares of the wall clock.

        Args:
            seconds: Of the profiled steps, with the profiler's own work.
        """
        assert self.profile is not None
        groups, operations = group_times(self.profile.events(), torch.cuda.is_available())
        total = seconds * 1e6
        shares = {group: groups[group] / total for group in GROUPS}
        # The processor's time between operations is Python's; an accelerator idles then.
        shares["between operations"] = 1 - sum(shares.values())
        listed = [
            {"operation": name, "group": group, "share": spent / total}
            for (group, name), spent in operations.most_common(SHOWN)
        ]
        return {"shares": shares, "operations": listed, "seconds_per_step": seconds / self.steps}
