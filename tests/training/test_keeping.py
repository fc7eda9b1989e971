"""Which validation is the best, by any metric in its right direction, and when a run stops early."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import fit_options
from lightning.pytorch import Trainer

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.errors import UsageError
from yelp_lightning.modeling.calibration import fit_temperature
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.modeling.metrics import Measured, StarMetrics
from yelp_lightning.modeling.rounding import rounding_errors
from yelp_lightning.run_folder import BestCheckpoint
from yelp_lightning.training.keeping import DIRECTIONS, ORDERED, StopEarly, check_monitor, direction, require_score


def validations(run: Path, metric: str) -> list[float]:
    values = []
    for path in sorted((run / "csv").glob("version_*/metrics.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            values += [float(row[metric]) for row in csv.DictReader(file) if row.get(metric)]
    return values


def best(run: Path) -> dict[str, object]:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("ordered", [True, False])
def test_every_metric_that_is_measured_can_be_watched(
    tiny_bert: Path, reviews: Path, tmp_path: Path, ordered: bool
) -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    data = ReviewDataModule(str(tiny_bert), source=str(reviews), val_size=20, cache_dir=str(tmp_path / "cache"))
    model = StarClassifier(str(tiny_bert), ordered=ordered)
    (found,) = trainer.validate(model, data, verbose=False)
    measured = set(found) - {"val/temperature"}  # which is neither good nor bad
    assert measured == {key for key in DIRECTIONS if key != "val/perplexity" and (ordered or key not in ORDERED)}
    for key in measured:
        check_monitor(key, ordered)


def test_direction_is_that_of_the_better_predictions() -> None:
    labels = torch.arange(5).repeat(20)
    right = 9.0 * torch.eye(5)[labels]
    wrong = right.roll(2, dims=1)
    values = []
    for logits in (right, wrong):
        metrics = StarMetrics(5)
        metrics.update(torch.nn.functional.cross_entropy(logits, labels), logits, labels)
        rows, truth = logits.numpy(), labels.numpy()
        measured = Measured(rows, truth, np.arange(100), fit_temperature(rows, truth))
        calibrated = {f"{name}_calibrated": value for name, value in measured.calibration().items()}
        values.append(metrics.compute()[0] | calibrated | rounding_errors(measured.probabilities, truth))
    for key in set(DIRECTIONS) - {"val/perplexity"}:  # which is exp(val/loss) of masked words
        good, bad = (value[key.removeprefix("val/")] for value in values)
        assert good != bad, key
        assert (good > bad) == (direction(key) == "max"), key


def test_the_best_by_mae_is_the_least(
    cli: Callable[..., None],
    refused: Callable[..., str],
    tiny_bert: Path,
    reviews: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "by_mae"
    options = [*fit_options(tiny_bert, reviews, run), "--trainer.max_epochs", 4]
    # A learning rate this high makes some epochs worse than the one before.
    options += ["--model.learning_rate", 5e-2]
    cli("fit", *options, "--checkpoint.monitor", "val/mae")
    values = validations(run, "val/mae")
    assert len(values) == 4
    assert len(set(values)) > 1
    assert best(run)["val/mae"] == pytest.approx(min(values), abs=1e-6)
    assert f"best validation, by val/mae {min(values):.3f}" in capfd.readouterr().out

    # A run that goes on is compared by the metric that it was: by itself, or by its config.
    sentence = refused("fit", *options, "--ckpt_path", "last", "--checkpoint.monitor", "val/accuracy")
    assert sentence.startswith(
        f"`checkpoint.monitor` is 'val/accuracy', but {run}/last.ckpt was trained with 'val/mae'"
    )
    cli("fit", *options, "--ckpt_path", "last", "--trainer.max_epochs", 5)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["checkpoint"]["monitor"] == "val/mae"
    assert best(run)["val/mae"] == pytest.approx(min(validations(run, "val/mae")), abs=1e-6)


def test_early_stopping_waits_and_can_go_on(
    cli: Callable[..., None], tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    # Nothing is learned at this rate: no validation is better than the first.
    options = [*fit_options(tiny_bert, reviews, run), "--trainer.max_epochs", 9, "--model.learning_rate", 1e-30]
    options += ["--trainer.limit_train_batches", 4, "--trainer.val_check_interval", 2]
    cli("fit", *options, "--checkpoint.monitor", "val/loss", "--checkpoint.patience", 3)
    assert len(validations(run, "val/loss")) == 4  # validations, of which an epoch has two
    assert read_checkpoint(run / "last.ckpt")["global_step"] == 8
    # More patience is what was typed, not what the checkpoint had.
    cli("fit", *options, "--ckpt_path", "last", "--checkpoint.patience", 5)
    assert len(validations(run, "val/loss")) == 6


def test_what_is_not_measured_is_refused(fit_refused: Callable[..., str]) -> None:
    allowed = (
        "val/accuracy, val/macro_f1, val/mae, val/mae_median, val/mae_expected, val/mae_rounded, val/within_1, "
        "val/qwk, val/ece, val/ece_calibrated, val/loss, val/loss_calibrated"
    )
    must = "but must be what validations measure: give one of"
    for typed, meant in {
        "val/acuracy": "val/accuracy", "accuracy": "val/accuracy", "train/loss": "val/loss", "test/mae": "val/mae",
    }.items():  # fmt: skip
        sentence = fit_refused("--checkpoint.monitor", typed)
        assert sentence == f"`checkpoint.monitor` is {typed!r}, {must} {allowed} (did you mean {meant!r}?)."
    assert fit_refused("--checkpoint.monitor", "val/mae", "--model.ordered", "false") == (
        "`checkpoint.monitor` is 'val/mae', but `model.ordered` is false, and only ordered classes have that: "
        "give one of val/accuracy, val/macro_f1, val/ece, val/ece_calibrated, val/loss, val/loss_calibrated."
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("monitor", ["val/qwk", "val/loss"])
def test_a_metric_that_is_no_number_is_never_the_best(tmp_path: Path, monitor: str, value: float) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    callback = BestCheckpoint(str(tmp_path), monitor, direction(monitor))
    assert not callback.check_monitor_top_k(trainer, torch.tensor(value))
    assert callback.check_monitor_top_k(trainer, torch.tensor(0.5))
    with pytest.raises(UsageError, match=f"`checkpoint.monitor` is '{monitor}', which is {value} on these"):
        require_score(monitor, value)


def test_an_undefined_metric_leaves_no_best(
    cli: Callable[..., None], refused: Callable[..., str], tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    # Validation rows of one class: the untrained model gives them all one class too or not, so a model that was
    # trained on that class alone.
    source = tmp_path / "source"
    source.mkdir()
    lines = (reviews / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    ones = [line for line in lines if '"label": 3' in line]
    (source / "train.jsonl").write_text("".join(ones[:30]), encoding="utf-8")
    (source / "validation.jsonl").write_text("".join(ones[30:]), encoding="utf-8")
    options = [*fit_options(tiny_bert, source, tmp_path / "run"), "--data.val_size", "null"]
    sentence = refused("fit", *options, "--checkpoint.monitor", "val/qwk")
    assert sentence == (
        "`checkpoint.monitor` is 'val/qwk', which is nan on these validation rows, so that no validation is the best: "
        "watch another metric in a new run."
    )
    assert not (tmp_path / "run" / "best.ckpt").exists()
    shutil.rmtree(tmp_path / "run")
    cli("fit", *options, "--checkpoint.monitor", "val/mae")
    assert best(tmp_path / "run")["val/qwk"] is None


def test_patience_of_the_checkpoint_does_not_win() -> None:
    old, new = StopEarly("val/loss", 2), StopEarly("val/loss", 7)
    old.best_score, old.wait_count = torch.tensor(0.25), 2
    new.load_state_dict(old.state_dict())
    assert (new.patience, new.wait_count, float(new.best_score)) == (7, 2, 0.25)
