"""Formats: what a file says arrives to the letter, in order and in small chunks; what is broken is one sentence."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yelp_lightning.data import formats
from yelp_lightning.data.datafile import DataFile
from yelp_lightning.data.formats import CHUNK_ROWS, Chunk, CsvLayout, read_chunks
from yelp_lightning.errors import UsageError

SUFFIXES = [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow"]
PACKINGS = ["", ".gz", ".zst", ".zip"]
# Texts that a reader which guesses types would change or drop.
TEXTS = [
    "NA", "null", "nan", "None", "2024", "007", "4.50", "true", "2024-01-01", "2024-01-01 10:00:00", "", " ",
    " both ends ", "a, b", 'she said "no"', '"', "two\nlines", "two\r\nlines", "\ttab", "café 🍕 日本", "\u2028\x0c",
    "#1", "\\n", "a\\",
]  # fmt: skip


def content(suffix: str, rows: Sequence[tuple[str, Any]], newline: str = "\n") -> bytes:
    """A table of text and label, by pandas, pyarrow and json, which know nothing of the reader."""
    frame = pandas.DataFrame(rows, columns=["text", "label"])
    if suffix == ".txt":
        return "".join(text + newline for text, _ in rows).encode()
    if suffix in (".csv", ".tsv"):
        separator = "\t" if suffix == ".tsv" else ","
        return frame.to_csv(None, sep=separator, index=False, lineterminator=newline).encode()
    if suffix in (".jsonl", ".json"):
        return "".join(json.dumps({"text": text, "label": label}) + newline for text, label in rows).encode()
    return arrow_content(suffix, pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]}))


def arrow_content(suffix: str, table: pa.Table) -> bytes:
    file = io.BytesIO()
    if suffix == ".parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    return file.getvalue()


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def pack(packing: str, data: bytes, member: str = "data/reviews.csv") -> bytes:
    """The same bytes plain, compressed, or in a zip."""
    if packing == ".zip":
        with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, data)
        return file.getvalue()
    return {"": bytes, ".gz": gzip.compress, ".zst": lambda data: pa.compress(data, "zstd", asbytes=True)}[packing](
        data
    )


def packed(folder: Path, suffix: str, packing: str, data: bytes) -> DataFile:
    member = f"data/reviews{suffix}"
    if packing == ".zip":
        return DataFile(write(folder / "reviews.zip", pack(packing, data, member)), member)
    return DataFile(write(folder / f"reviews{suffix}{packing}", pack(packing, data)))


def chunks(
    file: DataFile | Path, wanted: Sequence[str] = ("text", "label"), layout: CsvLayout | None = None
) -> list[Chunk]:
    file = file if isinstance(file, DataFile) else DataFile(file)
    return list(read_chunks(file, wanted, layout or CsvLayout(), "data.source"))


def read(file: DataFile | Path, **options: Any) -> list[tuple[Any, ...]]:
    """All rows of a file: text and label, or text alone where there is no label."""
    rows: list[tuple[Any, ...]] = []
    for chunk in chunks(file, **options):
        lists = [values if isinstance(values, list) else values.to_pylist() for values in chunk.columns.values()]
        assert all(len(values) == len(chunk.lines) for values in lists)
        assert not chunk.problems
        rows += zip(
            *(lists[list(chunk.columns).index(name)] for name in sorted(chunk.columns, reverse=True)), strict=True
        )
    return rows


def refusal(file: DataFile | Path, **options: Any) -> str:
    with pytest.raises(UsageError) as refused:
        chunks(file, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- what is read


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_texts_arrive_to_the_letter(tmp_path: Path, suffix: str, packing: str) -> None:
    rows = [(text, number % 5) for number, text in enumerate(TEXTS)]
    found = read(packed(tmp_path, suffix, packing, content(suffix, rows)))
    assert found == ([(text, str(label)) for text, label in rows] if suffix in (".csv", ".tsv") else rows)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", "\ufeff".encode()])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_line_ends_and_bom_are_not_text(tmp_path: Path, suffix: str, bom: bytes, newline: str) -> None:
    rows = [(text, str(number)) for number, text in enumerate(TEXTS)]
    assert read(write(tmp_path / f"reviews{suffix}", bom + content(suffix, rows, newline))) == rows


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_txt_is_a_text_a_line(tmp_path: Path, packing: str, bom: str, newline: str) -> None:
    lines = ["good\x0cfood", "", "bad\u2028soup\x85", " \x0b ", 'a, "b"', "", "the\rend"]
    data = (bom + newline.join(lines)).encode()
    assert read(packed(tmp_path, ".txt", packing, data)) == [(line,) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.just("1")), min_size=1),
    suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]),
    bom=st.booleans(),
)  # fmt: skip
def test_any_text_arrives_to_the_letter(folder: Path, rows: list[tuple[str, str]], suffix: str, bom: bool) -> None:
    if suffix == ".jsonl":
        data = content(suffix, rows).decode()
    else:  # with \r\n as its line end, the csv module quotes fields that hold a lone \r
        csv.writer(text := io.StringIO(), delimiter="\t" if suffix == ".tsv" else ",").writerows(
            [("text", "label"), *rows]
        )
        data = text.getvalue()
    assert read(write(folder / f"reviews{suffix}", "\ufeff" * bom + data)) == rows


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_column_of_one_text_stays_text(tmp_path: Path, suffix: str, text: str) -> None:
    # Alone in its column, "2024-01-01" is a date to a reader that guesses.
    assert read(write(tmp_path / f"reviews{suffix}", content(suffix, [(text, "3")]))) == [(text, "3")]


def test_quotes_inside_an_unquoted_field_are_text(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.csv", 'label,text\n1,a 5" pizza\n2,the "best"\n')
    assert read(file) == [('a 5" pizza', "1"), ('the "best"', "2")]


def test_final_line_needs_no_end(tmp_path: Path) -> None:
    assert read(write(tmp_path / "reviews.csv", "label,text\n1,a")) == [("a", "1")]


def test_one_column_keeps_its_blank_rows(tmp_path: Path) -> None:
    # As spreadsheets write an empty cell: a blank line.
    assert read(write(tmp_path / "reviews.csv", 'text\na\n\n""\nb\n')) == [("a",), ("",), ("",), ("b",)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_blank_lines_between_rows_are_no_rows(tmp_path: Path, suffix: str) -> None:
    # More of them than a chunk holds rows.
    first, *rest = content(suffix, [("a", "1"), ("b", "2")]).decode().splitlines(keepends=True)
    file = write(tmp_path / f"reviews{suffix}", "\n" + first + "\n" * (2 * CHUNK_ROWS) + "\r\n".join(rest) + "\n\n")
    assert read(file) == [("a", "1"), ("b", "2")]
    assert sum(len(chunk.lines) for chunk in chunks(file)) == 2


@pytest.mark.parametrize(
    "text_type", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_arrow_of_any_encoding(tmp_path: Path, suffix: str, text_type: pa.DataType) -> None:
    text = pa.array(["good", None, "good", "bad"])
    text = text.dictionary_encode() if pa.types.is_dictionary(text_type) else text.cast(text_type)
    table = pa.table({"text": text, "label": pa.array([4, 0, 4, None]).dictionary_encode()})
    (chunk,) = (
        chunk for chunk in chunks(write(tmp_path / f"a{suffix}", arrow_content(suffix, table))) if len(chunk.lines)
    )
    assert {name: values.type for name, values in chunk.columns.items()} == {"text": pa.string(), "label": pa.int64()}
    assert chunk.columns["text"].to_pylist() == ["good", None, "good", "bad"]
    assert chunk.columns["label"].to_pylist() == [4, 0, 4, None]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), "dictionary"], ids=str)
def test_arrow_that_is_not_utf8_is_surrogates(tmp_path: Path, suffix: str, kind: Any) -> None:
    as_bytes = {pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}.get(kind, pa.binary())
    column = pa.array([b"fine", "café".encode("latin-1"), None], as_bytes).view(
        pa.string() if kind == "dictionary" else kind
    )
    if kind == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), column[:2])
    table = pa.table({"text": column, "label": [1, 2, 3]})
    if kind == "dictionary" and suffix == ".parquet":  # pyarrow itself looks at these
        assert "(Invalid UTF8 payload): mend the file." in refusal(
            write(tmp_path / "a.parquet", arrow_content(suffix, table))
        )
        return
    found = read(write(tmp_path / f"a{suffix}", arrow_content(suffix, table)))
    assert found == [("fine", 1), ("caf\udce9", 2), (None, 3)]


def test_arrow_file_with_a_footer(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": [1, 2]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    assert read(tmp_path / "a.arrow") == [("a", 1), ("b", 2)]


# --- chunks


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".txt"])
def test_a_long_file_comes_in_small_chunks(tmp_path: Path, suffix: str) -> None:
    rows = [(f"review {number}", str(number % 5)) for number in range(3 * CHUNK_ROWS + 1)]
    rows[CHUNK_ROWS + 1] = ("long, " * 50_000, "4")  # past the csv module's own limit of 128 KiB
    file = write(tmp_path / f"reviews{suffix}", content(suffix, rows))
    assert read(file) == ([(text,) for text, _ in rows] if suffix == ".txt" else rows)
    counts = [len(chunk.lines) for chunk in chunks(file)]
    assert max(counts) == CHUNK_ROWS
    assert sum(counts) == len(rows)
    header = 2 if suffix in (".csv", ".tsv") else 1
    assert [line for chunk in chunks(file) for line in chunk.lines] == list(range(header, len(rows) + header))


def test_rows_arrive_before_the_file_ends(tmp_path: Path) -> None:
    data = content(".csv", [("a", "1")] * (2 * CHUNK_ROWS)) + b'x,"never closed\n'
    found = read_chunks(DataFile(write(tmp_path / "a.csv", data)), ["text"], CsvLayout(), "data.source")
    assert len(next(found).lines) == CHUNK_ROWS
    with pytest.raises(UsageError, match="line 4002: a quote is never closed"):
        list(found)


def test_lines_of_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", '\nlabel,text\n\n1,"two\nlines"\n2,b\n\n3,"""\n\n\r\n"\n4,c,d\n5,e\n')
    assert [list(chunk.lines) for chunk in chunks(file)] == [[4, 6, 8, 12, 13], []]
    assert chunks(file)[0].problems == {3: "3 fields instead of 2"}
    file = write(tmp_path / "a.jsonl", '\n{"text": "a"}\n \n\n{"text": "b"}\n5')
    assert [list(chunk.lines) for chunk in chunks(file)] == [[2, 5, 6]]
    assert chunks(file)[0].problems == {2: "no json object, but a int"}


