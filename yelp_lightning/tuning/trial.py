"""One trial: a `fit` in a process of its own, watched through the files that it writes."""

import csv
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from optuna import TrialPruned

from yelp_lightning.run_folder import read_metrics

LOG = "fit.log"
# Seconds between two looks at what a trial has validated.
INTERVAL = 0.2
# Seconds that a trial has to end by itself.
PATIENCE = 20.0


class TrialError(Exception):
    """A trial that gave no value; the text says why."""


def run_trial(options: list[str], folder: Path, monitor: str, worse: Callable[[int, float], bool]) -> float:
    """Run `fit` to its end, or stop it.

    Args:
        options: All options of `fit`.
        folder: Its run folder, which exists; ``fit.log`` there receives what it prints.
        monitor: The metric of the study.
        worse: Told the number of a validation, from 1, and its metric; says whether the trial is to be stopped.

    Returns:
        The metric of the best validation.

    Raises:
        TrialPruned: If ``worse`` said so.
        TrialError: If `fit` failed, or measured what is no number.
    """
    command = [sys.executable, "-m", "yelp_lightning.watched", "fit", *options]
    # A session of its own: Ctrl-C is for the study, which then ends all processes of the trial.
    with (
        (folder / LOG).open("wb") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            seen = 0
            while not _has_ended(process):
                values = read_validations(folder, monitor)
                for number, value in enumerate(values[seen:], seen + 1):
                    if worse(number, value):
                        raise TrialPruned(f"{monitor} {value:.4f} at validation {number}")
                seen = len(values)
        finally:
            _stop(process)
    for number, value in enumerate(read_validations(folder, monitor)[seen:], seen + 1):
        worse(number, value)
    if process.returncode:
        raise TrialError(_reason(process.returncode, folder / LOG))
    metrics = read_metrics(folder)
    for name in ("val/loss", monitor):
        if metrics.get(name) is None:
            raise TrialError(f"{name} is no number in metrics.json")
    return float(metrics[monitor])


def read_validations(folder: Path, monitor: str) -> list[float]:
    """Read what a run has validated so far from its csv log, which may be growing.

    Args:
        folder: The run folder.
        monitor: The metric.

    Returns:
        The metric of each validation, in order.

    Raises:
        TrialError: If a validation loss is no number: whatever came after would be worth nothing.
    """
    path = folder / "csv" / "version_0" / "metrics.csv"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    values = []
    for row in rows:
        if None in row.values() or not row.get(monitor):  # a line of training, or one that is being written
            continue
        values.append(float(row[monitor]))
        loss = float(row.get("val/loss") or 0.0)
        if not math.isfinite(loss):
            raise TrialError(f"val/loss is {loss} at validation {len(values)}")
    return values


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(INTERVAL)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue


def _reason(status: int, log: Path) -> str:
    if status < 0:
        hint = ", as the system does where memory runs out" if -status == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-status).name}{hint}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"exit status {status}"])[-1]
