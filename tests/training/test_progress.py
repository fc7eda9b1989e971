"""What a fit shows: a table, a bar in a terminal, a line per validation elsewhere, nothing where that was asked for."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT, fit_options, run_process
from lightning.pytorch import Callback, Trainer

from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.pretrained import load_classifier
from yelp_lightning.training.progress import FitProgress

LINE = re.compile(
    r"epoch \d/2 step (\d+): loss (\d\.\d{3}), val/loss \d\.\d{3}, val/accuracy \d\.\d{3}.*, [\d.,]+ reviews/s"
)
BAR = re.compile(
    r"epoch \d/\d (━*╸?)( *) loss \d\.\d{3} acc (\d+)% (.+) (?:-    |\d\.\d{3}) [\d.,]+ reviews/s [\d:-]+ left"
)
SHOWN = ["--trainer.enable_progress_bar", "true"]


def frames_of(shown: str) -> list[str]:
    """The states of the bar, one after the other."""
    return [frame for frame in re.split(r"[\r\n]+", shown) if frame.endswith(" left")]


def without_codes(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def in_terminal(*arguments: object) -> tuple[int, str]:
    """Run a command in a terminal of 80 columns; what it wrote, without colours."""
    main, end = pty.openpty()
    command = [sys.executable, "-m", "yelp_lightning", *map(str, arguments)]
    # Without colours, a bar is as long as what is done.
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdout=end, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment) as process:
        os.close(end)
        shown = b""
        try:
            while block := os.read(main, 65536):
                shown += block
        except OSError:  # how a terminal says that its other end is closed
            pass
    os.close(main)
    return process.returncode, without_codes(shown.decode())


def test_the_bar_in_a_terminal(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    options = [*fit_options(tiny_bert, reviews, tmp_path / "run"), *SHOWN]
    status, shown = in_terminal("fit", *options)
    assert status == 0
    frames = frames_of(shown)
    found = [match for frame in frames if (match := BAR.fullmatch(frame)) and match[4] == "val acc"]
    assert len(found[0][1]) <= 1  # what is done, at the first steps and at the end
    assert found[-1][1]
    assert not found[-1][2]
    assert all(0 <= int(match[3]) <= 100 for match in found)
    assert max(map(len, frames)) <= 80
    assert [int(found[1]) for found in LINE.finditer(shown)] == [23, 46]


class Losses(Callback):
    """Keeps the loss of each training batch, as it is logged."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, model: StarClassifier, outputs: Any, batch: Any, index: int) -> None:
        self.values.append(float(trainer.callback_metrics["train/loss"]))


def test_the_shown_loss_is_that_of_the_latest_batches(
    tiny_bert: Path, reviews: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COLUMNS": "80", "TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    losses = Losses()
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False, max_epochs=1,
        use_distributed_sampler=False, default_root_dir=tmp_path, num_sanity_val_steps=0, accumulate_grad_batches=4,
        callbacks=[losses, FitProgress("val/loss_calibrated")],
    )  # fmt: skip
    # Batches of 8 in steps of 32: the last step has 36 - 32 = 4 rows, which count as much as 32 do.
    data = ReviewDataModule(
        str(tiny_bert), source=str(reviews), max_length=16, train_size=36, val_size=4, cache_dir=str(tmp_path / "cache")
    )
    trainer.fit(StarClassifier(str(tiny_bert)), data)
    shown = without_codes(capfd.readouterr().out)
    expected, *rest = losses.values
    assert len(rest) == 4
    for value in rest:
        expected += 0.05 * (value - expected)
    (line,) = [line for line in re.split(r"[\r\n]+", shown) if "step 2: " in line]
    assert float(line.split()[5].rstrip(",")) == pytest.approx(expected, abs=1e-3)
    frames = [match for frame in frames_of(shown) if (match := BAR.fullmatch(frame))]
    # The longest name of a metric is cut; the line has all of it.
    assert {match[4] for match in frames} == {"loss_cali…"}
    assert "val/loss_calibrated" in line


def test_a_file_gets_a_line_per_validation(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    options = [*fit_options(tiny_bert, reviews, tmp_path / "run"), *SHOWN, "--trainer.accumulate_grad_batches", 4]
    process = run_process("fit", *options, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    lines = [LINE.fullmatch(line) for line in process.stdout.splitlines() if line.startswith("epoch")]
    assert [int(line[1]) for line in lines] == [6, 12]
    # Five classes at the start: about ln 5, whatever is accumulated.
    assert 1.0 < float(lines[0][2]) < 2.2
    assert "\r" not in process.stdout
    assert "\x1b" not in process.stdout


def test_the_table_at_the_start_and_the_line_at_the_end(
    cli: Callable[..., None], tiny_bert: Path, reviews: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = fit_options(tiny_bert, reviews, tmp_path / "run")
    cli("fit", *options)
    shown = capfd.readouterr().out
    rows = dict(re.findall(r"│ (.+?) +│ (.+?) +│\n", shown.partition("steps in")[0]))
    assert list(rows) == [
        "encoder", "parameters", "trainable", "optimizer steps", "warm-up steps", "tokens an epoch", "precision",
        "device",
    ]  # fmt: skip
    (path,) = [
        path for path in (tmp_path / "cache").glob("tokens-*.arrow")
        if len(lengths := pa.ipc.open_file(path).read_all()["length"]) == 180
    ]  # fmt: skip
    lengths = pa.ipc.open_file(path).read_all()["length"].to_numpy()
    assert rows["tokens an epoch"] == f"{int(np.sum(lengths)):,}"
    assert (rows["optimizer steps"], rows["warm-up steps"]) == ("46", "5")
    assert (rows["precision"], rows["encoder"]) == ("32-true", str(tiny_bert))
    assert rows["device"] == "cpu, 1 thread"
    parameters = load_classifier(str(tiny_bert), 5).num_parameters()
    assert (rows["parameters"], rows["trainable"]) == (f"{parameters:,}", f"{parameters:,} (100.0%)")
    assert re.search(r"^46 optimizer steps in \d+ s, validation included: [\d.,]+ reviews/s$", shown, re.MULTILINE)
    assert not LINE.search(shown)  # enable_progress_bar false

    cli("fit", *options, "--ckpt_path", "last", "--trainer.max_epochs", 3, "--trainer.limit_train_batches", 12)
    shown = capfd.readouterr().out
    assert "last.ckpt" in shown
    assert "46 of them done" in shown


@pytest.mark.parametrize("bar", ["RichProgressBar", "TQDMProgressBar"])
def test_a_bar_of_the_users_own_takes_its_place(
    cli: Callable[..., None],
    refused: Callable[..., str],
    tiny_bert: Path,
    reviews: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    bar: str,
) -> None:
    options = [*fit_options(tiny_bert, reviews, tmp_path / "run"), "--trainer.callbacks", bar]
    assert "`--trainer.enable_progress_bar` is False, which Lightning refuses" in refused("fit", *options)
    cli("fit", *options, *SHOWN, "--trainer.limit_train_batches", 2)
    assert not LINE.search(capfd.readouterr().out)
    assert (tmp_path / "run" / "best.ckpt").is_file()
