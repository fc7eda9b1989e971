"""Two real processes over gloo: fit, test and predict give what one device gives, to the last row."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, fit_options, review, run_process, write_jsonl

TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp"]


def run(*arguments: object) -> None:
    process = run_process(*arguments, cwd=ROOT)
    assert process.returncode == 0, process.stderr


def test_fit_on_two_processes(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    # 180 training rows / (2 devices x 8) = 11.25: 12 steps, the last one short. 20 validation rows.
    run("fit", *fit_options(tiny_bert, reviews, tmp_path / "run"), *TWO, "--trainer.max_epochs", 5)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["val/n"] == 20
    assert metrics["val/accuracy"] >= 0.5  # 0.7 to 1.0 with four seeds; guessing has 0.2
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"best.ckpt", "last.ckpt", "model", "config.yaml"}


def test_masked_words_of_two_processes(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{"label": 0, "text": f"the soup was okay and plain day {number}"} for number in range(300)]
    fit = fit_options(tiny_bert, write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "run")
    fit += ["--data.val_size", 200, "--trainer.max_epochs", 1, "--trainer.limit_train_batches", 1]
    run("fit", *fit, *TWO, "--task", "masked_words")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    # 15 % of all words are hidden, drawn with a fixed seed; one of the two processes has half of them.
    words = metrics["data"]["val"]["tokens"] - 2 * 200  # [CLS] and [SEP]
    assert metrics["val/n"] == pytest.approx(0.15 * words, rel=0.1)
    low, high = metrics["val/accuracy_interval"]
    assert low <= metrics["val/accuracy"] <= high


@pytest.mark.parametrize("rows", [1001])
def test_metrics_and_predictions_equal_those_of_one_device(trained: Path, tmp_path: Path, rows: int) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [review(number) for number in range(5000, 5000 + rows)])
    found, predicted = {}, {}
    for name, options in {"one": ["--trainer.devices", 1], "two": TWO}.items():
        folder = tmp_path / name
        common = ["--ckpt_path", trained, *options, "--trainer.enable_progress_bar", "false"]
        run("test", *common, "--data.source", source, "--trainer.default_root_dir", folder)
        found[name] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        run("predict", *common, "--data.predict_path", source, "--output", folder / "p.jsonl")
        lines = (folder / "p.jsonl").read_text(encoding="utf-8").splitlines()
        predicted[name] = [json.loads(line) for line in lines]
    assert found["two"]["n"] == found["one"]["n"] == rows
    assert found["two"]["confusion_matrix"] == found["one"]["confusion_matrix"]
    for key in ("loss", "accuracy", "macro_f1", "mae", "within_1", "qwk", "ece", "mae_median", "loss_uncalibrated"):
        assert found["two"][f"test/{key}"] == pytest.approx(found["one"][f"test/{key}"], abs=1e-6)
    assert [row["id"] for row in predicted["two"]] == list(range(rows))
    for one, two in zip(predicted["one"], predicted["two"], strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    shutil.rmtree(tmp_path / "one")


def test_standard_input_is_refused_before_a_second_process_starts(trained: Path) -> None:
    process = run_process("predict", "--ckpt_path", trained, "--data.predict_path", "-", *TWO, input="good\n", cwd=ROOT)
    assert process.returncode == 2
    assert process.stderr.strip().splitlines()[-1] == (
        "error: `--data.predict_path` is '-', which only one process can read, but there are 2: give a file, or "
        "--trainer.devices 1."
    )
