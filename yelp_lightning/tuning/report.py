"""What a study says: a line a trial, the table of the best, and best.yaml."""

from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from yelp_lightning.files import atomic_file
from yelp_lightning.run_folder import CONFIG
from yelp_lightning.tuning.study import Study

BEST_CONFIG = "best.yaml"
ROWS = 10


def line(trial: FrozenTrial, monitor: str, best: FrozenTrial | None) -> str:
    """Say in one line how a trial ended.

    Args:
        trial: The trial.
        monitor: The metric.
        best: The best trial so far.

    Returns:
        The line.
    """
    drawn = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
    again = f", trial {trial.user_attrs['retry_of']} again" if "retry_of" in trial.user_attrs else ""
    if trial.state == TrialState.COMPLETE:
        assert best is not None
        place = "the best so far" if best.number == trial.number else f"best {best.value:.4f} of trial {best.number}"
        ended = f"{monitor} {trial.value:.4f}, {place}"
    elif trial.state == TrialState.PRUNED:
        ended = f"stopped, worse than the median ({trial.user_attrs['reason']})"
    else:
        ended = f"failed: {trial.user_attrs['reason']}"
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    return f"trial {trial.number}{again}: {drawn}: {ended} ({seconds:.0f} s)"


def write_best(study: Study, monitor: str, base: dict[str, Any]) -> Path:
    """Write the best trial's config, without what is its own alone.

    Args:
        study: Has a complete trial.
        monitor: The metric.
        base: Options that all trials share.

    Returns:
        The file, for ``fit --config``.
    """
    path = study.folder / BEST_CONFIG
    with study.lock:
        (best,) = study.best(1)
        config = yaml.safe_load((study.run_folder(best.number) / CONFIG).read_text(encoding="utf-8"))
        del config["trainer"]["default_root_dir"]
        config["trainer"]["enable_progress_bar"] = base["trainer"]["enable_progress_bar"]
        head = (
            f"# The best of {study.count()} trials: trial {best.number}, {monitor} {best.value:.4f}.\n"
            f"#   python -m yelp_lightning fit --config {path}\n"
        )
        with atomic_file(path) as temporary:
            temporary.write_text(head + yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def print_study(study: Study, monitor: str) -> None:
    """Print the best trials.

    Args:
        study: The study.
        monitor: The metric.
    """
    trials = study.study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    counts = {
        words: sum(trial.state == state and trial.number not in retried for trial in trials)
        for words, state in {"complete": TrialState.COMPLETE, "stopped early": TrialState.PRUNED,
                             "failed": TrialState.FAIL, "under way": TrialState.RUNNING}.items()
    }  # fmt: skip
    print(f"{study.folder}: " + ", ".join(f"{count} {words}" for words, count in counts.items() if count))
    table = Table()
    table.add_column("trial", justify="right")
    table.add_column(escape(monitor), justify="right")
    for name in study.space:
        table.add_column(escape(name.replace(".", ".\n", 1)), justify="right")
    table.add_column("seconds", justify="right")
    for trial in study.best(ROWS):
        drawn = [escape(_short(trial.params[name])) for name in study.space]
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        table.add_row(str(trial.number), f"{trial.value:.4f}", *drawn, f"{seconds:.0f}")
    Console().print(table)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
