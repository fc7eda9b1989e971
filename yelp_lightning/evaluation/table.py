"""The table of metrics on screen."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_metrics(title: str, reports: dict[str, dict[str, Any]], stage: str) -> None:
    """Print one row per model: accuracy and MAE with their 95 % intervals, the other metrics, and n.

    Args:
        title: What was measured.
        reports: Row name to the stage's report.
        stage: ``val`` or ``test``.
    """
    measured = next(iter(reports.values()))
    words = f"{stage}/perplexity" in measured
    caption = "[..]: 95 % interval; " + ("n masked words" if words else "mae in stars; n rows measured")
    table = Table(title=escape(title), title_justify="left", caption=caption, caption_justify="left")
    columns = [name for name in ("accuracy", "macro_f1", "mae", "perplexity", "n") if f"{stage}/{name}" in measured]
    for column in ["", *columns]:
        table.add_column(column, justify="right" if column else "left")
    for name, report in reports.items():
        cells = []
        for column in columns:
            cell = str(report[f"{stage}/n"]) if column == "n" else f"{report[f'{stage}/{column}']:.3f}"
            if interval := report.get(f"{stage}/{column}_interval"):
                cell += " [{:.3f}, {:.3f}]".format(*interval).replace("[", r"\[")
            cells.append(cell)
        table.add_row(name, *cells)
    Console().print(table)
