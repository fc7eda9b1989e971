"""The data card on screen."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_card(facts: dict[str, Any]) -> None:
    """Print the card, 80 columns wide or more.

    Args:
        facts: From ``describe``.
    """
    console = Console(highlight=False)
    options = facts["options"]
    splits = facts["splits"]
    console.print(f"[bold]{escape(str(options['source']))}[/], tokens of {escape(str(facts['tokenizer']))}")
    console.print(_table("Rows", splits, _rows(splits, facts["classes"])))
    console.print(_table("Tokens per review, before truncation", splits, _lengths(splits)))
    console.print(_table("Share of reviews that are longer", splits, _truncated(splits)))
    padding = Table(title="Real tokens over computed tokens", title_justify="left")
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


def _table(title: str, splits: dict[str, Any], rows: list[list[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", *splits):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _rows(splits: dict[str, Any], classes: list[str]) -> list[list[str]]:
    rows = [[name, *(f"{split['rows_per_class'][i]:,}" for split in splits.values())] for i, name in enumerate(classes)]
    rows.append(["all", *(f"{split['rows']:,}" for split in splits.values())])
    rows.append(["read", *(f"{split['read']:,}" for split in splits.values())])
    kinds = dict.fromkeys(kind for split in splits.values() for kind in split["refused"])
    rows += [[f"refused: {kind}", *(f"{one['refused'].get(kind, 0):,}" for one in splits.values())] for kind in kinds]
    for what, name in {"text": "left out: text elsewhere too", "group": "left out: group elsewhere too"}.items():
        if any(what in split["removed"] for split in splits.values()):
            rows.append([name, *(f"{split['removed'].get(what, 0):,}" for split in splits.values())])
    rows.append(["text repeated in the table", *(f"{split['repeated_texts']:,}" for split in splits.values())])
    return rows


def _lengths(splits: dict[str, Any]) -> list[list[str]]:
    names = next(iter(splits.values()))["token_lengths"]
    words = {"p0": "shortest", "p50": "median", "p100": "longest"}
    return [
        [words.get(name, name), *(f"{round(split['token_lengths'][name]):,}" for split in splits.values())]
        for name in names
    ]


def _truncated(splits: dict[str, Any]) -> list[list[str]]:
    lengths = next(iter(splits.values()))["truncated_at"]
    return [[f"than {at}", *(f"{split['truncated_at'][at]:.1%}" for split in splits.values())] for at in lengths]
