"""Predictions: the same numbers in every format, in order, with ids; whole files or none; a closed pipe is no error."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from yelp_lightning.errors import UsageError
from yelp_lightning.inference.predictions import check_output, predictions_table, write_predictions

NUMBERS = ["stars", "expected_stars", "p1", "p2", "p3", "p4", "p5"]
ODD_IDS = ["007", "a,b", 'say "hi"', "two\nlines", "ünï→😀", "", " space ", "1e5", "NA"]


def probabilities(rows: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(5, 0.5), rows).astype(np.float32)


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype={"review_id": str}, keep_default_na=False)
    if path.suffix == ".jsonl":
        # pandas' own reader of numbers is not exact in the last digit.
        return pd.read_json(path, lines=True, dtype={"review_id": str}, precise_float=True)
    return pq.read_table(path).to_pandas()


def test_values_by_hand() -> None:
    table = predictions_table(np.array([[0.1, 0.2, 0.4, 0.2, 0.1], [0, 0, 0, 0.25, 0.75]], np.float32))
    assert table.column_names == ["id", *NUMBERS]
    assert table["id"].to_pylist() == [0, 1]
    assert table["stars"].to_pylist() == [3, 5]
    assert table["expected_stars"].to_pylist() == pytest.approx([3, 4.75])
    assert table["p5"].to_pylist() == pytest.approx([0.1, 0.75])


def test_the_classes_decide_the_columns() -> None:
    table = predictions_table(np.array([[0.5, 0.25, 0.25]], np.float32))
    assert table.column_names == ["id", "stars", "expected_stars", "p1", "p2", "p3"]


def test_the_inputs_id_takes_the_place_of_the_row_number() -> None:
    ids = pa.chunked_array([["x", "y"], ["z"]])
    named = predictions_table(probabilities(3), ids, "review_id")
    assert named.column_names == ["id", "review_id", *NUMBERS]
    assert named["id"].to_pylist() == [0, 1, 2]
    assert named["review_id"].to_pylist() == ["x", "y", "z"]
    own = predictions_table(probabilities(3), ids, "id")
    assert own.column_names == ["id", *NUMBERS]
    assert own["id"].to_pylist() == ["x", "y", "z"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_pandas_reads_the_same_values(tmp_path: Path, suffix: str) -> None:
    rows = len(ODD_IDS)
    table = predictions_table(probabilities(rows), pa.chunked_array([ODD_IDS]), "review_id")
    path = tmp_path / f"predictions{suffix}"
    check_output(str(path))
    write_predictions(table, str(path))
    found = read(path)
    assert list(found.columns) == ["id", "review_id", *NUMBERS]
    assert found["id"].tolist() == list(range(rows))
    assert found["review_id"].tolist() == ODD_IDS
    assert found["stars"].tolist() == table["stars"].to_pylist()
    assert found["expected_stars"].tolist() == table["expected_stars"].to_pylist()
    # To the last bit of float32.
    for star in range(1, 6):
        np.testing.assert_array_equal(found[f"p{star}"].to_numpy(np.float32), probabilities(rows)[:, star - 1])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_standard_output_is_the_csv_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = predictions_table(probabilities(1000), pa.chunked_array([[f"r{row}" for row in range(1000)]]), "review_id")
    write_predictions(table, "-")
    shown = capfd.readouterr()
    write_predictions(table, str(tmp_path / "p.csv"))
    assert shown.out.encode() == (tmp_path / "p.csv").read_bytes()
    assert shown.err == ""
    check_output("-")


def test_jsonl_is_one_json_object_a_line(tmp_path: Path) -> None:
    ids = pa.chunked_array([pa.array([12, None], pa.int64())])
    write_predictions(predictions_table(probabilities(2), ids, "review_id"), str(tmp_path / "p.jsonl"))
    first, second = (json.loads(line) for line in (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines())
    assert list(first) == ["id", "review_id", *NUMBERS]
    assert (first["review_id"], second["review_id"]) == (12, None)


@pytest.mark.parametrize("name", ["p.txt", "p", "p.csv.gz", "p.CSV", "p.json"])
def test_unknown_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"`--output` is .*whose ending is not one of \.csv, \.jsonl, \.parquet"):
        check_output(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_existing_output_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text("precious", encoding="utf-8") if kind == "file" else path.mkdir()
    with pytest.raises(UsageError, match="exists already"):
        check_output(str(path))
    assert kind == "folder" or path.read_text(encoding="utf-8") == "precious"


def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"`--output` is .*cannot be written to \("):
        check_output(str(tmp_path / "file" / "p.csv"))
    with pytest.raises(UsageError, match="cannot be written to"):
        check_output(str(tmp_path / "file" / "deeper" / "p.csv"))


def test_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "p.csv"
    check_output(str(path))
    write_predictions(predictions_table(probabilities(1)), str(path))
    assert len(read(path)) == 1


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_full_disk_half_way_leaves_no_file(tmp_path: Path, suffix: str) -> None:
    table = predictions_table(probabilities(20_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # of some 400 KB to 2 MB
    try:
        with pytest.raises(OSError, match="File too large"):
            write_predictions(table, str(tmp_path / f"p{suffix}"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    write_predictions(table, str(tmp_path / f"p{suffix}"))
    assert len(read(tmp_path / f"p{suffix}")) == 20_000


def test_a_closed_pipe_ends_quietly() -> None:
    # 300,000 rows are 30 MB, far more than a pipe holds: `head` is gone long before the end.
    code = (
        "import numpy as np; from yelp_lightning.inference.predictions import predictions_table, write_predictions; "
        "write_predictions(predictions_table(np.full((300_000, 5), 0.2, np.float32)), '-')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as p:
        head = subprocess.run(["head", "-n", "2"], stdin=p.stdout, capture_output=True, text=True, check=True)
        p.stdout.close()
        err = p.stderr.read().decode()
        assert p.wait(timeout=60) == 0
    assert err == ""
    header, row = head.stdout.splitlines()
    assert header.replace('"', "") == "id,stars,expected_stars,p1,p2,p3,p4,p5"
    assert row.startswith("0,1,")
