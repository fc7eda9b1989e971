"""Readers: what a file says arrives to the letter and in order, and what is wrong in it is one sentence."""

import csv
import io
import json
import re
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from importlib import resources
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, review, write_jsonl
from hub import Hub, write_yelp_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from yelp_lightning.data.reviews import has_split, read_reviews, read_texts
from yelp_lightning.errors import UsageError

# Texts that a reader which guesses types would change or drop.
TEXTS = [
    "NA", "null", "nan", "None", "2024", "007", "4.50", "true", "2024-01-01", "2024-01-01 10:00:00", "", " ",
    " both ends ", "a, b", 'she said "no"', '"', "two\nlines", "two\r\nlines", "\ttab", "café 🍕 日本", "\u2028\x0c",
    "#1", "\\n", "a\\",
]  # fmt: skip


def read(
    source: object, split: str = "train", text: str = "text", label: str = "label", offset: int = 0, classes: int = 5
) -> list[tuple[str, int]]:
    rows = read_reviews(str(source), split, text, label, offset, classes)
    return list(zip(rows["text"][:], rows["label"][:], strict=True))


def texts(source: object, text: str = "text", id_column: str | None = None) -> list[str]:
    return list(read_texts(str(source), text, id_column)[0]["text"][:])


def refusal(*arguments: object, **options: object) -> str:
    """What `read` refuses with."""
    with pytest.raises(UsageError) as refused:
        read(*arguments, **options)  # type: ignore[arg-type]
    return str(refused.value)


def texts_refusal(*arguments: object, **options: object) -> str:
    """What `texts` refuses with."""
    with pytest.raises(UsageError) as refused:
        texts(*arguments, **options)  # type: ignore[arg-type]
    return str(refused.value)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_parquet(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def write_rows(path: Path, rows: list[tuple[str, int]], newline: str = "\n", bom: str = "") -> Path:
    """Write rows by the standard library and pandas, which know nothing of the reader."""
    frame = pandas.DataFrame(rows, columns=["text", "label"])
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        separator = "\t" if path.suffix == ".tsv" else ","
        write(path, bom + frame.to_csv(None, sep=separator, index=False, lineterminator=newline))
    else:
        lines = (json.dumps({"text": text, "label": label}, ensure_ascii=False) + newline for text, label in rows)
        write(path, bom + "".join(lines))
    return path


# --- what is read


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_texts_arrive_to_the_letter(tmp_path: Path, suffix: str, bom: str, newline: str) -> None:
    rows = [(text, number % 5) for number, text in enumerate(TEXTS)]
    assert read(write_rows(tmp_path / f"reviews{suffix}", rows, newline, bom)) == rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.integers(0, 4)),
        min_size=1,
    ),
    suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]),
)
def test_any_text_arrives_to_the_letter(folder: Path, rows: list[tuple[str, int]], suffix: str) -> None:
    # With \r\n as its line end, pandas quotes fields that hold a lone \r.
    assert read(write_rows(folder / f"reviews{suffix}", rows, "\r\n")) == rows


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_column_of_one_text_stays_text(tmp_path: Path, suffix: str, text: str) -> None:
    # Alone in its column, "2024-01-01" is a date to a reader that guesses.
    assert read(write_rows(tmp_path / f"reviews{suffix}", [(text, 3)])) == [(text, 3)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_long_files_and_long_reviews(tmp_path: Path, suffix: str) -> None:
    # Past the reader's chunk of 10,000 rows, past the 128 KiB field limit of the csv module.
    rows = [(f"review {number}\n" * (number % 3), number % 5) for number in range(20_003)]
    rows[10_001] = ("long, " * 50_000, 4)
    assert read(write_rows(tmp_path / f"reviews{suffix}", rows)) == rows


def test_kinds_of_number_may_change_within_a_file(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}] * 10_000 + [{"text": "b", "label": 4.0}]
    assert read(write_jsonl(tmp_path / "reviews.jsonl", rows))[-1] == ("b", 4)


