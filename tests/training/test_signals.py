"""SIGTERM and SIGINT to real processes: the step is saved, the exit status says so, nobody is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, fit_options
from yaml import safe_dump

TWO = ["--trainer.devices", 2, "--trainer.strategy", "ddp"]


@contextmanager
def running(
    run: Path, options: list[object], seconds: float = 0.05, waits_in: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """A fit that trains already, or waits in a validation."""
    run.mkdir()
    init = {"folder": str(run), "seconds": seconds, "waits_in": waits_in}
    witness = {"class_path": "witness.Witness", "init_args": init}
    config = run.with_suffix(".yaml")
    config.write_text(safe_dump({"trainer": {"callbacks": [witness]}}), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    command = [sys.executable, "-m", "yelp_lightning", "fit", "--config", config, *options]
    with subprocess.Popen(
        [*map(str, command), "--trainer.max_epochs", "500"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and process.poll() is None:
                if (run / "waits").exists() if waits_in else len(batches(run)) >= (1 if seconds > 1 else 3):
                    break
                time.sleep(0.05)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def batches(run: Path) -> list[str]:
    path = run / "0.jsonl"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_step_is_saved(tiny_bert: Path, reviews: Path, tmp_path: Path, number: signal.Signals, status: int) -> None:
    run = tmp_path / "run"
    with running(run, fit_options(tiny_bert, reviews, run)) as process:
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == status, said
    last = torch.load(run / "last.ckpt", weights_only=True)
    # The latest batch was trained, or had just been begun.
    assert last["global_step"] in (len(batches(run)), len(batches(run)) - 1)
    assert f"{number.name}: stopped after optimizer step {last['global_step']}; go on by python -m " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("whom", ["the launcher", "another", "all"])
def test_two_processes_end_together(tiny_bert: Path, reviews: Path, tmp_path: Path, whom: str) -> None:
    run = tmp_path / "run"
    with running(run, [*fit_options(tiny_bert, reviews, run), *TWO]) as process:
        (child,) = children(process.pid)
        for pid in {"the launcher": [process.pid], "another": [child], "all": [process.pid, child]}[whom]:
            os.kill(pid, signal.SIGTERM)
        # Returns when nobody holds the pipe any more: both have ended.
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 143, said
    last = torch.load(run / "last.ckpt", weights_only=True)
    trained = [json.loads(line)["batch"] for line in batches(run)]
    assert last["global_step"] in (len(trained), len(trained) - 1)
    assert said.count("stopped after optimizer step") == 1


def test_a_second_signal_ends_at_once(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # Each batch takes a minute: the first signal waits for its end, the second does not.
    with running(run, fit_options(tiny_bert, reviews, run), seconds=60) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert not (run / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("waits_in", "number", "status", "devices"),
    [
        ("sanity_check", signal.SIGTERM, 143, []),
        ("validate", signal.SIGINT, 130, []),
        ("validate", signal.SIGTERM, 143, TWO),
    ],
)
def test_outside_of_training_it_ends_at_once(
    tiny_bert: Path, reviews: Path, tmp_path: Path, waits_in: str, number: signal.Signals, status: int, devices: Any
) -> None:
    run = tmp_path / "run"
    # The run ends before its first validation, which follows.
    options = [*fit_options(tiny_bert, reviews, run), "--trainer.max_steps", 1, *devices]
    with running(run, options, waits_in=waits_in) as process:
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == status, said
    assert "Traceback" not in said
    if waits_in == "validate":
        assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 1
