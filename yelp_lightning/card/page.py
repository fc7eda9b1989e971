"""The data card as one html file: tables and plots, light and dark, nothing from elsewhere."""

import html
import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

from yelp_lightning.card.tables import length_percentiles, row_counts
from yelp_lightning.page import COLOURS, INK, NAMED_CLASSES, legend, page, plot, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = dict(zip(("train", "val", "test"), COLOURS, strict=False))


def write_page(facts: dict[str, Any]) -> str:
    """The card as html.

    Args:
        facts: From ``describe``.

    Returns:
        A whole page; it loads nothing.
    """
    options, splits, example = facts["options"], facts["splits"], facts["example"]
    settings = {name: ["" if value is None else str(value)] for name, value in options.items()}
    texts = {pair: [f"{count:,}"] for pair, count in facts["shared_texts"].items()}
    body = [
        "<h2>Rows</h2>", _table(["", *splits], row_counts(facts)), plot("rows per class", partial(_rows_plot, facts)),
        "<h2>Tokens per review, before truncation</h2>", _table(["", *splits], length_percentiles(facts)),
        plot("tokens per training review", partial(_lengths_plot, facts)),
        "<h2>Share of reviews that are longer</h2>", plot("share truncated", partial(_truncated_plot, facts)),
        "<h2>Padding: real tokens over computed tokens</h2>",
        plot("real over computed tokens", partial(_padding_plot, facts)),
        "<h2>Texts in two splits, once duplicates are left out</h2>", _table(["", "texts"], texts),
        f"<h2>Row {example['row']} of train, {html.escape(example['label'])}, {example['tokens']} tokens</h2>",
        f"<blockquote>{html.escape(example['text'])}</blockquote><p>decoded back from its tokens:</p>",
        f"<blockquote>{html.escape(example['decoded'])}</blockquote>",
        "<h2>Options</h2>", _table(["data.", "value"], settings),
    ]  # fmt: skip
    return page(f"Data card: {options['source']}", body)


def _table(head: list[str], rows: dict[str, list[str]]) -> str:
    return table(head, ([name, *cells] for name, cells in rows.items()))


def _rows_plot(facts: dict[str, Any], axes: "Axes") -> None:
    splits = facts["splits"]
    width = 0.8 / len(splits)
    for number, (name, split) in enumerate(splits.items()):
        places = [i + (number - (len(splits) - 1) / 2) * width for i in range(len(facts["classes"]))]
        shares = [100 * count / split["rows"] for count in split["rows_per_class"]]
        axes.bar(places, shares, width * 0.95, label=name, color=_COLOURS[name])
    if len(facts["classes"]) <= NAMED_CLASSES:
        axes.set_xticks(range(len(facts["classes"])), facts["classes"])
    axes.set_ylabel("% of the rows")
    legend(axes)


def _lengths_plot(facts: dict[str, Any], axes: "Axes") -> None:
    histogram = facts["splits"]["train"]["length_histogram"]
    edges = histogram["edges"]
    widths = [right - left for left, right in itertools.pairwise(edges)]
    axes.bar(edges[:-1], histogram["counts"], widths, align="edge", color=_COLOURS["train"])
    limit = facts["options"]["max_length"]
    if limit <= edges[-1]:
        axes.axvline(limit, color=INK, linestyle="--")
        where, left = ("data", "axes fraction"), limit > (edges[0] + edges[-1]) / 2
        side = "right" if left else "left"
        axes.annotate(f" max_length {limit} ", (limit, 0.9), xycoords=where, horizontalalignment=side)
    axes.set_xlabel("tokens (the last bar holds all longer ones)")
    axes.set_ylabel("train reviews")


def _truncated_plot(facts: dict[str, Any], axes: "Axes") -> None:
    for name, split in facts["splits"].items():
        lengths = [int(length) for length in split["truncated_at"]]
        shares = [100 * share for share in split["truncated_at"].values()]
        axes.plot(lengths, shares, marker="o", label=name, color=_COLOURS[name])
    axes.set_xlabel("max_length, tokens")
    axes.set_ylabel("% truncated")
    axes.set_ylim(bottom=0)
    legend(axes)


def _padding_plot(facts: dict[str, Any], axes: "Axes") -> None:
    names, values = zip(*reversed(facts["padding_efficiency"].items()), strict=True)
    bars = axes.barh(names, values, color=_COLOURS["train"])
    axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=3)
    axes.set_xlim(0, 1.1)