def test_quotes_inside_an_unquoted_field_are_text(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.csv", 'label,text\n1,a 5" pizza\n2,the "best"\n')
    assert read(file) == [('a 5" pizza', 1), ('the "best"', 2)]


def test_blank_lines_between_rows_are_no_rows(tmp_path: Path) -> None:
    expected = [("a", 1), ("b", 2)]
    assert read(write(tmp_path / "reviews.csv", "\nlabel,text\n\n1,a\n\r\n2,b\n\n")) == expected
    lines = '\n{"label": 1, "text": "a"}\n \r\n{"label": 2, "text": "b"}'
    assert read(write(tmp_path / "reviews.jsonl", lines)) == expected


def test_final_line_needs_no_end(tmp_path: Path) -> None:
    assert read(write(tmp_path / "reviews.csv", "label,text\n1,a")) == [("a", 1)]


def test_other_columns_may_hold_anything(tmp_path: Path) -> None:
    lines = '{"text": "a", "label": 1, "x": "b"}\n{"text": "c", "label": 2, "x": {"y": [1]}, "z": 1}\n'
    assert read(write(tmp_path / "reviews.jsonl", lines)) == [("a", 1), ("c", 2)]
    assert read(write(tmp_path / "reviews.csv", "x,label,text,x\nb,1,a,\n")) == [("a", 1)]
    file = write_parquet(tmp_path / "x.parquet", x=pa.array([{"y": 1}]), text=pa.array(["a"]), label=pa.array([1]))
    assert read(file) == [("a", 1)]


@pytest.mark.parametrize(
    "text_type", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
@pytest.mark.parametrize(
    "label_type",
    [pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(21, 2), pa.large_string(),
     pa.dictionary(pa.int32(), pa.int64())], ids=str,
)  # fmt: skip
def test_parquet_of_any_encoding(tmp_path: Path, text_type: pa.DataType, label_type: pa.DataType) -> None:
    text, label = pa.array(["good", "bad", "good"]), pa.array([4, 0, 4])
    text = text.dictionary_encode() if pa.types.is_dictionary(text_type) else text.cast(text_type)
    label = label.dictionary_encode() if pa.types.is_dictionary(label_type) else label.cast(label_type)
    file = write_parquet(tmp_path / "reviews.parquet", text=text, label=label)
    assert pq.read_schema(file).field("text").type == text_type
    assert read(file) == [("good", 4), ("bad", 0), ("good", 4)]
    assert texts(file) == ["good", "bad", "good"]


def test_parquet_takes_nothing_from_its_folders_name(tmp_path: Path) -> None:
    (folder := tmp_path / "label=3").mkdir()
    write_parquet(folder / "train.parquet", text=pa.array(["a"]), label=pa.array([1]))
    assert read(folder) == read(folder / "train.parquet") == [("a", 1)]


@pytest.mark.parametrize(
    ("stored", "offset", "label"),
    [("4", 0, 4), ("4.0", 0, 4), (" 4 ", 0, 4), ("-0", 0, 0), ("1", 1, 0), ("5", 1, 4), ("5.0", 1, 4), ("-2", -2, 0)],
)
def test_labels_of_csv(tmp_path: Path, stored: str, offset: int, label: int) -> None:
    assert read(write(tmp_path / "reviews.csv", f"label,text\n{stored},a\n"), offset=offset) == [("a", label)]


@pytest.mark.parametrize(("stored", "offset", "label"), [(4, 0, 4), (4.0, 0, 4), ("4", 0, 4), (1, 1, 0), (5.0, 1, 4)])
def test_labels_of_json(tmp_path: Path, stored: object, offset: int, label: int) -> None:
    file = write_jsonl(tmp_path / "reviews.jsonl", [{"text": "a", "label": stored}])
    assert read(file, offset=offset) == [("a", label)]


def test_number_of_classes(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "reviews.jsonl", [{"text": "a", "label": 2}])
    assert read_reviews(str(file), "train", "text", "label", 0, 3).features["label"].names == [
        "1 star",
        "2 stars",
        "3 stars",
    ]
    assert "allowed are whole numbers 0..1 (0 means 1 star)" in refusal(file, classes=2)


def test_columns_of_other_names(tmp_path: Path) -> None:
    # Yelp's own json: stars 1.0 to 5.0.
    row = {"review_id": "a", "stars": 5.0, "date": "2016-01-01 10:00:00", "text": "title", "body": "good"}
    assert read(write_jsonl(tmp_path / "yelp.json", [row]), text="body", label="stars", offset=1) == [("good", 4)]


# --- where it is read from


@pytest.mark.parametrize(
    ("name", "split"),
    [("train.csv", "train"), ("train.parquet", "train"), ("validation.tsv", "validation"), ("val.jsonl", "validation"),
     ("dev.json", "validation"), ("test.csv", "test")],
)  # fmt: skip
def test_folder(tmp_path: Path, name: str, split: str) -> None:
    write_rows(tmp_path / name, [("a", 1)])
    write(tmp_path / "README.md", "not data")
    assert {known for known in ("train", "validation", "test") if has_split(str(tmp_path), known)} == {split}
    assert read(tmp_path, split) == [("a", 1)]


def test_a_single_file_serves_train_and_test(tmp_path: Path) -> None:
    file = str(write_rows(tmp_path / "reviews.csv", [("a", 1)]))
    assert [has_split(file, split) for split in ("train", "validation", "test")] == [True, False, True]
    assert read(file, "train") == read(file, "test") == [("a", 1)]


@pytest.mark.real
def test_real_reviews(real_yelp: Path) -> None:
    # The same rows by pandas; the csv has quoted newlines, commas and quotes.
    expected = pandas.read_csv(real_yelp / "natural.csv", keep_default_na=False)
    found = read(real_yelp / "natural.csv", label="stars", offset=1)
    assert found == [(text, stars - 1) for text, stars in zip(expected["text"], expected["stars"], strict=True)]
    test = pandas.read_parquet(real_yelp / "test.parquet")
    assert read(real_yelp, "test") == list(zip(test["text"], test["label"], strict=True))


def run_script(code: str, environment: dict[str, str]) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_hub(tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "from yelp_lightning.data.reviews import has_split, read_reviews\n"
        "from yelp_lightning.errors import UsageError\n"
        "source = 'Yelp/yelp_review_full'\n"
        "rows = read_reviews(source, 'test', 'text', 'label', 0, 5)\n"
        "found = [rows.to_list(), [has_split(source, split) for split in ('train', 'validation', 'test')]]\n"
        "for source, split in ((source, 'validation'), ('nobody/nothing', 'train')):\n"
        "    try:\n"
        "        read_reviews(source, split, 'text', 'label', 0, 5)\n"
        "    except UsageError as error:\n"
        "        found.append(str(error))\n"
        "try:\n"
        "    has_split('nobody/nothing', 'train')\n"
        "except UsageError as error:\n"
        "    found.append(str(error))\n"
        "print(json.dumps(found))\n"
    )
    data = write_yelp_dataset(tmp_path / "data", train=20, test=10)
    with Hub({}, {"Yelp/yelp_review_full": data}) as hub:
        process = run_script(code, hub.environment(tmp_path / "home"))
    rows, splits, no_split, unknown, unknown_too = json.loads(process.splitlines()[-1])
    published = pq.read_table(next((data / "yelp_review_full").glob("test-*"))).select(["text", "label"])
    assert rows == published.to_pylist()
    assert splits == [True, False, True]
    assert no_split == (
        "`data.source` 'Yelp/yelp_review_full' has no split 'validation', only ['train', 'test']: give another source."
    )
    for sentence in (unknown, unknown_too):
        assert sentence.startswith(
            "`data.source` is 'nobody/nothing', which is neither a file or folder here nor loads"
        )
        assert sentence.endswith("check the name and the network, or give a file, a folder or embedded.")


# --- the embedded reviews


def words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)?", text.lower())


def test_embedded_reviews_are_enough_and_balanced() -> None:
    counts = {
        split: Counter(label for _, label in read("embedded", split)) for split in ("train", "validation", "test")
    }
    for split, least in {"train": 400, "validation": 100, "test": 100}.items():
        assert has_split("embedded", split)
        assert counts[split].total() >= least
        assert sorted(counts[split]) == [0, 1, 2, 3, 4]
        assert len(set(counts[split].values())) == 1
    file = resources.files("yelp_lightning.embedded") / "reviews.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == sum(count.total() for count in counts.values())
    assert [path.name for path in resources.files("yelp_lightning.embedded").iterdir() if ".json" in path.name] == [
        "reviews.jsonl"
    ]


def test_embedded_reviews_are_different_texts() -> None:
    found = [text for split in ("train", "validation", "test") for text, _ in read("embedded", split)]
    assert all(15 <= len(text.split()) <= 250 for text in found)
    assert len({" ".join(text.lower().split()) for text in found}) == len(found)
    runs = [{" ".join(words(text)[i : i + 8]) for i in range(len(words(text)) - 7)} for text in found]
    shared = Counter(run for own in runs for run in own)
    assert [run for run, count in shared.items() if count > 1] == []


def test_embedded_splits_are_disjoint() -> None:
    splits = [{text for text, _ in read("embedded", split)} for split in ("train", "validation", "test")]
    assert all(not one & other for one, other in combinations(splits, 2))


def test_embedded_reviews_have_their_own_columns() -> None:
    assert read("embedded", text="body", label="stars", offset=1) == read("embedded")


# --- what is refused


def test_unknown_column(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "reviews.csv", [("a", 1)])
    assert refusal(file, text="texts") == (
        f"`data.text_column` is 'texts', but {file} has the columns ['text', 'label'] (did you mean 'text'?): "
        "name the right one with --data.text_column."
    )
    assert refusal(file, label="stars") == (
        f"`data.label_column` is 'stars', but {file} has the columns ['text', 'label']: "
        "name the right one with --data.label_column."
    )
    assert texts_refusal(file, id_column="lable") == (
        f"`data.id_column` is 'lable', but {file} has the columns ['text', 'label'] (did you mean 'label'?): "
        "name the right one with --data.id_column."
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_unknown_column_in_any_format(tmp_path: Path, suffix: str) -> None:
    file = write_rows(tmp_path / f"reviews{suffix}", [("a", 1)])
    for sentence in (refusal(file, text="Text"), texts_refusal(file, text="Text")):
        assert sentence.startswith(
            f"`data.text_column` is 'Text', but {file} has the columns ['text', 'label'] (did you"
        )


def test_column_that_stands_twice(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.csv", "id,id,label,text,text\n1,2,1,a,b\n")
    sentence = f"but {file} has 2 columns of that name: rename or remove all but one."
    assert refusal(file) == f"`data.text_column` is 'text', {sentence}"
    assert refusal(file, text="label", label="text") == f"`data.label_column` is 'text', {sentence}"
    assert texts_refusal(file, text="label") == f"`data.id_column` is 'id', {sentence}"
    table = pa.Table.from_arrays([pa.array(["a"])] * 2 + [pa.array([1])], names=["text", "text", "label"])
    pq.write_table(table, tmp_path / "reviews.parquet")
    assert "has 2 columns of that name" in refusal(tmp_path / "reviews.parquet")


WAY_OUT = "or say with --data.label_offset what to subtract (1 for stars that are stored as 1..5)."


@pytest.mark.parametrize(
    "label",
    ["5", "-1", "4.5", "nan", "inf", "-inf", "NA", "five", "5 stars", "", "true", "0x1", "1e0", "9" * 30, "9" * 400],
)
def test_bad_label_of_csv(tmp_path: Path, label: str) -> None:
    file = write(tmp_path / "reviews.csv", f"label,text\n4,a\n{label},b\n0,c\n{label},d\n")
    assert refusal(file) == (
        f"`data.label_column` 'label' holds {label!r} in row 2 of {file} (2 such rows of 4); "
        f"allowed are whole numbers 0..4 (0 means 1 star): mend the rows, {WAY_OUT}"
    )


@pytest.mark.parametrize("label", [5, -1, 4.5, float("nan"), float("inf"), -float("inf"), None, 1e300, 2**62])
def test_bad_label_of_json(tmp_path: Path, label: float | None) -> None:
    file = write_jsonl(tmp_path / "reviews.jsonl", [{"text": "a", "label": value} for value in (4, label, 0)])
    found = float(label) if isinstance(label, float) else label
    assert refusal(file).startswith(
        f"`data.label_column` 'label' holds {found!r} in row 2 of {file} (1 such rows of 3);"
    )


@pytest.mark.parametrize("label", ["four", True, [4], {"stars": 4}, None])
def test_column_without_labels(tmp_path: Path, label: object) -> None:
    file = write_jsonl(tmp_path / "reviews.jsonl", [{"text": "a", "label": label}] * 2)
    assert refusal(file).startswith(
        f"`data.label_column` 'label' holds {label!r} in row 1 of {file} (2 such rows of 2);"
    )


@pytest.mark.parametrize(
    ("column", "shown"),
    [(pa.array([1, 2**63 + 1], pa.uint64()), 2**63 + 1), (pa.array([1, -(2**63)]), -(2**63)),
     (pa.array([1, None]), None), (pa.array([1, 4.5]).cast(pa.float16()), 4.5),
     (pa.array([Decimal("1.00"), Decimal("4.50")]), Decimal("4.50")), (pa.array([1, 7]).dictionary_encode(), 7)],
)  # fmt: skip
def test_bad_label_of_parquet(tmp_path: Path, column: pa.Array, shown: object) -> None:
    file = write_parquet(tmp_path / "reviews.parquet", text=pa.array(["a", "b"]), label=column)
    assert refusal(file).startswith(
        f"`data.label_column` 'label' holds {shown!r} in row 2 of {file} (1 such rows of 2);"
    )


@pytest.mark.parametrize("label", ["0", "6", "0.5"])
def test_bad_label_with_offset(tmp_path: Path, label: str) -> None:
    file = write(tmp_path / "reviews.csv", f"label,text\n{label},a\n")
    assert refusal(file, offset=1) == (
        f"`data.label_column` 'label' holds {label!r} in row 1 of {file} (1 such rows of 1); "
        "allowed are whole numbers 1..5 (1 means 1 star): mend the rows or --data.label_offset."
    )


def test_missing_text(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": None, "label": 1}, {"label": 1}]
    for file in (
        write_jsonl(tmp_path / "reviews.jsonl", rows),
        write_parquet(tmp_path / "reviews.parquet", text=pa.array(["a", None, None]), label=pa.array([1, 1, 1])),
    ):
        expected = (
            f"`data.text_column` 'text' has no text in 2 rows of {file}, first in row 2: "
            "remove those rows or give them a text."
        )
        assert refusal(file) == texts_refusal(file) == expected


@pytest.mark.parametrize(
    ("text", "kind"), [(2024, "int64"), ({"a": "b"}, "struct<a: string>"), (["a"], "list<item: string>")]
)
def test_text_that_is_none(tmp_path: Path, text: object, kind: str) -> None:
    file = write_jsonl(tmp_path / "reviews.jsonl", [{"text": text, "label": 1}])
    assert (
        refusal(file)
        == texts_refusal(file)
        == (
            f"`data.text_column` 'text' of {file} holds {kind}, not text: "
            "name the column with the review by --data.text_column."
        )
    )


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    latin1 = pa.array([b"fine", "café".encode("latin-1")]).view(pa.string())
    file = write_parquet(tmp_path / "reviews.parquet", text=latin1, label=pa.array([1, 1]))
    for sentence in (refusal(file), texts_refusal(file)):
        assert sentence.startswith(f"`data.text_column` 'text' of {file} is not UTF-8 (")
        assert sentence.endswith("): mend the file.")


@pytest.mark.parametrize(
    ("name", "content"),
    [("reviews.csv", ""), ("reviews.csv", "\n\r\n\n"), ("reviews.csv", "\ufeff"), ("reviews.jsonl", ""),
     ("reviews.jsonl", "\n\n"), ("reviews.jsonl", "{}\n"), ("reviews.tsv", "\n")],
)  # fmt: skip
def test_empty_file(tmp_path: Path, name: str, content: str) -> None:
    file = write(tmp_path / name, content)
    assert refusal(file) == f"`data.source`: {file} is empty: give a file with at least one review."
    assert texts_refusal(file) == f"`--data.predict_path`: {file} is empty: give a file with at least one review."


def test_no_rows(tmp_path: Path) -> None:
    empty = pa.array([], pa.string())
    for file in (
        write(tmp_path / "reviews.csv", "label,text\n"),
        write_parquet(tmp_path / "reviews.parquet", text=empty, label=empty),
    ):
        assert refusal(file) == f"`data.source`: {file} holds 0 rows: give a file with at least one review."
        assert texts_refusal(file) == f"`--data.predict_path`: {file} holds 0 rows: give at least one review."


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        # csv: rows that a lenient reader would swallow, merge or change.
        ("a.csv", 'label,text\n1,"a\n2,b\n3,c\n', "line 4: unexpected end of data"),
        ("a.csv", 'label,text\n1,"a" b\n2,c\n', "line 2: ',' expected after '\"'"),
        ("a.tsv", 'label\ttext\n1\t"Great" he said\n', "line 2: '\t' expected after '\"'"),
        ("a.csv", "label,text\n1,a\n2,b,c\n", "line 3 has 3 fields, the header 2"),
        ("a.csv", "label,text\n1\n", "line 2 has 1 fields, the header 2"),
        ("a.csv", "label,text\n1,café\n".encode("latin-1"), "line 2 is not UTF-8 at its byte 6"),
        ("a.csv", "label,prénom,text\n1,a,b\n".encode("latin-1"), "line 1 is not UTF-8 at its byte 9"),
        ("a.csv", "label,text\n1,a\n".encode("utf-16"), "line 1 is not UTF-8 at its byte 1"),
        ("a.csv", "label,text\n1,a\n".encode("utf-16-le"), "line 1 holds a NUL byte"),
        ("a.csv", b"label,text\n1,a\n2,b\0c\n", "line 3 holds a NUL byte"),
        ("a.csv", bytes(1000), "line 1 holds a NUL byte"),
        ("a.jsonl", '{"label": 1, "text": "a"}\n\n{"label": 1, "te', "line 3 is no json object: Unterminated string"),
        ("a.jsonl", '{"label": 1, "text": "a"},\n', "line 1 is no json object: Extra data"),
        ("a.jsonl", '{"label": 1, "text": "a"}{"label": 1, "text": "b"}\n', "line 1 is no json object: Extra data"),
        ("a.jsonl", '{"label": 1, "text": "a\tb"}\n', "line 1 is no json object: Invalid control character at"),
        ("a.json", '[{"label": 1, "text": "a"}]', "line 1 is no json object, but a list"),
        ("a.jsonl", '{"label": 1, "text": "a"}\n5\n', "line 2 is no json object, but a int"),
        ("a.jsonl", "[" * 100_000, "line 1 is no json object: maximum recursion depth exceeded"),
        ("a.jsonl", '{"label": ' + "9" * 5000 + "}", "line 1 is no json object: Exceeds the limit (4300 digits)"),
        ("a.jsonl", '{"label": ' + "9" * 30 + "}", "column 'label' has no one type: Python int too large"),
        ("a.jsonl", '{"label": 1}\n{"label": "1"}', "column 'label' has no one type: "),
        ("a.jsonl", '{"text": "a"}\n{"text": 1}', "column 'text' has no one type: "),
        ("a.jsonl", '{"text": "a\\ud83d"}', "column 'text' has no one type: 'utf-8' codec can't encode"),
        ("a.jsonl", '{"label": 1, "text": "café"}'.encode("latin-1"), "line 1 is not UTF-8 at its byte 26"),
        ("a.jsonl", '{"label": 1, "text": "a"}'.encode("utf-16"), "line 1 is not UTF-8 at its byte 1"),
        ("a.jsonl", b'{"label": 1, "text": "a"}\n' + bytes(100), "line 2 holds a NUL byte"),
        ("a.parquet", b"", "Parquet file size is 0 bytes"),
        ("a.parquet", b"PAR1", "Parquet file size is 4 bytes"),
        ("a.parquet", bytes(1000), "Parquet magic bytes not found in footer"),
    ],
)  # fmt: skip
def test_unparsable_file(tmp_path: Path, name: str, content: str | bytes, reason: str) -> None:
    file = write(tmp_path / name, content)
    for option, sentence in {"data.source": refusal(file), "--data.predict_path": texts_refusal(file)}.items():
        if "'label'" in reason and option == "--data.predict_path":
            continue  # no label is read there
        assert sentence.startswith(f"`{option}`: {file} cannot be parsed as {file.suffix[1:]} ({reason}")
        assert sentence.endswith("): mend the file.")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_parquet(tmp_path: Path, kept: float) -> None:
    rows = [(str(review(number)["text"]), number % 5) for number in range(100)]
    file = write_rows(tmp_path / "reviews.parquet", rows)
    content = file.read_bytes()
    assert "cannot be parsed as parquet" in refusal(write(file, content[: int(kept * len(content))]))


def test_unknown_ending(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.xlsx", "label,text\n1,a\n")
    expected = "whose ending is not one of .csv, .tsv, .jsonl, .json, .parquet: rename or convert the file."
    assert refusal(file) == f"`data.source` is {str(file)!r}, {expected}"
    assert texts_refusal(file) == f"`--data.predict_path` is {str(file)!r}, {expected}"


@pytest.mark.parametrize(
    "source", ["nowhere.csv", "./no/folder", "nowhere", "", "a\0b", "a" * 5000, "no/where.parquet"]
)
def test_missing_source(source: str) -> None:
    expected = (
        f"`data.source` is {source!r}, but there is no such file or folder: give an existing one, a Hub id such as "
        "Yelp/yelp_review_full, or embedded."
    )
    assert refusal(source) == expected
    with pytest.raises(UsageError) as refused:
        has_split(source, "train")
    assert str(refused.value) == expected


@pytest.mark.parametrize("name", ["nowhere.csv", "nowhere.txt", "folder", "folder.txt", "I liked the soup. " * 50])
def test_missing_predict_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "folder.txt"):
        (tmp_path / folder).mkdir()
    assert texts_refusal(name) == (
        f"`--data.predict_path` is {name!r}, which is no file: give a csv, tsv, jsonl, parquet or txt file, "
        "or - for standard input."
    )


def test_folder_without_the_split(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", [("a", 1)])
    assert refusal(tmp_path, "test") == (
        f"`data.source` is the folder {str(tmp_path)!r}, which holds no test.csv, .tsv, .jsonl or .parquet "
        "(found ['train.csv']): add that file or give another source."
    )


@pytest.mark.parametrize(
    ("one", "other", "split"),
    [
        ("test.csv", "test.jsonl", "test"),
        ("train.csv", "train.tsv", "train"),
        ("validation.csv", "dev.csv", "validation"),
    ],
)
def test_folder_with_two_files_for_a_split(tmp_path: Path, one: str, other: str, split: str) -> None:
    for name in (one, other):
        write_rows(tmp_path / name, [("a", 1)])
    folder = f"`data.source` is the folder {str(tmp_path)!r}"
    expected = f"{folder}, which holds both {one} and {other}: leave one file for {split}."
    assert refusal(tmp_path, split) == expected
    with pytest.raises(UsageError) as refused:
        has_split(str(tmp_path), split)
    assert str(refused.value) == expected


# --- texts to predict


LINES = ["good\x0cfood", "", "bad\u2028soup\x85", " \x0b ", 'a, "b"', "", "the\rend"]


@pytest.mark.parametrize("source", ["reviews.txt", "-"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "last"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, newline: str, end: str, bom: str) -> None:
    content = bom + "".join(line + newline for line in LINES) + end
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "reviews.txt", content)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content.encode())))
    # Another column for reviews means nothing to a text.
    assert texts(source, text="body") == LINES + ([end] if end else [])


