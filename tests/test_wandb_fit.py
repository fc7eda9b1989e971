"""`fit` with configs/logger/wandb.yaml, really offline, read back: config, metrics, learning rate, throughput."""

import os
from pathlib import Path

import yaml
from conftest import ROOT, fit_options, run_process
from wandb_reader import read_wandb

from yelp_lightning.run_folder import wandb_id

OVERLAY = "configs/logger/wandb.yaml"


def test_fit_logs_to_wandb(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = fit_options(tiny_bert, reviews, run)
    options += ["--trainer.logger.init_args.save_dir", tmp_path, "--trainer.log_every_n_steps", 5]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    process = run_process("fit", "--config", OVERLAY, *options, cwd=ROOT, env=environment)
    assert process.returncode == 0, process.stderr
    logged = read_wandb(tmp_path / "wandb")

    # The whole resolved config, as it stands in the run folder.
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"].items() <= logged["config"]["model"].items()
    assert config["data"].items() <= logged["config"]["data"].items()
    assert logged["config"]["trainer"]["max_epochs"] == 2
    assert logged["config"]["seed_everything"] == 42

    found = {name for row in logged["history"] for name in row}
    assert {"train/loss", "val/accuracy", "val/mae", "train/reviews_per_second", "train/tokens_per_second"} <= found
    (counts,) = [row for row in logged["history"] if "data/train_rows" in row]
    assert (counts["data/train_rows"], counts["data/val_rows"]) == (180, 20)
    assert (counts["data/train_refused"], counts["data/train_removed"]) == (0, 0)
    assert 0 < counts["data/train_truncated"] < 1
    assert any(name.startswith("lr-AdamW") for name in found)
    assert sum("val/accuracy" in row for row in logged["history"]) == 2
    # The csv log is kept all the same.
    assert (run / "csv" / "version_0" / "metrics.csv").is_file()


def test_a_run_that_goes_on_keeps_its_id(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--config", OVERLAY, *fit_options(tiny_bert, reviews, run)]
    options += ["--trainer.logger.init_args.save_dir", tmp_path]
    environment = {**os.environ, "WANDB_MODE": "offline"}

    def fit(*more: object) -> str:
        """The id of the W&B run that this writes, read back from its file."""
        before = set((tmp_path / "wandb").glob("offline-run-*"))
        process = run_process("fit", *options, *more, cwd=ROOT, env=environment)
        assert process.returncode == 0, process.stderr
        (folder,) = set((tmp_path / "wandb").glob("offline-run-*")) - before
        assert read_wandb(folder)["state"] == "finished"
        (file,) = folder.glob("*.wandb")
        return file.stem.removeprefix("run-")

    first = fit("--trainer.max_epochs", 1)
    assert (run / "wandb-id").read_text(encoding="utf-8") == first
    assert fit("--ckpt_path", "last") == first
    # Another folder is another run, which starts from this one's checkpoint.
    assert wandb_id(str(run), str(run / "last.ckpt")) == first
    assert wandb_id(str(tmp_path / "other"), str(run / "last.ckpt")) is None
