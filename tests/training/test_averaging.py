"""The mean of the best checkpoints, and Lightning's moving average, in real runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, fit_options, run_process

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.training.averaging import TopCheckpoints, mean_weights


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
    # It goes on, to a validation that is worse, and has no other to be averaged with.
    best = (run / "best.ckpt").read_bytes()
    options = ["--ckpt_path", "last", "--trainer.max_epochs", 5, "--model.learning_rate", 1]
    cli("fit", "--config", run / "config.yaml", *options)
    assert (run / "best.ckpt").read_bytes() == best
    assert not (run / "top").exists()
    (watched,) = (
        state for name, state in read_checkpoint(run / "last.ckpt")["callbacks"].items() if "TopCheckpoints" in name
    )
    assert [float(score) > metrics["val/loss"] for score in watched["best_k_models"].values()] == [True]


def test_only_what_is_there_is_averaged(tmp_path: Path) -> None:
    before = TopCheckpoints("elsewhere", "val/loss", 4)
    scores = {"step=1.ckpt": 0.9, "step=2.ckpt": 0.4, "step=3.ckpt": 0.5, "step=4.ckpt": 0.3}
    before.best_k_models = {f"{before.dirpath}/{name}": torch.tensor(score) for name, score in scores.items()}
    (tmp_path / "top").mkdir()
    for name in ("step=1.ckpt", "step=2.ckpt", "step=3.ckpt"):
        (tmp_path / "top" / name).touch()
    for count, names in ((2, {"step=2.ckpt", "step=3.ckpt"}), (5, {"step=1.ckpt", "step=2.ckpt", "step=3.ckpt"})):
        after = TopCheckpoints(str(tmp_path), "val/loss", count)
        after.load_state_dict(before.state_dict())
        assert after.best_k_models == {str(tmp_path / "top" / name): torch.tensor(scores[name]) for name in names}
        assert after.best_model_path == str(tmp_path / "top" / "step=2.ckpt")
        assert after.kth_best_model_path == (str(tmp_path / "top" / "step=3.ckpt") if count == 2 else "")


def test_averages_that_exclude_each_other(fit_refused: Callable[..., str]) -> None:
    ema = ["--config", ROOT / "configs" / "averaging" / "ema.yaml"]
    assert fit_refused(*ema, "--checkpoint.average_best", 3) == (
        "`--checkpoint.average_best` is 3, but EMAWeightAveraging in --trainer.callbacks averages the weights already: "
        "give one of them."
    )
    assert fit_refused(*ema, "--model.lora.r", 4) == (
        "`--trainer.callbacks` has EMAWeightAveraging, which keeps whole models, but with --model.lora checkpoints "
        "hold the adapters alone: leave one of them out, or average by --checkpoint.average_best."
    )
    assert fit_refused("--trainer.strategy", "fsdp", "--checkpoint.average_best", 3) == (
        "`--checkpoint.average_best` is 3, but --trainer.strategy fsdp cannot load the mean: give --trainer.strategy "
        "model_parallel, which shares out weights as well, or leave the option out."
    )


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
