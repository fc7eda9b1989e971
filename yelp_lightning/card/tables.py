"""The card's tables as names and cells, one column a split, for screen and page."""

from typing import Any

_PERCENTILES = {"p0": "shortest", "p50": "median", "p100": "longest"}


def row_counts(facts: dict[str, Any]) -> dict[str, list[str]]:
    """Rows per class, and what became of the others.

    Args:
        facts: From ``describe``.

    Returns:
        Name of the line to its cells.
    """
    splits = list(facts["splits"].values())
    table = {
        name: [f"{one['rows_per_class'][label]:,}" for one in splits] for label, name in enumerate(facts["classes"])
    }
    table["all"] = [f"{one['rows']:,}" for one in splits]
    # Validation rows that were cut from train are counted there.
    first = splits[0]["source"]

    def once(counts: list[int]) -> list[str]:
        return [
            "as train" if place and one["source"] == first else f"{count:,}"
            for place, (one, count) in enumerate(zip(splits, counts, strict=True))
        ]

    table["read from its table"] = once([one["read"] for one in splits])
    for kind in dict.fromkeys(kind for one in splits for kind in one["refused"]):
        table[f"refused: {kind}"] = once([one["refused"].get(kind, 0) for one in splits])
    table["text repeated in its table"] = once([one["repeated_texts"] for one in splits])
    for what in ("text", "group"):
        if any(what in one["removed"] for one in splits):
            table[f"left out: {what} elsewhere too"] = [f"{one['removed'].get(what, 0):,}" for one in splits]
    return table


def length_percentiles(facts: dict[str, Any]) -> dict[str, list[str]]:
    """Tokens per review.

    Args:
        facts: From ``describe``.

    Returns:
        Name of the line to its cells.
    """
    splits = list(facts["splits"].values())
    return {
        _PERCENTILES.get(name, name): [f"{one['token_lengths'][name]:,.0f}" for one in splits]
        for name in splits[0]["token_lengths"]
    }


def truncated_shares(facts: dict[str, Any]) -> dict[str, list[str]]:
    """Share of reviews that are longer than some lengths.

    Args:
        facts: From ``describe``.

    Returns:
        Name of the line to its cells.
    """
    splits = list(facts["splits"].values())
    return {f"than {at}": [f"{one['truncated_at'][at]:.1%}" for one in splits] for at in splits[0]["truncated_at"]}
