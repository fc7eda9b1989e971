"""The report that the README suggests, drawn from what a run left in its offline W&B folder.

    PYTHONPATH=tests python docs/dashboard.py checkpoints/wandb docs/dashboard.png

The picture in the README is of `fit --config configs/quickstart.yaml --config configs/logger/wandb.yaml
--trainer.val_check_interval 0.5` on two CPU cores that other programs shared.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from wandb_reader import read_wandb

COLOURS = {
    "train": "#8c8c8c",
    "val": "#ee854a",
    "calibrated": "#4878d0",
    "uncalibrated": "#ee854a",
    "perfect": "#8c8c8c",
}


def curves(axes: Axes, history: list[dict[str, Any]], title: str, **keys: str) -> None:
    """Draw metrics over the optimizer steps.

    Args:
        axes: Where.
        history: Logged rows.
        title: Of the panel.
        **keys: Name of each line to its metric.
    """
    for name, key in keys.items():
        points = [(row["trainer/global_step"], row[key]) for row in history if key in row]
        marker = "o" if len(points) < 30 else ""
        axes.plot(*zip(*points, strict=True), color=COLOURS.get(name), label=key, marker=marker, markersize=3)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("optimizer step", fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False)


def confusion(axes: Axes, table: dict[str, Any], step: int) -> None:
    """Draw ``val/confusion_matrix``.

    Args:
        axes: Where.
        table: Its table.
        step: Of the validation.
    """
    names = list(dict.fromkeys(actual for actual, _, _ in table["data"]))
    counts = [count for _, _, count in table["data"]]
    matrix = [counts[start : start + len(names)] for start in range(0, len(counts), len(names))]
    axes.imshow(matrix, cmap="Blues", aspect="auto")
    for row, line in enumerate(matrix):
        for column, count in enumerate(line):
            colour = "white" if count > max(counts) / 2 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("actual", fontsize=8)
    axes.set_title(f"val/confusion_matrix, step {step}", loc="left", fontsize=10, fontweight="bold")


def reliability(axes: Axes, table: dict[str, Any], step: int) -> None:
    """Draw ``val/reliability``; points are as large as their bins are full.

    Args:
        axes: Where.
        table: Its table.
        step: Of the validation.
    """
    for line in ("perfect", "uncalibrated", "calibrated"):
        points = [row[1:] for row in table["data"] if row[0] == line]
        confidence, accuracy, reviews = zip(*points, strict=True)
        style = "--" if line == "perfect" else "-"
        axes.plot(confidence, accuracy, style, color=COLOURS[line], label=line, linewidth=1)
        axes.scatter(confidence, accuracy, s=[2 * count for count in reviews], color=COLOURS[line], alpha=0.6)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("confidence", fontsize=8)
    axes.set_ylabel("accuracy", fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False, loc="upper left")
    axes.set_title(f"val/reliability, step {step}", loc="left", fontsize=10, fontweight="bold")


def errors(axes: Axes, table: dict[str, Any], step: int) -> None:
    """Draw the first rows of ``val/errors``.

    Args:
        axes: Where.
        table: Its table.
        step: Of the validation.
    """
    columns = [name for name in table["columns"] if name != "text"]
    rows = [
        [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row[: len(columns)]]
        for row in table["data"][:7]
    ]
    axes.axis("off")
    axes.set_title(f"val/errors, step {step}", loc="left", fontsize=10, fontweight="bold")
    cells = axes.table(rows, colLabels=columns, loc="upper left", edges="horizontal", cellLoc="left", colLoc="left")
    cells.auto_set_font_size(False)
    cells.set_fontsize(8)
    cells.auto_set_column_width(range(len(columns)))
    cells.scale(1, 1.5)


def main(folder: str, output: str) -> None:
    """Read a run and draw it.

    Args:
        folder: Of the run, or of several, of which the latest is meant.
        output: The picture.
    """
    run = read_wandb(Path(folder))
    history, tables = run["history"], run["tables"]
    step = max(tables["val/errors"])
    rate = max(key for row in history for key in row if key.startswith("lr-"))
    plt.rcParams |= {"xtick.labelsize": 8, "ytick.labelsize": 8, "axes.formatter.limits": (-3, 4)}
    figure, panels = plt.subplots(3, 3, figsize=(13, 9), layout="constrained", width_ratios=(1, 1, 1.15))
    curves(panels[0, 0], history, "Loss, nats", train="train/loss", val="val/loss")
    curves(panels[0, 1], history, "Accuracy", train="train/accuracy", val="val/accuracy")
    curves(panels[0, 2], history, "Mean distance, stars", train="train/mae", val="val/mae")
    confusion(panels[1, 0], tables["val/confusion_matrix_table"][step], step)
    reliability(panels[1, 1], tables["val/reliability_table"][step], step)
    errors(panels[1, 2], tables["val/errors"][step], step)
    curves(panels[2, 0], history, "Learning rate", rate=rate)
    curves(panels[2, 1], history, "Gradient norm, before clipping", norm="train/grad_norm")
    curves(panels[2, 2], history, "Reviews per second", speed="train/reviews_per_second")
    figure.savefig(output, dpi=100)


if __name__ == "__main__":
    main(*sys.argv[1:])
