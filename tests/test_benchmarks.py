"""The benchmarks, end to end with a tiny BERT on made-up rows: the keys of their last line, and what they count."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
import torch
from conftest import ROOT, review
from pyarrow import parquet
from torch.utils.flop_counter import FlopCounterMode

from yelp_lightning.network.attention import ATTENTION
from yelp_lightning.network.first_token import skip_other_tokens
from yelp_lightning.pretrained import load_classifier

WAYS = {"tutorial", "expert", "default", "fastest"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with train.parquet (120 rows) and test.parquet (40 rows)."""
    folder = tmp_path_factory.mktemp("rows")
    for split, first, count in (("train", 0, 120), ("test", 1000, 40)):
        table = pa.Table.from_pylist([review(number) for number in range(first, first + count)])
        parquet.write_table(table, folder / f"{split}.parquet")
    return folder


def run(script: str, *arguments: object) -> dict[str, Any]:
    """The JSON object of the last line; every measured number in it is finite."""
    command = [sys.executable, f"benchmarks/{script}.py", *map(str, arguments)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert process.returncode == 0, process.stderr

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is no number of json")

    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1], parse_constant=refuse)
    assert report["machine"]["cores"] >= 1
    assert {"torch", "transformers", "lightning"} <= set(report["versions"])
    assert report["command"].startswith(f"python benchmarks/{script}.py")
    return report


def module(name: str) -> ModuleType:
    """A module of benchmarks/ that imports none of its neighbours."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # dataclasses look there
    spec.loader.exec_module(found)
    return found


def test_tutorial_speed_of_all_ways(tiny_bert: Path, rows: Path) -> None:
    sizes = ["--steps", 4, "--rounds", 1, "--eval_rows", 20, "--seeds", 0]
    report = run("tutorial", "--model", tiny_bert, "--data", rows, *sizes)
    for key in ("reviews_per_s", "tokens_per_s", "eval_reviews_per_s", "peak_rss_mb"):
        assert set(report[key]) == WAYS
        assert min(report[key].values()) > 0
    assert report["accuracy"] == dict.fromkeys(WAYS)
    speeds = report["reviews_per_s"]
    assert report["ratio_default"] == pytest.approx(speeds["default"] / speeds["tutorial"], rel=1e-3)
    assert report["ratio_fastest"] == pytest.approx(speeds["fastest"] / speeds["tutorial"], rel=1e-3)
    assert report["ratio_over_expert"] == pytest.approx(speeds["fastest"] / speeds["expert"], rel=1e-3)
    assert report["eval_ratio_default"] > 0
    # All ways trained on the same rows.
    tokens_per_review = [report["tokens_per_s"][way] / speeds[way] for way in WAYS]
    assert tokens_per_review == pytest.approx([tokens_per_review[0]] * len(WAYS), rel=1e-3)


def test_tutorial_accuracy(tiny_bert: Path, rows: Path, tmp_path: Path) -> None:
    sizes = ["--steps", 3, "--rounds", 1, "--eval_rows", 8, "--train_rows", 24, "--epochs", 1, "--test_rows", 40]
    given = ["--model", tiny_bert, "--data", rows, *sizes, "--ways", "default", "--keep", tmp_path / "kept.json"]
    report = run("tutorial", *given)
    low, high = report["accuracy_interval"]["default"]
    assert 0 <= low < report["accuracy"]["default"] < high <= 1
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert [one["n"] for one in kept.values()] == [40]


def test_roofline(tiny_bert: Path, rows: Path) -> None:
    sizes = ["--steps", 5, "--test_rows", 20, "--rounds", 1, "--profile_steps", 2]
    report = run("roofline", "--model", tiny_bert, "--data", rows, *sizes, "--way", "default")
    assert report["matrix_gflops"] > 0
    assert 0 < report["mfu_train"] < 1
    assert 0 < report["mfu_inference"] < 1
    shares = report["profile"]["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    for group in ("matrix products", "attention", "dropout", "layer norm", "GELU", "optimizer", "data"):
        assert shares[group] > 0


def test_scaling(tiny_bert: Path, rows: Path) -> None:
    sizes = ["--rows", 32, 64, "--lengths", 16, "--length_rows", 32, "--processes", 2, "--process_rows", 64]
    report = run("scaling", "--model", tiny_bert, "--data", rows, *sizes)
    assert [one["rows"] for one in report["rows"]] == [32, 64]
    assert report["lengths"][0]["tokens_per_review"] == 16
    assert report["processes"][0]["reviews_per_s"] > 0
    assert set(report["rows_growth"]["train_s"]) == {"slope", "intercept", "exponent"}
    assert set(report["extrapolated_s"]) == {"prepare_s", "train_s", "test_s"}


def test_startup(tiny_bert: Path, rows: Path) -> None:
    report = run("startup", "--model", tiny_bert, "--data", rows, "--rounds", 1)
    assert set(report["seconds"]) == {"help", "fit_help", "first_step", "predict_text"}
    for name, seconds in report["seconds"].items():
        assert min(seconds["cold"], seconds["warm"]) > 0
        assert report["imports_s"][name]["all"] > 0


def count(model: Any, backward: bool, tokens: int = 17, rows: int = 3) -> int:
    ids = torch.randint(5, 100, (rows, tokens))
    counter = FlopCounterMode(display=False)
    with counter:
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum()
        if backward:
            loss.backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("backward", [False, True])
def test_operations_are_those_that_torch_counts(tiny_bert: Path, backward: bool) -> None:
    model = load_classifier(str(tiny_bert), 5, pooling="mean")
    model.base_model.set_attn_implementation("eager")
    assert module("operations").operations(model, [17] * 3, backward) == count(model, backward)


@pytest.mark.parametrize("backward", [False, True])
def test_operations_where_the_first_token_is_read_alone(tiny_bert: Path, backward: bool) -> None:
    model = load_classifier(str(tiny_bert), 5)
    model.base_model.set_attn_implementation(ATTENTION)
    skip_other_tokens(model)
    found = count(model, backward)
    if backward:  # our attention computes its scores anew, which the floor does not ask for
        layers, width = model.config.num_hidden_layers, model.config.hidden_size
        found -= 3 * 2 * width * ((layers - 1) * 17**2 + 17)
    assert module("operations").operations(model, [17] * 3, backward) == found


def test_rates_do_not_depend_on_which_step_is_skipped() -> None:
    clock = module("clock")
    # A second per 100 padded tokens: 2 reviews a step, the longest step first.
    widths = [400, 50, 100, 150]
    ends = torch.tensor([2 * width / 100 for width in widths]).cumsum(0).tolist()
    steps = clock.Steps(ends, [[width, width - 10] for width in widths], widths)
    rates = steps.rates(4)
    assert rates["reviews_per_s"] == pytest.approx(8 / ends[-1])
    assert rates["tokens_per_s"] == pytest.approx((2 * sum(widths) - 40) / ends[-1])
    with pytest.raises(RuntimeError, match="5 optimizer steps were ordered, 4 were seen"):
        steps.rates(5)
