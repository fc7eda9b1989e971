"""The mean of the best checkpoints, and Lightning's moving average, in real runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, fit_options, run_process

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.training.averaging import mean_weights


def test_mean_weights() -> None:
    states = [
        {"a": torch.tensor([1.0, 3.0]), "n": torch.tensor(7)},
        {"a": torch.tensor([2.0, 5.0]), "n": torch.tensor(9)},
    ]
    found = mean_weights(states)
    assert found["a"].tolist() == [1.5, 4.0]
    assert found["n"] == 7


def test_the_mean_is_kept_where_it_is_better(
    cli: Callable[..., None], tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = run_process(
        "fit", *fit_options(tiny_bert, reviews, run), "--checkpoint.average_best", 3, "--trainer.max_epochs", 4,
        "--checkpoint.monitor", "val/loss", "--model.learning_rate", 2e-3, cwd=ROOT,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    said = next(line for line in process.stderr.splitlines() if line.startswith("The mean of the 3 best"))
    after, before = (float(said.split(word)[1].split(",")[0].split(":")[0]) for word in ("val/loss ", "alone "))
    assert said.endswith("is kept as the best" if after < before else "is not better and not kept")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["val/loss"] == pytest.approx(min(after, before), abs=1e-4)
    assert not (run / "top").exists()
    # What is kept measures what was said of it.
    cli("validate", "--ckpt_path", run, "--trainer.default_root_dir", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "metrics.json").read_text(encoding="utf-8"))
    assert again["val/loss"] == pytest.approx(metrics["val/loss"], abs=1e-6)


def test_moving_average_is_what_is_kept(
    cli: Callable[..., None], tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ema = ROOT / "configs" / "averaging" / "ema.yaml"
    cli("fit", *fit_options(tiny_bert, reviews, run), "--config", ema)
    checkpoint = read_checkpoint(run / "last.ckpt")
    name = "model.classifier.weight"
    assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    cli("validate", "--ckpt_path", run, "--trainer.default_root_dir", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "metrics.json").read_text(encoding="utf-8"))
    assert again["val/loss"] == pytest.approx(metrics["val/loss"], abs=1e-6)
