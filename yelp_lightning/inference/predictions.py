"""Predictions: a table of stars and probabilities, and the csv, jsonl or parquet file that it becomes."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from yelp_lightning.errors import UsageError
from yelp_lightning.files import atomic_file, require_new
from yelp_lightning.modeling.rounding import expected_stars

FORMATS = (".csv", ".jsonl", ".parquet")
STDOUT = "-"
# Rows that are Python's at a time.
JSONL_ROWS = 10_000


def predictions_table(
    probabilities: npt.NDArray[np.float32], ids: pa.ChunkedArray | None = None, id_column: str | None = None,
    label_names: Sequence[str] | None = None, ordered: bool = True,
) -> pa.Table:  # fmt: skip
    """One row per review, in the order given.

    Args:
        probabilities: ``(n, C)``, rows sum to 1.
        ids: The input's ids, ``(n,)``.
        id_column: Their column's name; ``id`` takes the place of the row number.
        label_names: Names of the classes where they are not stars, ``(C,)``.
        ordered: Whether the classes are ordered, as stars are.

    Returns:
        Columns ``id`` (the input's own ``id``, or the row number from 0), the input's id column under its own name,
        ``label`` (the most probable class, where classes have names), ``stars`` (1..C, the most probable) and
        ``expected_stars`` (mean over the probabilities) where classes are ordered, ``p1`` .. ``pC``.
    """
    rows, classes = probabilities.shape
    columns: dict[str, Any] = {"id": np.arange(rows)}
    if ids is not None and id_column is not None:
        columns[id_column] = ids
    likeliest = probabilities.argmax(1)
    if label_names is not None:
        columns["label"] = [label_names[label] for label in likeliest]
    if ordered or label_names is None:
        columns["stars"] = likeliest + 1
        columns["expected_stars"] = expected_stars(probabilities)
    columns |= {f"p{star + 1}": probabilities[:, star] for star in range(classes)}
    return pa.table(columns)


def check_output(output: str, id_column: str | None = None, classes: int = 0) -> None:
    """Refuse an output that could not be written, before any compute.

    Args:
        output: ``--output``.
        id_column: Column of the input that is carried along.
        classes: Classes ``C``.

    Raises:
        UsageError: If its ending is unknown, it exists already, its folder cannot be written to, or the id column has
            the name of another.
    """
    if id_column in ("label", "stars", "expected_stars", *(f"p{star + 1}" for star in range(classes))):
        raise UsageError(f"`data.id_column` is {id_column!r}, a column of the predictions too: rename the input's.")
    if output == STDOUT:
        return
    path = Path(output)
    if path.suffix not in FORMATS:
        raise UsageError(
            f"`--output` is {output!r}, whose ending is not one of {', '.join(FORMATS)}: "
            "give one of these, or - for csv on standard output."
        )
    require_new(path, "--output")


def write_predictions(table: pa.Table, output: str) -> None:
    """Write predictions; a file appears only when it is whole.

    Args:
        table: From ``predictions_table``.
        output: A ``.csv``, ``.jsonl`` or ``.parquet`` file, or ``-``: csv on standard output.
    """
    if output == STDOUT:
        try:
            _write_csv(table, sys.stdout.buffer)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, `head` for one, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    path = Path(output)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".csv":
            _write_csv(table, file)
        elif path.suffix == ".jsonl":
            rows = (row for batch in table.to_batches(JSONL_ROWS) for row in batch.to_pylist())
            file.writelines(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n" for row in rows)
        else:
            from pyarrow import parquet

            parquet.write_table(table, file)


def _write_csv(table: pa.Table, file: IO[bytes]) -> None:
    from pyarrow import csv

    csv.write_csv(table, file, csv.WriteOptions(quoting_style="needed"))
