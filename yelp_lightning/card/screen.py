"""The data card on screen."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from yelp_lightning.card.tables import length_percentiles, row_counts, truncated_shares


def print_card(facts: dict[str, Any]) -> None:
    """Print the card, 80 columns wide or more.

    Args:
        facts: From ``describe``.
    """
    console = Console(highlight=False)
    options = facts["options"]
    splits = facts["splits"]
    console.print(f"[bold]{escape(str(options['source']))}[/], tokens of {escape(str(facts['tokenizer']))}")
    _print_table(console, "Rows", splits, row_counts(facts))
    _print_table(console, "Tokens per review, before truncation", splits, length_percentiles(facts))
    _print_table(console, "Share of reviews that are longer", splits, truncated_shares(facts))
    console.print("Real tokens over computed tokens")
    padding = Table()
    padding.add_column("batches")
    padding.add_column(f"of {options['batch_size']}", justify="right")
    for name, value in facts["padding_efficiency"].items():
        padding.add_row(name, f"{value:.3f}")
    console.print(padding)
    example = facts["example"]
    console.print(f"[bold]Row {example['row']} of train[/], {escape(example['label'])}, {example['tokens']} tokens:")
    console.print(escape(example["text"]))
    console.print("[bold]decoded back:[/]")
    console.print(escape(example["decoded"]))


def _print_table(console: Console, title: str, splits: dict[str, Any], rows: dict[str, list[str]]) -> None:
    console.print(title)
    table = Table()
    for column in ("", *splits):
        table.add_column(column, justify="right" if column else "left")
    for name, cells in rows.items():
        table.add_row(*map(escape, [name, *cells]))
    console.print(table)
