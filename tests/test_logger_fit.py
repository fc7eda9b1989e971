"""`fit` with the other loggers of configs/logger/, read back: the curves and the config stand in each."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, fit_options
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CURVES = {
    "train/loss", "train/accuracy", "train/grad_norm", "train/reviews_per_second", "train/tokens_per_second",
    "train/padding_efficiency", "val/loss", "val/accuracy", "val/mae", "lr-AdamW/pg1", "data/train_rows",
}  # fmt: skip


@pytest.fixture
def metrics(
    request: pytest.FixtureRequest, cli: Callable[..., None], tiny_bert: Path, reviews: Path, tmp_path: Path
) -> Path:
    """The csv log in the run folder of a `fit` with an overlay, whose own folder is ``tmp_path/logs``."""
    overlay, run = ROOT / "configs" / "logger" / f"{request.param}.yaml", tmp_path / "run"
    logs = ["--trainer.logger.init_args.save_dir", tmp_path / "logs", "--trainer.log_every_n_steps", 5]
    cli("fit", "--config", overlay, *fit_options(tiny_bert, reviews, run), *logs)
    return run / "csv" / "version_0" / "metrics.csv"


def read_csv(path: Path) -> dict[str, dict[int, float]]:
    """The curves of a csv log, each step to value."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {key: {int(row["step"]): float(row[key]) for row in rows if row[key]} for key in rows[0] if key != "step"}


@pytest.mark.parametrize("metrics", ["tensorboard"], indirect=True)
def test_tensorboard(metrics: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "tensorboard" / "version_0"
    events = EventAccumulator(str(folder))
    events.Reload()
    curves = {key: {event.step: event.value for event in events.Scalars(key)} for key in events.Tags()["scalars"]}
    assert set(curves) >= CURVES
    for key, curve in read_csv(metrics).items():
        assert curves[key] == pytest.approx(curve, rel=1e-6), key
    config = yaml.safe_load((metrics.parents[2] / "config.yaml").read_text(encoding="utf-8"))
    kept = yaml.safe_load((folder / "hparams.yaml").read_text(encoding="utf-8"))  # no objects of Python's
    assert kept["model"].items() >= config["model"].items()
    assert kept["data"].items() >= config["data"].items()


@pytest.mark.parametrize("metrics", ["csv"], indirect=True)
def test_csv(metrics: Path, tmp_path: Path) -> None:
    curves = read_csv(tmp_path / "logs" / "csv" / "version_0" / "metrics.csv")
    assert set(curves) >= CURVES
    assert curves == read_csv(metrics)