def test_only_wanted_columns_are_kept(tmp_path: Path) -> None:
    lines = '{"text": "a", "x": "b"}\n{"text": "c", "x": {"y": [1]}, "z": 1}\n'
    (chunk,) = chunks(write(tmp_path / "a.jsonl", lines))
    assert chunk.names == ["text", "x", "z"]
    assert chunk.columns == {"text": ["a", "c"]}
    chunk = chunks(write(tmp_path / "a.csv", "x,label,text,x\nb,1,a,\n"))[0]
    assert chunk.names == ["x", "label", "text", "x"]
    assert chunk.columns == {"label": ["1"], "text": ["a"]}


# --- what a csv does not say of itself

ORIGINAL = CsvLayout(("label", "text"), backslash_escapes=True)


def test_original_yelp_csv(tmp_path: Path) -> None:
    # As yelp_review_full_csv has it: no header, all quoted, quotes doubled, line ends as \n.
    lines = r'"5","dr. ""goldberg"" is in\n\nnew york"' + "\n" + r'"1","a \""bad\"" one, c:\temp"' + "\n"
    file = write(tmp_path / "train.csv", lines)
    assert read(file, layout=ORIGINAL) == [
        ('dr. "goldberg" is in\n\nnew york', "5"),
        ('a "bad" one, c:\\temp', "1"),
    ]
    assert [list(chunk.lines) for chunk in chunks(file, layout=ORIGINAL)] == [[1, 2], []]
    assert read(file, layout=CsvLayout(("label", "text")))[0] == (r'dr. "goldberg" is in\n\nnew york', "5")


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_column_names_make_the_first_line_a_row(tmp_path: Path, suffix: str) -> None:
    separator = "\t" if suffix == ".tsv" else ","
    file = write(tmp_path / f"a{suffix}", f"\ufeff1{separator}a\n2{separator}b\n3\n")
    chunk = chunks(file, layout=CsvLayout(("label", "text")))[0]
    assert chunk.columns == {"label": ["1", "2", ""], "text": ["a", "b", ""]}
    assert chunk.problems == {2: "1 fields instead of 2"}


