"""Sources: which files each split means, from a folder, a zip, a glob, the Hub, or the package itself."""

import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hub import Hub, write_yelp_dataset
from test_formats import PACKINGS, content, pack, write

from yelp_lightning.data.datafile import zip_members
from yelp_lightning.data.labels import LabelMap
from yelp_lightning.data.rows import Table, scan
from yelp_lightning.data.sources import has_split, is_divided, split_files
from yelp_lightning.errors import UsageError

SPLITS = ("train", "validation", "test")


def names(source: object, split: str = "train") -> list[str]:
    return [file.name for file in split_files(str(source), split)]


def read(
    source: object, split: str = "train", text: str = "text", label: str = "label", offset: int = 0
) -> list[tuple[str, int]]:
    """The usable rows of a split: text and class."""
    table = Table(split_files(str(source), split), text, label)
    rows = scan(table, LabelMap(label, 5, offset), None, split)
    return list(zip(table.texts(rows.usable), rows.labels[rows.usable].tolist(), strict=True))


def refusal(source: object, split: str = "train", **options: Any) -> str:
    with pytest.raises(UsageError) as refused:
        split_files(str(source), split, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def fill(folder: Path, *files: str) -> Path:
    """A folder of small files; the text of each row is the file's name."""
    for name in files:
        packing = next((packing for packing in PACKINGS[1:] if name.endswith(packing)), "")
        suffix = Path(name.removesuffix(packing)).suffix
        rows = [(name, 1)]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, pack(packing, content(suffix, rows)) if suffix != ".md" else "not data")
    return folder


def fill_zip(file: Path, *members: str) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name in members:
            archive.writestr(name, content(Path(name).suffix, [(name, 1)]))
    return file


# --- folders


@pytest.mark.parametrize(
    ("name", "split"),
    [("train.csv", "train"), ("train.parquet", "train"), ("validation.tsv", "validation"), ("val.jsonl", "validation"),
     ("dev.json", "validation"), ("test.csv", "test"), ("test.csv.gz", "test"), ("train.jsonl.zst", "train"),
     ("test-00000-of-00001.parquet", "test"), ("train.parquet.gz", "train"),
     ("dev-00000-of-00001-a1b2.csv", "validation")],
)  # fmt: skip
def test_folder(tmp_path: Path, name: str, split: str) -> None:
    fill(tmp_path, name, "README.md")
    assert {known for known in SPLITS if has_split(str(tmp_path), known)} == {split}
    assert is_divided(str(tmp_path))
    assert names(tmp_path, split) == [name]
    assert read(tmp_path, split) == [(name, 1)]


def test_folder_of_three_splits(tmp_path: Path) -> None:
    fill(tmp_path, "train.csv", "val.parquet", "test.jsonl.gz", "other.csv", "train/test.csv")
    assert [names(tmp_path, split) for split in SPLITS] == [["train.csv"], ["val.parquet"], ["test.jsonl.gz"]]


def test_parquet_takes_nothing_from_its_folders_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "label=3", "train.parquet")
    assert read(folder) == read(folder / "train.parquet") == [("train.parquet", 1)]


def test_shards_in_order(tmp_path: Path) -> None:
    shards = [f"train-{number:05}-of-00011.parquet" for number in range(11)]
    fill(tmp_path, *reversed(shards), "test-00000-of-00001.csv")
    assert names(tmp_path) == shards
    assert read(tmp_path) == [(name, 1) for name in shards]
    assert names(tmp_path, "test") == ["test-00000-of-00001.csv"]


@pytest.mark.parametrize(
    "shards",
    [["train-00000-of-00002.csv"], ["train-00001-of-00003.csv", "train-00002-of-00003.csv"],
     ["train-00000-of-00001.csv", "train-00000-of-00001.parquet"],
     ["train-00000-of-00001.csv", "train-00000-of-00002.csv", "train-00001-of-00002.csv"]],
)  # fmt: skip
def test_shards_that_are_not_each_there_once(tmp_path: Path, shards: list[str]) -> None:
    fill(tmp_path, *shards)
    sentence = refusal(tmp_path)
    assert sentence.startswith(f"`data.source` is the folder {str(tmp_path)!r}, which holds {len(shards)} files for ")
    assert sentence.endswith("shards once: add the missing ones, or remove the others.")


def test_shards_may_count_from_one(tmp_path: Path) -> None:
    shards = ["train-1-of-2.csv", "train-2-of-2.csv"]
    assert names(fill(tmp_path, *shards)) == shards


