"""The search: trials one after the other until the study has enough of them, and what came out."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from optuna import TrialPruned
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from yelp_lightning.cli import PROGRAM
from yelp_lightning.errors import UsageError
from yelp_lightning.files import atomic_file
from yelp_lightning.tuning.report import line, print_study, write_best
from yelp_lightning.tuning.space import as_option
from yelp_lightning.tuning.study import Study
from yelp_lightning.tuning.trial import TrialError, run_trial

BASE = "base.yaml"
# Where so many trials fail and none has succeeded, the others would fail, too.
FAILURES = 3


def search(config: Namespace, base: dict[str, Any], space: dict[str, BaseDistribution], better: str) -> None:
    """Run trials, say how each ended, and write the best config.

    Args:
        config: All options of ``tune``.
        base: Options of `fit` that all trials share, nested as in a yaml file.
        space: What is drawn, by option.
        better: ``min`` or ``max``: which values of the metric are better.

    Raises:
        UsageError: If the folder holds another study, or no trial succeeds.
    """
    monitor, seed = config.checkpoint.monitor, config.seed_everything
    folder = Path(config.output)
    study = Study(folder, base, space, better, seed if type(seed) is int else None)
    with atomic_file(folder / BASE) as temporary:
        temporary.write_text(yaml.safe_dump(base, sort_keys=False), encoding="utf-8")
    print(
        f"{folder}: {study.count()} of {config.trials} trials so far; each writes to its trial-NNNN/fit.log", flush=True
    )
    failures = 0
    while trial := study.ask(config.trials):
        ended = _run(study, trial, config)
        best = next(iter(study.best(1)), None)
        print(line(ended, monitor, best), flush=True)
        failures += ended.state == TrialState.FAIL
        if best is not None:
            write_best(study, monitor, base)
        elif failures == FAILURES:
            raise UsageError(
                f"The first {failures} trials failed, the last one with: {ended.user_attrs['reason'].rstrip('.')}: "
                f"see {study.run_folder(ended.number)}/fit.log, and start anew with another --output."
            )
    print_study(study, monitor)
    if not study.best(1):
        raise UsageError(
            f"No trial succeeded: see the trials' fit.log in {folder}, and start anew with another --output."
        )
    best_config = write_best(study, monitor, base)
    run = study.run_folder(study.best(1)[0].number)
    kept = "the best trial keeps its" if config.keep == 1 else f"the {config.keep} best trials keep their"
    print(f"Only {kept} checkpoints and model/. {monitor} chose the best: the test rows say how good it is.")
    print(f"Measure it:  {PROGRAM} test --ckpt_path {run}")
    print(f"Train anew:  {PROGRAM} fit --config {best_config} --trainer.default_root_dir checkpoints/best")


def _run(study: Study, trial: Trial, config: Namespace) -> FrozenTrial:
    def worse(number: int, value: float) -> bool:
        trial.report(value, number)
        return bool(config.prune and trial.should_prune())

    folder = study.run_folder(trial.number)
    options = [
        f"--config={study.folder / BASE}",
        *(as_option(name, value) for name, value in trial.params.items()),
        f"--trainer.default_root_dir={folder}",
        "--trainer.enable_progress_bar=false",
    ]
    try:
        value = run_trial(options, folder, config.checkpoint.monitor, worse)
    except TrialPruned as reason:
        return study.tell(trial, TrialState.PRUNED, None, str(reason), config.keep)
    except TrialError as reason:
        return study.tell(trial, TrialState.FAIL, None, str(reason), config.keep)
    return study.tell(trial, TrialState.COMPLETE, value, "", config.keep)
