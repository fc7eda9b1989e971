"""Rows: each row of a table looked at once: its class, what its text is known by, or why it cannot be used."""

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm
from xxhash import xxh3_64_intdigest

from yelp_lightning.data.cache import cached
from yelp_lightning.data.datafile import DataFile
from yelp_lightning.data.formats import Chunk, CsvLayout, read_chunks
from yelp_lightning.data.labels import LabelMap
from yelp_lightning.data.texts import check_texts, text_hashes
from yelp_lightning.errors import UsageError

OnBadRow = Literal["error", "skip"]
# How many refused rows are named.
EXAMPLES = 10
# How many columns are named.
_NAMES = 20
# Part of the cache's key: raise it when a scan finds something else.
_FORMAT = 2
REFUSED = -1


@dataclass(frozen=True)
class Table:
    """Files with the same columns, read one after the other.

    Args:
        files: The files.
        text_column: Column with the review.
        label_column: Column with the label; None where none is read.
        group_column: Column that names whose review it is; None where none is read.
        id_columns: Columns of which the first that is there names the review.
        layout: What a csv or tsv does not say of itself.
        option: The option that named the files, for errors.
    """

    files: tuple[DataFile, ...]
    text_column: str
    label_column: str | None = None
    group_column: str | None = None
    id_columns: tuple[str, ...] = ()
    layout: CsvLayout = field(default_factory=CsvLayout)
    option: str = "data.source"

    def __str__(self) -> str:
        first = str(self.files[0])
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1} more files"

    @property
    def columns(self) -> dict[str, str]:
        """Role to the name of each column that must be there."""
        named = {"text": self.text_column, "label": self.label_column, "group": self.group_column}
        return {role: column for role, column in named.items() if column is not None}

    @cached_property
    def key(self) -> str:
        """Hash of what the rows are: the files' content, the columns, the layout."""
        try:
            parts = [file.digest() + file.format for file in self.files]
        except OSError as error:
            raise UsageError(
                f"`{self.option}`: {error.filename} cannot be read ({error.strerror}): give a file that you may read."
            ) from error
        return sha256(repr((parts, self.columns, self.id_columns, self.layout)).encode()).hexdigest()

    def chunks(self) -> Iterator[tuple[DataFile, Chunk]]:
        """All rows in order.

        Yields:
            A chunk and its file.

        Raises:
            UsageError: If a file cannot be read or lacks a column.
        """
        wanted = [*self.columns.values(), *self.id_columns]
        for file in self.files:
            unknown = True
            for chunk in read_chunks(file, wanted, self.layout, self.option):
                if unknown and chunk.names:
                    require_columns(chunk.names, str(file), self.columns)
                    unknown = False
                yield file, chunk

    def texts(self, rows: npt.NDArray[np.int32]) -> Iterator[str]:
        """The texts of some rows, read again.

        Args:
            rows: Row numbers in rising order, ``(n,)``; none of them was refused.

        Yields:
            The text of each.
        """
        start = position = 0
        for _, chunk in self.chunks():
            stop = np.searchsorted(rows, start + len(chunk.lines))
            inside = rows[position:stop] - start
            if len(inside):
                column = chunk.columns[self.text_column]
                if isinstance(column, pa.Array):
                    yield from column.take(pa.array(inside)).to_pylist()
                else:
                    yield from (column[row] for row in inside.tolist())
            start, position = start + len(chunk.lines), int(stop)

    def places(self, rows: npt.NDArray[np.int32]) -> Iterator[tuple[DataFile, int]]:
        """Where some rows stand, read again.

        Args:
            rows: Row numbers in rising order, ``(n,)``.

        Yields:
            The file of each and its line there, or whatever the file's rows are counted in.
        """
        start = position = 0
        for file, chunk in self.chunks():
            stop = int(np.searchsorted(rows, start + len(chunk.lines)))
            yield from ((file, chunk.lines[row - start]) for row in rows[position:stop].tolist())
            start, position = start + len(chunk.lines), stop
            if position == len(rows):
                return