def test_folder_without_the_split(tmp_path: Path) -> None:
    fill(tmp_path, "train.csv")
    assert refusal(tmp_path, "test") == (
        f"`data.source` is the folder {str(tmp_path)!r}, which holds no test.csv, .tsv, .jsonl or .parquet "
        f"(found ['train.csv']): add that file, write '{tmp_path}/*.csv' for one table of all files, or give another "
        "source."
    )
    (tmp_path / "empty").mkdir()
    assert "(found []): add that file" in refusal(tmp_path / "empty", "test")
    assert "(found ['a.md']): add that file" in refusal(fill(tmp_path / "other", "a.md"), "test")


@pytest.mark.parametrize(
    ("one", "other", "split"),
    [("test.csv", "test.jsonl", "test"), ("train.csv", "train.tsv", "train"), ("train-old.csv", "train.csv", "train"),
     ("train.csv", "train.csv.gz", "train"), ("dev.csv", "validation.csv", "validation")],
)  # fmt: skip
def test_folder_with_two_files_for_a_split(tmp_path: Path, one: str, other: str, split: str) -> None:
    fill(tmp_path, one, other)
    folder = f"`data.source` is the folder {str(tmp_path)!r}"
    expected = f"{folder}, which holds both {one} and {other}: leave one file for {split}."
    assert refusal(tmp_path, split) == expected
    with pytest.raises(UsageError) as refused:
        has_split(str(tmp_path), split)
    assert str(refused.value) == expected


# --- files, globs, zips


@pytest.mark.parametrize("name", ["reviews.csv", "train.csv", "test.parquet", "dev.jsonl.gz", "a[0].csv"])
def test_a_single_file_serves_train_and_test(tmp_path: Path, name: str) -> None:
    file = str(fill(tmp_path, name) / name)
    assert [has_split(file, split) for split in SPLITS] == [True, False, True]
    assert not is_divided(file)
    assert read(file, "train") == read(file, "test") == [(name, 1)]


def test_glob(tmp_path: Path) -> None:
    fill(tmp_path, "b.csv", "a.jsonl.gz", "sub/c.parquet", "README.md")
    fill_zip(tmp_path / "z.zip", "y.csv", "x.tsv")
    assert names(tmp_path / "*") == ["a.jsonl.gz", "b.csv", "x.tsv", "y.csv"]
    assert sorted(names(tmp_path / "**" / "*")) == ["a.jsonl.gz", "b.csv", "c.parquet", "x.tsv", "y.csv"]
    assert names(tmp_path / "[ab].*", "test") == ["a.jsonl.gz", "b.csv"]
    assert [has_split(str(tmp_path / "*"), split) for split in SPLITS] == [True, False, True]
    assert not is_divided(str(tmp_path / "*.csv"))
    assert read(tmp_path / "[ab].*") == [("a.jsonl.gz", 1), ("b.csv", 1)]
    assert refusal(tmp_path / "*.tsv") == (
        f"`data.source` is '{tmp_path}/*.tsv', but no csv, tsv, jsonl or parquet, plain, .gz, .zst or in a .zip has "
        "such a name: mend the pattern."
    )


def test_zip_of_splits(tmp_path: Path) -> None:
    # As yelp_review_full_csv comes: a folder inside, and a readme.
    members = ("yelp/train.csv", "yelp/test.csv", "yelp/readme.txt", "__MACOSX/yelp/._train.csv")
    file = str(fill_zip(tmp_path / "yelp.zip", *members))
    assert [has_split(file, split) for split in SPLITS] == [True, False, True]
    assert is_divided(file)
    assert read(file, "train") == [("yelp/train.csv", 1)]
    assert read(file, "test") == [("yelp/test.csv", 1)]
    assert refusal(file, "validation") == (
        f"`data.source` is the zip {file!r}, which holds no validation.csv, .tsv, .jsonl or .parquet "
        "(found ['test.csv', 'train.csv']): add that file or give another source."
    )


@pytest.mark.parametrize("members", [("train.csv",), ("b.csv", "a.jsonl"), ("reviews.parquet",)])
def test_zip_without_splits(tmp_path: Path, members: tuple[str, ...]) -> None:
    file = str(fill_zip(tmp_path / "reviews.zip", *members))
    assert [has_split(file, split) for split in SPLITS] == [True, False, True]
    assert not is_divided(file)
    assert read(file, "train") == read(file, "test") == [(name, 1) for name in sorted(members)]


