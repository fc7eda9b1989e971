"""The norm of the gradients: that of all of them together, before clipping, unscaled, where a step is logged."""

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from yelp_lightning.training.gradients import GradientNorm


class Model(BoringModel):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Reference(Callback):
    """The same norm, worked out element by element at the end of each step's backward pass."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.norms: list[float] = []

    def on_after_backward(self, trainer: Trainer, pl_module: BoringModel) -> None:
        values = [value for parameter in pl_module.parameters() for value in parameter.grad.flatten().tolist()]
        self.norms.append(sum((value / self.scale) ** 2 for value in values) ** 0.5)


@pytest.mark.parametrize("scaled", [False, True])
def test_norm_before_clipping(tmp_path: Path, scaled: bool) -> None:
    plugins, scale = [], 1.0
    if scaled:
        scale = 1024.0
        plugins = [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))]
    reference = Reference(scale)
    Trainer(
        callbacks=[GradientNorm(), reference],
        logger=CSVLogger(tmp_path, name="csv"),
        plugins=plugins,
        max_steps=6,
        log_every_n_steps=2,
        gradient_clip_val=1e-3,
        limit_val_batches=0,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Model())
    with (tmp_path / "csv" / "version_0" / "metrics.csv").open(encoding="utf-8") as file:
        logged = {int(row["step"]): float(row["train/grad_norm"]) for row in csv.DictReader(file)}
    assert len(reference.norms) == 6
    # The first step has number 0.
    assert logged == pytest.approx({step: reference.norms[step] for step in (1, 3, 5)}, rel=1e-5)
    assert min(logged.values()) > 1e-2