@pytest.mark.parametrize("source", ["reviews.txt", "-"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "holds 0 rows: give at least one review."),
     ("\ufeff".encode(), "holds 0 rows: give at least one review."),
     ("a\ncafé\n".encode("latin-1"), "cannot be read (line 2 is not UTF-8 at its byte 4): mend it."),
     (b"a\0b", "cannot be read (line 1 holds a NUL byte): mend it.")],
)  # fmt: skip
def test_lines_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, content: bytes, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "reviews.txt", content)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    where = "standard input" if source == "-" else source
    assert texts_refusal(source) == f"`--data.predict_path`: {where} {sentence}"


def test_lines_have_no_ids(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.txt", "a\n")
    rows, id_column = read_texts(str(file), "text", None)
    assert (rows.column_names, id_column) == (["text"], None)
    assert "`data.id_column` is 'id', but" in texts_refusal(file, id_column="id")


def test_one_column_keeps_its_blank_rows(tmp_path: Path) -> None:
    # A row for each row of the input, as spreadsheets write an empty cell: a blank line.
    assert texts(write(tmp_path / "reviews.csv", 'text\na\n\n""\nb\n')) == ["a", "", "", "b"]


def test_texts_need_no_label(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "reviews.csv", "label,text\nfive,a\n")) == ["a"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("columns", "asked", "taken"),
    [(["id"], None, "id"), (["review_id"], None, "review_id"), (["review_id", "id"], None, "id"),
     (["key", "id"], "key", "key"), (["key"], None, None), (["key"], "text", "text")],
)  # fmt: skip
def test_ids(tmp_path: Path, suffix: str, columns: list[str], asked: str | None, taken: str | None) -> None:
    ids = ["007", "2024-01-01", "NA", "", "1e5", "true", "9" * 30]
    frame = pandas.DataFrame({"text": list("abcdefg")} | {name: [f"{name} {i}" for i in ids] for name in columns})
    if taken in columns:
        frame[taken] = ids
    file = tmp_path / f"reviews{suffix}"
    match suffix:
        case ".csv":
            frame.to_csv(file, index=False)
        case ".jsonl":
            frame.to_json(file, orient="records", lines=True)
        case _:
            frame.to_parquet(file)
    rows, id_column = read_texts(str(file), "text", asked)
    assert id_column == taken
    assert set(rows.column_names) == {"text", taken} - {None}
    assert rows["text"][:] == list("abcdefg")
    if taken in columns:
        assert rows[taken][:] == ids