@pytest.mark.parametrize(
    ("name", "found"),
    [("a.xlsx", "whose ending is not"), ("a.txt", "whose ending is not"), ("a.zip", "in which no file's ending is"),
     ("a.gz", "whose ending is not")],
)  # fmt: skip
def test_unknown_ending(tmp_path: Path, name: str, found: str) -> None:
    file = fill_zip(tmp_path / name) if name == "a.zip" else write(tmp_path / name, "text\n")
    assert refusal(file) == (
        f"`data.source` is {str(file)!r}, {found} one of csv, tsv, jsonl or parquet, plain, .gz, .zst or in a .zip: "
        "rename or convert it."
    )


@pytest.mark.parametrize(
    "source", ["nowhere.csv", "./no/folder", "nowhere", "", "a\0b", "a" * 5000, "no/where.parquet", "no/where.zip",
               "no/where.csv.gz"]
)  # fmt: skip
def test_missing_source(source: str) -> None:
    expected = (
        f"`data.source` is {source!r}, but there is no such file or folder: give an existing one, a Hub id such as "
        "Yelp/yelp_review_full, or embedded."
    )
    assert refusal(source) == expected
    with pytest.raises(UsageError) as refused:
        has_split(source, "train")
    assert str(refused.value) == expected


@pytest.mark.parametrize(("option", "value"), [("config_name", "full"), ("revision", "main")])
def test_options_of_a_hub_id_beside_a_file(tmp_path: Path, option: str, value: str) -> None:
    source = str(fill(tmp_path, "train.csv"))
    assert refusal(source, **{option: value}) == (
        f"`data.{option}` is {value!r}, but `data.source` {source!r} lies on this machine, where only a Hub id has "
        f"one: leave --data.{option} out."
    )


def test_yelps_own_json(tmp_path: Path) -> None:
    # Stars are 1.0 to 5.0, among other columns.
    row = {"review_id": "a", "stars": 5.0, "date": "2016-01-01 10:00:00", "text": "title", "body": "good"}
    file = write(tmp_path / "yelp.json", json.dumps(row) + "\n")
    assert read(file, text="body", label="stars", offset=1) == [("good", 4)]


# --- the Hub

LOAD = """
import json, sys
from yelp_lightning.data.rows import Table
from yelp_lightning.data.sources import has_split, is_divided, split_files
from yelp_lightning.errors import UsageError

found = []
for source, split, config_name, revision in json.loads(sys.argv[1]):
    try:
        files = split_files(source, split, config_name, revision)
        chunks = [chunk.columns for _, chunk in Table(files, "text", "label").chunks()]
        columns = [[value for part in chunks if part for value in part[name].to_pylist()] for name in ("text", "label")]
        rows = list(zip(*columns, strict=True))
        splits = [has_split(source, name, config_name, revision) for name in ("train", "validation", "test")]
        found.append([rows, splits, is_divided(source)])
    except UsageError as error:
        found.append(str(error))
try:
    has_split("nobody/nothing", "train")
except UsageError as error:
    found.append(str(error))
print(json.dumps(found))
"""


def load(hub: Hub, home: Path, *asked: tuple[str, str, str | None, str | None]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(asked)], env=hub.environment(home), cwd=ROOT, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def published(folder: Path, split: str) -> list[list[object]]:
    table = pq.read_table(next(folder.glob(f"*/{split}-*")))
    return [[row["text"], row["label"]] for row in table.to_pylist()]


def test_hub(tmp_path: Path) -> None:
    yelp = "Yelp/yelp_review_full"
    main = write_yelp_dataset(tmp_path / "main", train=20, test=10)
    older = write_yelp_dataset(tmp_path / "older", train=7, test=5)
    # Another configuration beside the default one.
    readme = (main / "README.md").read_text()
    small = "- config_name: small\n  data_files:\n  - split: validation\n    path: small/validation-*\n---\nMade-up"
    (main / "README.md").write_text(readme.replace("---\nMade-up", small))
    (main / "small").mkdir()
    os.link(older / "yelp_review_full" / "test-00000-of-00001.parquet", main / "small" / "validation-0.parquet")
    with Hub({}, {yelp: main}, branches={yelp: {"older": older}}) as hub:
        found = load(
            hub, tmp_path / "home", (yelp, "test", None, None), (yelp, "test", "yelp_review_full", "main"),
            (yelp, "train", None, "older"), (yelp, "validation", "small", None), (yelp, "validation", None, None),
            (yelp, "train", "large", None), (yelp, "train", None, "newer"), ("nobody/nothing", "train", None, None),
        )  # fmt: skip
    default, named, branch, config, no_split, *unknown = found
    assert default == named == [published(main, "test"), [True, False, True], True]
    assert branch == [published(older, "train"), [True, False, True], True]
    assert config == [published(older, "test"), [False, True, False], True]
    assert no_split == (
        "`data.source` 'Yelp/yelp_review_full' has no split 'validation', only ['train', 'test']: give another source."
    )
    assert len(unknown) == 4
    for sentence, source, reason in zip(
        unknown, [yelp, yelp, "nobody/nothing", "nobody/nothing"], ["large", "newer", "nobody", "nobody"], strict=True
    ):
        assert sentence.startswith(f"`data.source` is {source!r}, which is neither a file or folder here nor loads")
        assert reason in sentence.partition("(")[2]
        assert sentence.endswith("check the name and the network, or give a file, a folder or embedded.")


