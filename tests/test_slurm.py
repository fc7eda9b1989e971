"""A SLURM job whose time is nearly over goes back into the queue, and on in its own folder when it starts again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, fit_options, free_port

from yelp_lightning.checkpoint import read_checkpoint

Task = subprocess.Popen[str]


@pytest.fixture
def started() -> Iterator[list[Task]]:
    """Processes that a test starts; what it leaves behind is ended."""
    tasks: list[Task] = []
    yield tasks
    for task in tasks:
        with contextlib.suppress(ProcessLookupError):
            task.kill()
        task.communicate()


def srun(tasks: int, scontrol: Path, arguments: list[object], **environment: str) -> list[Task]:
    """What `srun` does: each task of the job with its number, and `scontrol` on the path."""
    job = {
        "PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "4321", "SLURM_JOB_NAME": "fit",
        "SLURM_NTASKS": str(tasks), "SLURM_NTASKS_PER_NODE": str(tasks), "SLURM_NNODES": "1", "SLURM_NODEID": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **environment,
    }  # fmt: skip
    command = [sys.executable, "-m", "yelp_lightning", "fit", *map(str, arguments)]
    return [
        subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, **job, "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)},
        )
        for task in range(tasks)
    ]  # fmt: skip


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_requeued_job_goes_on(
    tiny_bert: Path, reviews: Path, tmp_path: Path, started: list[Task], tasks: int
) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n', encoding="utf-8")
    scontrol.chmod(0o755)
    run = tmp_path / "run"
    options = [*fit_options(tiny_bert, reviews, run), "--trainer.devices", tasks, "--trainer.strategy", "ddp"]

    started += srun(tasks, scontrol, [*options, "--trainer.max_epochs", 100_000])
    until(lambda: (run / "last.ckpt").exists())
    for task in started:
        task.send_signal(signal.SIGUSR1)  # --signal=SIGUSR1@90
    errors = [task.communicate(timeout=60)[1] for task in started]
    assert [task.returncode for task in started] == [0] * tasks, errors
    assert (tmp_path / "requeued").read_text(encoding="utf-8") == "requeue 4321\n"
    reached = read_checkpoint(run / "last.ckpt")
    assert not (run / "metrics.json").exists()  # which would say that the run is finished
    assert reached["global_step"] > 0

    again = [*options, "--trainer.max_epochs", reached["epoch"] + 3]
    started += srun(tasks, scontrol, again, SLURM_RESTART_COUNT="1")
    errors = [task.communicate(timeout=120)[1] for task in started[tasks:]]
    assert [task.returncode for task in started[tasks:]] == [0] * tasks, errors
    assert "Restoring states from the checkpoint path at" in errors[0]
    last = read_checkpoint(run / "last.ckpt")
    assert last["global_step"] > reached["global_step"]
    assert last["epoch"] == reached["epoch"] + 2
    assert (run / "metrics.json").exists()


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
