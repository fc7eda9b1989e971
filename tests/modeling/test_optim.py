"""Optimizer groups against transformers', and the learning rate of each optimizer step of real trainings."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lightning.pytorch import Callback, Trainer, seed_everything

from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.modeling.optim import OptimizerOptions, Schedule, adamw, parameter_groups
from yelp_lightning.network.pooling import Pooling
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
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        self.rates.append(rate)


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


def rates_of_steps(tiny_bert: Path, options: OptimizerOptions, total_steps: int, group: int = 0) -> list[float]:
    """A group's learning rate at each of that many optimizer steps, and after the last."""
    optimizer, schedule = adamw(load_classifier(str(tiny_bert), 5), options, total_steps)
    rates = []
    for _ in range(total_steps):
        rates.append(optimizer.param_groups[group]["lr"])
        optimizer.step()
        schedule.step()
    return [*rates, optimizer.param_groups[group]["lr"]]


def test_groups_equal_those_of_transformers(tiny_bert: Path) -> None:
    model = load_classifier(str(tiny_bert), 5)
    decayed = set(transformers.Trainer.get_decay_parameter_names(None, model))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, OptimizerOptions(PEAK, weight_decay=0.03))
    found = [{names[id(parameter)] for parameter in group["params"]} for group in groups]
    assert [group["weight_decay"] for group in groups] == [0.03, 0, 0.03, 0]
    assert found[0] | found[2] == decayed
    assert found[1] | found[3] == set(names.values()) - decayed
    assert sum(map(len, found)) == len(names)
    assert found[0] == {"classifier.weight", "bert.pooler.dense.weight"}
    assert "bert.embeddings.LayerNorm.weight" in found[3]

    # What FSDP1 leaves of a model: the same parameters, of one dimension, most of them without an element here.
    for parameter in model.parameters():
        parameter.data = parameter.data.flatten()[:0]
    groups = parameter_groups(model, OptimizerOptions(PEAK, weight_decay=0.03))
    assert [{names[id(parameter)] for parameter in group["params"]} for group in groups] == found


def test_groups_do_not_depend_on_values(tiny_bert: Path) -> None:
    model = load_classifier(str(tiny_bert), 5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def grouped(**options: float) -> list[list[str]]:
        groups = parameter_groups(model, OptimizerOptions(PEAK, **options))
        return [[names[id(parameter)] for parameter in group["params"]] for group in groups]

    assert grouped() == grouped(weight_decay=0.1) == grouped(head_learning_rate=PEAK) == grouped(head_learning_rate=1)
    assert grouped(layer_decay=0.9) == grouped(layer_decay=0.5, weight_decay=0.1, head_learning_rate=1)
    assert grouped(layer_decay=0.9) != grouped()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_rates_of_head_and_layers(tiny_bert: Path, pooling: Pooling) -> None:
    model = load_classifier(str(tiny_bert), 5, pooling=pooling)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    options = OptimizerOptions(PEAK, head_learning_rate=0.02, layer_decay=0.5)
    rates = {
        names[id(parameter)]: group["lr"] for group in parameter_groups(model, options) for parameter in group["params"]
    }
    # Howard and Ruder 2018: each layer has half the rate of the one above it.
    expected = {"layer.1.": PEAK, "layer.0.": PEAK / 2, "embeddings.": PEAK / 4, "pooler.": 0.02, "classifier.": 0.02}
    assert set(rates) == set(names.values())
    for name, rate in rates.items():
        (own,) = [value for part, value in expected.items() if part in name]
        assert rate == pytest.approx(own), name


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
def test_rates_equal_the_closed_formula(
    tiny_bert: Path, warmup_ratio: float, total_steps: int, warmup_steps: int
) -> None:
    rates = rates_of_steps(tiny_bert, OptimizerOptions(PEAK, warmup_ratio=warmup_ratio), total_steps)
    expected = [PEAK * multiplier(step, warmup_steps, total_steps) for step in range(total_steps)]
    assert rates == pytest.approx([*expected, 0], rel=1e-9)


@pytest.mark.parametrize(
    ("schedule", "multipliers"),
    [
        # 20 steps, 4 of warm-up: a quarter, half and three quarters of the fall of 16 are at steps 8, 12 and 16.
        ("linear", {0: 0, 1: 0.25, 4: 1, 8: 0.75, 12: 0.5, 16: 0.25, 20: 0}),
        ("cosine", {0: 0, 1: 0.25, 4: 1, 8: (1 + 0.5**0.5) / 2, 12: 0.5, 16: (1 - 0.5**0.5) / 2, 20: 0}),
        ("constant", {0: 0, 1: 0.25, 4: 1, 8: 1, 12: 1, 16: 1, 20: 1}),
        # Half a cosine over the last fifth: 4 steps.
        (
            "warmup_stable_decay",
            {0: 0, 1: 0.25, 4: 1, 12: 1, 16: 1, 17: (1 + 0.5**0.5) / 2, 18: 0.5, 19: (1 - 0.5**0.5) / 2, 20: 0},
        ),
    ],
)
def test_schedules_by_hand(tiny_bert: Path, schedule: Schedule, multipliers: dict[int, float]) -> None:
    options = OptimizerOptions(PEAK, head_learning_rate=0.02, warmup_ratio=0.2, schedule=schedule)
    for group, peak in ((0, 0.02), (-1, PEAK)):
        rates = rates_of_steps(tiny_bert, options, 20, group)
        for step, expected in multipliers.items():
            assert rates[step] == pytest.approx(peak * expected, abs=1e-12), step


def test_warmup_leaves_less_to_fall(tiny_bert: Path) -> None:
    # 9 of 10 steps of warm-up: one is left of the two of the fall.
    options = OptimizerOptions(PEAK, warmup_ratio=0.9, schedule="warmup_stable_decay")
    rates = rates_of_steps(tiny_bert, options, 10)
    assert rates == pytest.approx([PEAK * step / 9 for step in range(10)] + [0])


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
