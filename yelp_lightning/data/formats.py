"""Formats: csv, tsv, jsonl, parquet, arrow and txt, plain, compressed or in a zip, as a stream of chunks of rows."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from yelp_lightning.data.datafile import BROKEN, ENDINGS, TABLES, DataFile, open_seekable, open_stream, reason_of
from yelp_lightning.errors import UsageError

# Arrow's types of text, and the same without the promise of UTF-8.
_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
# Rows that are in memory at a time, and the longest line and cell, characters: a file of one endless line, or with a
# quote that is never closed, ends in a sentence and not in swap.
CHUNK_ROWS = 2_000
MAX_CELL = 2**26
# The last bytes of a whole Arrow stream.
_ARROW_END = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass(frozen=True)
class CsvLayout:
    r"""What a csv or tsv file does not say of itself.

    Args:
        column_names: Names of the columns where there is no header line; empty means that the first line is one.
        backslash_escapes: Whether ``\n`` and ``\"`` stand for a line end and a quote.
    """

    column_names: tuple[str, ...] = ()
    backslash_escapes: bool = False


@dataclass
class Chunk:
    """Some rows of a file, in order.

    Args:
        names: All columns of the file that are known so far.
        columns: The wanted columns that it has: Python values, or Arrow's.
        lines: Where each row starts: its line in a text file, its number in others; from 1.
        problems: Row of this chunk to what is wrong with it, for rows that cannot be parsed; their values mean nothing.
    """

    names: list[str]
    columns: dict[str, list[Any] | pa.Array]
    lines: Sequence[int]
    problems: dict[int, str] = field(default_factory=dict)


def read_chunks(file: DataFile, wanted: Sequence[str], layout: CsvLayout, option: str) -> Iterator[Chunk]:
    """Read some columns of a file, to the letter: a field of a csv is text, so ``007`` and ``NA`` stay what they are.

    Args:
        file: Text is UTF-8, with or without a BOM; a json has one object a line, a txt one review (column ``text``).
        wanted: Names of the columns to read.
        layout: What a csv or tsv does not say of itself.
        option: The option that named the file, for errors.

    Yields:
        Its rows, at most ``CHUNK_ROWS`` at a time; at least one chunk, so that the names of an empty table are known.
        Bytes that are not UTF-8 are surrogates in the text: they are found where rows are checked.

    Raises:
        UsageError: If the ending is unknown, the file is empty, or it is not what its ending says.
    """
    if file.format not in (*TABLES, ".txt"):
        raise UsageError(f"`{option}` is {str(file)!r}, whose ending is not one of {ENDINGS}: rename or convert it.")
    empty = True
    try:
        with ExitStack() as stack:
            for chunk in _chunks(file, stack, list(dict.fromkeys(wanted)), layout):
                empty = empty and not chunk.names and not chunk.lines
                yield chunk
    except BROKEN as error:
        raise UsageError(
            f"`{option}`: {file} cannot be read as {file.format[1:]} ({reason_of(error)}): mend the file."
        ) from error
    if empty:
        raise UsageError(f"`{option}`: {file} is empty: give a file with at least one review.")


def _chunks(file: DataFile, stack: ExitStack, wanted: list[str], layout: CsvLayout) -> Iterator[Chunk]:
    if file.format == ".parquet":
        yield from _parquet_chunks(stack.enter_context(open_seekable(file)), wanted)
    elif file.format == ".arrow":
        source = stack.enter_context(open_seekable(file))
        opened = pa.memory_map(str(source)) if isinstance(source, Path) else pa.PythonFile(source)
        yield from _ipc_chunks(stack.enter_context(opened), wanted)
    else:
        lines = _lines(stack.enter_context(open_stream(file)))
        if file.format == ".txt":
            yield from _txt_chunks(lines)
        elif file.format in (".jsonl", ".json"):
            yield from _json_chunks(lines, wanted)
        else:
            yield from _csv_chunks(lines, "\t" if file.format == ".tsv" else ",", wanted, layout)


def _lines(stream: IO[bytes]) -> Iterator[str]:
    r"""Decoded lines with their ends, split at ``\n`` alone."""
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="\n")
    number = 0
    while line := text.readline(MAX_CELL):
        number += 1
        if len(line) == MAX_CELL:
            raise ValueError(f"line {number} is longer than {MAX_CELL >> 20} MiB")
        if number == 1:
            line = line.removeprefix("\ufeff")
            if line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
                raise ValueError("line 1 starts with the mark of UTF-16: save the file as UTF-8")
        if line:  # a BOM alone is no line
            yield line


def _header(names: list[str]) -> list[str]:
    for name in names:
        if "\0" in name:  # UTF-16 without its mark, for one
            raise ValueError("line 1 holds a NUL byte: save the file as UTF-8")
        if not name.isascii() and any("\udc80" <= letter <= "\udcff" for letter in name):
            raise ValueError("line 1 is not UTF-8: save the file as UTF-8")
    return names


def _csv_chunks(lines: Iterator[str], delimiter: str, wanted: list[str], layout: CsvLayout) -> Iterator[Chunk]:
    csv.field_size_limit(MAX_CELL)
    # Strict: text after a closing quote, or a quote that is never closed, would change reviews or swallow rows.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows = _csv_rows(reader)
    try:
        names = _header(list(layout.column_names) or next((row for _, row in rows if row), []))
        kept = [(name, i) for i, name in enumerate(names) if name in wanted]
        # A blank line is a row only where it can be one: in a file of one column.
        filled = ((line, row or [""]) for line, row in rows if row or len(names) == 1)
        while True:
            chunk = list(islice(filled, CHUNK_ROWS))
            problems = {
                i: f"{len(row)} fields instead of {len(names)}"
                for i, (_, row) in enumerate(chunk)
                if len(row) != len(names)
            }
            for i in problems:
                chunk[i] = (chunk[i][0], [""] * len(names))
            columns = {name: [row[i] for _, row in chunk] for name, i in kept}
            if layout.backslash_escapes:
                columns = {name: [_unescape(field) for field in fields] for name, fields in columns.items()}
            yield Chunk(names, columns, [line for line, _ in chunk], problems)
            if not chunk:
                return
    except csv.Error as error:
        reason = "a CR stands alone outside quotes" if "new-line" in str(error) else error
        raise ValueError(f"line {reader.line_num}: {reason}") from error


def _csv_rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
    start = 1
    try:
        for row in reader:
            yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        if "end of data" in str(error):  # found at the file's end, long after the line to mend
            raise ValueError(f"line {start}: a quote is never closed") from error
        raise


def _unescape(field: str) -> str:
    return field.replace("\\n", "\n").replace('\\"', '"') if "\\" in field else field


def _json_chunks(lines: Iterator[str], wanted: list[str]) -> Iterator[Chunk]:
    names: dict[str, None] = {}
    rows = ((number, line) for number, line in enumerate(lines, start=1) if not line.isspace())
    while chunk := list(islice(rows, CHUNK_ROWS)):
        if not names and re.match(r"\s*\[\s*($|\{)", chunk[0][1]):
            raise ValueError(f"line {chunk[0][0]} starts an array: write one object a line, as by jq -c '.[]'")
        objects: list[dict[str, Any]] = []
        problems = {}
        for number, (_, line) in enumerate(chunk):
            try:
                if "\0" in line:  # UTF-16 without its mark, for one
                    raise ValueError("it holds a NUL byte")
                row = json.loads(line, object_pairs_hook=_json_object)
            except (ValueError, RecursionError) as error:
                row, problems[number] = {}, f"no json object: {getattr(error, 'msg', error)}"
            if not isinstance(row, dict):
                row, problems[number] = {}, f"no json object, but a {type(row).__name__}"
            names |= dict.fromkeys(row)
            objects.append(row)
        # A column that stands in no row so far may stand in a later one.
        columns = {name: [row.get(name) for row in objects] for name in wanted if name in names}
        yield Chunk(list(names), columns, [number for number, _ in chunk], problems)


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _txt_chunks(lines: Iterator[str]) -> Iterator[Chunk]:
    numbered = enumerate((line.removesuffix("\n").removesuffix("\r") for line in lines), start=1)
    while True:
        chunk = list(islice(numbered, CHUNK_ROWS))
        yield Chunk(["text"], {"text": [line for _, line in chunk]}, [number for number, _ in chunk])
        if not chunk:
            return


def _parquet_chunks(source: Any, wanted: list[str]) -> Iterator[Chunk]:
    from pyarrow import parquet

    # With its defaults, the reader would keep every row group that it has read.
    with parquet.ParquetFile(source, pre_buffer=False, buffer_size=2**20) as file:
        names = file.schema_arrow.names
        columns = [name for name in wanted if name in names]
        yield from _arrow_chunks(file.iter_batches(CHUNK_ROWS, columns=columns), names, wanted)


def _ipc_chunks(source: Any, wanted: list[str]) -> Iterator[Chunk]:
    if source.read(6) == b"ARROW1":
        file = pa.ipc.open_file(source)
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
        yield from _arrow_chunks(batches, file.schema.names, wanted)
        return
    source.seek(0)
    with pa.ipc.open_stream(source) as stream:
        yield from _arrow_chunks(iter(stream), stream.schema.names, wanted)
    # Cut off between two batches, a stream looks complete but for this.
    source.seek(max(source.size() - len(_ARROW_END), 0))
    if source.read() != _ARROW_END:
        raise ValueError("its end is missing")


def _arrow_chunks(batches: Iterator[pa.RecordBatch], names: list[str], wanted: list[str]) -> Iterator[Chunk]:
    start = 1
    yield Chunk(names, {}, [])
    for batch in batches:
        for offset in range(0, len(batch), CHUNK_ROWS):
            part = batch.slice(offset, CHUNK_ROWS)
            once = [name for name in wanted if part.schema.names.count(name) == 1]
            columns = {name: _plain(part.column(name)) for name in once}
            yield Chunk(names, columns, range(start, start + len(part)))
            start += len(part)


def _plain(column: pa.Array) -> list[Any] | pa.Array:
    """The same values without Arrow's encodings: no dictionary, one type of string; UTF-8 or a list."""
    if pa.types.is_dictionary(column.type):
        values = _plain(column.dictionary)
        column.indices.validate(full=True)
        if isinstance(values, list):
            return [None if index is None else values[index] for index in column.indices.to_pylist()]
        column = values.take(column.indices)
    as_bytes = _BYTES.get(column.type)
    if as_bytes is None:
        column.validate(full=True)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            column.to_pylist()  # a date or a decimal may be none that Python has
        return column
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:  # the format promises UTF-8, and nobody checks it
        column = column.view(as_bytes)
        column.validate(full=True)
        return [None if value is None else value.decode("utf-8", "surrogateescape") for value in column.to_pylist()]
    return column.cast(pa.string())
