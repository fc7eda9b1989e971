"""Reviews: read any source into rows of `text` and `label`, or stop with one sentence."""

import difflib
import os.path
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from yelp_lightning.data.tables import STDIN, SUFFIXES, read_lines, read_table
from yelp_lightning.errors import UsageError
from yelp_lightning.pretrained import EMBEDDED, star_names

if TYPE_CHECKING:
    from datasets import Dataset

# How a split's file may be called inside a folder; the first name is the one that messages use.
SPLIT_STEMS = {"train": ("train",), "validation": ("validation", "val", "dev"), "test": ("test",)}
# Columns of a file to predict that are carried into the output where no other is named; the first one wins.
ID_COLUMNS = ("id", "review_id")


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
    # os.path instead of Path: a name too long for the file system is no file, rather than an exception.
    if os.path.isdir(source):
        return _split_file(Path(source), split) is not None
    if os.path.isfile(source):
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
        text_column, label_column, label_offset = "text", "label", 0
        table, where = _embedded_table(split), "the embedded reviews"
        columns = table.column_names
    elif os.path.exists(source):
        path = _split_file(Path(source), split) if os.path.isdir(source) else Path(source)
        if path is None:
            found = sorted(file.name for file in Path(source).iterdir())[:10]
            raise UsageError(
                f"`data.source` is the folder {source!r}, which holds no {split}.csv, .tsv, .jsonl or .parquet "
                f"(found {found}): add that file or give another source."
            )
        table, columns = read_table(path, "data.source", [text_column, label_column])
        where = str(path)
    else:
        table, where = _hub_table(source, split), f"{source} ({split})"
        columns = table.column_names

    _require_columns(columns, where, {"text": text_column, "label": label_column})
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
        UsageError: If the file cannot be read, a column is not there, there are no rows, a text is missing, or the ids
            are neither texts nor numbers.
    """
    from datasets import Dataset

    option = "--data.predict_path"
    if source != STDIN and not os.path.isfile(source):
        raise UsageError(
            f"`{option}` is {source!r}, which is no file: give a csv, tsv, jsonl, parquet or txt file, "
            "or - for standard input."
        )
    where = "standard input" if source == STDIN else source
    if source == STDIN or source.endswith(".txt"):
        table, text_column = pa.table({"text": pa.array(read_lines(source, option), pa.string())}), "text"
        columns = table.column_names
    else:
        ids = [id_column] if id_column else list(ID_COLUMNS)
        table, columns = read_table(Path(source), option, [text_column, *ids])
    id_column = id_column or next((name for name in ID_COLUMNS if name in columns), None)
    _require_columns(columns, where, {"text": text_column} | ({"id": id_column} if id_column else {}))
    if not len(table):
        raise UsageError(f"`{option}`: {where} holds 0 rows: give at least one review.")
    texts = {"text": _text(table[text_column], where, text_column)}
    if id_column is None:
        return Dataset(pa.table(texts)), None
    if id_column == "text" != text_column:
        raise UsageError(
            f"`data.id_column` is 'text', while the reviews stand in {text_column!r}: rename the column of {where}."
        )
    return Dataset(pa.table({id_column: _ids(table[id_column], where, id_column)} | texts)), id_column


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


def _require_columns(columns: list[str], where: str, wanted: dict[str, str]) -> None:
    for role, column in wanted.items():
        if column not in columns:
            close = difflib.get_close_matches(column, columns, n=1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            raise UsageError(
                f"`data.{role}_column` is {column!r}, but {where} has the columns {columns}{meant}: "
                f"name the right one with --data.{role}_column."
            )
        if columns.count(column) > 1:
            raise UsageError(
                f"`data.{role}_column` is {column!r}, but {where} has {columns.count(column)} columns of that name: "
                "rename or remove all but one."
            )


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same values without Arrow's encodings: no dictionary, one type of string."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string()) if _is_string(column.type) else column


def _text(column: pa.ChunkedArray, where: str, name: str) -> pa.ChunkedArray:
    column = _plain(column)
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py() + 1
        raise UsageError(
            f"`data.text_column` {name!r} has no text in {column.null_count} rows of {where}, first in row {row}: "
            "remove those rows or give them a text."
        )
    if not pa.types.is_string(column.type):
        raise UsageError(
            f"`data.text_column` {name!r} of {where} holds {column.type}, not text: "
            "name the column with the review by --data.text_column."
        )
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:  # parquet promises UTF-8 and does not check it
        raise UsageError(f"`data.text_column` {name!r} of {where} is not UTF-8 ({error}): mend the file.") from error
    return column


def _ids(column: pa.ChunkedArray, where: str, name: str) -> pa.ChunkedArray:
    column = _plain(column)
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or kind == pa.null()):
        raise UsageError(
            f"`data.id_column` {name!r} of {where} holds {kind}, which cannot stand in a csv of predictions: "
            "give ids that are texts or numbers."
        )
    return column


def _labels(
    column: pa.ChunkedArray, where: str, name: str, offset: int, num_labels: int
) -> pa.ChunkedArray:  # (rows,) int64
    column = _plain(column)
    kind = column.type
    if pa.types.is_string(kind):  # as csv has them
        trimmed = pc.utf8_trim_whitespace(column)
        is_number = pc.match_substring_regex(trimmed, r"^-?[0-9]+(\.[0-9]*)?$")
        numbers = pc.if_else(is_number, trimmed, None).cast(pa.float64())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64(), safe=False)
    else:
        numbers = pa.chunked_array([pa.nulls(len(column), pa.float64())])
    labels = pc.subtract(numbers, offset)
    whole = pc.equal(labels, pc.floor(labels))
    inside = pc.and_(pc.greater_equal(labels, 0), pc.less(labels, num_labels))
    bad = pc.invert(pc.fill_null(pc.and_(whole, inside), False))
    if pc.any(bad).as_py():
        row = pc.index(bad, True).as_py()
        way_out = (
            "mend the rows, or say with --data.label_offset what to subtract (1 for stars that are stored as 1..5)"
            if offset == 0
            else "mend the rows or --data.label_offset"
        )
        raise UsageError(
            f"`data.label_column` {name!r} holds {column[row].as_py()!r} in row {row + 1} of {where} "
            f"({pc.sum(bad).as_py()} such rows of {len(column)}); allowed are whole numbers "
            f"{offset}..{offset + num_labels - 1} ({offset} means 1 star): {way_out}."
        )
    return labels.cast(pa.int64())
