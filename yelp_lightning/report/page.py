"""The report as one html file: findings first, then what they rest on, then single reviews."""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score, precision_recall_fscore_support

from yelp_lightning.files import atomic_file
from yelp_lightning.modeling.intervals import accuracy_interval, mae_interval
from yelp_lightning.page import NAMED_CLASSES, page, table
from yelp_lightning.report.counts import (
    by_length,
    by_truncation,
    confusions,
    group_accuracy,
    group_mae,
    mistakes,
)
from yelp_lightning.report.curves import Curve, metrics_of
from yelp_lightning.report.findings import findings
from yelp_lightning.report.plots import classes_plot, confusion_plot, curve_plot, groups_plot, reliability_plot
from yelp_lightning.report.reviews import label_errors_section, wrong_section
from yelp_lightning.report.rows import Tested, TestedRows
from yelp_lightning.report.shares import ENOUGH

# Kinds of mistakes in the table of the most frequent ones.
MISTAKES = 10
# What a run logs that is worth a plot.
CURVES = ("train/loss", "val/loss", "val/accuracy", "val/mae")


def write_report(
    path: Path, title: str, rows: TestedRows, tested: Sequence[Tested], curves: Sequence[Curve] = (),
    sections: Sequence[tuple[str, str]] = (), remarks: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write the report; it loads nothing, and appears whole or not at all.

    Args:
        path: The html file.
        title: Its heading, plain text.
        rows: The tested rows.
        tested: The models, one or more, on the same rows; the first is the one whose mistakes are shown.
        curves: Learning curves of the runs.
        sections: What comes first, in the place of the measures: heading (plain text) and content (html).
        remarks: What to know about the numbers, plain text.
    """
    first = tested[0]
    parts = [
        *(sections or [("Measures", _measures(rows, tested))]),
        ("Findings", _findings(rows, tested)),
        ("Confusion", _confusion(rows, first)),
        ("Classes", classes_plot(rows, tested) + _classes(rows, first)),
        ("Reliability", _reliability(rows, tested)),
        ("Length and truncation", _lengths(rows, tested)),
        ("Learning curves", _curves(curves)),
        ("The surest wrong reviews", wrong_section(rows, first)),
        ("Likely label errors", label_errors_section(rows, first)),
    ]
    said = map(_paragraph, remarks)
    body = (f"<section><h2>{html.escape(heading)}</h2>{content}</section>" for heading, content in parts)
    with atomic_file(path) as temporary:
        # The name of a file may hold what is no letter.
        temporary.write_text(page(title, [*said, *body]), encoding="utf-8", errors="replace")


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _of(tested: Sequence[Tested]) -> str:
    """Whose mistakes these are, where there are others."""
    return f" of {tested[0].name}" if len(tested) > 1 else ""


def _estimate(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _measures(rows: TestedRows, models: Sequence[Tested]) -> str:
    head = ["model", "accuracy", "macro F1", *(["MAE"] if rows.ordered else [])]
    lines = []
    for tested in models:
        matrix = confusions(rows, tested)
        accuracy = _estimate(float((tested.preds == rows.labels).mean()), accuracy_interval(matrix))
        cells = [tested.name, accuracy, f"{f1_score(rows.labels, tested.preds, average='macro'):.3f}"]
        if rows.ordered:
            cells.append(_estimate(float(np.abs(tested.preds - rows.labels).mean()), mae_interval(matrix)))
        lines.append(cells)
    n = len(rows.labels)
    unit = " MAE in classes, such as stars." if rows.ordered else ""
    return table(head, lines, f"{n:,} review{'' if n == 1 else 's'}. [..]: 95 % interval.{unit}")


def _calibration(models: Sequence[Tested]) -> str:
    lines = []
    for tested in models:
        raw, calibrated = tested.raw.calibration(), tested.measured.calibration()
        values = tested.measured.temperature, raw["loss"], calibrated["loss"], raw["ece"], calibrated["ece"]
        lines.append([tested.name, *(f"{value:.3f}" for value in values)])
    head = ["model", "temperature", "loss before", "loss after", "ECE before", "ECE after"]
    return table(head, lines, "Before and after the temperature. Loss in nats; ECE: expected calibration error.")


def _findings(rows: TestedRows, models: Sequence[Tested]) -> str:
    said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in findings(rows, models[0]))
    note = (
        f"A share is said of {ENOUGH} reviews or more: of fewer, its interval would span more than 40 points. Each "
        "interval holds the truth 95 times of 100, so of many one or the other does not."
    )
    whose = _paragraph(f"These are{_of(models)}.") if len(models) > 1 else ""
    return f"{whose}<ul>{said}</ul>{_paragraph(note)}"


def _confusion(rows: TestedRows, tested: Tested) -> str:
    names, found = rows.class_names, mistakes(confusions(rows, tested))
    if not found:
        return confusion_plot(rows, tested) + _paragraph("No review was read wrong.")
    lines = [
        [names[one.true], names[one.predicted], f"{one.share.count:,}", f"{one.share.n:,}", one.share.percent]
        for one in found[:MISTAKES]
    ]
    head = ["true", "read as", "reviews", "of", "share"]
    return confusion_plot(rows, tested) + table(head, lines, "The most frequent mistakes; shares of the true class.")


def _classes(rows: TestedRows, tested: Tested) -> str:
    classes = len(rows.class_names)
    scores = precision_recall_fscore_support(rows.labels, tested.preds, labels=range(classes), zero_division=np.nan)
    counts = [np.bincount(of, minlength=classes).tolist() for of in (rows.labels, tested.preds)]
    lines = [
        [name, f"{n:,}", f"{count:,}", *("-" if np.isnan(value) else f"{value:.3f}" for value in values)]
        for name, n, count, *values in zip(rows.class_names, *counts, *scores[:3], strict=True)
    ]
    head = ["class", "true", "predicted", "precision", "recall", "F1"]
    made = table(head, lines, "Rows and scores of each class; -: not defined without rows.")
    if len(lines) <= NAMED_CLASSES:
        return made
    return f"<details><summary>All {len(lines)} classes</summary>{made}</details>"


def _reliability(rows: TestedRows, models: Sequence[Tested]) -> str:
    if len(rows.labels) < ENOUGH:
        return _calibration(models) + _paragraph(f"A reliability diagram needs {ENOUGH} reviews or more.")
    note = (
        "On the diagonal, as many reviews are read right as the confidence promises. Each point stands for about as "
        "many reviews, and its line is the 95 % interval."
    )
    return reliability_plot(rows, models) + _paragraph(note) + _calibration(models)


def _lengths(rows: TestedRows, models: Sequence[Tested]) -> str:
    groups = [*by_length(rows), *by_truncation(rows)]
    measures = {"accuracy": group_accuracy} | ({"MAE in classes": group_mae} if rows.ordered else {})
    plots, columns = [], {"n": [f"{int(group.inside.sum()):,}" for group in groups]}
    for label, measure in measures.items():
        series = {tested.name: [measure(group, rows, tested) for group in groups] for tested in models}
        plots.append(groups_plot(label, groups, series))
        for name, estimates in series.items():
            columns[f"{label}, {name}" if len(models) > 1 else label] = [_estimate(*one) for one in estimates]
    lines = zip([group.name for group in groups], *columns.values(), strict=True)
    caption = "Reviews by their tokens before truncation, and whole ones beside truncated ones. [..]: 95 % interval."
    return "".join(plots) + table(["reviews", *columns], lines, caption)


def _curves(curves: Sequence[Curve]) -> str:
    metrics = metrics_of(curves)
    plots = [curve_plot(metric, curves) for metric in CURVES if metric in metrics]
    return "".join(plots) or _paragraph("None: the run folder has no csv log.")
