"""Optimizer groups against transformers', and the learning rate of each optimizer step of real trainings."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lightning.pytorch import Callback, Trainer, seed_everything

from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.modeling.optim import OptimizerOptions, adamw, parameter_groups
from yelp_lightning.pretrained import load_classifier

PEAK = 1e-3


def multiplier(step: int, warmup_steps: int, total_steps: int) -> float:
    """Devlin et al. 2019, appendix A.2: linear rise, then linear fall to 0."""
    if step < warmup_steps:
        return step / warmup_steps
    return (total_steps - step) / (total_steps - warmup_steps)


class Rates(Callback):
    """Keeps the learning rate that each optimizer step uses."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, model: StarClassifier, optimizer: Any) -> None:
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == second
        self.rates.append(first)


def train(tiny_bert: Path, reviews: Path, folder: Path, warmup_ratio: float, **options: Any) -> tuple[Rates, Trainer]:
    seed_everything(0, verbose=False)
    rates = Rates()
    model = StarClassifier(str(tiny_bert), learning_rate=PEAK, warmup_ratio=warmup_ratio)
    # 60 - 4 = 56 reviews, 8 a batch: 7 batches an epoch.
    data = ReviewDataModule(
        str(tiny_bert), source=str(reviews), max_length=16, train_size=56, val_size=4, cache_dir=str(folder / "cache")
    )
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder, num_sanity_val_steps=0,
        callbacks=[rates], **options,
    )  # fmt: skip
    trainer.fit(model, data)
    return rates, trainer


def test_groups_equal_those_of_transformers(tiny_bert: Path) -> None:
    model = load_classifier(str(tiny_bert), 5)
    decayed = set(transformers.Trainer.get_decay_parameter_names(None, model))
    decay, rest = parameter_groups(model, OptimizerOptions(PEAK, weight_decay=0.03))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in decay["params"]} == decayed
    assert {names[id(parameter)] for parameter in rest["params"]} == set(names.values()) - decayed
    assert "classifier.weight" in decayed
    assert "bert.embeddings.LayerNorm.weight" not in decayed
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.03, 0)
    assert len(decay["params"]) + len(rest["params"]) == len(names)


def test_frozen_parameters_are_left_out(tiny_bert: Path) -> None:
    model = load_classifier(str(tiny_bert), 5)
    model.base_model.requires_grad_(False)
    decay, rest = parameter_groups(model, OptimizerOptions(PEAK, weight_decay=0.01))
    assert [parameter is model.classifier.weight for parameter in decay["params"]] == [True]
    assert [parameter is model.classifier.bias for parameter in rest["params"]] == [True]


def test_one_step_equals_transformers_trainers_adamw(tiny_bert: Path, tmp_path: Path) -> None:
    """Same weights, same gradients: our optimizer and the one that transformers.Trainer builds move alike."""
    results = []
    for ours in (True, False):
        model = load_classifier(str(tiny_bert), 5)
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(len(name))
            parameter.data = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        if ours:
            optimizer, _ = adamw(model, OptimizerOptions(PEAK, weight_decay=0.1), 10)
        else:
            arguments = transformers.TrainingArguments(
                str(tmp_path), learning_rate=PEAK, weight_decay=0.1, report_to=[], use_cpu=True
            )
            optimizer = transformers.Trainer(model, arguments).create_optimizer()
        for _ in range(3):
            optimizer.step()
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*results, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("warmup_ratio", "total_steps", "warmup_steps"),
    [(0, 1, 0), (0, 7, 0), (0.1, 1, 0), (0.1, 7, 1), (0.1, 100, 10), (0.5, 7, 4), (0.5, 100, 50), (1, 1, 1), (1, 7, 7)],
)
def test_rates_equal_the_closed_formula(warmup_ratio: float, total_steps: int, warmup_steps: int) -> None:
    options = OptimizerOptions(PEAK, weight_decay=0.01, warmup_ratio=warmup_ratio)
    optimizer, schedule = adamw(torch.nn.Linear(2, 2), options, total_steps)
    for step in range(total_steps):
        expected = PEAK * multiplier(step, warmup_steps, total_steps)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9), step
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0


def test_without_warmup_the_first_step_has_the_peak(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    rates, trainer = train(tiny_bert, reviews, tmp_path, 0.0, max_steps=3)
    assert rates.rates == pytest.approx([PEAK, PEAK * 2 / 3, PEAK / 3])
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_schedule_ends_at_0_with_accumulation(tiny_bert: Path, reviews: Path, tmp_path: Path, accumulate: int) -> None:
    options = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    rates, trainer = train(tiny_bert, reviews, tmp_path, 0.25, **options)
    # 7 batches an epoch; the last step of an epoch takes what is left: ceil(7 / 2) = 4.
    total_steps = {1: 14, 2: 8}[accumulate]
    warmup_steps = {1: 4, 2: 2}[accumulate]  # round(0.25 * 14) = round(3.5) = 4
    assert trainer.global_step == total_steps
    expected = [PEAK * multiplier(step, warmup_steps, total_steps) for step in range(total_steps)]
    assert rates.rates == pytest.approx(expected)
    assert max(rates.rates) == pytest.approx(PEAK)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0
