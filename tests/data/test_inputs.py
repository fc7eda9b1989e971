"""Inputs of predict: every row of a file or of standard input in its order, with the ids that it came with."""

import io
import sys
import zipfile
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_formats import PACKINGS, SUFFIXES, content, packed, write

from yelp_lightning.data.formats import CHUNK_ROWS, CsvLayout
from yelp_lightning.data.inputs import Inputs, read_inputs, texts_of
from yelp_lightning.errors import UsageError

LINES = ["good\x0cfood", "", "bad\u2028soup\x85", " \x0b ", 'a, "b"', "", "the\rend"]


@pytest.fixture
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


def inputs(
    source: object, spool: Path, text: str = "text", id_column: str | None = None, layout: CsvLayout | None = None
) -> Inputs:
    return read_inputs(str(source), text, id_column, layout or CsvLayout(), spool)


def texts(found: Inputs) -> list[str]:
    rows = list(found.table.texts(np.arange(found.count)))
    assert found.blank == sum(not text.strip() for text in rows)
    assert len(rows) == found.count
    return rows


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UsageError) as refused:
        inputs(*arguments, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


# --- texts


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".txt"])
def test_every_row_in_order(tmp_path: Path, spool: Path, suffix: str, packing: str) -> None:
    rows = [(f"review {number}" if number % 9 else " ", 99) for number in range(CHUNK_ROWS + 7)]
    file = packed(tmp_path, suffix, packing, content(suffix, rows))
    found = inputs(file.path, spool)
    assert texts(found) == [text for text, _ in rows]
    assert (found.count, found.id_column, found.ids) == (len(rows), None, None)
    assert not list(spool.iterdir())


@pytest.mark.parametrize("source", ["reviews.txt", "-"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "last"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_lines(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, source: str, newline: str, end: str, bom: str
) -> None:
    data = bom + "".join(line + newline for line in LINES) + end
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "reviews.txt", data)
    stdin(monkeypatch, data.encode())
    # Another column for reviews means nothing to a text.
    assert texts(inputs(source, spool, text="body")) == LINES + ([end] if end else [])


@pytest.mark.parametrize("source", ["reviews.txt", "-"])
@pytest.mark.parametrize(
    ("data", "sentence"),
    [(b"", "holds 0 rows: give at least one review."),
     ("\ufeff".encode(), "holds 0 rows: give at least one review."),
     ("a\ncafé\n".encode("latin-1"), "1 of 2 rows of {} cannot be read (line 2: 'text' is not UTF-8 at its character 4"
                                     "): mend them, since every row gets its stars."),
     (b"a\0b\n" * 12, "12 of 12 rows of {} cannot be read (" + "; ".join(
         f"line {line}: 'text' holds a NUL byte" for line in range(1, 11)
     ) + "; ...): mend them, since every row gets its stars."),
     ("good\n".encode("utf-16"), "cannot be read as txt (line 1 starts with the mark of UTF-16: save the file as UTF-8)"
                                 ": mend the file.")],
)  # fmt: skip
def test_lines_refused(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, source: str, data: bytes, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "reviews.txt", data)
    stdin(monkeypatch, data)
    where = "standard input" if source == "-" else source
    expected = sentence.format(where) if "{}" in sentence else f"{where} {sentence}"
    assert refusal(source, spool) == f"`--data.predict_path`: {expected}"


def test_one_column_keeps_its_blank_rows(tmp_path: Path, spool: Path) -> None:
    # A row for each row of the input, as spreadsheets write an empty cell: a blank line.
    assert texts(inputs(write(tmp_path / "reviews.csv", 'text\na\n\n""\nb\n'), spool)) == ["a", "", "", "b"]


def test_texts_need_no_label(tmp_path: Path, spool: Path) -> None:
    assert texts(inputs(write(tmp_path / "reviews.csv", "label,text\nfive,a\n"), spool)) == ["a"]


def test_long_texts_are_predicted_all_the_same(tmp_path: Path, spool: Path) -> None:
    file = write(tmp_path / "reviews.csv", 'text\n"' + "a" * 10_000_000 + '"\n')
    assert texts(inputs(file, spool)) == ["a" * 10_000_000]


def test_layout_of_a_csv(tmp_path: Path, spool: Path) -> None:
    file = write(tmp_path / "reviews.csv", r'"7","two\nlines"' + "\n")
    found = inputs(file, spool, layout=CsvLayout(("id", "text"), backslash_escapes=True))
    assert texts(found) == ["two\nlines"]
    assert found.ids.to_pylist() == ["7"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.csv", "text,x\na,1\nb\n\0,1\n", "2 of 3 rows of {} cannot be read (line 3: 1 fields instead of 2; line 4: "
                                           "'text' holds a NUL byte)"),
        ("a.jsonl", '{"text": "a"}\n{"text": null}\n{"x": 1}\n{"text": 5}\n{"text": "a", "text": "b"}\n[]\n{"te',
         "6 of 7 rows of {} cannot be read (line 2: 'text' is missing; line 3: 'text' is missing; line 4: 'text' is a "
         "int; line 5: no json object: a key stands twice; line 6: no json object, but a list; line 7: no json object: "
         "Unterminated string starting at)"),
        ("a.parquet", pa.table({"text": ["a", None]}), "1 of 2 rows of {} cannot be read (row 2: 'text' is missing)"),
    ],
)  # fmt: skip
def test_rows_refused(tmp_path: Path, spool: Path, name: str, data: Any, reason: str) -> None:
    file = tmp_path / name
    if isinstance(data, str):
        write(file, data)
    else:
        pq.write_table(data, file)
    expected = reason.format(file)
    assert refusal(file, spool) == f"`--data.predict_path`: {expected}: mend them, since every row gets its stars."


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_empty_file(tmp_path: Path, spool: Path, suffix: str) -> None:
    file = write(tmp_path / f"reviews{suffix}", "")
    assert refusal(file, spool) == f"`--data.predict_path`: {file} is empty: give a file with at least one review."


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".arrow"])
def test_no_rows(tmp_path: Path, spool: Path, suffix: str) -> None:
    file = write(tmp_path / f"reviews{suffix}", content(suffix, []))
    assert refusal(file, spool, text="text") in (
        f"`--data.predict_path`: {file} holds 0 rows: give at least one review.",
        f"`data.text_column` 'text' of {file} holds null, not text: name the column with the review by "
        "--data.text_column.",
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".arrow"])
def test_unknown_column(tmp_path: Path, spool: Path, suffix: str) -> None:
    file = write(tmp_path / f"reviews{suffix}", content(suffix, [("a", 1)]))
    assert refusal(file, spool, text="Text") == (
        f"`data.text_column` is 'Text', but {file} has the columns ['text', 'label'] (did you mean 'text'?): "
        "name the right one with --data.text_column."
    )
    assert refusal(file, spool, id_column="lable") == (
        f"`data.id_column` is 'lable', but {file} has the columns ['text', 'label'] (did you mean 'label'?): "
        "name the right one with --data.id_column."
    )


