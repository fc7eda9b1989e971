"""Tables: the wanted columns of a csv, tsv, jsonl or parquet file, and the lines of a txt, or one sentence."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from yelp_lightning.errors import UsageError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
STDIN = "-"
# Rows that are Python objects at a time; the table itself is Arrow.
_CHUNK_ROWS = 10_000
# The csv module's own limit of 128 KiB would refuse a long review.
_MAX_FIELD_CHARACTERS = 2**31 - 1


def read_table(path: Path, option: str, wanted: list[str]) -> tuple[pa.Table, list[str]]:
    """Read some columns of a file, to the letter: a field of a csv is text, so ``007`` and ``NA`` stay what they are.

    Args:
        path: A csv, tsv, jsonl (one json object a line) or parquet file; text is UTF-8, with or without a BOM.
        option: The option that named it, for errors.
        wanted: Names of the columns to read.

    Returns:
        The wanted columns that the file has, all its rows in order; and the names of all its columns.

    Raises:
        UsageError: If the ending is unknown, the file is empty or any part of it cannot be parsed: no row is dropped.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"`{option}` is {str(path)!r}, whose ending is not one of {', '.join(SUFFIXES)}: "
            "rename or convert the file."
        )
    try:
        table, names = _parse(path, list(dict.fromkeys(wanted)))
    except (ValueError, pa.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UsageError(
            f"`{option}`: {path} cannot be parsed as {path.suffix[1:]} ({reason}): mend the file."
        ) from error
    if not names:
        raise UsageError(f"`{option}`: {path} is empty: give a file with at least one review.")
    return table, names


def read_lines(source: str, option: str) -> list[str]:
    r"""Read a text, one row a line; blank lines are rows too.

    Args:
        source: A file, or ``-`` for standard input; UTF-8.
        option: The option that named it, for errors.

    Returns:
        The lines without their ends, ``\n`` or ``\r\n``; form feeds, U+2028 and their like stand inside lines.

    Raises:
        UsageError: If it cannot be read or is not UTF-8.
    """
    try:
        if source == STDIN:
            lines = list(_lines(sys.stdin.buffer))
        else:
            with Path(source).open("rb") as file:
                lines = list(_lines(file))
    except (ValueError, OSError) as error:
        where = "standard input" if source == STDIN else source
        raise UsageError(f"`{option}`: {where} cannot be read ({error}): mend it.") from error
    return [line.removesuffix("\n").removesuffix("\r") for line in lines]


def _parse(path: Path, wanted: list[str]) -> tuple[pa.Table, list[str]]:
    if path.suffix == ".parquet":
        return _parquet_table(path, wanted)
    with path.open("rb") as file:
        if path.suffix in (".jsonl", ".json"):
            return _json_table(_lines(file), wanted)
        return _csv_table(_csv_rows(_lines(file), "\t" if path.suffix == ".tsv" else ","), wanted)


def _lines(file: Iterable[bytes]) -> Iterator[str]:
    r"""Decoded lines with their ends, split at ``\n`` alone."""
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number} is not UTF-8 at its byte {error.start + 1}") from error
        if "\0" in text:  # no text has it; files that a crash filled up and UTF-16 do
            raise ValueError(f"line {number} holds a NUL byte")
        if text:  # a BOM alone is no line
            yield text


def _csv_rows(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    """Rows of fields, the header first, all of one width."""
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    # Strict: text after a closing quote, or a quote that is never closed, would change reviews or swallow rows.
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    width = 0
    try:
        for fields in rows:
            # A blank line is a row only where it can be one: in a file of one column.
            row = fields or [""] * (width == 1)
            if not row:
                continue
            width = width or len(row)
            if len(row) != width:
                raise ValueError(f"line {rows.line_num} has {len(row)} fields, the header {width}")
            yield row
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error


def _csv_table(rows: Iterator[list[str]], wanted: list[str]) -> tuple[pa.Table, list[str]]:
    header = next(rows, [])
    kept = [i for i, name in enumerate(header) if name in wanted]
    schema = pa.schema([(header[i], pa.string()) for i in kept])
    batches = []
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        batches.append(pa.record_batch([pa.array([row[i] for row in chunk], pa.string()) for i in kept], schema))
    return pa.Table.from_batches(batches, schema), header


def _json_table(lines: Iterator[str], wanted: list[str]) -> tuple[pa.Table, list[str]]:
    names: dict[str, None] = {}
    tables = [pa.table({name: pa.nulls(0) for name in wanted})]
    rows = _json_rows(lines)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        for row in chunk:
            names |= dict.fromkeys(row)
        tables.append(pa.table({name: _json_column(name, chunk) for name in wanted}))
    # Whole numbers in one chunk and fractions in the next become fractions.
    table = pa.concat_tables(tables, promote_options="permissive")
    return table.select([name for name in wanted if name in names]), list(names)


def _json_rows(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is no json object: {getattr(error, 'msg', error)}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no json object, but a {type(row).__name__}")
        yield row


def _json_column(name: str, rows: list[dict[str, Any]]) -> pa.Array:
    try:
        return pa.array([row.get(name) for row in rows])
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"column {name!r} has no one type: {error}") from error


def _parquet_table(path: Path, wanted: list[str]) -> tuple[pa.Table, list[str]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        return file.read(columns=[name for name in wanted if name in names]), names
