"""Rows: each is read or refused with its place and reason, none is lost; a scan is kept whole or not at all."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_formats import PACKINGS, SUFFIXES, arrow_content, content, pack, packed, write

from yelp_lightning.data import rows as module
from yelp_lightning.data.datafile import DataFile, zip_members
from yelp_lightning.data.formats import CHUNK_ROWS
from yelp_lightning.data.labels import LabelMap
from yelp_lightning.data.rows import Rows, Table, scan
from yelp_lightning.data.texts import text_hashes
from yelp_lightning.errors import UsageError

LABELS = LabelMap("label", 5)
SKIP = ", or leave them out by --data.on_bad_row skip"


def table(*files: DataFile | Path, **options: Any) -> Table:
    found = tuple(file if isinstance(file, DataFile) else DataFile(file) for file in files)
    return Table(found, "text", **{"label_column": "label"} | options)


def look(rows: Table, label_map: LabelMap | None = LABELS) -> Rows:
    """Scan a table, and check that every row is accounted for and that the usable ones can be read again."""
    found = scan(rows, label_map, None, "train")
    assert len(found) == len(found.labels) == len(found.texts)
    assert len(found.usable) + sum(found.refused.values()) == len(found)
    assert len(found.examples) == min(sum(found.refused.values()), 10)
    texts = list(found.table.texts(found.usable))
    assert text_hashes(texts).tolist() == found.texts[found.usable].tolist()
    return found


def texts(found: Rows) -> list[str]:
    return list(found.table.texts(found.usable))


def refusal(found: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as refused:
        found()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def required(found: Rows, on_bad_row: Any = "error", label_map: LabelMap | None = LABELS) -> str:
    return refusal(lambda: found.require(on_bad_row, label_map))


# --- rows that are fine


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_rows(tmp_path: Path, suffix: str, packing: str) -> None:
    reviews = [(f"review {number}", number % 5) for number in range(CHUNK_ROWS + 3)]
    found = look(table(packed(tmp_path, suffix, packing, content(suffix, reviews))))
    found.require("error", LABELS)
    assert texts(found) == [text for text, _ in reviews]
    assert found.labels.tolist() == [label for _, label in reviews]
    assert (found.refused, found.examples, found.groups) == ({}, [], None)
    chosen = np.array([0, 5, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 2])
    assert list(found.table.texts(chosen)) == [reviews[row][0] for row in chosen]


def test_files_one_after_the_other(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}{suffix}", content(suffix, [(suffix, 1), ("", 2)]))
             for number, suffix in enumerate(SUFFIXES)]  # fmt: skip
    found = look(table(*files))
    assert texts(found) == SUFFIXES
    assert found.refused == {"empty text": len(SUFFIXES)}
    assert found.examples == [
        f"{file.name} {'row' if file.suffix in ('.parquet', '.arrow') else 'line'} "
        f"{3 if file.suffix in ('.csv', '.tsv') else 2}: 'text' is empty" for file in files
    ]  # fmt: skip
    assert f"6 of 12 rows of {files[0]} and 5 more files cannot be used" in required(found)


def test_without_a_label_column(tmp_path: Path) -> None:
    found = look(table(write(tmp_path / "a.csv", "label,text\nfive,a\n,b\n"), label_column=None), None)
    assert found.labels.tolist() == [0, 0]
    found.require("error", None)


def test_groups(tmp_path: Path) -> None:
    lines = '{"text": "a", "label": 1, "user": "x"}\n{"text": "b", "label": 1, "user": 7}\n' * 2
    file = write(tmp_path / "a.jsonl", lines + '{"text": "c", "label": 1, "user": ""}\n{"text": "", "label": 1}\n')
    found = look(table(file, group_column="user"))
    assert found.refused == {"no group": 1, "empty text": 1}
    assert found.groups is not None
    one, other, *rest = found.groups.tolist()
    assert one != other
    assert rest[:2] == [one, other]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_groups_and_labels_that_are_not_utf8(tmp_path: Path, suffix: str) -> None:
    latin1 = pa.array([b"1", "café".encode("latin-1"), b"1"]).view(pa.string())
    data = arrow_content(suffix, pa.table({"text": ["a", "b", "c"], "label": latin1, "user": latin1}))
    found = look(table(write(tmp_path / f"a{suffix}", data), group_column="user"))
    assert found.examples == ["row 2: 'label' is 'caf\\udce9'"]


# --- columns


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unknown_column(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / f"reviews{suffix}", content(suffix, [("a", 1)]))
    there = f"but {file} has the columns ['text', 'label']"
    assert refusal(lambda: look(Table((DataFile(file),), "texts", "label"))) == (
        f"`data.text_column` is 'texts', {there} (did you mean 'text'?): name the right one with --data.text_column."
    )
    assert refusal(lambda: look(Table((DataFile(file),), "text", "stars"))) == (
        f"`data.label_column` is 'stars', {there}: name the right one with --data.label_column."
    )
    assert refusal(lambda: look(table(file, group_column="user"))) == (
        f"`data.group_column` is 'user', {there}: name the right one with --data.group_column."
    )


def test_unknown_column_in_a_later_file(tmp_path: Path) -> None:
    one, other = write(tmp_path / "1.csv", "label,text\n1,a\n"), write(tmp_path / "2.csv", "stars,text\n1,a\n")
    assert f"but {other} has the columns ['stars', 'text']" in refusal(lambda: look(table(one, other)))


def test_no_header_line(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "5,great\n1,bad\n")
    assert "(a csv without a header line? name its columns by --data.column_names)" in refusal(
        lambda: look(table(file))
    )


def test_column_that_stands_twice(tmp_path: Path) -> None:
    sentence = "columns of that name: rename or remove all but one."
    file = write(tmp_path / "a.csv", "label,text,text\n1,a,b\n")
    assert refusal(lambda: look(table(file))) == f"`data.text_column` is 'text', but {file} has 2 {sentence}"
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array(["a"])], names=["label", "label", "text"])
    for suffix in (".parquet", ".arrow"):
        rows = table(write(tmp_path / f"a{suffix}", arrow_content(suffix, twice)))
        assert refusal(partial(look, rows)) == f"`data.label_column` is 'label', but {rows} has 2 {sentence}"


# --- rows that are refused

ALLOWED = " (labels may be whole numbers 0..4 (data.label_offset 0))"
OFFSET = "mend them, or say with --data.label_offset what to subtract (1 for stars stored as 1..5)"
BAD_LABELS = ["nan", "6", "-1", "4.5", "five", "true", "", "null"]
REPLACED = {"nan": float("nan"), "6": 6, "-1": -1, "4.5": 4.5, "true": True, "null": None}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("label", BAD_LABELS)
def test_bad_label(tmp_path: Path, suffix: str, label: str) -> None:
    value: Any = label if suffix in (".csv", ".tsv") else REPLACED.get(label, label)
    good: list[Any] = [4, 0]
    if suffix in (".parquet", ".arrow"):  # a column has one type
        good = {str: ["4", "0"], float: [4.0, 0.0], bool: [None, None]}.get(type(value), good)
    reviews = [("a", good[0]), ("b\n", value), ("c", good[1]), ("d", value)]
    file = write(tmp_path / f"reviews{suffix}", content(suffix, reviews))
    found = look(table(file))
    kind = "no label" if value in ("", None) else "label outside"
    shown = "empty" if kind == "no label" else repr(value)
    unit, second, fourth = ("line", 3, 6) if suffix in (".csv", ".tsv") else ("line", 2, 4)
    unit = "row" if suffix in (".parquet", ".arrow") else unit
    if good == [None, None]:
        assert found.refused == {"no label": 2, "label outside": 2}
        return
    assert found.refused == {kind: 2}
    allowed = ALLOWED if kind == "label outside" else ""
    assert required(found) == (
        f"`data.source`: 2 of 4 rows of {file} cannot be used ({kind}: 2): {unit} {second}: 'label' is {shown}; "
        f"{unit} {fourth}: 'label' is {shown}{allowed}: mend them{SKIP}."
    )
    found.require("skip", LABELS)
    assert (texts(found), found.labels.tolist()) == (["a", "c"], [4, -1, 0, -1])


def test_ways_out_of_bad_labels(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "label,text\n0,a\n1,b\n")
    shifted = LabelMap("label", 5, 1)
    shown = required(look(table(file), shifted), label_map=shifted)
    assert "(labels may be whole numbers 1..5 (data.label_offset 1)): mend them, or leave them out" in shown
    # Stars 1..5 that are read as labels 0..4 show themselves by having no 0.
    stars = write(tmp_path / "stars.csv", "label,text\n1,a\n5,b\n")
    assert f"{ALLOWED}: {OFFSET}, or leave them out" in required(look(table(stars)))
    named = LabelMap("label", 2, names=["0", "good"])
    assert "(labels may be '0', 'good' (data.label_names)): mend them, or leave them out" in required(
        look(table(file), named), label_map=named
    )


HUGE = "a" * 10_000_000
BAD_ROWS: list[tuple[str, str | bytes, dict[str, int], str]] = [
    (".csv", "label,text\n1,good\n2,a,b\n3\n4,\n5,\n", {"not a row": 2, "empty text": 2},
     "line 3: 3 fields instead of 2; line 4: 1 fields instead of 2; line 5: 'text' is empty; line 6: 'text' is empty"),
    (".tsv", "label\ttext\n1\tgood\n2\ta\tb\n", {"not a row": 1}, "line 3: 3 fields instead of 2"),
    (".csv", "label,text\n1,caf\xe9\n1,good\n".encode("latin-1"), {"not UTF-8": 1},
     "line 2: 'text' is not UTF-8 at its character 4"),
    (".csv", b"label,text\n1,\"a\n\0\"\n1,good\n\0,b\n", {"NUL byte": 1, "label outside": 1},
     "line 2: 'text' holds a NUL byte; line 5: 'label' is '\\x00'"),
    (".csv", f"label,text\n1,{HUGE}\n1,good\n", {"text over 1 MB": 1}, "line 2: 'text' has 10,000,000 bytes"),
    (".tsv", f"label\ttext\n1\t{HUGE}\n1\tgood\n", {"text over 1 MB": 1}, "line 2: 'text' has 10,000,000 bytes"),
    (".jsonl", f'{{"label": 1, "text": "{HUGE}"}}\n{{"label": 1, "text": "good"}}', {"text over 1 MB": 1},
     "line 1: 'text' has 10,000,000 bytes"),
    (".jsonl", '{"label": 1, "text": "good"}\n\n{"label": 1, "te', {"not a row": 1},
     "line 3: no json object: Unterminated string starting at"),
    (".jsonl", '{"label": 1, "text": "a"},\n{"label": 1, "text": "good"}', {"not a row": 1},
     "line 1: no json object: Extra data"),
    (".jsonl", '{"label": 1, "text": "a"}\r{"label": 1, "text": "b"}\r', {"not a row": 1},
     "line 1: no json object: Extra data"),
    (".json", '{"label": 1, "text": "good"}\n[{"label": 1, "text": "a"}]', {"not a row": 1},
     "line 2: no json object, but a list"),
    (".json", '{\n"label": 1,\n"text": "a"\n}', {"not a row": 4}, "line 1: no json object: Expecting property name"),
    (".jsonl", '{"label": 1, "text": {"en": "a"}}\n{"label": 1, "text": ["a"]}\n{"label": 1, "text": 5}\n'
     '{"label": 1, "text": "good"}', {"not a text": 3},
     "line 1: 'text' is a dict; line 2: 'text' is a list; line 3: 'text' is a int"),
    (".jsonl", '{"label": 1, "text": "a", "text": "b"}\n{"label": [1], "text": "a"}\n{"label": 1, "text": "good"}',
     {"not a row": 1, "label outside": 1}, "line 1: no json object: a key stands twice; line 2: 'label' is [1]"),
    (".jsonl", '{"label": 1, "text": null}\n{"label": 1, "x": 1}\n{"text": "a"}\n{"label": 1, "text": "good"}',
     {"no text": 2, "no label": 1}, "line 1: 'text' is missing; line 2: 'text' is missing; line 3: 'label' is empty"),
    (".jsonl", ('{"label": 1, "text": "good"}\n' * 2).encode("utf-16-le")[:-1],
     {"not a row": 2}, "line 1: no json object: it holds a NUL byte; line 2: no json object: it holds a NUL byte"),
    (".jsonl", '{"label": 1, "text": "café"}\n{"label": 1, "text": "good"}'.encode("latin-1"), {"not UTF-8": 1},
     "line 1: 'text' is not UTF-8 at its character 4"),
    (".jsonl", '{"label": 1, "text": "a\\ud83d"}\n{"label": 1, "text": "a\\u0000"}\n{"label": 1, "text": "good"}',
     {"not UTF-8": 1, "NUL byte": 1},
     "line 1: 'text' is not UTF-8 at its character 2; line 2: 'text' holds a NUL byte"),
    (".jsonl", '{"label": ' + "9" * 5000 + ', "text": "a"}\n{"label": ' + "9" * 400 + ', "text": "a"}\n'
     '{"label": 1e999, "text": "a"}\n{"label": 1, "text": "good"}', {"not a row": 1, "label outside": 2},
     "line 1: no json object: Exceeds the limit (4300 digits)"),
    (".jsonl", "[" * 100_000 + "\n" + '{"label": 1, "text": "good"}', {"not a row": 1},
     "line 1: no json object: maximum recursion depth exceeded"),
    (".parquet", arrow_content(".parquet", pa.table({
        "label": [1, 1, 1, 1, 9, None], "text": ["good", "", " ", None, "a", "b"]})),
     {"empty text": 2, "no text": 1, "label outside": 1, "no label": 1},
     "row 2: 'text' is empty; row 3: 'text' is empty; row 4: 'text' is missing; row 5: 'label' is 9; row 6: 'label' is "
     "empty"),
    (".arrow", arrow_content(".arrow", pa.table({
        "label": [[1], [1]], "text": ["a", HUGE]})), {"label outside": 1, "text over 1 MB": 1},
     "row 1: 'label' is [1]; row 2: 'text' has 10,000,000 bytes"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(BAD_ROWS)), ids=lambda case: f"{BAD_ROWS[case][0]} {BAD_ROWS[case][2]}")
@pytest.mark.parametrize("packing", ["", ".zip"])
def test_bad_rows(tmp_path: Path, case: int, packing: str) -> None:
    suffix, data, refused, reasons = BAD_ROWS[case]
    data = data if isinstance(data, bytes) else data.encode()
    file = packed(tmp_path, suffix, packing, data)
    found = look(table(file))
    assert found.refused == refused
    sentence = required(found)
    counts = ", ".join(f"{kind}: {count}" for kind, count in refused.items())
    bad = sum(refused.values())
    assert sentence.startswith(
        f"`data.source`: {bad} of {len(found)} rows of {file} cannot be used ({counts}): {reasons}"
    )
    if bad == len(found):
        assert required(found, "skip") == sentence
        assert "on_bad_row" not in sentence
    else:
        assert sentence.endswith(f": mend them{SKIP}.") or sentence.endswith(f": {OFFSET}{SKIP}.")
        found.require("skip", LABELS)
        assert texts(found) == ["good"]


def test_the_first_ten_are_named_and_all_are_counted(tmp_path: Path) -> None:
    lines = "".join(f"{number % 7},{'' if number % 11 == 0 else number}\n" for number in range(3 * CHUNK_ROWS))
    found = look(table(write(tmp_path / "a.csv", "label,text\n" + lines)))
    no_text = [number for number in range(3 * CHUNK_ROWS) if number % 11 == 0]
    outside = [number for number in range(3 * CHUNK_ROWS) if number % 7 > 4 and number % 11]
    assert found.refused == {"empty text": len(no_text), "label outside": len(outside)}
    sentence = required(found)
    assert sentence.count("; line") == 9
    assert "; ... (labels may be" in sentence
    assert f"(empty text: {len(no_text)}, label outside: {len(outside):,})" in sentence


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".arrow"])
def test_no_rows(tmp_path: Path, suffix: str) -> None:
    empty = pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())})
    data = arrow_content(suffix, empty) if suffix in (".parquet", ".arrow") else content(suffix, [])
    found = look(table(write(tmp_path / f"a{suffix}", data)))
    for on_bad_row in ("error", "skip"):
        assert required(found, on_bad_row) == (
            f"`data.source`: {tmp_path}/a{suffix} holds 0 rows: give a file with at least one review."
        )


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("kind", [pa.int64(), pa.binary(), pa.bool_(), pa.struct({"a": pa.int64()})], ids=str)
def test_text_column_of_another_type(tmp_path: Path, suffix: str, kind: pa.DataType) -> None:
    data = arrow_content(suffix, pa.table({"text": pa.nulls(1, kind), "label": [1]}))
    file = write(tmp_path / f"a{suffix}", data)
    assert refusal(lambda: look(table(file))) == (
        f"`data.text_column` 'text' of {file} holds {kind}, not text: "
        "name the column with the review by --data.text_column."
    )


# --- any damage

REVIEWS = [(f'review {number} café "q"\n, x' if number % 3 else "plain", number % 5) for number in range(30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


def survive(file: Path, suffix: str) -> None:
    """Read a file in which anything may stand: all rows are accounted for, or one sentence says why not."""
    try:
        files = zip_members(file, "data.source", [suffix]) if file.suffix == ".zip" else [DataFile(file)]
        if files:
            look(table(*files))
    except UsageError as error:
        sentence = str(error)
    else:
        return
    assert sentence.startswith("`data.")
    assert "\n" not in sentence


def damage(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(changed) + 1)
        match rng.choice(["flip", "delete", "insert", "cut"]):
            case "flip":
                changed[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in changed[at : at + 1])
            case "delete":
                del changed[at : at + rng.choice([1, 4, 50])]
            case "insert":
                changed[at:at] = rng.randbytes(rng.choice([1, 4, 50]))
            case "cut" if rng.random() < 0.3:
                del changed[at:]
    return bytes(changed)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    rng=st.randoms(use_true_random=True), packing=st.sampled_from(PACKINGS), inside=st.booleans(), large=st.booleans()
)
def test_damaged_file(folder: Path, suffix: str, rng: random.Random, packing: str, inside: bool, large: bool) -> None:
    data = content(suffix, REVIEWS * (20 if large else 1))
    member = f"data/reviews{suffix}"
    damaged = pack(packing, damage(data, rng), member) if inside else damage(pack(packing, data, member), rng)
    survive(write(folder / ("a.zip" if packing == ".zip" else f"a{suffix}{packing}"), damaged), suffix)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), suffix=st.sampled_from(SUFFIXES), packing=st.sampled_from(PACKINGS))
@example(data=b"text,label\n\r\r\n", suffix=".csv", packing="")
@example(data=b"\xff", suffix=".csv", packing="")
def test_any_bytes(folder: Path, data: bytes, suffix: str, packing: str) -> None:
    survive(write(folder / ("a.zip" if packing == ".zip" else f"a{suffix}{packing}"), data), suffix)
    survive(write(folder / f"b{suffix}", b"text,label\n" + data), suffix)


# --- the cache


def cached(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.fixture
def reviews_csv(tmp_path: Path) -> Path:
    return write(tmp_path / "a.csv", "label,text\n1,a\n9,b\n0,\n4,c\n")


def same(one: Rows, other: Rows) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("labels", "texts"))
    return arrays and (one.refused, one.examples) == (other.refused, other.examples)


def test_a_second_scan_reads_no_row(tmp_path: Path, reviews_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scan(table(reviews_csv), LABELS, tmp_path / "deep" / "cache", "train")
    files = cached(tmp_path / "deep" / "cache")
    assert len(files) == 1
    monkeypatch.setattr(module, "read_chunks", None)
    # Under another name, in another place.
    moved = reviews_csv.rename(tmp_path / "b.csv")
    second = scan(table(moved), LABELS, tmp_path / "deep" / "cache", "test")
    assert same(first, second)
    assert (second.refused, second.labels.tolist()) == ({"label outside": 1, "empty text": 1}, [1, -1, -1, 4])
    assert cached(tmp_path / "deep" / "cache") == files
    with pytest.raises(TypeError):  # nothing of that is known yet
        scan(table(moved), LabelMap("label", 10), tmp_path / "deep" / "cache", "train")


def test_a_changed_file_of_the_same_size_and_time_is_read_again(tmp_path: Path, reviews_csv: Path) -> None:
    scan(table(reviews_csv), LABELS, tmp_path / "cache", "train")
    status = reviews_csv.stat()
    write(reviews_csv, reviews_csv.read_bytes().replace(b"4,c", b"3,d"))
    os.utime(reviews_csv, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert reviews_csv.stat().st_size == status.st_size
    found = scan(table(reviews_csv), LABELS, tmp_path / "cache", "train")
    assert found.labels.tolist() == [1, -1, -1, 3]
    assert found.texts[3] == text_hashes(["d"])[0]


def test_anything_else_is_scanned_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "label,text,body\n1,a,b\n")
    copy = write(tmp_path / "a.tsv", "label,text,body\n1,a,b\n")
    cache = tmp_path / "cache"
    for count, (rows, label_map) in enumerate(
        [
            (table(file), LABELS),
            (table(file), LabelMap("label", 4)),
            (table(file), LabelMap("label", 5, 1)),
            (table(file), LabelMap("label", 2, names=["1", "0"])),
            (Table((DataFile(file),), "body", "label"), LABELS),
            (table(file, group_column="body"), LABELS),
            (table(file, label_column=None), None),
            (table(file, file), LABELS),
        ],
        start=1,
    ):
        scan(rows, label_map, cache, "train")
        scan(rows, label_map, cache, "train")
        assert len(cached(cache)) == count
    assert "has the columns ['label,text,body']" in refusal(lambda: scan(table(copy), LABELS, cache, "train"))
    assert len(cached(cache)) == 8  # and what was refused left nothing


def test_messages_name_the_files_of_today(tmp_path: Path) -> None:
    one, other = write(tmp_path / "1.csv", "label,text\n9,a\n"), write(tmp_path / "2.csv", "label,text\n1,a\n")
    assert scan(table(one, other), LABELS, tmp_path / "cache", "train").examples == ["1.csv line 2: 'label' is '9'"]
    one = one.rename(tmp_path / "0.csv")
    assert scan(table(one, other), LABELS, tmp_path / "cache", "train").examples == ["0.csv line 2: 'label' is '9'"]


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_damaged_scan_is_made_again(tmp_path: Path, reviews_csv: Path, kept: float) -> None:
    first = scan(table(reviews_csv), LABELS, tmp_path, "train")
    (file,) = tmp_path.glob("*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    assert same(scan(table(reviews_csv), LABELS, tmp_path, "train"), first)
    assert file.read_bytes() == whole


def test_threads_that_start_together_read_once(
    tmp_path: Path, reviews_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    read_chunks = module.read_chunks
    monkeypatch.setattr(module, "read_chunks", lambda *options: opened.append(1) or read_chunks(*options))
    with ThreadPoolExecutor(4) as executor:
        tasks = [executor.submit(scan, table(reviews_csv), LABELS, tmp_path / "cache", "train") for _ in range(8)]
        first, *others = [task.result() for task in tasks]
    assert opened == [1]
    assert all(same(first, other) for other in others)


# Stops in the middle of what it does, `reading` or `writing`, and says so; or goes on once it is told to.
SCAN = """
import sys
from pathlib import Path
import pyarrow as pa
from yelp_lightning.data import rows
from yelp_lightning.data.datafile import DataFile
from yelp_lightning.data.labels import LabelMap

