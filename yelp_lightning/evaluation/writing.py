"""The comparison in words: tables on screen, and the same as markdown."""

from collections.abc import Sequence
from html import escape
from typing import Any

import rich.box
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from yelp_lightning.evaluation.scores import METRICS
from yelp_lightning.page import table

# Columns of a table that 80 characters hold.
_AT_ONCE = 3
NOTE = (
    "[..]: 95 % interval over the rows and, where there are several, the seeds; none where all rows are alike; mae in "
    "stars, loss in nats; p: McNemar's exact test on the rows that only one of two models has right, of several seeds "
    "those of median accuracy"
)
Rows = list[list[str]]


def metric_rows(comparison: dict[str, Any]) -> tuple[list[str], Rows]:
    """A row per metric, a column per model.

    Args:
        comparison: What comparison.json holds.

    Returns:
        Header and rows.
    """
    models = comparison["models"]
    names = [name for name in METRICS if name in next(iter(models.values()))]
    head = ["", *(f"{name} ({len(of['runs'])} seeds)" if len(of["runs"]) > 1 else name for name, of in models.items())]
    return head, [[name, *(_cell(of, name) for of in models.values())] for name in names]


def spread_rows(comparison: dict[str, Any]) -> tuple[list[str], Rows]:
    """A row per group of several seeds: the standard deviation of each metric over them.

    Args:
        comparison: What comparison.json holds.

    Returns:
        Header and rows; no rows where each model is single.
    """
    groups = {name: of for name, of in comparison["models"].items() if len(of["runs"]) > 1}
    names = [name for name in METRICS if any(f"{name}_sd" in of for of in groups.values())]
    return ["sd over seeds", *names], [
        [name, *(_number(of[f"{metric}_sd"]) for metric in names)] for name, of in groups.items()
    ]


def difference_rows(comparison: dict[str, Any]) -> tuple[list[str], Rows]:
    """A row per pair of models.

    Args:
        comparison: What comparison.json holds.

    Returns:
        Header and rows: accuracy and, where there is one, MAE of the one less those of the other, and p.
    """
    names = [name for name in ("accuracy", "mae") if all(name in pair for pair in comparison["differences"])]
    return ["", *names, "p"], [
        [f"{pair['of']} - {pair['over']}", *(_cell(pair, name, "+.3f") for name in names), _p(pair["mcnemar"]["p"])]
        for pair in comparison["differences"]
    ]


def rounding_rows(comparison: dict[str, Any]) -> tuple[list[str], Rows]:
    """A row per model: the MAE of each rule that makes stars of probabilities.

    Args:
        comparison: What comparison.json holds.

    Returns:
        Header and rows; no rows where classes are not ordered.
    """
    rules = {
        "mae": "most probable",
        "mae_median": "median",
        "mae_rounded": "mean, rounded",
        "mae_expected": "expected_stars",
    }
    models = {name: of for name, of in comparison["models"].items() if "mae_median" in of}
    return ["mae in stars", *rules.values()], [
        [name, *(_number(of[rule]) for rule in rules)] for name, of in models.items()
    ]


def title(comparison: dict[str, Any]) -> str:
    """What was compared.

    Args:
        comparison: What comparison.json holds.

    Returns:
        One line.
    """
    return f"{comparison['n']:,} test rows of {comparison['source']}"


def remarks(comparison: dict[str, Any]) -> list[str]:
    """What to know about the numbers.

    Args:
        comparison: What comparison.json holds.

    Returns:
        Sentences: rows that a model had seen, what stands for several, what could not be measured.
    """
    n = comparison["n"]
    seen = [
        f"{path} was trained or chosen on the texts of {count:,} of the {n:,} test rows, which flatters it."
        for path, count in comparison["seen_in_training"].items()
        if count
    ]
    left_out = [f"{name} is left out: {reason}" for name, reason in comparison["left_out"].items()]
    return [*seen, *comparison["remarks"], *left_out]


def print_comparison(comparison: dict[str, Any]) -> None:
    """Print the tables, at most 80 characters wide where names are short.

    Args:
        comparison: What comparison.json holds.
    """
    console = Console()
    console.print(f"\n{title(comparison)}", style="bold", highlight=False, markup=False)
    head, rows = metric_rows(comparison)
    for start in range(1, len(head), _AT_ONCE):
        columns = [0, *range(start, min(start + _AT_ONCE, len(head)))]
        _print(console, [head[column] for column in columns], [[row[column] for column in columns] for row in rows])
    for head, rows in (spread_rows(comparison), difference_rows(comparison), rounding_rows(comparison)):
        if rows:
            _print(console, head, rows)
    console.print(NOTE, style="italic", highlight=False, markup=False)
    for said in remarks(comparison):
        console.print(said, highlight=False, markup=False)


def print_text(text: str, found: dict[str, dict[str, float]], left_out: str | None) -> None:
    """Print what each model says of one review.

    Args:
        text: The review.
        found: From ``before_and_after``.
        left_out: Why the un-tuned model is not among them.
    """
    names = list(next(iter(found.values())))
    likeliest = {model: max(of, key=lambda name: of[name]) for model, of in found.items()}
    rows = [
        [name, *(f"{'> ' if likeliest[model] == name else ''}{of[name]:.3f}" for model, of in found.items())]
        for name in names
    ]
    console = Console()
    console.print(text, style="italic", highlight=False, markup=False)
    _print(console, ["", *found], rows)
    if left_out:
        console.print(f"un-tuned is left out: {left_out}", highlight=False, markup=False)


def markdown(comparison: dict[str, Any]) -> str:
    """The tables as markdown.

    Args:
        comparison: What comparison.json holds.

    Returns:
        A page.
    """
    parts = [f"# {title(comparison)}"]
    for head, rows in (
        metric_rows(comparison), spread_rows(comparison), difference_rows(comparison), rounding_rows(comparison),
    ):  # fmt: skip
        if rows:
            lines = [head, ["---"] * len(head), *rows]
            parts.append("\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines))
    parts.append(NOTE + ".")
    parts += remarks(comparison)
    return "\n\n".join(parts) + "\n"


def sections(comparison: dict[str, Any]) -> list[tuple[str, str]]:
    """The tables as html.

    Args:
        comparison: What comparison.json holds.

    Returns:
        Heading and content of the report's first sections.
    """
    made = {
        "Comparison": [metric_rows(comparison), spread_rows(comparison)],
        "Differences": [difference_rows(comparison)],
        "Stars from probabilities": [rounding_rows(comparison)],
    }
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in remarks(comparison))
    found = [(heading, "".join(table(head, rows) for head, rows in tables if rows)) for heading, tables in made.items()]
    found[0] = (found[0][0], f"{found[0][1]}<p>{escape(NOTE)}.</p>{said}")
    return [(heading, content) for heading, content in found if content]


def _print(console: Console, head: Sequence[str], rows: Rows) -> None:
    made = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(head):
        made.add_column(escape_markup(column), justify="right" if number else "left")
    for row in rows:
        made.add_row(*(escape_markup(cell) for cell in row))
    console.print(made)
    console.print()


def _cell(of: dict[str, Any], name: str, form: str = ".3f") -> str:
    interval = of[f"{name}_interval"]
    ends = "" if interval is None else " [{}, {}]".format(*(format(end, form) for end in interval))
    return _number(of[name], form) + ends


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
