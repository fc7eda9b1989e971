"""Pages: one html file with tables and plots, readable in light and dark, with nothing from elsewhere."""

import html
import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Stands for the page's own text colour inside the plots.
INK = "#010203"
# Of even brightness between black and white, so that each is seen on both; told apart by the colour-blind too.
COLOURS = ("#4878d0", "#ee854a", "#6acc64", "#d65f5f", "#956cb4", "#8c613c", "#dc7ec0", "#797979", "#d5bb67", "#82c6e2")
_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.wide { overflow-x: auto; margin: .5rem 0 }
table { border-collapse: collapse; overflow-wrap: normal }
caption { text-align: left; font-size: .9rem; padding: .2rem 0; max-width: calc(100vw - 2rem) }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8885; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 7rem }
tbody th { font-weight: inherit }
svg { max-width: 100%; height: auto; min-width: 30rem }
figure { margin: 0 }
summary { cursor: pointer } li { margin: .3rem 0 }
blockquote { margin: .5rem 0; padding: .5rem 1rem; border-left: 3px solid #8888 }
"""
# A few hundred classes would each bring a tick, and names would not fit below their bars.
NAMED_CLASSES = 10
# Most characters of a name in a legend.
NAME = 40


def page(title: str, body: Iterable[str]) -> str:
    """A whole page; it loads nothing.

    Args:
        title: Its heading, plain text.
        body: What stands below, html.

    Returns:
        The html.
    """
    title = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table that scrolls within its own box where the window is narrow.

    Args:
        head: Names of the columns, plain text.
        rows: Cells of each line, plain text; the first one names it.
        caption: What the table shows, plain text.

    Returns:
        The html.
    """
    columns = "".join(f'<th scope="col">{html.escape(name)}</th>' if name else "<td></td>" for name in head)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    said = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    label = html.escape(caption or "table")
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{label}"><table>{said}'
        f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def plot(label: str, draw: Callable[["Axes"], None], size: tuple[float, float] = (7.5, 2.8)) -> str:
    """A plot as inline svg in the page's own text colour.

    Args:
        label: What it shows, plain text, for who cannot see it.
        draw: Draws on the axes that it is given.
        size: Width and height, inches.

    Returns:
        The html.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure  # not pyplot: it would look for a screen

    ink = {name: INK for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")}
    # A `$` in the name of a class is a dollar.
    style = {"svg.fonttype": "none", "svg.hashsalt": "page", "font.size": 10, "text.parse_math": False, **ink}
    with mpl.rc_context({**style, "font.family": "sans-serif"}), warnings.catch_warnings():
        # Names in any script: the browser has the letters that matplotlib's own font, which measures them, lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        text = io.StringIO()
        figure.savefig(
            text, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # Of several plots on a page each would be "figure_1"; and html has no need of the names of xml.
    svg = re.sub(r' id="[\w.]+_\d+"| xmlns(:xlink)?="[^"]*"', "", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
    return f'<figure class="wide" tabindex="0">{svg}</figure>'


def legend(axes: "Axes", columns: int = 3) -> None:
    """Name the series of a plot, above it.

    Args:
        axes: The plot.
        columns: Names side by side.
    """
    handles, names = axes.get_legend_handles_labels()
    # The end of a long name is what tells it apart.
    short = [name if len(name) <= NAME else f"…{name[-NAME:]}" for name in names]
    axes.legend(handles, short, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns)