def pause():
    print("paused", flush=True)
    sys.stdin.readline()

def read_chunks(*options, read=rows.read_chunks):
    for chunk in read(*options):
        yield chunk
        if sys.argv[1] == "reading":
            pause()

class Writer:
    def __init__(self, *options, new_file=pa.ipc.new_file):
        self.writer = new_file(*options)

    def __enter__(self):
        return self.writer

    def __exit__(self, *error):
        if sys.argv[1] == "writing":
            pause()
        self.writer.close()

rows.read_chunks, rows.pa.ipc.new_file = read_chunks, Writer
table = rows.Table((DataFile(Path(sys.argv[2])),), "text", "label")
rows.scan(table, LabelMap("label", 5), Path(sys.argv[3]), "train")
print("done", flush=True)
"""


def start(stop: str, file: Path, cache: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SCAN, stop, str(file), str(cache)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_killed_and_waiting_processes(tmp_path: Path, reviews_csv: Path) -> None:
    cache = tmp_path / "cache"
    with start("reading", reviews_csv, cache) as reading, start("writing", reviews_csv, tmp_path / "other") as writing:
        for process, folder in ((reading, cache), (writing, tmp_path / "other")):
            assert process.stdout is not None
            assert process.stdout.readline() == "paused\n"
            process.kill()
            process.wait()
            # Under no name that is ever read.
            (left,) = cached(folder)
            assert left.endswith(".tmp")
    expected = scan(table(reviews_csv), LABELS, None, "train")
    # The next one does not trust it and leaves it; a further one waits for that, and reads nothing.
    with start("writing", reviews_csv, cache) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "paused\n"
        with start("reading", reviews_csv, cache) as second:
            assert first.communicate("\n", timeout=60)[0] == "done\n"
            assert second.communicate("", timeout=60)[0] == "done\n"
    for folder in (cache, tmp_path / "other"):
        assert same(scan(table(reviews_csv), LABELS, folder, "train"), expected)
        (name,) = cached(folder)
        assert name.endswith(".arrow")
