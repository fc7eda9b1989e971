"""The data card as one html file: tables and plots, light and dark, nothing from elsewhere."""

import html
import io
import itertools
from typing import TYPE_CHECKING, Any

from yelp_lightning.card.tables import length_percentiles, row_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Stands for the page's own text colour inside the plots.
_INK = "#010203"
# More names would not fit below their bars.
_NAMED_CLASSES = 10
_COLOURS = {"train": "#4878d0", "val": "#ee854a", "test": "#6acc64"}
_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; margin: .5rem 0; display: block; overflow-x: auto }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8885; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal }
svg { max-width: 100%; height: auto; min-width: 30rem }
figure { margin: 0; overflow-x: auto }
blockquote { margin: .5rem 0; padding: .5rem 1rem; border-left: 3px solid #8888; overflow-wrap: anywhere }
"""


def write_page(facts: dict[str, Any]) -> str:
    """The card as html.

    Args:
        facts: From ``describe``.

    Returns:
        A whole page; it loads nothing.
    """
    options, splits, example = facts["options"], facts["splits"], facts["example"]
    settings = {name: ["" if value is None else str(value)] for name, value in options.items()}
    body = [
        f"<h1>Data card: {html.escape(str(options['source']))}</h1>",
        "<h2>Rows</h2>", _table(["", *splits], row_counts(facts)), _plot(_rows_plot, facts),
        "<h2>Tokens per review, before truncation</h2>",
        _table(["", *splits], length_percentiles(facts)), _plot(_lengths_plot, facts),
        "<h2>Share of reviews that are longer</h2>", _plot(_truncated_plot, facts),
        "<h2>Padding: real tokens over computed tokens</h2>", _plot(_padding_plot, facts),
        "<h2>Texts in two splits, once duplicates are left out</h2>",
        _table(["", "texts"], {pair: [f"{count:,}"] for pair, count in facts["shared_texts"].items()}),
        f"<h2>Row {example['row']} of train, {html.escape(example['label'])}, {example['tokens']} tokens</h2>",
        f"<blockquote>{html.escape(example['text'])}</blockquote><p>decoded back from its tokens:</p>",
        f"<blockquote>{html.escape(example['decoded'])}</blockquote>",
        "<h2>Options</h2>", _table(["data.", "value"], settings),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Data card</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _table(head: list[str], rows: dict[str, list[str]]) -> str:
    def cells(tag: str, values: list[str]) -> str:
        return "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values)

    lines = "".join(f"<tr>{cells('td', [name, *values])}</tr>" for name, values in rows.items())
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{lines}</tbody></table>"


def _plot(draw: Any, facts: dict[str, Any]) -> str:
    """An inline svg in the page's own text colour."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # not pyplot: it would look for a screen

    ink = {name: _INK for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")}
    style = {"svg.fonttype": "none", "svg.hashsalt": "card", "font.size": 10, "font.family": "sans-serif", **ink}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.5, 2.8), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, facts)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return f"<figure>{svg[svg.index('<svg') :].replace(_INK, 'currentColor')}</figure>"


def _rows_plot(axes: "Axes", facts: dict[str, Any]) -> None:
    splits = facts["splits"]
    width = 0.8 / len(splits)
    for number, (name, split) in enumerate(splits.items()):
        places = [i + (number - (len(splits) - 1) / 2) * width for i in range(len(facts["classes"]))]
        shares = [100 * count / split["rows"] for count in split["rows_per_class"]]
        axes.bar(places, shares, width * 0.95, label=name, color=_COLOURS[name])
    if len(facts["classes"]) <= _NAMED_CLASSES:
        axes.set_xticks(range(len(facts["classes"])), facts["classes"])
    axes.set_ylabel("% of the rows")
    _legend(axes)


def _legend(axes: "Axes") -> None:
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)


def _lengths_plot(axes: "Axes", facts: dict[str, Any]) -> None:
    histogram = facts["splits"]["train"]["length_histogram"]
    edges = histogram["edges"]
    widths = [right - left for left, right in itertools.pairwise(edges)]
    axes.bar(edges[:-1], histogram["counts"], widths, align="edge", color=_COLOURS["train"])
    limit = facts["options"]["max_length"]
    if limit <= edges[-1]:
        axes.axvline(limit, color=_INK, linestyle="--")
        where, left = ("data", "axes fraction"), limit > (edges[0] + edges[-1]) / 2
        side = "right" if left else "left"
        axes.annotate(f" max_length {limit} ", (limit, 0.9), xycoords=where, horizontalalignment=side)
    axes.set_xlabel("tokens (the last bar holds all longer ones)")
    axes.set_ylabel("train reviews")


def _truncated_plot(axes: "Axes", facts: dict[str, Any]) -> None:
    for name, split in facts["splits"].items():
        lengths = [int(length) for length in split["truncated_at"]]
        shares = [100 * share for share in split["truncated_at"].values()]
        axes.plot(lengths, shares, marker="o", label=name, color=_COLOURS[name])
    axes.set_xlabel("max_length, tokens")
    axes.set_ylabel("% truncated")
    axes.set_ylim(bottom=0)
    _legend(axes)


def _padding_plot(axes: "Axes", facts: dict[str, Any]) -> None:
    names, values = zip(*reversed(facts["padding_efficiency"].items()), strict=True)
    bars = axes.barh(names, values, color=_COLOURS["train"])
    axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=3)
    axes.set_xlim(0, 1.1)
