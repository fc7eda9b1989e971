"""`fit` with configs/logger/wandb.yaml, really offline, read back: config, metrics, tables, artifacts, and no more."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, fit_options, review, run_process
from test_ddp import TWO
from wandb_reader import read_wandb

from yelp_lightning.run_folder import wandb_id
from yelp_lightning.training.keeping import DIRECTIONS

OVERLAY = "configs/logger/wandb.yaml"
TEXTS = {str(review(number)["text"]) for number in range(200)}
TABLES = {"val/confusion_matrix_table", "val/reliability_table", "val/errors"}


def fit(folder: Path, *options: object) -> None:
    """Train into ``folder/run``, logged to ``folder/wandb``; whatever wandb keeps elsewhere goes to ``folder/home``."""
    (folder / "home").mkdir(exist_ok=True)
    environment = {**os.environ, "WANDB_MODE": "offline", "HOME": str(folder / "home")}
    logged = ["--trainer.logger.init_args.save_dir", folder, "--trainer.log_every_n_steps", 5]
    process = run_process("fit", "--config", OVERLAY, *options, *logged, cwd=ROOT, env=environment)
    assert process.returncode == 0, process.stderr


def texts_in(folder: Path) -> set[str]:
    """The training and validation texts that stand anywhere in the files of a folder."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {text for text in TEXTS if any(text.encode() in content for content in contents)}


