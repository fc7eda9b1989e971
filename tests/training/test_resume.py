"""A run that is killed and goes on ends as one that never stopped: weights, metrics, order of rows, to the bit."""

import csv
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, fit_options, run_process
from yaml import safe_dump

from yelp_lightning.training.resume import KEY

# 100 rows / 8 = 13 batches an epoch, 7 optimizer steps, validations after batches 5 (between two steps) and 10.
STEPS = [
    "--data.train_size", 100, "--trainer.accumulate_grad_batches", 2, "--trainer.val_check_interval", 5,
    "--checkpoint.every_n_steps", 2,
]  # fmt: skip
TWO = ["--trainer.devices", 2, "--trainer.strategy", "ddp", "--data.batch_size", 4]
AVERAGED = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}


class Runs:
    """Runs of one kind below one folder, each in processes of their own."""

    def __init__(
        self, folder: Path, tiny_bert: Path, reviews: Path, options: list[object], callbacks: list[Any]
    ) -> None:
        self.folder, self.options, self.callbacks = folder, [*STEPS, *options], callbacks
        self.data = tiny_bert, reviews

    def fit(self, name: str, *options: object, die_at: int = -1) -> subprocess.CompletedProcess[str]:
        run = self.folder / name
        run.mkdir(exist_ok=True)
        init = {"folder": str(run), "die_at": die_at}
        callbacks = [*self.callbacks, {"class_path": "witness.Witness", "init_args": init}]
        config = self.folder / "callbacks.yaml"
        config.write_text(safe_dump({"trainer": {"callbacks": callbacks}}), encoding="utf-8")
        path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
        return run_process(
            "fit", "--config", config, *fit_options(*self.data, run), *self.options, *options, env=path, cwd=ROOT
        )

    def killed(self, name: str, *options: object, die_at: int) -> None:
        process = self.fit(name, *options, die_at=die_at)
        assert process.returncode == -signal.SIGKILL, process.stderr
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
        of_steps = ("train/loss", "train/padding_efficiency", "train/grad_norm")
        kept = [index for index in kept if names[index] not in of_steps]
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
        assert one[KEY]["processes"][0]["random"]["python"] == two[KEY]["processes"][0]["random"]["python"]
        assert one["reports"] == two["reports"]
        assert one["loops"]["fit_loop"] == two["loops"]["fit_loop"]
    assert json.loads((straight / "metrics.json").read_text()) == json.loads((stopped / "metrics.json").read_text())
    for rank in range(processes):
        assert order(straight, rank) == order(stopped, rank)
    assert set(train_metrics(straight)) == set(train_metrics(stopped))
    assert len(train_metrics(straight)) == 2


@pytest.mark.parametrize(
    ("options", "callbacks", "kills"),
    [
        # Steps end with batches 1, 3, .. 11, 12: last.ckpt is written after 3; after 5, late, since the validation fell
        # between two steps; and after 12, the epoch's last.
        (["--checkpoint.average_best", 2], [], [5, 7, 13]),
        ([], [AVERAGED], [9]),
        # A validation at the end of the epoch; the first process starts the other.
        ([*TWO, "--trainer.val_check_interval", 1.0], [], [8, 13]),
    ],
    ids=["one", "averaged", "two"],
)
def test_killed_and_going_on(
    tiny_bert: Path, reviews: Path, tmp_path: Path, options: list[object], callbacks: list[Any], kills: list[int]
) -> None:
    runs = Runs(tmp_path, tiny_bert, reviews, options, callbacks)
    runs.done("straight")
    for number, die_at in enumerate(kills):
        runs.killed("stopped", *(["--ckpt_path", "last"] if number else []), die_at=die_at)
    runs.done("stopped", "--ckpt_path", "last")
    assert_same_end(tmp_path / "straight", tmp_path / "stopped", 2 if TWO[0] in options else 1)


# --- a torn file, and what a killed writer leaves


