"""The study: what was tried, what is tried next, by any number of processes, in one sqlite file that outlives them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from yelp_lightning.errors import UsageError

STUDY = "study.db"
LOCK = "tune.lock"
# A trial whose process was killed is tried again so many times: it may itself be what kills the processes.
RETRIES = 3
# Seconds that a process waits while another writes.
TIMEOUT = 60
DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


class Study:
    """A study in a folder. Each process that works on it holds a lock on its trial, which no killed process can keep.

    Args:
        folder: Holds the study's file and the run folders of its trials.
        base: Options of `fit` that all trials share, nested as in a yaml file.
        space: What is drawn, by option.
        direction: ``min`` or ``max``: which values of the metric are better.
        seed: Seed of what is drawn; None means another one each time.

    Raises:
        UsageError: If the folder holds a study of other options, or trials without their study.
    """

    def __init__(
        self, folder: Path, base: dict[str, Any], space: dict[str, BaseDistribution], direction: str, seed: int | None
    ) -> None:
        self.folder, self.space, self.seed = folder, space, seed
        self.lock = FileLock(folder / LOCK)
        self.trial_lock: FileLock | None = None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        setup = {**_flat(base), **{name: str(drawn) for name, drawn in space.items()}}
        with self.lock:
            if not (folder / STUDY).exists() and any(folder.glob("trial-*")):
                raise UsageError(
                    f"`--output` is {str(folder)!r}, which holds trials but not their {STUDY}: give another folder."
                )
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder / STUDY}", engine_kwargs={"connect_args": {"timeout": TIMEOUT}}
            )
            self.study = optuna.create_study(
                study_name="yelp_lightning", storage=storage, direction=DIRECTIONS[direction], load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(),
            )  # fmt: skip
            before = self.study.user_attrs.get("setup")
            if before is None:
                self.study.set_user_attr("setup", setup)
            elif before != setup:
                name = next(name for name in {**setup, **before} if setup.get(name) != before.get(name))
                raise UsageError(
                    f"`{name}` is {setup.get(name)!r}, but the study in {str(folder)!r} was started with "
                    f"{before.get(name)!r}: give its options to go on with it, or another --output for a new study."
                )

    def run_folder(self, number: int) -> Path:
        """Where a trial is kept.

        Args:
            number: Number of the trial, from 0.

        Returns:
            Its run folder.
        """
        return self.folder / f"trial-{number:04d}"

    def ask(self, trials: int) -> Trial | None:
        """Begin the next trial: one whose process was killed, or a new one.

        Args:
            trials: Trials of the study in all.

        Returns:
            The trial, with its folder made; None where there are enough.
        """
        with self.lock:
            self._retry_lost()
            if self.count() >= trials:
                return None
            # A sampler of its own for each trial: what is drawn depends neither on the process that draws nor on how
            # often the study was interrupted.
            new = sum("retry_of" not in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))
            seed = None if self.seed is None else int(np.random.SeedSequence([self.seed, new]).generate_state(1)[0])
            self.study.sampler = optuna.samplers.TPESampler(seed=seed)
            trial = self.study.ask(self.space)
            self.run_folder(trial.number).mkdir(exist_ok=True)
            self.trial_lock = FileLock(self.run_folder(trial.number) / LOCK)
            self.trial_lock.acquire()
            return trial

    def tell(self, trial: Trial, state: TrialState, value: float | None, reason: str, keep: int) -> FrozenTrial:
        """End a trial; only the best ones keep their checkpoints.

        Args:
            trial: From ``ask``.
            state: COMPLETE, PRUNED or FAIL.
            value: The metric, of a complete trial.
            reason: Why it is not complete.
            keep: Trials that keep their checkpoints.

        Returns:
            The trial as it is stored.
        """
        assert self.trial_lock is not None
        with self.lock:
            trial.set_user_attr("reason", reason)
            told = self.study.tell(trial, value, state=state)
            best = {kept.number for kept in self.best(keep)}
            for ended in self.study.get_trials(deepcopy=False):
                if ended.state.is_finished() and ended.number not in best:
                    remove_checkpoints(self.run_folder(ended.number))
        self.trial_lock.release()
        return told

    def count(self) -> int:
        """Count the trials.

        Returns:
            Those that have ended or are under way; one that was tried again counts once.
        """
        trials = self.study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get("retry_of") for trial in trials}
        return sum(trial.state != TrialState.WAITING and trial.number not in retried for trial in trials)

    def best(self, count: int) -> list[FrozenTrial]:
        """Rank the complete trials.

        Args:
            count: How many at most.

        Returns:
            The best first; of equals, the earlier.
        """
        sign = -1 if self.study.direction == StudyDirection.MAXIMIZE else 1
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return sorted(complete, key=lambda trial: sign * (trial.value or 0.0))[:count]

    def _retry_lost(self) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            folder = self.run_folder(trial.number)
            folder.mkdir(exist_ok=True)
            try:
                with FileLock(folder / LOCK, timeout=0):
                    self.study.tell(trial.number, state=TrialState.FAIL)
            except Timeout:
                continue  # another process is at it
            remove_checkpoints(folder)
            attempt = trial.user_attrs.get("attempt", 0) + 1
            if attempt <= RETRIES:
                self.study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number, "attempt": attempt})


def remove_checkpoints(folder: Path) -> None:
    """Remove what is large in a run folder; config.yaml, metrics.json, the csv log and fit.log stay.

    Args:
        folder: The run folder of a trial that has ended.
    """
    for pattern in ("*.ckpt", ".*.tmp"):
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(folder / "model", ignore_errors=True)


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        inside = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{name}.") if inside else {f"{prefix}{name}": value}
    return flat
