"""A run that is killed and goes on ends as one that was never stopped: weights, metrics and order of rows, bit by bit."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, fit_options, run_process
from yaml import safe_dump

# 100 rows / 8 = 13 batches an epoch, 7 optimizer steps, validations after batches 5 (between two steps) and 10.
STEPS = [
    "--data.train_size", 100, "--trainer.accumulate_grad_batches", 2, "--trainer.val_check_interval", 5,
    "--checkpoint.every_n_steps", 2,
]  # fmt: skip
TWO = ["--trainer.devices", 2, "--trainer.strategy", "ddp", "--data.batch_size", 4]
AVERAGED = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}


class Runs:
    """Runs of one kind below one folder, each in processes of their own."""

    def __init__(self, folder: Path, tiny_bert: Path, reviews: Path, options: list[object], callbacks: list[Any]) -> None:
        self.folder, self.options, self.callbacks = folder, [*STEPS, *options], callbacks
        self.data = tiny_bert, reviews

    def fit(self, name: str, *options: object, die_at: int = -1, rank: int = 0) -> subprocess.CompletedProcess[str]:
        run = self.folder / name
        run.mkdir(exist_ok=True)
        init = {"folder": str(run), "die_at": die_at, "rank": rank}
        callbacks = [*self.callbacks, {"class_path": "witness.Witness", "init_args": init}]
        config = self.folder / "callbacks.yaml"
        config.write_text(safe_dump({"trainer": {"callbacks": callbacks}}), encoding="utf-8")
        path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
        return run_process(
            "fit", "--config", config, *fit_options(*self.data, run), *self.options, *options, env=path, cwd=ROOT
        )

    def killed(self, name: str, *options: object, die_at: int, rank: int = 0) -> None:
        process = self.fit(name, *options, die_at=die_at, rank=rank)
        assert process.returncode == -signal.SIGKILL or rank, process.stderr
        assert not (self.folder / name / "metrics.json").exists()

    def done(self, name: str, *options: object) -> str:
        process = self.fit(name, *options)
        assert process.returncode == 0, process.stderr
        return process.stderr


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(part, f"{name}.{key}")


def order(run: Path, rank: int) -> dict[int, tuple[int, list[int]]]:
    """Epoch and rows by batch; a batch that was trained again, after a kill, had the same rows."""
    found: dict[int, tuple[int, list[int]]] = {}
    for line in (run / f"{rank}.jsonl").read_text(encoding="utf-8").splitlines():
        batch = json.loads(line)
        assert found.setdefault(batch["batch"], (batch["epoch"], batch["rows"])) == (batch["epoch"], batch["rows"])
    return found


def train_metrics(run: Path) -> list[str]:
    """The lines of the csv logs that close an epoch's training, whichever process of the run wrote them."""
    lines = []
    for path in sorted(run.glob("csv/*/metrics.csv")):
        names, *rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [index for index, name in enumerate(names) if name.startswith("train/") and "_per_" not in name]
        kept = [index for index in kept if names[index] not in ("train/loss", "train/padding_efficiency")]
        lines += [str([(names[i], row[i]) for i in kept]) for row in rows if any(row[i] for i in kept)]
    return lines


def assert_same_end(straight: Path, stopped: Path, processes: int = 1) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        one, two = (torch.load(run / name, weights_only=True) for run in (straight, stopped))
        first = {key.replace(str(straight), ""): value for key, value in tensors(one)}
        second = {key.replace(str(stopped), ""): value for key, value in tensors(two)}
        # Lightning keeps the latest score for reading only, and forgets it.
        first, second = ({k: v for k, v in all.items() if not k.endswith("current_score")} for all in (first, second))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
        assert one["global_step"] == two["global_step"]
        assert one["resume"]["processes"][0]["random"]["python"] == two["resume"]["processes"][0]["random"]["python"]
        assert one["reports"] == two["reports"]
        assert one["loops"]["fit_loop"] == two["loops"]["fit_loop"]
    assert json.loads((straight / "metrics.json").read_text()) == json.loads((stopped / "metrics.json").read_text())
    for rank in range(processes):
        assert order(straight, rank) == order(stopped, rank)
    assert set(train_metrics(straight)) == set(train_metrics(stopped))
    assert len(train_metrics(straight)) == 2


@pytest.mark.parametrize("callbacks", [[], [AVERAGED]], ids=["plain", "averaged"])
def test_killed_twice_inside_one_epoch(tiny_bert: Path, reviews: Path, tmp_path: Path, callbacks: list[Any]) -> None:
    runs = Runs(tmp_path, tiny_bert, reviews, [], callbacks)
    runs.done("straight")
    # Steps end with batches 1, 3, 5, ..., 11, 12: last.ckpt is written after 3 and, at last, after the late step 5.
    runs.killed("stopped", die_at=5)
    runs.killed("stopped", "--ckpt_path", "last", die_at=7)
    runs.killed("stopped", "--ckpt_path", "last", die_at=24)
    runs.done("stopped", "--ckpt_path", "last")
    assert_same_end(tmp_path / "straight", tmp_path / "stopped")


def test_two_processes_of_which_one_is_killed(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    runs = Runs(tmp_path, tiny_bert, reviews, TWO, [])
    runs.done("straight")
    runs.killed("stopped", die_at=8, rank=0)
    runs.done("stopped", "--ckpt_path", "last")
    assert_same_end(tmp_path / "straight", tmp_path / "stopped", 2)
