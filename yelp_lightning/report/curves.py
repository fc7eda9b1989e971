"""Learning curves: what a run logged on its way, joined over the times it was stopped and went on."""

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOGS = "csv/version_*/metrics.csv"
_STAGES = ("train/", "val/")


@dataclass(frozen=True)
class Curve:
    """What one run logged.

    Args:
        name: The run, or its seed.
        points: Metric to its values by optimizer step, in rising order.
    """

    name: str
    points: dict[str, dict[int, float]]


def read_curve(run_folder: Path, name: str) -> Curve:
    """Read a run's csv logs.

    A run that went on writes a new version. What the older one logged after the place where it went on is dropped: that
    part was trained again.

    Args:
        run_folder: Folder of a ``fit``.
        name: What the run is called in the report.

    Returns:
        Its curve; without points where the run has no csv log.
    """
    paths = sorted(run_folder.glob(LOGS), key=lambda path: int(path.parent.name.removeprefix("version_")))
    versions = [_read(path) for path in paths]
    points: dict[str, dict[int, float]] = {}
    # The step before which each version counts: the first of those that come after it.
    starts = [min((step for values in version.values() for step in values), default=None) for version in versions]
    for number, version in enumerate(versions):
        end = min((start for start in starts[number + 1 :] if start is not None), default=None)
        for metric, values in version.items():
            kept = {step: value for step, value in values.items() if end is None or step < end}
            points.setdefault(metric, {}).update(kept)
    return Curve(name, {metric: dict(sorted(values.items())) for metric, values in points.items() if values})


def _read(path: Path) -> dict[str, dict[int, float]]:
    # A run that was killed may have left half a line.
    lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    found: dict[str, dict[int, float]] = {}
    for row in csv.DictReader(lines):
        logged = {metric: value for metric, value in row.items() if value and metric.startswith(_STAGES)}
        for metric, value in logged.items():
            found.setdefault(metric, {})[int(row["step"])] = float(value)
    return found


def metrics_of(curves: Sequence[Curve]) -> list[str]:
    """Metrics that any of the curves has.

    Args:
        curves: The curves.

    Returns:
        Their names, each once, in the order of their first mention.
    """
    return list(dict.fromkeys(itertools.chain.from_iterable(curve.points for curve in curves)))