@dataclass
class Rows:
    """What is known of the rows of a table; their texts stay in its files.

    Args:
        table: Where they are.
        labels: Class of each row, ``(n,)``; -1 where it was refused. Without a label column, 0.
        texts: Hash of each normalised text, ``(n,)`` uint64.
        groups: Hash of each row's group, ``(n,)`` uint64, or None.
        refused: Kind of reason to refused rows.
        examples: The first refused rows, in words.
    """

    table: Table
    labels: npt.NDArray[np.int16]
    texts: npt.NDArray[np.uint64]
    groups: npt.NDArray[np.uint64] | None = None
    refused: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def usable(self) -> npt.NDArray[np.int32]:
        """Numbers of the rows that were not refused, in rising order."""
        return np.flatnonzero(self.labels != REFUSED).astype(np.int32)

    def require(self, on_bad_row: OnBadRow, label_map: LabelMap | None) -> None:
        """Stop where rows were refused and that is an error, or where none is left.

        Args:
            on_bad_row: ``error`` or ``skip``.
            label_map: How labels were read, for the way out.

        Raises:
            UsageError: With the first ten refused rows and the counts by reason.
        """
        where, option = str(self.table), self.table.option
        if not len(self):
            raise UsageError(f"`{option}`: {where} holds 0 rows: give a file with at least one review.")
        bad = sum(self.refused.values())
        if not bad or (on_bad_row == "skip" and bad < len(self)):
            return
        counts = ", ".join(f"{kind}: {count:,}" for kind, count in self.refused.items())
        first = "; ".join(self.examples) + ("; ..." if bad > len(self.examples) else "")
        ways = ["mend them"]
        outside = label_map is not None and "label outside" in self.refused
        if outside and label_map and label_map.names is None and label_map.offset == 0 and not (self.labels == 0).any():
            ways.append("say with --data.label_offset what to subtract (1 for stars stored as 1..5)")
        if bad < len(self) and self.table.label_column is not None:
            ways.append("leave them out by --data.on_bad_row skip")
        allowed = f" (labels may be {label_map.allowed})" if label_map and outside else ""
        raise UsageError(
            f"`{option}`: {bad:,} of {len(self):,} rows of {where} cannot be used ({counts}): {first}{allowed}: "
            f"{', or '.join(ways)}."
        )


def scan(table: Table, label_map: LabelMap | None, cache_dir: Path | None, name: str) -> Rows:
    """Look at every row once.

    Args:
        table: Where the rows are.
        label_map: How labels are read; None where the table has no label column.
        cache_dir: Folder in which the result is kept, under the content of the files; None keeps nothing.
        name: What the rows are, for the progress bar.

    Returns:
        What was found; nothing is refused yet.

    Raises:
        UsageError: If a file cannot be read or lacks a column.
    """
    if cache_dir is None:
        return _from_arrow(table, _scan(table, label_map, name))
    how = (_FORMAT, label_map and (label_map.num_labels, label_map.offset, label_map.names))
    # The examples of several files name theirs.
    names = [file.name for file in table.files] if len(table.files) > 1 else []
    key = sha256(f"{table.key} {how} {names}".encode()).hexdigest()[:32]

    def write(file: IO[bytes]) -> None:
        found = _scan(table, label_map, name)
        with pa.ipc.new_file(file, found.schema) as writer:
            writer.write_table(found)

    path = cached(cache_dir, f"rows-{key}", write)
    with pa.OSFile(str(path)) as file:
        return _from_arrow(table, pa.ipc.open_file(file).read_all())