# --- what is refused


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.csv.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("data", ["", "\n\r\n\n", "\ufeff", "\ufeff\n"])
def test_empty_file(tmp_path: Path, name: str, data: str) -> None:
    packing = Path(name).suffix if name.count(".") > 1 else ""
    file = write(tmp_path / name, pack(packing, data.encode()))
    assert refusal(file) == f"`data.source`: {file} is empty: give a file with at least one review."


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        # csv: rows that a lenient reader would swallow, merge or change.
        ("a.csv", 'label,text\n0,b\n1,"a\n2,b\n3,c\n', "line 3: a quote is never closed"),
        ("a.csv", 'label,text\n1,"a" b\n2,c\n', "line 2: ',' expected after '\"'"),
        ("a.tsv", 'label\ttext\n1\t"Great" he said\n', "line 2: '\t' expected after '\"'"),
        ("a.csv", "label,text\r1,a\r2,b\r", "line 1: a CR stands alone outside quotes"),
        ("a.csv", "label,text\n1,a\rb\n", "line 2: a CR stands alone outside quotes"),
        ("a.csv", "label,prénom,text\n1,a,b\n".encode("latin-1"), "line 1 is not UTF-8: save the file as UTF-8"),
        ("a.json", '[{"label": 1, "text": "a"}]', "line 1 starts an array: write one object a line, as by jq"),
        ("a.jsonl", '\n\n [\n{"label": 1, "text": "a"}\n]', "line 3 starts an array: write one object a line"),
        ("a.csv", "label,text\n1,a\n".encode("utf-16-le"), "line 1 holds a NUL byte: save the file as UTF-8"),
        ("a.csv", "label,text\n1,a\n".encode("utf-16-be"), "line 1 holds a NUL byte: save the file as UTF-8"),
        ("a.csv", bytes(1000), "line 1 holds a NUL byte: save the file as UTF-8"),
        *(
            (f"a{suffix}", "label,text\n1,a\n".encode(encoding), "line 1 starts with the mark of UTF-16: save")
            for suffix in (".csv", ".tsv", ".jsonl", ".txt")
            for encoding in ("utf-16", "utf-32")
        ),
        ("a.csv", b"\xfe\xff" + "label,text\n1,a\n".encode("utf-16-be"), "line 1 starts with the mark of UTF-16"),
        ("a.csv.gz", b"label,text\n1,a\n", "zlib inflate failed: "),
        ("a.csv.zst", b"label,text\n1,a\n", "ZSTD decompress failed: Unknown frame descriptor"),
        ("a.parquet", b"", "Parquet file size is 0 bytes"),
        ("a.parquet", b"PAR1", "Parquet file size is 4 bytes"),
        ("a.parquet", bytes(1000), "Parquet magic bytes not found in footer"),
        ("a.arrow", b"", "Tried reading schema message, was null or length 0"),
        ("a.arrow", bytes(1000), "Tried reading schema message, was null or length 0"),
    ],
)  # fmt: skip
def test_unreadable_file(tmp_path: Path, name: str, data: str | bytes, reason: str) -> None:
    file = write(tmp_path / name, data)
    sentence = refusal(file)
    assert sentence.startswith(f"`data.source`: {file} cannot be read as {name.split('.')[1]} ({reason}")
    assert sentence.endswith("): mend the file.")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
