"""`compare`, end to end: what it shows and leaves, over one run or several, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fit_options, review, write_jsonl

from yelp_lightning.evaluation.scores import METRICS


def compared(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def seeds(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs that differ in their weights."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed in range(2):
        shutil.copytree(trained, folder / f"seed{seed}")
    (folder / "notes.txt").touch()
    checkpoint = torch.load(folder / "seed1" / "best.ckpt", weights_only=True)
    checkpoint["state_dict"]["model.classifier.weight"] *= 0.2
    torch.save(checkpoint, folder / "seed1" / "best.ckpt")
    return folder


def test_one_run_beside_what_it_started_from_and_a_baseline(
    trained: Path,
    cli: Callable[..., None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = shutil.copytree(trained, tmp_path / "run")
    cli("compare", "--ckpt_path", run)
    found = compared(run)
    assert list(found["models"]) == ["un-tuned", "TF-IDF", "tuned"]
    assert found["n"] == 41
    assert found["left_out"] == {}
    untuned, tfidf, tuned = found["models"].values()
    assert tuned["accuracy"] > untuned["accuracy"]
    assert tfidf["accuracy"] > untuned["accuracy"]
    assert len(untuned["runs"]) == 3
    assert untuned["accuracy_sd"] > 0
    for of in (untuned, tfidf, tuned):
        for name in METRICS:
            low, high = of[f"{name}_interval"] or (of[name], of[name])  # none where all rows are alike
            assert low - 1e-12 <= of[name] <= high + 1e-12 or name == "ece"
    assert len(found["differences"]) == 3
    shown = capfd.readouterr().out
    assert f"{tuned['accuracy']:.3f} [" in shown
    assert "tuned - un-tuned" in shown
    assert max(len(line) for line in shown.splitlines() if str(tmp_path) not in line) <= 80
    page = (run / "comparison.md").read_text(encoding="utf-8")
    assert f"{tuned['qwk']:.3f} [" in page
    report = (run / "comparison.html").read_text(encoding="utf-8")
    assert f"{tuned['qwk']:.3f} [" in report
    assert report.index("Differences") < report.index("Findings")
    # What `test` says of the same rows.
    cli("test", "--ckpt_path", run)
    assert "Findings" in (run / "report.html").read_text(encoding="utf-8")
    tested = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for name in (*METRICS, "mae_median", "mae_expected", "mae_rounded"):
        assert tuned[name] == pytest.approx(tested[f"test/{name}"], abs=1e-5), name


def test_a_folder_of_runs_beside_a_single_one(
    trained: Path, seeds: Path, cli: Callable[..., None], tmp_path: Path
) -> None:
    output = tmp_path / "new" / "output"
    options = ["--heads", 1, "--baseline", "false", "--output", output]
    cli("compare", "--ckpt_path", seeds, "--ckpt_path", trained, *options)
    found = compared(output)["models"]
    assert list(found) == ["un-tuned", seeds.name, "run"]
    assert found[seeds.name]["runs"] == [str(seeds / f"seed{seed}" / "best.ckpt") for seed in range(2)]
    assert found[seeds.name]["loss_sd"] > 0
    assert "loss_sd" not in found["run"]
    assert not (trained / "comparison.json").exists()


def test_runs_on_different_rows_are_refused(
    trained: Path, seeds: Path, cli: Callable[..., None], refused: Callable[..., str], tmp_path: Path
) -> None:
    changed = tmp_path / "changed.ckpt"
    checkpoint = torch.load(seeds / "seed1" / "best.ckpt", weights_only=True)
    checkpoint["datamodule_hyper_parameters"]["test_size"] = 30
    torch.save(checkpoint, changed)
    found = refused("compare", "--ckpt_path", trained, "--ckpt_path", changed, "--output", tmp_path)
    assert found.startswith(f"`--ckpt_path` {changed} is tested on other rows (30 of ")
    assert f"than {trained / 'best.ckpt'} (41 of " in found
    # Said on which, they are compared.
    options = ["--data.test_size", 30, "--heads", 1, "--baseline", "false", "--output", tmp_path / "said"]
    cli("compare", "--ckpt_path", trained, "--ckpt_path", changed, *options)
    assert compared(tmp_path / "said")["n"] == 30


def test_runs_with_other_classes_are_refused(trained: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["label_names"] = ["a", "b", "c", "d", "e"]
    torch.save(checkpoint, tmp_path / "named.ckpt")
    found = refused("compare", "--ckpt_path", trained, "--ckpt_path", tmp_path / "named.ckpt", "--output", tmp_path)
    assert "model.label_names ['a', 'b', 'c', 'd', 'e']" in found
    assert refused("compare", "--ckpt_path", trained, "--ckpt_path", trained).endswith("give each once.")


def test_what_cannot_be_measured_is_left_out_and_said(
    tiny_bert: Path, reviews: Path, cli: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = shutil.copytree(tiny_bert, tmp_path / "encoder")
    source = shutil.copytree(reviews, tmp_path / "source")
    run = tmp_path / "run"
    cli("fit", *fit_options(encoder, source, run))
    shutil.rmtree(encoder)
    write_jsonl(source / "train.jsonl", [review(number) for number in range(300, 400)])
    cli("compare", "--ckpt_path", run)
    found = compared(run)
    assert list(found["models"]) == ["tuned"]
    assert found["left_out"]["un-tuned"].startswith("`model.pretrained` is")
    assert "no longer holds the train rows" in found["left_out"]["TF-IDF"]
    assert "TF-IDF is left out" in capfd.readouterr().out
    for name in ("comparison.md", "comparison.html"):
        assert "TF-IDF is left out" in (run / name).read_text(encoding="utf-8")


def test_one_review_before_and_after(
    trained: Path, cli: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    text = "the pizza was amazing and perfect"
    cli("compare", "--ckpt_path", trained, "--text", text)
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert [line for line in lines if line][1] == ["un-tuned", "tuned"]
    columns = np.array(
        [[float(cell) for cell in line if "." in cell] for line in lines if line and line[1:2] in (["star"], ["stars"])]
    )
    assert columns.shape == (5, 2)
    np.testing.assert_allclose(columns.sum(0), 1, atol=3e-3)
    cli("predict", "--ckpt_path", trained, "--text", text)
    assert f"{columns[:, 1].max():.3f}" in capfd.readouterr().out


def test_one_review_is_asked_of_runs_alone(
    trained: Path, seeds: Path, cli: Callable[..., None], refused: Callable[..., str], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    cli("compare", "--ckpt_path", seeds, "--text", "good food")
    assert capfd.readouterr().out.splitlines()[1].split() == ["un-tuned", "tuned/seed0", "tuned/seed1"]
    text = ["compare", "--ckpt_path", trained, "--text"]
    assert refused(*text, "good food", "--output", tmp_path).startswith("`--output` is given together with --text")
    assert refused(*text, "caf\udce9").startswith("`--text` is not UTF-8 at its character 4")
    checkpoint = torch.load(trained / "best.ckpt", weights_only=True)
    checkpoint["encoder"]["config"] = checkpoint["encoder"]["config"].replace("1 star", "poor")
    torch.save(checkpoint, tmp_path / "named.ckpt")
    found = refused(*text, "good food", "--ckpt_path", tmp_path / "named.ckpt")
    assert f"{tmp_path / 'named.ckpt'} has the classes ['poor', '2 stars'" in found


def test_only_seeds_are_counted_as_such(
    trained: Path, seeds: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    folder = shutil.copytree(seeds, tmp_path / "mixed")
    checkpoint = torch.load(folder / "seed1" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["learning_rate"] = 0.5
    torch.save(checkpoint, folder / "seed1" / "best.ckpt")
    found = refused("compare", "--ckpt_path", folder)
    assert "differ in more than their seed: seed0 has learning_rate 0.01, seed1 0.5" in found
    (folder / "seed0" / "metrics.json").unlink()
    assert f"holds the unfinished run {folder / 'seed0'}" in refused("compare", "--ckpt_path", folder)


def test_rows_that_the_model_has_seen_are_said(
    trained: Path, reviews: Path, cli: Callable[..., None], tmp_path: Path
) -> None:
    lines = (reviews / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    source = tmp_path / "again(a).jsonl"
    source.write_text("".join(lines[:24]), encoding="utf-8")
    output = tmp_path / "output"
    options = ["--ckpt_path", trained, "--data.source", source]
    cli("compare", *options, "--heads", 1, "--baseline", "false", "--output", output)
    cli("test", *options, "--trainer.default_root_dir", output)
    (seen,) = compared(output)["seen_in_training"].values()
    assert 0 < seen <= 24
    for name in ("comparison.md", "comparison.html", "report.html"):
        page = (output / name).read_text(encoding="utf-8")
        assert f"trained or chosen on the texts of {seen} of the" in page
        assert "again(a).jsonl" in page


def test_a_part_of_the_rows_is_reported(trained: Path, cli: Callable[..., None], tmp_path: Path) -> None:
    limit = ["--trainer.limit_test_batches", 2, "--data.eval_tokens", 64]
    cli("test", "--ckpt_path", trained, *limit, "--trainer.default_root_dir", tmp_path)
    n = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["n"]
    assert 1 < n < 41
    assert f"{n} reviews." in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_names_of_the_tables_are_not_taken_by_runs(trained: Path, cli: Callable[..., None], tmp_path: Path) -> None:
    runs = [shutil.copytree(trained, tmp_path / name) for name in ("TF-IDF", "s[b]")]
    cli("compare", "--ckpt_path", runs[0], "--ckpt_path", runs[1], "--heads", 1, "--output", tmp_path / "output")
    assert list(compared(tmp_path / "output")["models"]) == [
        "un-tuned", "TF-IDF", f"{tmp_path.name}/TF-IDF", f"{tmp_path.name}/s[b]",
    ]  # fmt: skip