def _scan(table: Table, label_map: LabelMap | None, name: str) -> pa.Table:
    # Three long blocks of memory: many small arrays would lie scattered between the texts and keep their pages.
    labels, texts, groups = bytearray(), bytearray(), bytearray()
    refused: Counter[str] = Counter()
    examples: list[str] = []
    with tqdm(desc=f"Reading {name} reviews", unit=" rows", delay=2) as progress:
        for file, chunk in table.chunks():
            problems = {row: ("not a row", reason) for row, reason in chunk.problems.items()}
            column, in_text = check_texts(
                chunk.columns.get(table.text_column), len(chunk.lines), table.text_column, str(table)
            )
            problems = {**in_text, **problems}
            found = np.zeros(len(chunk.lines), np.int16)
            if label_map is not None:
                values = chunk.columns.get(label_map.column, [None] * len(chunk.lines))
                found = label_map.classes(values)
                for row in np.flatnonzero(found == REFUSED).tolist():
                    value = values[row].as_py() if isinstance(values, pa.Array) else values[row]
                    problems.setdefault(row, label_map.problem(value))
            if table.group_column is not None:
                keys, without = _groups(chunk.columns.get(table.group_column), len(chunk.lines), table.group_column)
                groups += keys.tobytes()
                problems = {**without, **problems}
            for row in sorted(problems):
                kind, reason = problems[row]
                found[row] = REFUSED
                refused[kind] += 1
                if len(examples) < EXAMPLES:
                    where = f"{file.name} " if len(table.files) > 1 else ""
                    examples.append(f"{where}{file.unit} {chunk.lines[row]}: {reason}")
            labels += found.tobytes()
            texts += text_hashes(column).tobytes()
            progress.update(len(chunk.lines))
    columns: dict[str, Any] = {"label": np.frombuffer(labels, np.int16), "text": np.frombuffer(texts, np.uint64)}
    if table.group_column is not None:
        columns["group"] = np.frombuffer(groups, np.uint64)
    return pa.table(columns).replace_schema_metadata({"refused": json.dumps(refused), "examples": json.dumps(examples)})


def _from_arrow(table: Table, found: pa.Table) -> Rows:
    arrays = {name: found[name].to_numpy() for name in found.column_names}
    kept = {name.decode(): json.loads(value) for name, value in found.schema.metadata.items()}
    return Rows(table, arrays["label"], arrays["text"], arrays.get("group"), kept["refused"], kept["examples"])


def _groups(
    values: list[Any] | pa.Array | None, count: int, name: str
) -> tuple[npt.NDArray[np.uint64], dict[int, tuple[str, str]]]:
    if isinstance(values, pa.Array):
        values = values.to_pylist()
    values = [_group_name(value) for value in values or [None] * count]
    missing = {row: ("no group", f"{name!r} is empty") for row, value in enumerate(values) if value in (None, "")}
    keys = [xxh3_64_intdigest(str(value).encode("utf-8", "surrogatepass")) for value in values]
    return np.array(keys, np.uint64), missing


def _group_name(value: Any) -> str | None:
    """A group's name as text: pandas makes 4.0 of 4, and NaN of none, where one is missing."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None or value != value else str(value).strip()


def require_columns(columns: Sequence[str], where: str, wanted: dict[str, str]) -> None:
    """Refuse a table that lacks a column, or has one twice.

    Args:
        columns: Names of its columns.
        where: The table, in words.
        wanted: Role to name of the columns that must be there.

    Raises:
        UsageError: With the columns that there are.
    """
    for role, column in wanted.items():
        if column not in columns:
            close = difflib.get_close_matches(column, columns, n=1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            if any(name.strip().isdigit() for name in columns):
                meant = " (a csv without a header line? name its columns by --data.column_names)"
            more = f" and {len(columns) - _NAMES:,} more" if len(columns) > _NAMES else ""
            raise UsageError(
                f"`data.{role}_column` is {column!r}, but {where} has the columns {list(columns)[:_NAMES]}{more}{meant}"
                f": name the right one with --data.{role}_column."
            )
        if list(columns).count(column) > 1:
            raise UsageError(
                f"`data.{role}_column` is {column!r}, but {where} has {list(columns).count(column)} columns of that "
                "name: rename or remove all but one."
            )