def test_column_that_stands_twice(tmp_path: Path, spool: Path) -> None:
    file = write(tmp_path / "reviews.csv", "id,id,label,text,text\n1,2,1,a,b\n")
    sentence = f"but {file} has 2 columns of that name: rename or remove all but one."
    assert refusal(file, spool) == f"`data.text_column` is 'text', {sentence}"
    assert refusal(file, spool, text="label") == f"`data.id_column` is 'id', {sentence}"


@pytest.mark.parametrize(
    "name", ["nowhere.csv", "nowhere.txt", "folder", "folder.txt", "I liked the soup. " * 50, "a\0b"]
)
def test_missing_file(tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "folder.txt"):
        (tmp_path / folder).mkdir()
    assert refusal(name, spool) == (
        f"`--data.predict_path` is {name!r}, which is no file: give a csv, tsv, jsonl, parquet or txt file, "
        "or - for standard input."
    )


@pytest.mark.parametrize("name", ["reviews.xlsx", "reviews", "reviews.gz"])
def test_unknown_ending(tmp_path: Path, spool: Path, name: str) -> None:
    file = write(tmp_path / name, "text\na\n")
    sentence = refusal(file, spool)
    assert sentence.startswith(f"`--data.predict_path` is {str(file)!r}, whose ending is not one of csv, tsv, jsonl")
    assert sentence.endswith(": rename or convert it.")


