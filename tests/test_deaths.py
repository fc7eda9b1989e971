"""A process of a run that dies: the others end within a minute, and its story comes first."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, fit_options

LIMIT = 60  # seconds until all processes must be gone


def start(tiny_bert: Path, reviews: Path, run: Path, *options: object, **environment: str) -> subprocess.Popen[str]:
    """A `fit` of two processes over gloo that would take hours."""
    arguments = [
        *fit_options(tiny_bert, reviews, run), "--trainer.max_epochs", 100_000, "--trainer.devices", 2,
        "--trainer.strategy", "ddp", *options,
    ]  # fmt: skip
    command = [sys.executable, "-m", "yelp_lightning", "fit", *map(str, arguments)]
    with (run.parent / "stderr").open("w") as stderr:
        return subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
            env={**os.environ, **environment},
        )  # fmt: skip


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_for(condition, what: str, limit: float = LIMIT) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {limit} s"
        time.sleep(0.1)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def error_lines(run: Path) -> list[str]:
    return re.findall(
        r"^(?:error.*|.*Child process .*|(?:\[rank\d\]: )?\w*(?:Error|Exception): .*)$",
        (run.parent / "stderr").read_text(),
        re.M,
    )


@pytest.fixture
def run(tmp_path: Path):
    """The run folder; whatever a test leaves behind is ended."""
    started: list[subprocess.Popen[str]] = []
    yield tmp_path / "run", started
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others(tiny_bert: Path, reviews: Path, run, rank: int) -> None:
    folder, started = run
    started.append(process := start(tiny_bert, reviews, folder))
    wait_for((folder / "last.ckpt").exists, "the first epoch", 120)
    others = children(process)
    assert len(others) == 1
    os.kill([process.pid, *others][rank], signal.SIGKILL)
    assert process.wait(LIMIT) != 0
    wait_for(lambda: all(map(gone, others)), "the others' end")
    if rank:
        # Or Lightning's observer, which looks every five seconds, was faster.
        ours, theirs = (
            "error: process 1 was ended by SIGKILL; the others end, too",
            r"\[rank: 1\] Child process .* code -9",
        )
        assert re.match(f"{ours}|{theirs}", error_lines(folder)[0])
    else:
        assert re.fullmatch("error: process 1 ends, because the one that started it is gone", error_lines(folder)[0])


def test_an_exception_in_one_process_is_shown_first(tiny_bert: Path, reviews: Path, run, tmp_path: Path) -> None:
    folder, started = run
    (tmp_path / "breaks.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Breaks(Callback):\n"
        "    def on_train_batch_start(self, trainer, model, batch, batch_idx):\n"
        "        if trainer.global_rank == 1 and batch_idx == 2:\n"
        "            raise ArithmeticError('the story of process 1')\n"
    )
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    started.append(process := start(tiny_bert, reviews, folder, "--trainer.callbacks", "breaks.Breaks", **path))
    wait_for(lambda: len(children(process)) == 1, "the other process", 60)
    others = children(process)
    assert process.wait(120) != 0
    wait_for(lambda: all(map(gone, others)), "the others' end")
    assert "ArithmeticError: the story of process 1" in error_lines(folder)[0]
