"""The data card: what it says is counted again here, its page stands alone, the cache that it fills is that of fit."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Outside, needs_chromium, see
from conftest import review, write_jsonl
from transformers import AutoTokenizer

from yelp_lightning.card.facts import LENGTHS, PERCENTILES

MAX_LENGTH = 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train rows, two of them bad and one a test row's; no validation rows."""
    folder = tmp_path_factory.mktemp("source")
    train = [review(number) for number in range(100)]
    bad = [{"label": 7, "text": "seven"}, {"label": 1, "text": ""}]
    write_jsonl(folder / "train.jsonl", [*train, *bad, review(1003), review(5)])
    write_jsonl(folder / "test.jsonl", [review(number) for number in range(1000, 1020)])
    return folder


@pytest.fixture
def described(cli: Callable[..., None], tiny_bert: Path, source: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run `data` and read what it left."""

    def run(*options: object) -> dict[str, Any]:
        config = tmp_path / "config.yaml"
        config.write_text(
            f"seed_everything: 1\nmodel:\n  pretrained: {tiny_bert}\ndata:\n  source: {source}\n"
            f"  max_length: {MAX_LENGTH}\n  cache_dir: {tmp_path / 'cache'}\n  on_bad_row: skip\n  val_size: 10\n"
            f"trainer:\n  default_root_dir: {tmp_path / 'run'}\n  max_epochs: 1\n"
        )
        cli("data", "--config", config, *options)
        return dict(json.loads((tmp_path / "run" / "data.json").read_text(encoding="utf-8")))

    return run


def test_rows(described: Callable[..., dict[str, Any]], source: Path) -> None:
    facts = described()
    assert facts["classes"] == ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
    splits = facts["splits"]
    assert list(splits) == ["train", "val", "test"]
    assert splits["train"]["source"] == str(source / "train.jsonl")
    assert splits["train"]["read"] == 104
    assert splits["train"]["refused"] == {"label outside": 1, "empty text": 1}
    # The text of a test row; and row 5's second copy, if its first one validates.
    assert splits["train"]["removed"]["text"] in (1, 2)
    assert splits["train"]["repeated_texts"] == 1
    assert sum(splits["train"]["rows_per_class"]) == splits["train"]["rows"]
    assert splits["test"]["rows_per_class"] == [4, 4, 4, 4, 4]
    assert facts["shared_texts"] == {"train and val": 0, "train and test": 0, "val and test": 0}


def test_lengths(described: Callable[..., dict[str, Any]], tiny_bert: Path) -> None:
    test = described()["splits"]["test"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    lengths = [len(tokenizer(review(number)["text"])["input_ids"]) for number in range(1000, 1020)]
    assert test["tokens"] == sum(min(length, MAX_LENGTH) for length in lengths)
    assert test["truncated"] == np.mean([length > MAX_LENGTH for length in lengths])
    assert test["token_lengths"]["mean"] == np.mean(lengths)
    for percent in PERCENTILES:
        assert test["token_lengths"][f"p{percent}"] == int(np.percentile(lengths, percent))
    assert test["truncated_at"] == {str(at): np.mean([length > at for length in lengths]) for at in LENGTHS}
    assert sum(test["length_histogram"]["counts"]) == 20


def test_padding(described: Callable[..., dict[str, Any]]) -> None:
    facts = described("--data.batch_size", 4)
    padding = facts["padding_efficiency"]
    train = facts["splits"]["train"]
    assert padding["pad to max_length"] == pytest.approx(train["tokens"] / (train["rows"] * MAX_LENGTH))
    assert padding["pad to max_length"] <= padding["random batches"] < padding["grouped by length (train)"] <= 1
    assert padding["token budget (validation)"] >= 0.97


def test_example_is_decoded_back(described: Callable[..., dict[str, Any]]) -> None:
    example = described()["example"]
    words = re.findall(r"\w+", example["text"].lower())
    assert re.findall(r"\w+", example["decoded"].lower())[1 : 1 + 5] == words[:5]
    assert example["decoded"].startswith("[CLS]")


def test_page_stands_alone(described: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    described()
    page = (tmp_path / "run" / "data.html").read_text(encoding="utf-8")
    parser = Outside(page)
    assert parser.loaded == []
    assert parser.tags["script"] == parser.tags["link"] == parser.tags["img"] == 0
    assert parser.tags["svg"] == 4
    assert "refused: label outside" in parser.text
    assert "currentColor" in page


def test_page_escapes_reviews(
    cli: Callable[..., None], tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"label": number % 5, "text": f"<script>alert({number})</script> [bold]x[/nope]"} for number in range(20)]
    source = write_jsonl(tmp_path / "reviews.jsonl", rows)
    options = ["--model.pretrained", tiny_bert, "--data.source", source, "--data.cache_dir", tmp_path / "cache"]
    cli("data", *options, "--output", tmp_path / "out")
    page = (tmp_path / "out" / "data.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page
    # Words that rich would take for its markup are shown as they are; a single file has no test rows.
    shown = capsys.readouterr().out
    assert "[bold]x[/nope]" in shown
    assert list(json.loads((tmp_path / "out" / "data.json").read_text(encoding="utf-8"))["splits"]) == ["train", "val"]


def test_screen_fits_80_columns(
    described: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    described()
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines() if not line.startswith("wrote")) <= 80
    for words in ("refused: label outside", "Tokens per review", "grouped by length (train)", "decoded back:"):
        assert words in shown


def test_cache_is_that_of_fit_and_can_be_cleared(
    described: Callable[..., dict[str, Any]], cli: Callable[..., None], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    described()
    cache = tmp_path / "cache"
    files = {path: path.stat().st_mtime_ns for path in cache.glob("*.arrow")}
    assert Counter(path.name.partition("-")[0] for path in files) == {"rows": 3, "tokens": 3}
    cli("fit", "--config", tmp_path / "config.yaml", "--trainer.enable_progress_bar", "false")
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*.arrow")} == files
    mine = ["mine.txt", "mine.arrow", "poetry.lock", ".mine.tmp"]
    for name in mine:
        (cache / name).touch()
    capsys.readouterr()
    cli("data", "--config", tmp_path / "config.yaml", "--clear-cache")
    assert capsys.readouterr().out.startswith("Removed 6 cached files, 0.0 MB, from ")
    assert sorted(path.name for path in cache.iterdir()) == sorted(mine)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["data"]["train"]["refused"] == {"label outside": 1, "empty text": 1}
    assert metrics["data"]["val"]["rows"] == metrics["val/n"]


def test_refused(refused: Callable[..., str], tiny_bert: Path, source: Path, tmp_path: Path) -> None:
    options = ["--model.pretrained", tiny_bert, "--data.source", source, "--data.cache_dir", tmp_path / "cache"]
    found = refused("data", *options, "--output", tmp_path / "out")
    assert found.startswith(f"`data.source`: 2 of 104 rows of {source}/train.jsonl cannot be used")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    (tmp_path / "file").touch()
    assert refused("data", *options, "--output", tmp_path / "file").startswith("`--output` is ")
    assert refused("data", "--data.sorce", "x") == (
        "`--data.sorce` is no option of this command: did you mean `--data.source`?"
    )


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_the_window_of_a_real_browser(
    described: Callable[..., dict[str, Any]], tmp_path: Path, width: int
) -> None:
    described()
    seen = see((tmp_path / "run" / "data.html").read_text(encoding="utf-8"), width, tmp_path)
    assert seen.width <= width  # nothing to the right of what a reader sees
    assert seen.plots == 4
    assert seen.words > 20
