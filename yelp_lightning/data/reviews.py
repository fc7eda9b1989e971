"""Reviews: read any source into rows of `text` and `label`, or stop with one sentence."""

import difflib
import re
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from yelp_lightning.errors import UsageError
from yelp_lightning.pretrained import EMBEDDED, star_names

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
STDIN = "-"
# How a split's file may be called inside a folder; the first name is the one that messages use.
SPLIT_STEMS = {"train": ("train",), "validation": ("validation", "val", "dev"), "test": ("test",)}
# A json row must fit into one block of the reader; 64 MiB holds any review.
_JSON_BLOCK_BYTES = 64 << 20


def has_split(source: str, split: str) -> bool:
    """Whether a source brings rows of its own for ``split``.

    Args:
        source: As ``data.source``.
        split: ``train``, ``validation`` or ``test``.

    Returns:
        True if ``read_reviews`` can read that split. A single file serves whichever split is asked for, except
        ``validation``, which is then cut from train.

    Raises:
        UsageError: If the source does not exist.
    """
    if source == EMBEDDED:
        return True
    path = Path(source)
    if path.is_dir():
        return _split_file(path, split) is not None
    if path.is_file():
        return split != "validation"
    return split in _hub_splits(source)


def read_reviews(
    source: str, split: str, text_column: str, label_column: str, label_offset: int, num_labels: int
) -> "Dataset":
    """Read the labelled rows of one split.

    Args:
        source: ``embedded``, a file, a folder of ``train.*``, ``validation.*``, ``test.*``, or a Hub id.
        split: ``train``, ``validation`` or ``test``.
        text_column: Name of the column with the review.
        label_column: Name of the column with the stars.
        label_offset: What is subtracted from the column's values to get labels that count from 0.
        num_labels: Classes ``C``.

    Returns:
        A data set with ``text`` (string) and ``label`` (ClassLabel, ``0 <= label < C``), in the source's order.

    Raises:
        UsageError: If the source, the split or a column is not there, the file cannot be parsed, there are no rows,
            a text is missing, or a label is missing or outside the range. Rows are counted from 1.
    """
    from datasets import ClassLabel, Dataset, Features, Value

    if source == EMBEDDED:
        table, where = _embedded_table(split), "the embedded reviews"
        text_column, label_column, label_offset = "text", "label", 0
    elif Path(source).exists():
        path = _split_file(Path(source), split) if Path(source).is_dir() else Path(source)
        if path is None:
            found = sorted(file.name for file in Path(source).iterdir())[:10]
            raise UsageError(
                f"`data.source` is the folder {source!r}, which holds no {split}.csv, .tsv, .jsonl or .parquet "
                f"(found {found}): add that file or give another source."
            )
        table, where = _read_table(path, "data.source", text_column), str(path)
    else:
        table, where = _hub_table(source, split), f"{source} ({split})"

    _require_columns(table, where, {"text": text_column, "label": label_column})
    if not len(table):
        raise UsageError(f"`data.source`: {where} holds 0 rows: give a file with at least one review.")
    text = _text(table[text_column], where, text_column)
    label = _labels(table[label_column], where, label_column, label_offset, num_labels)
    names = list(star_names(num_labels).values())
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset(pa.table({"text": text, "label": label}, schema=features.arrow_schema))


def read_texts(source: str, text_column: str, id_column: str | None) -> tuple["Dataset", str | None]:
    """Read rows to predict: texts, and an id where the input has one; no label is needed.

    Args:
        source: A csv, tsv, jsonl or parquet file; a txt file, one review a line; or ``-`` for standard input, read
            as txt.
        text_column: Name of the column with the review; ignored for txt.
        id_column: Column to carry into the output; None takes ``id`` or ``review_id`` where there is one.

    Returns:
        A data set with ``text`` and, where there is one, the id column, in input order; and the id column's name.

    Raises:
        UsageError: If the file cannot be read, a column is not there, there are no rows, or a text is missing.
    """
    from datasets import Dataset

    if source == STDIN or source.endswith(".txt"):
        table, text_column = pa.table({"text": pa.array(_lines(source), pa.string())}), "text"
        where = "standard input" if source == STDIN else source
    else:
        if not Path(source).is_file():
            raise UsageError(
                f"`--data.predict_path` is {source!r}, which is no file: give a csv, tsv, jsonl, parquet or txt file, "
                "or - for standard input."
            )
        table, where = _read_table(Path(source), "--data.predict_path", text_column), source
    wanted = {"text": text_column} | ({"id": id_column} if id_column else {})
    _require_columns(table, where, wanted)
    if not len(table):
        raise UsageError(f"`--data.predict_path`: {where} holds 0 rows: give at least one review.")
    id_column = id_column or next((name for name in ("id", "review_id") if name in table.column_names), None)
    columns = {"text": _text(table[text_column], where, text_column)}
    if id_column:
        columns[id_column] = table[id_column]
    return Dataset(pa.table(columns)), id_column


def _embedded_table(split: str) -> pa.Table:
    from pyarrow import json

    with resources.as_file(resources.files("yelp_lightning.embedded") / "reviews.jsonl") as path:
        table = json.read_json(path)
    return table.filter(pc.equal(table["split"], split))