def test_last_is_the_newest_whole_one(
    cli: Callable[..., None],
    refused: Callable[..., str],
    trained: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    with (run / "last.ckpt").open("r+b") as file:
        file.truncate((run / "last.ckpt").stat().st_size // 2)
    (run / ".last.ckpt.x.tmp").touch()
    (run / ".model.x.tmp").mkdir()
    options = ["--config", run / "config.yaml", "--trainer.default_root_dir", run, "--trainer.max_epochs", 3]
    found = refused("fit", *options, "--ckpt_path", run / "last.ckpt")
    assert "is no checkpoint or is cut short" in found
    cli("fit", *options, "--ckpt_path", "last")
    step = torch.load(trained / "best.ckpt", weights_only=True)["global_step"]
    said = capfd.readouterr().err
    assert f"{run / 'last.ckpt'} is damaged: going on from {run / 'best.ckpt'}, optimizer step {step} (" in said
    assert torch.load(run / "last.ckpt", weights_only=True)[KEY]["epoch"] == 2
    assert list(run.glob(".*")) == []


def test_killed_between_the_last_step_and_the_end(cli: Callable[..., None], trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "metrics.json").unlink()
    shutil.rmtree(run / "model")
    last = (run / "last.ckpt").read_bytes()
    cli("fit", "--config", run / "config.yaml", "--trainer.default_root_dir", run, "--ckpt_path", "last")
    assert (run / "metrics.json").read_bytes() == (trained / "metrics.json").read_bytes()
    assert (run / "model" / "model.safetensors").is_file()
    assert (run / "last.ckpt").read_bytes() == last


# --- what differs


@pytest.fixture(scope="module")
def inside(tiny_bert: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object]]:
    """A run that ended inside its first epoch, and its options."""
    run = tmp_path_factory.mktemp("inside") / "run"
    options = fit_options(tiny_bert, reviews, run)
    process = run_process("fit", *options, "--trainer.max_steps", 3, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    return run, options


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--data.batch_size", 4], "`--data.batch_size` is 4, but {} stands inside an epoch that was begun with 8"),
        (["--trainer.accumulate_grad_batches", 3], "`--trainer.accumulate_grad_batches` is 3, but {} stands inside"),
        ([*TWO[:4]], "`--trainer.devices` is 2, but {} stands inside an epoch that was begun with 1"),
        (["--model.frozen_layers", 1], "`--model.frozen_layers` is 1, but {} was trained with null, and what the"),
        (["--model.layer_decay", 0.9], "`--model.layer_decay` is 0.9, but {} was trained with 1.0, and what the"),
    ],
    ids=["batch_size", "accumulate_grad_batches", "devices", "frozen_layers", "layer_decay"],
)
def test_what_cannot_be_gone_on_with(
    refused: Callable[..., str], inside: tuple[Path, list[object]], options: list[object], found: str
) -> None:
    run, common = inside
    before = (run / "config.yaml").read_bytes()
    said = refused("fit", *common, "--ckpt_path", "last", "--trainer.max_steps", 5, *options)
    assert said.startswith(found.format(run / "last.ckpt"))
    assert (run / "config.yaml").read_bytes() == before


def groups_of(run: Path) -> tuple[list[tuple[float, float]], dict[str, Any]]:
    """Peak rate and decay of each of the optimizer's groups in last.ckpt, and all of it."""
    last = torch.load(run / "last.ckpt", weights_only=True)
    groups = last["optimizer_states"][0]["param_groups"]
    assert last["lr_schedulers"][0]["base_lrs"] == [group["initial_lr"] for group in groups]
    return [(group["initial_lr"], group["weight_decay"]) for group in groups], last


def test_what_differs_is_said_and_wins(
    cli: Callable[..., None], inside: tuple[Path, list[object]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished, common = inside
    run = shutil.copytree(finished, tmp_path / "run")
    here = [*common, "--trainer.default_root_dir", run, "--ckpt_path", "last", "--trainer.log_every_n_steps", 1]
    cli("fit", *here, "--trainer.max_steps", 5, "--model.learning_rate", 2e-2, "--model.weight_decay", 0)
    assert (
        "resumed run differs: model.learning_rate 0.02 (was 0.01), model.weight_decay 0.0 (was 0.01), "
        "trainer.max_steps 5 (was 3)"
    ) in caplog.messages
    groups, last = groups_of(run)
    assert groups == 4 * [(0.02, 0.0)]
    assert (last["global_step"], last[KEY]["epoch"], last[KEY]["batches"]) == (5, 0, 5)
    # The schedule that fell to 0 at the third step falls to 0 at the fifth; of the third on, it is the new one's.
    with max(run.glob("csv/version_*/metrics.csv")).open(encoding="utf-8") as file:
        rates = [float(row["lr-AdamW/pg1"]) for row in csv.DictReader(file) if row["lr-AdamW/pg1"]]
    assert rates == pytest.approx([0.02 * 2 / 5, 0.02 * 1 / 5])  # round(0.1 * 5) = 0 steps of warm-up

    # From no decay to some, and another rate of the head.
    cli("fit", *here, "--trainer.max_steps", 6, "--model.weight_decay", 0.5, "--model.head_learning_rate", 0.03)
    assert groups_of(run)[0] == [(0.03, 0.5), (0.03, 0.0), (0.01, 0.5), (0.01, 0.0)]


def test_a_run_that_ended_by_max_steps_at_an_epochs_end(
    tiny_bert: Path, reviews: Path, cli: Callable[..., None], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = [*fit_options(tiny_bert, reviews, run), "--data.train_size", 24]
    cli("fit", *options, "--trainer.max_steps", 3)
    # Another batch size is nothing to refuse there: the next epoch has 6 steps of 4 rows.
    cli("fit", *options, "--trainer.max_steps", 9, "--data.batch_size", 4, "--ckpt_path", "last")
    last = torch.load(run / "last.ckpt", weights_only=True)
    assert (last["global_step"], last[KEY]["epoch"], last[KEY]["batches"]) == (9, 1, 6)
