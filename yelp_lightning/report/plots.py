"""Plots of the report: confusion, histogram of classes, reliability, measures by length, learning curves."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from yelp_lightning.page import COLOURS, INK, NAMED_CLASSES, legend, plot
from yelp_lightning.report.counts import Estimate, Group, confusions, reliability
from yelp_lightning.report.curves import Curve
from yelp_lightning.report.rows import Tested, TestedRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Letters of a class's name that fit below its bar.
_LETTERS = 14
_INCHES = 5.0


def confusion_plot(rows: TestedRows, tested: Tested) -> str:
    """The confusion matrix; counts and shares are written into up to ``NAMED_CLASSES`` classes.

    Args:
        rows: The rows.
        tested: The model.

    Returns:
        The html.
    """
    draw = partial(_confusion, confusions(rows, tested), rows.class_names)
    return plot("confusion matrix, true classes by predicted ones", draw, (7.5, _INCHES))


def _confusion(matrix: npt.NDArray[np.int64], names: Sequence[str], axes: "Axes") -> None:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    # One colour, the surer the more of it lies over the page's own: light and dark alike.
    colours = np.full((*matrix.shape, 4), [0.28, 0.47, 0.82, 0.0])
    colours[..., 3] = 0.75 * shares
    if len(names) > NAMED_CLASSES:
        # No counts are written, and a cell may be a dot: what is there at all must be seen.
        colours[..., 3] = np.maximum(colours[..., 3], 0.4 * (matrix > 0))
    # Each cell is a pixel of one image, however many there are.
    axes.imshow(colours, interpolation="none", aspect="auto")
    if len(names) <= NAMED_CLASSES:
        for (true, predicted), count in np.ndenumerate(matrix):
            said = f"{count:,}\n{100 * shares[true, predicted]:.0f} %" if matrix[true].any() else "0"
            axes.text(predicted, true, said, horizontalalignment="center", verticalalignment="center")
        axes.set_yticks(range(len(names)), _short(names))
    _name_classes(axes, names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def _short(names: Sequence[str]) -> list[str]:
    return [name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…" for name in names]


def _name_classes(axes: "Axes", names: Sequence[str]) -> None:
    if len(names) > NAMED_CLASSES:
        return
    short = _short(names)
    tilted = sum(map(len, short)) > 5 * _LETTERS
    side = "right" if tilted else "center"
    axes.set_xticks(range(len(names)), short, rotation=30 if tilted else 0, horizontalalignment=side)


def classes_plot(rows: TestedRows, models: Sequence[Tested]) -> str:
    """How often each class is true, and how often each model predicts it.

    Args:
        rows: The rows.
        models: The models.

    Returns:
        The html.
    """
    return plot("rows of each class, true and predicted", partial(_classes, rows, models))


def _classes(rows: TestedRows, models: Sequence[Tested], axes: "Axes") -> None:
    count = len(rows.class_names)
    series = {"true": rows.labels} | {_predicted(tested, models): tested.preds for tested in models}
    width = 0.8 / len(series)
    for number, (name, classes) in enumerate(series.items()):
        places = np.arange(count) + (number - (len(series) - 1) / 2) * width
        colour = {"color": COLOURS[(number - 1) % len(COLOURS)]} if number else {"color": INK, "alpha": 0.6}
        axes.bar(places, np.bincount(classes, minlength=count), width * 0.95, label=name, **colour)
    _name_classes(axes, rows.class_names)
    if count > NAMED_CLASSES:
        axes.set_xlabel("class, by its number")
    axes.set_ylabel("reviews")
    legend(axes)


def _predicted(tested: Tested, models: Sequence[Tested]) -> str:
    return tested.name if len(models) > 1 else "predicted"


def reliability_plot(rows: TestedRows, models: Sequence[Tested]) -> str:
    """How often predictions of some confidence are right, before and after temperature, with 95 % intervals.

    Args:
        rows: The rows; enough for a bin.
        models: The models.

    Returns:
        The html.
    """
    return plot("reliability: share read right by confidence", partial(_reliability, rows, models), (7.5, 4.2))


def _reliability(rows: TestedRows, models: Sequence[Tested], axes: "Axes") -> None:
    axes.plot([0, 100], [0, 100], color=INK, alpha=0.5, linewidth=0.8)
    for number, tested in enumerate(models):
        name = f"{tested.name}: " if len(models) > 1 else ""
        times = [
            (
                "before temperature",
                tested.raw.probabilities,
                {"linestyle": ":", "markerfacecolor": "none", "elinewidth": 0.4},
            )
        ]
        if tested.measured.temperature != 1:
            probabilities = tested.measured.probabilities
            times.append(
                (f"temperature {tested.measured.temperature:.2f}", probabilities, {"linestyle": "-", "elinewidth": 1.2})
            )
        for when, probabilities, line in times:
            bins = reliability(probabilities, rows.labels)
            estimates = [Estimate(100 * one.right.value, (100 * low, 100 * high)) for one in bins
                         for low, high in [one.right.interval]]  # fmt: skip
            _intervals(axes, [100 * one.confidence for one in bins], estimates, number, label=name + when, **line)
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("read right, %")
    axes.set_ylim(0, 100)
    legend(axes, 2)


def _intervals(axes: "Axes", places: npt.ArrayLike, estimates: Sequence[Estimate], number: int, **line: Any) -> None:
    """Points with their intervals, in the colour of a model's number."""
    values = np.array([one.value for one in estimates])
    ends = np.array([one.interval for one in estimates]).T
    colour = COLOURS[number % len(COLOURS)]
    axes.errorbar(places, values, np.abs(ends - values), color=colour, marker="o", markersize=4, **line)


def groups_plot(label: str, groups: Sequence[Group], series: Mapping[str, Sequence[Estimate]]) -> str:
    """What was measured of groups of rows, with 95 % intervals.

    Args:
        label: What it is, with its unit.
        groups: The groups.
        series: Each model's name to its values of the groups.

    Returns:
        The html.
    """

    def draw(axes: "Axes") -> None:
        for number, (name, estimates) in enumerate(series.items()):
            # Beside each other, so that one interval does not hide the other.
            aside = 0.08 * (number - (len(series) - 1) / 2)
            _intervals(axes, np.arange(len(groups)) + aside, estimates, number, label=name, linestyle="none")
        axes.set_xticks(range(len(groups)), [group.name for group in groups])
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.set_xlabel("tokens before truncation; whole and truncated reviews")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        if len(series) > 1:
            legend(axes)

    return plot(f"{label} by length and truncation", draw)


def curve_plot(metric: str, curves: Sequence[Curve]) -> str:
    """A metric over the optimizer steps of each run.

    Args:
        metric: Its name, such as ``val/accuracy``.
        curves: The runs.

    Returns:
        The html.
    """

    def draw(axes: "Axes") -> None:
        for number, curve in enumerate(curves):
            points = curve.points.get(metric, {})
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(list(points), list(points.values()), marker=".", color=colour, label=curve.name, linewidth=1)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(metric)
        # Names of more runs would fill the plot.
        if 1 < len(curves) <= len(COLOURS):
            legend(axes, 5)

    return plot(f"{metric} over optimizer steps", draw)