@pytest.fixture(scope="module")
def plain(tiny_bert: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with the overlay as it is. Not to be written to."""
    folder = tmp_path_factory.mktemp("plain")
    fit(folder, *fit_options(tiny_bert, reviews, folder / "run"))
    return folder


@pytest.fixture(scope="module")
def asked(tiny_bert: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by two processes that asks for texts and for the model. Not to be written to."""
    folder = tmp_path_factory.mktemp("asked")
    wanted = ["--trainer.logger.init_args.log_text", "true", "--trainer.logger.init_args.log_model", "true"]
    fit(folder, *fit_options(tiny_bert, reviews, folder / "run"), *TWO, *wanted)
    return folder


@pytest.fixture(scope="module")
def logged(plain: Path) -> dict[str, Any]:
    return read_wandb(plain / "wandb")


def test_config_and_curves(plain: Path, logged: dict[str, Any]) -> None:
    # The whole resolved config, as it stands in the run folder.
    config = yaml.safe_load((plain / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"].items() <= logged["config"]["model"].items()
    assert config["data"].items() <= logged["config"]["data"].items()
    assert logged["config"]["trainer"]["max_epochs"] == 2
    assert logged["config"]["seed_everything"] == 42

    found = {name for row in logged["history"] for name in row}
    assert {
        "train/loss", "train/accuracy", "train/grad_norm", "train/reviews_per_second", "train/tokens_per_second",
        "train/padding_efficiency", "val/loss", "val/accuracy", "val/mae",
    } <= found  # fmt: skip
    (counts,) = [row for row in logged["history"] if "data/train_rows" in row]
    assert (counts["data/train_rows"], counts["data/val_rows"]) == (180, 20)
    assert (counts["data/train_refused"], counts["data/train_removed"]) == (0, 0)
    assert 0 < counts["data/train_truncated"] < 1
    assert any(name.startswith("lr-AdamW") for name in found)
    assert sum("val/accuracy" in row for row in logged["history"]) == 2
    # The csv log is kept all the same, and has the same values.
    with (plain / "run" / "csv" / "version_0" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for key in ("train/loss", "train/grad_norm", "val/accuracy"):
        values = [row[key] for row in logged["history"] if key in row]
        assert values
        assert values == pytest.approx([float(row[key]) for row in rows if row[key]], rel=1e-6)


def test_summary_has_the_best_in_the_right_direction(logged: dict[str, Any]) -> None:
    found = {key.replace("train/", "val/") for key in logged["summary"]}
    assert {"val/loss", "val/accuracy", "val/mae", "val/ece", "val/qwk"} <= found & set(DIRECTIONS)
    assert {"val/loss_calibrated", "val/mae_expected"} <= found
    for name, best in DIRECTIONS.items():
        for key in (name, name.replace("val/", "train/")):
            values = [row[key] for row in logged["history"] if key in row]
            if values:
                expected = {best: {"min": min, "max": max}[best](values), "last": values[-1]}
                assert logged["summary"][key] == pytest.approx(expected), key


def test_tables_of_each_validation(plain: Path, logged: dict[str, Any]) -> None:
    tables, steps = logged["tables"], [23, 46]
    assert set(tables) == TABLES
    assert all(list(tables[key]) == steps for key in TABLES), "none of the sanity check, one a validation"
    metrics = json.loads((plain / "run" / "metrics.json").read_text(encoding="utf-8"))
    accuracies = [row["val/accuracy"] for row in logged["history"] if "val/accuracy" in row]
    validation = [review(number) for number in range(200)]
    wrong_somewhere = False
    for step, accuracy in zip(steps, accuracies, strict=True):
        cells = tables["val/confusion_matrix_table"][step]["data"]
        matrix = [[count for _, _, count in cells[start : start + 5]] for start in range(0, 25, 5)]
        assert [cells[1][:2], cells[5][:2]] == [["1 star", "2 stars"], ["2 stars", "1 star"]]
        right = sum(matrix[label][label] for label in range(5))
        assert (sum(map(sum, matrix)), right / 20) == (20, pytest.approx(accuracy))
        if accuracy == metrics["val/accuracy"] and accuracy != accuracies[0]:
            assert matrix == metrics["val/confusion_matrix"]

        lines = tables["val/reliability_table"][step]["data"]
        for line in ("uncalibrated", "calibrated"):
            bins = [row[1:] for row in lines if row[0] == line]
            assert sum(count for *_, count in bins) == 20
            assert sum(accuracy * count for _, accuracy, count in bins) == pytest.approx(right)
        # The calibration error is the mean distance of the uncalibrated line from the perfect one.
        ece = [row["val/ece"] for row in logged["history"] if "val/ece" in row][steps.index(step)]
        distances = sum(count * abs(one - other) for line, one, other, count in lines if line == "uncalibrated")
        assert distances / 20 == pytest.approx(ece, abs=1e-6)

        errors = tables["val/errors"][step]
        assert errors["columns"] == ["row", "place", "actual", "predicted", "probability"]
        assert len(errors["data"]) == 20 - right
        probabilities = [row[-1] for row in errors["data"]]
        assert probabilities == sorted(probabilities, reverse=True)
        for _, place, actual, predicted, _ in errors["data"]:
            line = int(place.removeprefix("line ").removesuffix(" of train.jsonl"))
            assert f"{validation[line - 1]['label'] + 1} star" in actual
            assert actual != predicted
            wrong_somewhere = True
    assert wrong_somewhere


def test_nothing_is_logged_that_was_not_asked_for(plain: Path, logged: dict[str, Any]) -> None:
    assert texts_in(plain / "wandb") | texts_in(plain / "home") == set()
    assert logged["artifacts"] == []


def test_a_run_that_is_only_tried_out_logs_nothing(
    cli: Callable[..., None], tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    options = ["--trainer.logger.init_args.save_dir", tmp_path, "--trainer.fast_dev_run", "true"]
    cli("fit", "--config", ROOT / OVERLAY, *fit_options(tiny_bert, reviews, tmp_path / "run"), *options)
    assert not (tmp_path / "wandb").exists()


def test_texts_and_the_model_where_they_are_asked_for(asked: Path) -> None:
    logged = read_wandb(asked / "wandb")
    shown = [row for table in logged["tables"]["val/errors"].values() for row in table["data"]]
    assert shown
    assert {row[-1] for row in shown} <= TEXTS
    for _, place, *_, text in shown:
        assert text == review(int(place.split()[1]) - 1)["text"]
    assert texts_in(asked / "wandb") == {row[-1] for row in shown}, "no others"

    (artifact,) = logged["artifacts"]
    metrics = json.loads((asked / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert (artifact["type"], set(artifact["aliases"])) == ("model", {"best", "latest"})
    assert json.loads(artifact["metadata"]) == metrics
    kept = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
    model = {path.relative_to(asked / "run").as_posix(): path for path in (asked / "run" / "model").rglob("*.*")}
    assert set(kept) == {"metrics.json", *model}
    assert all(kept[name].read_bytes() == path.read_bytes() for name, path in model.items())


def test_one_of_two_processes_writes(asked: Path) -> None:
    (folder,) = (asked / "wandb").glob("*run-*")
    logged = read_wandb(folder)
    # Of all rows of both processes, once.
    for table in logged["tables"]["val/confusion_matrix_table"].values():
        assert sum(count for *_, count in table["data"]) == 20
    assert sum("val/accuracy" in row for row in logged["history"]) == 2


def test_a_run_that_goes_on_keeps_its_id_and_its_line(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = fit_options(tiny_bert, reviews, run)

    def go(*more: object) -> tuple[str, list[int]]:
        """The id of the W&B run that this writes, read back from its file, and the steps of its losses."""
        before = set((tmp_path / "wandb").glob("offline-run-*"))
        fit(tmp_path, *options, *more)
        (folder,) = set((tmp_path / "wandb").glob("offline-run-*")) - before
        logged = read_wandb(folder)
        assert logged["state"] == "finished"
        (file,) = folder.glob("*.wandb")
        steps = [row["trainer/global_step"] for row in logged["history"] if "train/loss" in row]
        return file.stem.removeprefix("run-"), steps

    first, steps = go("--trainer.max_epochs", 1)
    assert (run / "wandb-id").read_text(encoding="utf-8") == first
    again, more_steps = go("--ckpt_path", "last")
    assert again == first
    assert steps + more_steps == list(range(4, 46, 5))
    # Another folder is another run, which starts from this one's checkpoint.
    assert wandb_id(str(run), str(run / "last.ckpt")) == first
    assert wandb_id(str(tmp_path / "other"), str(run / "last.ckpt")) is None
