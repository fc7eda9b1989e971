"""Learning curves: those of csv logs, joined where a run went on; and of a real run."""

from pathlib import Path

import pytest

from yelp_lightning.report.curves import Curve, metrics_of, read_curve


def log(run: Path, version: int, text: str) -> None:
    folder = run / "csv" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text, encoding="utf-8")


def test_versions_are_joined_by_step(tmp_path: Path) -> None:
    log(
        tmp_path,
        0,
        "data/train_rows,step,train/loss,val/loss\n9,0,,\n,10,3.0,\n,19,,2.5\n,20,2.0,\n,30,1.9,\n,39,,1.8\n",
    )
    # It goes on after step 20; what the first version did from there on was done again.
    log(tmp_path, 2, "data/train_rows,step,train/loss,val/loss\n9,0,,\n,30,1.5,\n,40,1.0,\n,49,,0.7\n")
    log(tmp_path, 10, "step,train/loss,val/loss\n50,0.5,\n59,,0.4\n60,0.")  # killed in the middle of a line
    curve = read_curve(tmp_path, "seed 1")
    assert curve == Curve(
        "seed 1",
        {
            "train/loss": {10: 3.0, 20: 2.0, 30: 1.5, 40: 1.0, 50: 0.5},
            "val/loss": {19: 2.5, 49: 0.7, 59: 0.4},
        },
    )
    assert metrics_of([Curve("none", {}), curve]) == ["train/loss", "val/loss"]


def test_a_version_that_did_nothing_drops_nothing(tmp_path: Path) -> None:
    log(tmp_path, 0, "step,train/loss\n10,3.0\n")
    log(tmp_path, 1, "data/train_rows,step\n9,0\n")
    log(tmp_path, 2, "")
    assert read_curve(tmp_path, "").points == {"train/loss": {10: 3.0}}


def test_without_a_log_there_are_no_points(tmp_path: Path) -> None:
    assert read_curve(tmp_path, "seed 1") == Curve("seed 1", {})


def test_a_real_run(trained: Path) -> None:
    curve = read_curve(trained, "run")
    assert len(curve.points["val/accuracy"]) == 2
    assert all(0 <= value <= 1 for value in curve.points["val/accuracy"].values())
    assert curve.points["train/loss"] or pytest.fail("nothing was logged")
