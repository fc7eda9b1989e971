"""However many processes, and whatever they share out: the same weights, and files that any number of devices read."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, fit_options, free_port, run_process

from yelp_lightning.checkpoint import read_checkpoint

CPU = ["--trainer.accelerator", "cpu"]
SHARED = [*CPU, "--trainer.devices", 2, "--trainer.strategy", "model_parallel"]
# 100 rows in steps of 8: an epoch is 12 steps and a short one. Each way has other rows per device and batch.
STEPS = 26  # of two epochs
WAYS = {
    "one": ["--data.batch_size", 8],
    "ddp": ["--data.batch_size", 2, "--trainer.accumulate_grad_batches", 2, "--trainer.devices", 2,
            "--trainer.strategy", "ddp"],
    "model_parallel": ["--data.batch_size", 4, *SHARED],
}  # fmt: skip
# Of weights that are read and, where they are shared out, loaded in parts.
MEAN = re.compile("The mean of the 2 best validations has val/loss .*")


def fit_of_two_epochs(pretrained: Path, reviews: Path, run: Path) -> list[object]:
    return [
        *fit_options(pretrained, reviews, run), "--model.learning_rate", 3e-3, "--data.train_size", 100,
        "--trainer.max_epochs", 2, "--trainer.gradient_clip_val", 1.0,
        "--checkpoint.monitor", "val/loss", "--checkpoint.average_best", 2,
    ]  # fmt: skip


def finished(process: subprocess.CompletedProcess[str]) -> None:
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope="module")
def runs(tiny_bert_without_dropout: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each way and what it said. Not to be written to."""
    folder = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "HOME": str(folder)}
    for name, options in WAYS.items():
        fit = fit_of_two_epochs(tiny_bert_without_dropout, reviews, folder / name)
        process = run_process("fit", *fit, *options, env=environment, cwd=ROOT)
        finished(process)
        (folder / f"{name}.txt").write_text(process.stderr, encoding="utf-8")
    return folder


def same_weights(found: Path, expected: Path, steps: int) -> None:
    one, other = read_checkpoint(expected), read_checkpoint(found)
    assert one["global_step"] == other["global_step"] == steps
    assert list(one["state_dict"]) == list(other["state_dict"])
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][name], weight, atol=1e-5, rtol=0, msg=lambda m, n=name: n + m)


def logged(run: Path, key: str) -> dict[int, float]:
    """A curve of a run's csv log, step to value."""
    with (run / "csv" / "version_0" / "metrics.csv").open(encoding="utf-8") as file:
        return {int(row["step"]): float(row[key]) for row in csv.DictReader(file) if row[key]}


@pytest.mark.parametrize("way", ["ddp", "model_parallel"])
def test_two_processes_equal_one(runs: Path, way: str) -> None:
    same_weights(runs / way / "last.ckpt", runs / "one" / "last.ckpt", STEPS)
    assert {path.name for path in (runs / way).iterdir()} == {path.name for path in (runs / "one").iterdir()}
    assert all((runs / way / name).is_file() for name in ("best.ckpt", "last.ckpt", "model/model.safetensors"))
    one, two = (json.loads((runs / name / "metrics.json").read_text(encoding="utf-8")) for name in ("one", way))
    assert two["val/loss"] == pytest.approx(one["val/loss"], abs=1e-5)
    assert two["n"] == 20
    norms, same = (logged(runs / name, "train/grad_norm") for name in (way, "one"))
    assert norms == pytest.approx(same, rel=1e-4)
    assert list(norms) == [9, 19]  # every tenth step, from 0
    said, same = (MEAN.findall((runs / f"{name}.txt").read_text(encoding="utf-8")) for name in (way, "one"))
    assert said == same
    assert len(said) == 1


def test_a_run_goes_on_elsewhere(runs: Path, tmp_path: Path) -> None:
    goes_on = {
        ("one", "straight"): [],
        ("one", "on_two"): ["--data.batch_size", 4, *SHARED],
        ("model_parallel", "on_one"): ["--data.batch_size", 8, "--trainer.devices", 1, "--trainer.strategy", "auto"],
    }
    for (start, name), options in goes_on.items():
        run = shutil.copytree(runs / start, tmp_path / name)
        here = ["--config", run / "config.yaml", "--trainer.default_root_dir", run]
        finished(run_process("fit", *here, "--ckpt_path", "last", "--trainer.max_epochs", 3, *options, cwd=ROOT))
    for name in ("on_two", "on_one"):
        same_weights(tmp_path / name / "last.ckpt", tmp_path / "straight" / "last.ckpt", STEPS * 3 // 2)


def test_shared_out_weights_are_measured_exactly(runs: Path, tmp_path: Path) -> None:
    # 41 rows in batches of few tokens: they divide neither by rows nor by batches.
    found = []
    for name, options in (("one", ["--trainer.devices", 1]), ("two", SHARED)):
        common = ["--ckpt_path", runs / "model_parallel", "--trainer.default_root_dir", tmp_path / name]
        finished(run_process("test", *common, *CPU, *options, "--data.eval_tokens", 70, cwd=ROOT))
        found.append(json.loads((tmp_path / name / "metrics.json").read_text(encoding="utf-8")))
    assert found[0]["confusion_matrix"] == found[1]["confusion_matrix"]
    assert found[1]["test/loss"] == pytest.approx(found[0]["test/loss"], abs=1e-6)
    assert found[1]["n"] == 41


def test_two_nodes_by_torchrun(tiny_bert_without_dropout: Path, reviews: Path, runs: Path, tmp_path: Path) -> None:
    fit = [
        *fit_of_two_epochs(tiny_bert_without_dropout, reviews, tmp_path / "run"), "--data.batch_size", 4,
        "--trainer.strategy", "ddp", "--trainer.num_nodes", 2, "--trainer.devices", 1,
    ]  # fmt: skip
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d",
        "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "-m", "yelp_lightning", "fit", *fit,
    ]  # fmt: skip
    nodes = [
        subprocess.Popen([str(word) for word in torchrun], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [node.communicate(timeout=200)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    same_weights(tmp_path / "run" / "last.ckpt", runs / "one" / "last.ckpt", STEPS)


def test_strategies_that_keep_no_single_file_are_refused(fit_refused) -> None:
    found = fit_refused("--trainer.strategy.class_path", "lightning.pytorch.strategies.ModelParallelStrategy")
    assert found.startswith("`--trainer.strategy` is ModelParallelStrategy, ")
    assert "--trainer.strategy model_parallel" in found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="FSDP1 and DeepSpeed refuse a CPU")
@pytest.mark.parametrize("name", ["ddp", "model_parallel", "fsdp", "deepspeed_stage_2", "deepspeed_stage_3"])
def test_on_gpus(tiny_bert: Path, reviews: Path, tmp_path: Path, name: str) -> None:
    if name.startswith("deepspeed"):
        pytest.importorskip("deepspeed")
    overlay = ROOT / "configs" / "strategy" / f"{name}.yaml"
    options = [*fit_options(tiny_bert, reviews, tmp_path / "run"), "--config", overlay, "--trainer.accelerator", "gpu"]
    finished(run_process("fit", *options, cwd=ROOT))
    if not name.startswith("deepspeed"):
        finished(run_process("test", "--ckpt_path", tmp_path / "run", "--trainer.devices", 1, cwd=ROOT))
        assert json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["test/n"] == 41
