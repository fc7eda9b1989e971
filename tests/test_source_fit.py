"""fit, test and predict from every kind of source: classes with names, the original Yelp files, compressed shards."""

import csv
import gzip
import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, fit_options, review, write_jsonl
from transformers import AutoModelForSequenceClassification

Cli = Callable[..., None]


@pytest.fixture
def fit(cli: Cli, tiny_bert: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train a second on a source; its run folder."""

    def run(source: object, *options: object) -> Path:
        defaults = fit_options(tiny_bert, Path(str(source)), tmp_path / "run")
        cli("fit", *defaults, "--trainer.max_epochs", 1, *options)
        return tmp_path / "run"

    return run


def metrics(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "metrics.json").read_text(encoding="utf-8")))


def test_classes_with_names(
    fit: Callable[..., Path], cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    with (tmp_path / "moods.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["mood", "text"])
        for number in range(100):
            row = review(number)
            writer.writerow(["positive" if int(str(row["label"])) > 2 else "negative", row["text"]])
    names = ["--data.label_column", "mood", "--data.label_names", "[negative, positive]", "--model.num_labels", 2]
    run = fit(tmp_path / "moods.csv", *names, "--model.ordered", "false")
    found = metrics(run)
    assert {"val/accuracy", "val/macro_f1", "val/ece"} <= set(found)
    assert not {"val/mae", "val/within_1", "val/qwk", "val/mae_interval"} & set(found)
    assert "'negative' in column 'mood' is negative" in caplog.text
    model = AutoModelForSequenceClassification.from_pretrained(run / "model")
    assert model.config.id2label == {0: "negative", 1: "positive"}

    # Measured and compared with no option typed again; predicted by name.
    test = write_jsonl(tmp_path / "test.jsonl", [{"mood": "positive", "text": "good and friendly"}] * 3)
    cli("test", "--ckpt_path", run, "--data.source", test)
    assert metrics(run)["test/n"] == 3
    cli("compare", "--ckpt_path", run, "--data.source", test)
    (tmp_path / "in.txt").write_text("the pizza was bad and cold\nthe coffee was amazing\n")
    cli("predict", "--ckpt_path", run, "--data.predict_path", tmp_path / "in.txt", "--output", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [["id", "label", "p1", "p2"]] * 2
    assert all(row["label"] == ("positive" if row["p2"] > row["p1"] else "negative") for row in rows)
    capsys.readouterr()
    cli("predict", "--ckpt_path", run, "--text", "the coffee was amazing")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] in ("negative", "positive")
    assert [line.split()[0] for line in shown[1:]] == ["negative", "positive"]


def test_the_original_yelp_review_full_csv(fit: Callable[..., Path], tmp_path: Path) -> None:
    (folder := tmp_path / "yelp_review_full_csv").mkdir()
    for name, numbers in {"train": range(60), "test": range(100, 110)}.items():
        lines = []
        for number in numbers:
            row = review(number)
            text = f'{row["text"]}\\nHe said ""never again"".'
            lines.append(f'"{int(str(row["label"])) + 1}","{text}"\n')
        (folder / f"{name}.csv").write_text("".join(lines), encoding="utf-8")
    (folder / "readme.txt").write_text("not data")
    run = fit(folder, "--config", ROOT / "configs" / "source" / "yelp_review_full_csv.yaml")
    data = metrics(run)["data"]
    assert isinstance(data, dict)
    assert data["train"]["read"] == 60
    assert data["train"]["refused"] == {}


def test_yelps_own_json(fit: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    lines = []
    for number in range(120):
        row = review(number)
        fields = {"review_id": f"r{number}", "user_id": f"u{number % 17}", "stars": float(int(str(row["label"])) + 1)}
        lines.append(json.dumps({**fields, "text": row["text"], "date": "2016-03-09 18:19:37"}) + "\n")
    lines.insert(7, json.dumps({"review_id": "x", "user_id": "u", "stars": 2.0, "text": ""}) + "\n")
    path = tmp_path / "yelp_academic_dataset_review.json.gz"
    path.write_bytes(gzip.compress("".join(lines).encode()))
    run = fit(path, "--config", ROOT / "configs" / "source" / "yelp_academic.yaml")
    data = metrics(run)["data"]
    assert isinstance(data, dict)
    assert data["train"]["refused"] == {"empty text": 1}
    assert 0 < data["val"]["rows"] <= 20
    assert data["train"]["rows"] + data["val"]["rows"] == 120
    cli("predict", "--ckpt_path", run, "--data.predict_path", path, "--output", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["review_id"] for row in csv.DictReader(file)][6:9] == ["r6", "x", "r7"]


def test_shards_and_a_zip_give_the_same_rows(fit: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    for shard in range(3):
        rows = [review(number) for number in range(40 * shard, 40 * shard + 40)]
        path = write_jsonl(tmp_path / f"part-{shard}.jsonl", rows)
        path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    run = fit(tmp_path / "part-*.jsonl.gz", "--data.val_size", 0.25)
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]["val_size"] == 0.25
    with zipfile.ZipFile(tmp_path / "test.zip", "w") as archive:
        archive.writestr("data/test.jsonl", "".join(json.dumps(review(number)) + "\n" for number in range(7)))
    cli("test", "--ckpt_path", run, "--data.source", tmp_path / "test.zip")
    found = metrics(run)
    assert found["test/n"] == 7
    data = found["data"]
    assert isinstance(data, dict)
    assert (data["train"]["rows"], data["val"]["rows"]) == (90, 30)
