"""The study's bookkeeping, without trainings: what is drawn, what is counted, what a killed process leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from yelp_lightning.errors import UsageError
from yelp_lightning.tuning.study import RETRIES, Study

ROOT = Path(__file__).resolve().parent.parent.parent
SPACE: dict[str, BaseDistribution] = {
    "model.learning_rate": FloatDistribution(1e-5, 1e-2, log=True), "data.batch_size": CategoricalDistribution([8, 16]),
}  # fmt: skip
BASE = {"model": {"learning_rate": 1e-4}, "data": {"batch_size": 8}}
# A process that begins a trial of a study that exists, and is killed in it.
KILLED = """
import os, signal, sys
from pathlib import Path
from yelp_lightning.tuning.study import Study
from test_study import BASE, SPACE
assert Study(Path(sys.argv[1]), BASE, SPACE, "max", 1).ask(99)
os.kill(os.getpid(), signal.SIGKILL)
"""


def open_study(folder: Path, seed: int | None = 1) -> Study:
    folder.mkdir(exist_ok=True)
    return Study(folder, BASE, SPACE, "max", seed)


def learn(study: Study, trials: int) -> list[dict[str, Any]]:
    """Run trials whose value is best at a learning rate of 1e-3."""
    drawn = []
    while trial := study.ask(trials):
        drawn.append(trial.params)
        study.tell(trial, TrialState.COMPLETE, -abs(trial.params["model.learning_rate"] - 1e-3), "", keep=1)
    return drawn


def lose_a_trial(folder: Path) -> None:
    """Begin a trial, and free its lock as the system does when a process is killed."""
    study = open_study(folder)
    assert study.ask(99)
    assert study.trial_lock is not None
    study.trial_lock.release()


def test_same_seed_draws_the_same_whoever_draws(tmp_path: Path) -> None:
    drawn = learn(open_study(tmp_path / "one"), 14)
    assert len(drawn) == 14
    assert len({params["model.learning_rate"] for params in drawn}) == 14
    # Interrupted, by two processes' worth of objects, and after a kill: the same.
    interrupted = learn(open_study(tmp_path / "two"), 5)
    lose_a_trial(tmp_path / "two")
    assert interrupted + learn(open_study(tmp_path / "two"), 14) == drawn
    assert learn(open_study(tmp_path / "other", seed=2), 1) != drawn[:1]


def test_trial_of_a_killed_process_is_tried_again_and_counted_once(tmp_path: Path) -> None:
    learn(open_study(tmp_path), 1)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    process = subprocess.run([sys.executable, "-c", KILLED, tmp_path], env=environment, check=False, timeout=120)
    assert process.returncode == -signal.SIGKILL
    (tmp_path / "trial-0001" / "last.ckpt").write_text("large")
    study = open_study(tmp_path)
    assert learn(study, 2) == [study.study.trials[1].params]
    assert [trial.state for trial in study.study.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert study.study.trials[2].user_attrs["retry_of"] == 1
    assert not (tmp_path / "trial-0001" / "last.ckpt").exists()
    assert study.count() == 2


def test_trial_that_kills_its_process_is_not_tried_for_ever(tmp_path: Path) -> None:
    for _ in range(RETRIES + 1):
        lose_a_trial(tmp_path)
    study = open_study(tmp_path)
    assert len({str(trial.params) for trial in study.study.trials}) == 1
    assert len(learn(study, 2)) == 1
    assert study.study.trials[-1].params != study.study.trials[0].params


def test_trial_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    one, two = open_study(tmp_path), open_study(tmp_path)
    first, second = one.ask(2), two.ask(2)
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    assert first.params != second.params
    assert one.study.trials[0].state == TrialState.RUNNING
    one.tell(first, TrialState.COMPLETE, 0.5, "", keep=1)
    assert one.ask(2) is None  # the other's is under way
    two.tell(second, TrialState.COMPLETE, 0.6, "", keep=1)


def test_only_the_best_keep_checkpoints_and_failed_ones_are_never_best(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    ends = [(TrialState.COMPLETE, 0.5), (TrialState.FAIL, None), (TrialState.COMPLETE, 0.7), (TrialState.PRUNED, None),
            (TrialState.COMPLETE, 0.7), (TrialState.COMPLETE, 0.6)]  # fmt: skip
    for state, value in ends:
        trial = study.ask(len(ends))
        assert trial is not None
        folder = study.run_folder(trial.number)
        for name in ("best.ckpt", "last.ckpt", ".best.ckpt.x1.tmp", "metrics.json", "config.yaml", "fit.log"):
            (folder / name).touch()
        for name in ("model", "csv"):
            (folder / name).mkdir()
        study.tell(trial, state, value, "", keep=2)
    assert [trial.number for trial in study.best(9)] == [2, 4, 5, 0]  # of equals, the earlier
    for number in range(len(ends)):
        names = {path.name for path in study.run_folder(number).iterdir()}
        assert names >= {"metrics.json", "config.yaml", "fit.log", "csv"}
        assert names.isdisjoint({"best.ckpt", "last.ckpt", ".best.ckpt.x1.tmp", "model"}) == (number not in (2, 4))


def test_study_of_other_options_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path)
    for base, space, found in [
        ({**BASE, "seed_everything": 7}, SPACE, "`seed_everything` is 7, but the study in "),
        (BASE, {**SPACE, "data.batch_size": CategoricalDistribution([8])}, "`data.batch_size` is 'Categorical"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match="or another --output for a new study") as refused:
            Study(tmp_path, base, space, "max", 1)
        assert str(refused.value).startswith(found)
    (tmp_path / "trial-0000").mkdir()
    (tmp_path / "study.db").unlink()
    with pytest.raises(UsageError, match=r"holds trials but not their study\.db"):
        open_study(tmp_path)
