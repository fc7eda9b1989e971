"""The tutorial's config against a Hub stand-in on 127.0.0.1, by the real `from_pretrained` and `load_dataset`."""

import json
from pathlib import Path

import datasets
import pytest
from conftest import ROOT, run_process
from hub import Hub, write_yelp_dataset
from tiny_bert import write_tiny_bert

SMALL = [
    "--data.train_size", 40, "--data.val_size", 20, "--data.test_size", 30, "--data.max_length", 32,
    "--trainer.max_epochs", 1, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
]  # fmt: skip


def test_tutorial_config_runs_against_the_hub(tmp_path: Path) -> None:
    model = write_tiny_bert(tmp_path / "model")
    data = write_yelp_dataset(tmp_path / "data", train=200, test=60)
    run, options = tmp_path / "run", ["--data.cache_dir", tmp_path / "cache"]
    with Hub({"google-bert/bert-base-cased": model}, {"Yelp/yelp_review_full": data}) as hub:
        environment = hub.environment(tmp_path / "home")
        options += ["--trainer.default_root_dir", run]
        process = run_process("fit", "--config", "configs/tutorial.yaml", *SMALL, *options, env=environment, cwd=ROOT)
        assert process.returncode == 0, process.stderr
        assert any("google-bert/bert-base-cased" in request for request in hub.requests)
        assert any("Yelp/yelp_review_full" in request for request in hub.requests)
    # The hub is gone: the checkpoint and the data set's cache are enough.
    process = run_process("test", "--ckpt_path", run, env=environment | {"HF_HUB_OFFLINE": "1"}, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["val/n"], metrics["test/n"]) == (20, 30)


def test_chosen_rows_are_the_tutorials(tmp_path: Path) -> None:
    from yelp_lightning.data.datamodule import ReviewDataModule

    data = write_yelp_dataset(tmp_path / "data", train=200, test=60)
    files = {split: str(next((data / "yelp_review_full").glob(f"{split}-*"))) for split in ("train", "test")}
    published = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    (folder := tmp_path / "folder").mkdir()
    for split, file in files.items():
        (folder / f"{split}.parquet").write_bytes(Path(file).read_bytes())
    module = ReviewDataModule(source=str(folder), train_size=100, val_size=20, test_size=30)
    for split, size in {"train": 100, "test": 30}.items():
        expected = published[split].shuffle(seed=42).select(range(size))
        reviews = module.reviews
        texts = list(reviews.texts(split))
        labels = reviews.rows[split].labels[reviews.chosen[split]].tolist()
        # In the order of the file: batches are in another one anyway.
        assert sorted(zip(texts, labels, strict=True)) == sorted(zip(expected["text"], expected["label"], strict=True))


@pytest.mark.parametrize(
    ("option", "value"), [("model.pretrained", "nobody/no-model"), ("data.source", "nobody/no-data")]
)
def test_unknown_repository_is_one_sentence(tmp_path: Path, option: str, value: str) -> None:
    model = write_tiny_bert(tmp_path / "model")
    data = write_yelp_dataset(tmp_path / "data", train=100, test=20)
    with Hub({"google-bert/bert-base-cased": model}, {"Yelp/yelp_review_full": data}) as hub:
        process = run_process(
            "fit", "--config", "configs/tutorial.yaml", f"--{option}", value, *SMALL,
            "--trainer.default_root_dir", tmp_path / "run", env=hub.environment(tmp_path / "home"), cwd=ROOT,
        )  # fmt: skip
    assert process.returncode == 2
    sentence = process.stderr.strip().splitlines()[-1]
    assert sentence.startswith(f"error: `{option}` is '{value}'"), process.stderr
    assert "Traceback" not in process.stderr