@pytest.mark.parametrize(
    "ids",
    [[1, None], [2**62, -1], [1.5, 2.0], [True, False], [None, None], [Decimal("1.00"), Decimal("2.50")],
     pandas.to_datetime(["2024-01-01", "2024-01-02"])],
)  # fmt: skip
def test_ids_of_other_types(tmp_path: Path, ids: list[object]) -> None:
    file = write_parquet(tmp_path / "reviews.parquet", text=pa.array(["a", "b"]), id=pa.array(ids))
    rows, id_column = read_texts(str(file), "text", None)
    assert id_column == "id"
    assert rows["id"][:] == list(ids)


@pytest.mark.parametrize("ids", [pa.array([{"$oid": "a"}]), pa.array([[1]]), pa.array([b"a" * 16], pa.uuid())], ids=str)
def test_ids_refused(tmp_path: Path, ids: pa.Array) -> None:
    file = write_parquet(tmp_path / "reviews.parquet", text=pa.array(["a"]), id=ids)
    sentence = texts_refusal(file)
    assert sentence.startswith(f"`data.id_column` 'id' of {file} holds {pq.read_schema(file).field('id').type}")
    assert sentence.endswith("which cannot stand in a csv of predictions: give ids that are texts or numbers.")


def test_ids_that_would_take_the_reviews_place(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.csv", "text,body\ntitle,a review\n")
    assert texts(file, text="body") == ["a review"]
    assert texts_refusal(file, text="body", id_column="text") == (
        f"`data.id_column` is 'text', while the reviews stand in 'body': rename the column of {file}."
    )


@pytest.mark.real
def test_csv_module_agrees(tmp_path: Path, real_yelp: Path) -> None:
    # The hub's rows through a csv of the standard library, and back.
    table = pq.read_table(real_yelp / "test.parquet")
    with (tmp_path / "test.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("label", "text"), *zip(*(table[name].to_pylist() for name in ("label", "text")), strict=True)]
        )
    assert read(tmp_path, "test") == read(real_yelp, "test")
