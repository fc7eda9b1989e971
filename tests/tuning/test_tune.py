"""`tune` with real trainings: to its end, killed and started again, by two processes, failing, stopped early."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest
import yaml
from conftest import ROOT, fit_options
from lightning_utilities.core.imports import RequirementCache
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from yelp_lightning.tuning import command, search
from yelp_lightning.tuning.trial import TrialError, read_validations, run_trial

Tune = list[object]
RATE, DRAWN = {"model.learning_rate": 5e-3}, {"model.learning_rate": FloatDistribution(1e-3, 1e-2, log=True)}


@pytest.fixture
def tune(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Tune:
    """A study of trainings of a second or two."""
    options = fit_options(tiny_bert, reviews, tmp_path / "unused")
    at = options.index("--trainer.default_root_dir")
    space = tmp_path / "space.yaml"
    space.write_text("model.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}\n", encoding="utf-8")
    return ["tune", "--space", space, "--output", tmp_path / "out", *options[:at], *options[at + 2 :]]


def trials_of(folder: Path) -> list[FrozenTrial]:
    return optuna.load_study(study_name="yelp_lightning", storage=f"sqlite:///{folder / 'study.db'}").trials


def start(*arguments: object) -> subprocess.Popen[str]:
    arguments = (sys.executable, "-m", "yelp_lightning", *arguments)
    return subprocess.Popen(
        list(map(str, arguments)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # Tests that a shell runs in the background inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_processes_find_the_best_of_two_trials(
    tune: Tune, cli: Callable[..., None], refused: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with start(*tune, "--trials", 2) as other:
        wait_for((out / "trial-0000").exists)
        cli(*tune, "--trials", 2)  # meanwhile, here
        shown, _ = other.communicate(timeout=240)
    assert other.returncode == 0, shown
    assert "trial 0: model.learning_rate " in shown
    assert "trial 1: model.learning_rate " in capfd.readouterr().out
    trials = trials_of(out)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert trials[0].params != trials[1].params
    for trial in trials:
        metrics = json.loads((out / f"trial-{trial.number:04d}" / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["val/accuracy"] == trial.value
        assert len(trial.intermediate_values) == 2  # each validation was reported
    # Another start finds it done, and says what came out.
    cli(*tune, "--trials", 2)
    shown = capfd.readouterr().out
    best = max(trials, key=lambda trial: (trial.value, -trial.number))
    run = out / f"trial-{best.number:04d}"
    assert f"{out}: 2 of 2 trials so far" in shown
    assert f"{out}: 2 complete" in shown
    assert f"test --ckpt_path {run}" in shown
    assert [path.parent for path in sorted(out.rglob("best.ckpt"))] == [run]
    # The best config is the best trial's, and `fit` takes it.
    config = yaml.safe_load((out / "best.yaml").read_text(encoding="utf-8"))
    assert config["model"]["learning_rate"] == best.params["model.learning_rate"]
    assert "default_root_dir" not in config["trainer"]
    again = ["--trainer.default_root_dir", tmp_path / "again", "--trainer.limit_train_batches", 1]
    cli("fit", "--config", out / "best.yaml", *again)
    assert (tmp_path / "again" / "model" / "model.safetensors").is_file()
    assert refused(*tune, "--trials", 2, "--data.batch_size", 4).startswith("`data.batch_size` is 4, but the study in ")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_study_goes_on(tune: Tune, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    with start(*tune, "--trials", 1) as process:
        wait_for((out / "trial-0000" / ("config.yaml" if number == signal.SIGKILL else "fit.log")).exists)
        trainings = psutil.Process(process.pid).children(recursive=True)
        assert trainings
        process.send_signal(number)
        process.wait(60)
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    wait_for(lambda: not any(training.is_running() for training in trainings))
    assert not (out / "trial-0000" / "metrics.json").exists()
    assert [trial.state for trial in trials_of(out)] == [TrialState.RUNNING]
    if number == signal.SIGKILL:
        with start(*tune, "--trials", 1) as process:
            shown, _ = process.communicate(timeout=120)
        assert process.returncode == 0, shown
        killed, again = trials_of(out)
        assert (killed.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
        assert killed.params == again.params
        assert "trial 1, trial 0 again: model.learning_rate " in shown


def test_poor_trial_is_stopped_early(
    tune: Tune, cli: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "trial-0000").mkdir(parents=True)
    (out / "trial-0000" / "config.yaml").write_text("trainer: {default_root_dir: x, enable_progress_bar: false}\n")
    study = optuna.create_study(
        study_name="yelp_lightning", storage=f"sqlite:///{out / 'study.db'}", direction="maximize"
    )
    for _ in range(5):  # perfect at their first validation, if worthless at the end
        study.add_trial(create_trial(value=0.0, params=RATE, distributions=DRAWN, intermediate_values={1: 1.0}))
    cli(*tune, "--trials", 6, "--trainer.max_epochs", 300)
    stopped = trials_of(out)[5]
    assert stopped.state == TrialState.PRUNED
    assert 1 <= len(read_validations(out / "trial-0005", "val/accuracy")) < 300
    assert not list((out / "trial-0005").glob("*.ckpt"))
    shown = capfd.readouterr().out
    assert re.search(
        r"trial 5: model\.learning_rate \S+: stopped, worse than the median \(val/accuracy 0\.\d+ at", shown
    )
    assert "5 complete, 1 stopped early" in shown


def test_failures_at_the_start_end_the_study(
    tune: Tune, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FAILURES", 1)  # 3, which takes longer
    found = refused(*tune, "--model.pretrained", tmp_path / "nowhere")
    out = tmp_path / "out"
    assert found.startswith("The first 1 trials failed, the last one with: `model.pretrained` is ")
    assert found.endswith(f": see {out}/trial-0000/fit.log, and start anew with another --output.")
    assert [trial.state for trial in trials_of(out)] == [TrialState.FAIL]
    assert not (out / "best.yaml").exists()


def test_loss_that_is_no_number_fails_the_trial(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    options = list(map(str, fit_options(tiny_bert, reviews, tmp_path)))
    seen: list[float] = []
    with pytest.raises(TrialError, match=r"^The training loss is nan at optimizer step "):
        run_trial(
            [*options, "--model.learning_rate", "1e30", "--trainer.max_epochs", "300"],
            tmp_path, "val/accuracy", lambda number, value: bool(seen.append(value)),
        )  # fmt: skip
    assert seen == []
    assert not (tmp_path / "metrics.json").exists()


def test_refused_before_the_first_trial(
    tune: Tune, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, found in [
        (["--data.batch_size", 0], "`--data.batch_size` is '0', but must be "),
        (["--trial", 3], "`--trial` is no option of this command: did you mean `--trials`?"),
        (["--trials", 0], "`--trials` is '0', but must be a whole number of at least 1: give such a value."),
        (["--checkpoint.monitor", "val/acc"], "`checkpoint.monitor` is 'val/acc', but must be what validations "),
        (["--trainer.default_root_dir", "x"], "`--trainer.default_root_dir` is given, but each trial has its own "),
        (["--trainer.fast_dev_run", "true"], "`--trainer.enable_checkpointing`, `--trainer.barebones` or "),
        (["--ckpt_path", "last"], "`--ckpt_path` is 'last', but trials start from model.pretrained: "),
        (["--output", tmp_path / "space.yaml"], "`--output` is "),
    ]:  # fmt: skip
        assert refused(*tune, *options).startswith(found)
        assert not (tmp_path / "out").exists()
    monkeypatch.setattr(command, "OPTUNA", RequirementCache("optuna>=9999"))
    assert refused(*tune) == '`tune` needs optuna>=9999: pip install "yelp-lightning[tune]"'