@pytest.mark.parametrize(("members", "taken"), [(["README.txt", "a.csv"], "a.csv"), (["b.txt", "c.md"], "b.txt")])
def test_zip_with_more_than_the_table(tmp_path: Path, spool: Path, members: list[str], taken: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in members:
            archive.writestr(name, content(Path(name).suffix, [("a", 1)]) if name == taken else "text")
    assert texts(inputs(tmp_path / "a.zip", spool)) == ["a"]


@pytest.mark.parametrize("members", [[], ["README.md"], ["a.csv", "b.csv"], ["a.txt", "b.txt"]])
def test_zip_without_a_single_table(tmp_path: Path, spool: Path, members: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in members:
            archive.writestr(name, "text\na\n")
    tables = [name for name in members if name != "README.md"]
    assert refusal(tmp_path / "a.zip", spool) == (
        f"`--data.predict_path` is '{tmp_path}/a.zip', which holds {len(tables)} tables {tables}: give one with a "
        "single csv, tsv, jsonl, parquet or txt."
    )


def test_broken_zip_and_gz(tmp_path: Path, spool: Path) -> None:
    for name in ("a.zip", "a.csv.gz"):
        sentence = refusal(write(tmp_path / name, "text\na\n"), spool)
        assert sentence.startswith(f"`--data.predict_path`: {tmp_path / name} cannot be read as ")
        assert sentence.endswith("): mend the file.")


# --- ids


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("columns", "asked", "taken"),
    [(["id"], None, "id"), (["review_id"], None, "review_id"), (["review_id", "id"], None, "id"),
     (["key", "id"], "key", "key"), (["key"], None, None), (["key"], "text", "text")],
)  # fmt: skip
def test_ids(
    tmp_path: Path, spool: Path, suffix: str, packing: str, columns: list[str], asked: str | None, taken: str | None
) -> None:
    ids = ["007", "2024-01-01", "NA", "", "1e5", "true", "9" * 30]
    frame = pandas.DataFrame({"text": list("abcdefg")} | {name: [f"{name} {i}" for i in ids] for name in columns})
    if taken in columns:
        frame[taken] = ids
    match suffix:
        case ".csv":
            data = frame.to_csv(None, index=False).encode()
        case ".jsonl":
            data = frame.to_json(None, orient="records", lines=True).encode()
        case _:
            data = frame.to_parquet(None)
    found = inputs(packed(tmp_path, suffix, packing, data).path, spool, id_column=asked)
    assert texts(found) == list("abcdefg")
    assert found.id_column == taken
    expected = {"text": list("abcdefg"), None: None}.get(taken, ids)
    assert (None if found.ids is None else found.ids.to_pylist()) == expected


@pytest.mark.parametrize(
    "ids",
    [[1, None], [2**62, -1], [1.5, 2.0], [True, False], [None, None], [Decimal("1.00"), Decimal("2.50")],
     pandas.to_datetime(["2024-01-01", "2024-01-02"])],
)  # fmt: skip
def test_ids_of_other_types(tmp_path: Path, spool: Path, ids: list[object]) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "id": pa.array(ids)}), tmp_path / "reviews.parquet")
    found = inputs(tmp_path / "reviews.parquet", spool)
    assert found.id_column == "id"
    assert found.ids.to_pylist() == list(ids)


def test_ids_of_a_long_file(tmp_path: Path, spool: Path) -> None:
    # Whole numbers, then fractions, then none: one type for all chunks.
    ids = [*range(CHUNK_ROWS), *[0.5] * CHUNK_ROWS, *[None] * CHUNK_ROWS]
    frame = pandas.DataFrame({"id": pandas.Series(ids, dtype=object), "text": "a"})
    found = inputs(write(tmp_path / "a.jsonl", frame.to_json(None, orient="records", lines=True)), spool)
    assert found.count == len(ids)
    assert found.ids.to_pylist() == ids


@pytest.mark.parametrize("ids", [pa.array([{"$oid": "a"}]), pa.array([[1]]), pa.array([b"a" * 16], pa.uuid())], ids=str)
def test_ids_refused(tmp_path: Path, spool: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"text": ["a"], "id": ids}), file := tmp_path / "reviews.parquet")
    sentence = refusal(file, spool)
    assert sentence.startswith(f"`data.id_column` 'id' of {file} holds {pq.read_schema(file).field('id').type}")
    assert sentence.endswith("which cannot stand in a csv of predictions: give ids that are texts or numbers.")


@pytest.mark.parametrize(
    ("ids", "far"),
    [(["1", '"a"'], 1), (["1", "9" * 30], 1), (['"a"', '"\\ud83d"'], 1), (["[1]", "1"], 1), (["1", '"a"'], CHUNK_ROWS),
     (["true", "1"], CHUNK_ROWS)],
)  # fmt: skip
def test_ids_of_no_one_type(tmp_path: Path, spool: Path, ids: list[str], far: int) -> None:
    lines = [f'{{"text": "a", "id": {value}}}\n' * far for value in ids]
    sentence = refusal(write(tmp_path / "a.jsonl", "".join(lines)), spool)
    assert sentence.startswith(f"`data.id_column` 'id' of {tmp_path}/a.jsonl has no one type (")
    assert sentence.endswith("): give texts, or numbers.")


def test_lines_have_no_ids(tmp_path: Path, spool: Path) -> None:
    file = write(tmp_path / "reviews.txt", "a\n")
    assert inputs(file, spool).ids is None
    assert "`data.id_column` is 'id', but" in refusal(file, spool, id_column="id")


def test_ids_that_would_take_the_reviews_place(tmp_path: Path, spool: Path) -> None:
    file = write(tmp_path / "reviews.csv", "text,body\ntitle,a review\n")
    assert texts(inputs(file, spool, text="body")) == ["a review"]
    assert refusal(file, spool, text="body", id_column="text") == (
        f"`data.id_column` is 'text', while the reviews stand in 'body': rename the column of {file}."
    )


# --- --text


def test_texts_of(spool: Path) -> None:
    given = ["good", "", " ", "two\nlines", "café"]
    found = texts_of(given, spool)
    assert texts(found) == given
    assert (found.count, found.blank, found.ids) == (5, 2, None)
