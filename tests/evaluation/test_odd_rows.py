"""Test rows that measure little: one alone, a star that is absent, no labels, more classes than the model has."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import review, write_jsonl


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [([900], "one row"), ([number for number in range(900, 940) if number % 5 != 3], "no 4 stars")],
)
def test_few_rows_and_absent_stars_are_measured(
    trained: Path, cli: Callable[..., None], tmp_path: Path, numbers: list[int], missing: str
) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [review(number) for number in numbers])
    run = tmp_path / "run"
    cli("test", "--ckpt_path", trained, "--data.source", source, "--trainer.default_root_dir", run)
    cli("compare", "--ckpt_path", trained, "--data.source", source, "--heads", 2, "--output", run)
    tested = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    tuned = json.loads((run / "comparison.json").read_text(encoding="utf-8"))["models"]["tuned"]
    assert tested["n"] == len(numbers), missing
    for name in ("accuracy", "mae", "macro_f1", "within_1", "loss", "ece"):
        assert tuned[name] == pytest.approx(tested[f"test/{name}"], abs=1e-5), (missing, name)
    assert (tuned["qwk"] is None) == (tested["test/qwk"] is None)
    for name in ("report.html", "comparison.html", "comparison.md"):
        page = (run / name).read_text(encoding="utf-8")
        assert f"{tuned['accuracy']:.3f}" in page
        assert "nan" not in page


@pytest.mark.parametrize("command", ["test", "compare"])
def test_rows_without_labels_and_with_other_classes_are_refused(
    trained: Path, refused: Callable[..., str], tmp_path: Path, command: str
) -> None:
    unlabelled = write_jsonl(tmp_path / "unlabelled.jsonl", [{"text": review(number)["text"]} for number in range(9)])
    options = [command, "--ckpt_path", trained]
    assert "`data.label_column` is 'label', but" in refused(*options, "--data.source", unlabelled)
    seven = write_jsonl(tmp_path / "seven.jsonl", [{**review(number), "label": number} for number in range(7)])
    found = refused(*options, "--data.source", seven)
    assert "label outside: 2" in found
    other = refused(*options, "--model.num_labels" if command == "test" else "--data.num_labels", 7)
    assert "num_labels" in other