def test_truncated_file(tmp_path: Path, suffix: str, packing: str, kept: float) -> None:
    data = content(suffix, [(f"review {number * 7919}", number % 5) for number in range(100)])
    file = packed(tmp_path, suffix, packing, data)
    whole = file.path.read_bytes()
    if suffix == ".csv" and not packing:
        return  # any beginning of a csv is one
    file.path.write_bytes(whole[: int(kept * len(whole))])
    assert f"cannot be read as {suffix[1:]} (" in refusal(file)


def test_arrow_stream_cut_between_two_batches(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": [1, 2]})
    with pa.ipc.new_stream(sink := io.BytesIO(), table.schema) as writer:
        writer.write_batch(table.to_batches()[0].slice(0, 1))
        cut = sink.tell()
        writer.write_batch(table.to_batches()[0].slice(1, 1))
    file = write(tmp_path / "a.arrow", sink.getvalue()[:cut])
    assert refusal(file) == f"`data.source`: {file} cannot be read as arrow (its end is missing): mend the file."


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_whose_bytes_changed(tmp_path: Path, compression: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as archive:
        archive.writestr("a.csv", "label,text\n" + "1,a long review\n" * 9)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[60] ^= 1  # in the member's own bytes
    (tmp_path / "a.zip").write_bytes(data)
    assert refusal(DataFile(tmp_path / "a.zip", "a.csv")).endswith("): mend the file.")


def test_gzip_whose_bytes_changed(tmp_path: Path) -> None:
    file = packed(tmp_path, ".csv", ".gz", b"label,text\n" + b"1,a\n" * 100)
    data = bytearray(file.path.read_bytes())
    data[-6] ^= 1  # in the checksum
    file.path.write_bytes(data)
    assert "cannot be read as csv (zlib inflate failed: incorrect data check)" in refusal(file)


def test_endless_line_and_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_CELL", 2**20)
    for suffix in (".csv", ".jsonl", ".txt"):
        file = write(tmp_path / f"a{suffix}", "text,label\n" + "a" * 2**21)
        assert f"cannot be read as {suffix[1:]} (line 2 is longer than 1 MiB)" in refusal(file)
    file = write(tmp_path / "a.csv", 'text,label\n"' + "a\n" * 2**20)
    assert "(line 524290: field larger than field limit (1048576))" in refusal(file)


def test_unknown_ending(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.xlsx", "label,text\n1,a\n")
    assert refusal(file) == (
        f"`data.source` is {str(file)!r}, whose ending is not one of csv, tsv, jsonl or parquet, plain, .gz, .zst or "
        "in a .zip: rename or convert it."
    )
