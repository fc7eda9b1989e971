"""Inputs of predict: the reviews of a file or of standard input, in order, with their ids; none is left out or kept."""

import os.path
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from yelp_lightning.data.datafile import DataFile, zip_members
from yelp_lightning.data.formats import CsvLayout
from yelp_lightning.data.rows import EXAMPLES, Table, require_columns
from yelp_lightning.data.texts import check_texts
from yelp_lightning.errors import UsageError

STDIN = "-"
# Columns that are carried into the output where no other is named; the first one wins.
ID_COLUMNS = ("id", "review_id")
# What keeps a row out of training still gets stars: one row out for each row in.
_PREDICTED = ("empty text", "text over 1 MB")


@dataclass
class Inputs:
    """Reviews to predict.

    Args:
        table: Where they are.
        count: Reviews.
        blank: How many are blank: their stars mean nothing.
        id_column: Name of the column of ids; None where there is none.
        ids: The ids, ``(n,)``; None where there are none.
    """

    table: Table
    count: int
    blank: int
    id_column: str | None = None
    ids: pa.ChunkedArray | None = None


def read_inputs(source: str, text_column: str, id_column: str | None, layout: CsvLayout, spool: Path) -> Inputs:
    """Check every row of an input.

    Args:
        source: A table, a txt file (one review a line), either plain, .gz, .zst or in a .zip; or ``-`` for standard
            input, read as txt.
        text_column: Column with the review; ignored for txt.
        id_column: Column to carry into the output; None takes ``id`` or ``review_id`` where there is one.
        layout: What a csv or tsv does not say of itself.
        spool: Folder for a copy of standard input, which can be read only once.

    Returns:
        What is to be predicted.

    Raises:
        UsageError: If the file cannot be read, a column is not there, there are no rows, a text is missing, or the ids
            are neither texts nor numbers.
    """
    option = "--data.predict_path"
    file = _input_file(source, option, spool)
    where = "standard input" if source == STDIN else source
    is_text = file.format == ".txt"
    table = Table(
        (file,),
        text_column="text" if is_text else text_column,
        id_columns=(id_column,) if id_column else () if is_text else ID_COLUMNS,
        layout=layout,
        option=option,
    )
    count = blank = refused = 0
    examples: list[str] = []
    ids: list[Any] = []
    taken: str | None = id_column
    for _, chunk in table.chunks():
        if taken is None and not count:
            taken = next((name for name in table.id_columns if name in chunk.names), None)
        if taken is not None and chunk.names:
            require_columns(chunk.names, where, {"id": taken})
        _, problems = check_texts(chunk.columns.get(table.text_column), len(chunk.lines), table.text_column, where)
        problems |= {row: ("not a row", reason) for row, reason in chunk.problems.items()}
        bad = {row: reason for row, (kind, reason) in sorted(problems.items()) if kind not in _PREDICTED}
        blank += sum(kind == "empty text" for kind, _ in problems.values())
        refused += len(bad)
        examples += [f"{file.unit} {chunk.lines[row]}: {reason}" for row, reason in bad.items()]
        del examples[EXAMPLES:]
        if taken is not None and len(chunk.lines):
            ids.append(_ids(chunk.columns.get(taken, [None] * len(chunk.lines)), where, taken))
        count += len(chunk.lines)
    if refused:
        raise UsageError(
            f"`{option}`: {refused:,} of {count:,} rows of {where} cannot be read ({'; '.join(examples)}"
            f"{'; ...' if refused > len(examples) else ''}): mend them, since every row gets its stars."
        )
    if not count:
        raise UsageError(f"`{option}`: {where} holds 0 rows: give at least one review.")
    if taken == "text" != table.text_column:
        raise UsageError(
            f"`data.id_column` is 'text', while the reviews stand in {text_column!r}: rename the column of {where}."
        )
    return Inputs(table, count, blank, taken, pa.chunked_array(_one_type(ids, where, taken)) if taken else None)


def texts_of(texts: list[str], folder: Path) -> Inputs:
    """Inputs from texts.

    Args:
        texts: The reviews.
        folder: Folder for a copy of them.

    Returns:
        What is to be predicted.
    """
    path = folder / "texts.arrow"
    table = pa.table({"text": pa.array(texts, pa.string())})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return Inputs(Table((DataFile(path),), "text"), len(texts), sum(not text.strip() for text in texts))


def _input_file(source: str, option: str, spool: Path) -> DataFile:
    if source == STDIN:
        path = spool / "stdin.txt"
        with path.open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        return DataFile(path, title="standard input")
    if not os.path.isfile(source):
        raise UsageError(
            f"`{option}` is {source!r}, which is no file: give a csv, tsv, jsonl, parquet or txt file, "
            "or - for standard input."
        )
    if not source.endswith(".zip"):
        return DataFile(Path(source))
    # A README.txt beside a table is no input.
    members = zip_members(Path(source), option) or zip_members(Path(source), option, [".txt"])
    if len(members) != 1:
        raise UsageError(
            f"`{option}` is {source!r}, which holds {len(members)} tables "
            f"{[member.member for member in members]}: give one with a single csv, tsv, jsonl, parquet or txt."
        )
    return members[0]


def _ids(values: list[Any] | pa.Array, where: str, name: str) -> pa.Array:
    try:
        column = values if isinstance(values, pa.Array) else pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise _no_one_type(where, name, error) from error
    kind = column.type
    plain = pa.types.is_string(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or kind == pa.null()
    if not plain:
        raise UsageError(
            f"`data.id_column` {name!r} of {where} holds {kind}, which cannot stand in a csv of predictions: "
            "give ids that are texts or numbers."
        )
    return column


def _one_type(parts: list[pa.Array], where: str, name: str) -> list[pa.Array]:
    """Whole numbers in one chunk and fractions in the next become fractions."""
    tables = [pa.table({name: part}) for part in parts]
    try:
        return list(pa.concat_tables(tables, promote_options="permissive")[name].chunks)
    except (pa.ArrowException, ValueError) as error:
        raise _no_one_type(where, name, error) from error


def _no_one_type(where: str, name: str, error: Exception) -> UsageError:
    return UsageError(f"`data.id_column` {name!r} of {where} has no one type ({error}): give texts, or numbers.")