# --- the embedded reviews


def words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)?", text.lower())


def test_embedded_reviews_are_enough_and_balanced() -> None:
    counts = {split: Counter(label for _, label in read("embedded", split)) for split in SPLITS}
    for split, least in {"train": 400, "validation": 100, "test": 100}.items():
        assert has_split("embedded", split)
        assert counts[split].total() >= least
        assert sorted(counts[split]) == [0, 1, 2, 3, 4]
        assert len(set(counts[split].values())) == 1
    folder = resources.files("yelp_lightning.embedded")
    for split in SPLITS:
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == counts[split].total()
    assert sorted(path.name for path in folder.iterdir() if ".json" in path.name) == [
        "test.jsonl", "train.jsonl", "validation.jsonl",
    ]  # fmt: skip
    assert is_divided("embedded")


def test_embedded_reviews_are_different_texts() -> None:
    found = [text for split in SPLITS for text, _ in read("embedded", split)]
    assert all(15 <= len(text.split()) <= 250 for text in found)
    assert len({" ".join(text.lower().split()) for text in found}) == len(found)
    runs = [{" ".join(words(text)[i : i + 8]) for i in range(len(words(text)) - 7)} for text in found]
    shared = Counter(run for own in runs for run in own)
    assert [run for run, count in shared.items() if count > 1] == []


def test_embedded_splits_are_disjoint() -> None:
    splits = [{text for text, _ in read("embedded", split)} for split in SPLITS]
    assert all(not one & other for one, other in combinations(splits, 2))


# --- real reviews


@pytest.mark.real
def test_real_reviews(real_yelp: Path) -> None:
    # The same rows by pandas; the csv has quoted newlines, commas and quotes.
    expected = pandas.read_csv(real_yelp / "natural.csv", keep_default_na=False)
    found = read(real_yelp / "natural.csv", label="stars", offset=1)
    assert found == [(text, stars - 1) for text, stars in zip(expected["text"], expected["stars"], strict=True)]
    test = pandas.read_parquet(real_yelp / "test.parquet")
    assert read(real_yelp, "test") == list(zip(test["text"], test["label"], strict=True))


@pytest.mark.real
def test_csv_module_agrees(tmp_path: Path, real_yelp: Path) -> None:
    # The hub's rows through a csv of the standard library, and back.
    rows = pq.read_table(real_yelp / "test.parquet")
    with (tmp_path / "test.csv").open("w", encoding="utf-8", newline="") as file:
        columns = (rows[name].to_pylist() for name in ("label", "text"))
        csv.writer(file).writerows([("label", "text"), *zip(*columns, strict=True)])
    assert read(tmp_path, "test") == read(real_yelp, "test")


# --- members of zips


def test_members_of_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("b/test.csv", "b/", "b.csv/", "__MACOSX/b/._test.csv", "README.md", "a.txt", "a.jsonl.gz"):
            archive.writestr(name, "")
    assert [file.member for file in zip_members(tmp_path / "a.zip", "data.source")] == ["a.jsonl.gz", "b/test.csv"]
    assert [file.member for file in zip_members(tmp_path / "a.zip", "data.source", [".txt"])] == ["a.txt"]


def test_zip_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.zip", b"no zip")
    with pytest.raises(UsageError) as refused:
        zip_members(file, "data.source")
    assert str(refused.value) == (
        f"`data.source`: {file} cannot be read as zip (File is not a zip file): mend the file."
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.csv", "text\na\n")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.csv", "text\nb\n")
    with pytest.raises(UsageError, match=r"cannot be read as zip \(it holds two files 'a.csv'\): mend the file\."):
        zip_members(file, "data.source")