def _split_file(folder: Path, split: str) -> Path | None:
    files = [folder / (stem + suffix) for stem in SPLIT_STEMS[split] for suffix in SUFFIXES]
    found = [file for file in files if file.is_file()]
    if len(found) > 1:
        raise UsageError(
            f"`data.source` is the folder {str(folder)!r}, which holds both {found[0].name} and {found[1].name}: "
            f"leave one file for {split}."
        )
    return found[0] if found else None


def _read_table(path: Path, option: str, text_column: str) -> pa.Table:
    from pyarrow import csv, json, parquet

    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"`{option}` is {str(path)!r}, whose ending is not one of {', '.join(SUFFIXES)}: "
            "rename or convert the file."
        )
    if not path.stat().st_size:
        raise UsageError(f"`{option}`: {path} is empty (0 bytes): give a file with at least one review.")
    try:
        if path.suffix == ".parquet":
            return parquet.read_table(path)
        if path.suffix in (".jsonl", ".json"):
            return json.read_json(path, read_options=json.ReadOptions(block_size=_JSON_BLOCK_BYTES))
        return csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True),
            # A review that says just "2024" or "NA" is text all the same.
            convert_options=csv.ConvertOptions(column_types={text_column: pa.string()}, strings_can_be_null=False),
        )
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UsageError(
            f"`{option}`: {path} cannot be parsed as {path.suffix[1:]} ({reason}): mend the file."
        ) from error


def _lines(source: str) -> list[str]:
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
        text = data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"`--data.predict_path` is {source!r}, which does not exist: check the path.") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"`--data.predict_path` {source!r} is not UTF-8 (byte {error.start}): convert it to UTF-8."
        ) from error
    # Not splitlines(): it also splits at form feeds and U+2028, which stand inside reviews.
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _hub_splits(source: str) -> list[str]:
    from datasets import get_dataset_split_names

    _require_hub_id(source)
    try:
        return list(get_dataset_split_names(source))
    except Exception as error:  # the library raises a dozen classes here, all meaning the same to a user
        raise _not_on_hub(source, error) from error


def _hub_table(source: str, split: str) -> pa.Table:
    from datasets import load_dataset

    _require_hub_id(source)
    try:
        splits = load_dataset(source)
    except Exception as error:
        raise _not_on_hub(source, error) from error
    if split not in splits:
        raise UsageError(f"`data.source` {source!r} has no split {split!r}, only {list(splits)}: give another source.")
    return splits[split].with_format("arrow")[:]


def _require_hub_id(source: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith(".") or source.endswith(SUFFIXES):
        raise UsageError(
            f"`data.source` is {source!r}, but there is no such file or folder: give an existing one, a Hub id such as "
            "Yelp/yelp_review_full, or embedded."
        )


def _not_on_hub(source: str, error: Exception) -> UsageError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return UsageError(
        f"`data.source` is {source!r}, which is neither a file or folder here nor loads from the Hub "
        f"({type(error).__name__}: {reason}): check the name and the network, or give a file, a folder or embedded."
    )


def _require_columns(table: pa.Table, where: str, wanted: dict[str, str]) -> None:
    for role, column in wanted.items():
        if column not in table.column_names:
            close = difflib.get_close_matches(column, table.column_names, n=1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            raise UsageError(
                f"`data.{role}_column` is {column!r}, but {where} has the columns {table.column_names}{meant}: "
                f"name the right one with --data.{role}_column."
            )


def _text(column: pa.ChunkedArray, where: str, name: str) -> pa.ChunkedArray:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py() + 1
        raise UsageError(
            f"`data.text_column` {name!r} has no text in {column.null_count} rows of {where}, first in row {row}: "
            "remove those rows or give them a text."
        )
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise UsageError(
            f"`data.text_column` {name!r} of {where} holds {column.type}, not text: "
            "name the column with the review by --data.text_column."
        )
    return column.cast(pa.string())


def _labels(
    column: pa.ChunkedArray, where: str, name: str, offset: int, num_labels: int
) -> pa.ChunkedArray:  # (rows,) int64
    allowed = f"whole numbers {offset}..{offset + num_labels - 1} ({offset} means 1 star)"
    way_out = (
        "mend the rows, or say with --data.label_offset what to subtract (1 for stars that are stored as 1..5)"
        if offset == 0
        else "mend the rows or --data.label_offset"
    )

    def refuse(bad: pa.ChunkedArray) -> UsageError:
        row = pc.index(bad, True).as_py()
        count = pc.sum(bad).as_py()
        return UsageError(
            f"`data.label_column` {name!r} holds {column[row].as_py()!r} in row {row + 1} of {where} "
            f"({count} such rows of {len(column)}); allowed are {allowed}: {way_out}."
        )

    if column.null_count:
        raise refuse(pc.is_null(column))
    if pa.types.is_floating(column.type):
        whole = pc.fill_null(pc.equal(column, pc.floor(column)), False)
        if not pc.all(whole).as_py():
            raise refuse(pc.invert(whole))
        # Infinity equals its own floor, so the range comes before the cast.
        outside = pc.or_(pc.less(column, float(offset)), pc.greater_equal(column, float(offset + num_labels)))
        if pc.any(outside).as_py():
            raise refuse(outside)
    elif not pa.types.is_integer(column.type):
        raise refuse(pa.chunked_array([pa.array([True] * len(column))]))
    labels = pc.subtract(column.cast(pa.int64()), offset)
    outside = pc.or_(pc.less(labels, 0), pc.greater_equal(labels, num_labels))
    if pc.any(outside).as_py():
        raise refuse(outside)
    return labels
