"""A loss that is no number stops the run with its step, rows and learning rate; what trains nothing is refused."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, fit_options, review, run_process, write_jsonl
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from tiny_bert import write_tiny_bert
from transformers import BertForSequenceClassification

from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.errors import UsageError
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.modeling.metrics import StarMetrics
from yelp_lightning.training.guards import FiniteLoss
from yelp_lightning.training.last import LastCheckpoint
from yelp_lightning.training.signals import Signals

FOUND = re.compile(
    r"The training loss is (?:nan|inf) at optimizer step (\d+) \(epoch (\d+), learning rate (\S+)\), in the batch of "
    r"lines ([\d, ]+) of \S+train\.jsonl: (.*)\."
)
TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp"]


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a BERT whose embedding of the word `hotel` is so large that what is computed of it is no number."""
    folder = write_tiny_bert(tmp_path_factory.mktemp("poisoned"), num_labels=5)
    model = BertForSequenceClassification.from_pretrained(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[vocabulary["hotel"]] = torch.finfo().max
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one_hotel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of reviews of which only that in line 31 (with the blank line 4) of train.jsonl is about a hotel."""
    folder = tmp_path_factory.mktemp("one_hotel")
    others = [review(number) for number in range(200) if number % 10 != 2]
    rows = [*others[:29], review(2), *others[29:]]
    write_jsonl(folder / "train.jsonl", rows)
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join([*lines[:3], "\n", *lines[3:]]), encoding="utf-8")
    write_jsonl(folder / "validation.jsonl", others[-20:])
    return folder


def test_a_poisoned_batch_is_named(
    refused: Callable[..., str], poisoned: Path, one_hotel: Path, tmp_path: Path
) -> None:
    options = [*fit_options(poisoned, one_hotel, tmp_path / "run"), "--data.val_size", "null"]
    sentence = refused("fit", *options, "--data.on_duplicate", "keep", "--model.warmup_ratio", 0)
    step, epoch, rate, lines, ways = FOUND.fullmatch(sentence).groups()
    assert "31" in lines.split(", ")
    assert len(lines.split(", ")) <= 8
    assert epoch == "1"
    steps = 2 * 23  # 181 rows / 8, two epochs
    assert float(rate) == pytest.approx(1e-2 * (1 - (int(step) - 1) / steps), rel=1e-2)
    assert ways == "give a lower --model.learning_rate, or clip gradients by --trainer.gradient_clip_val 1"
    assert not list((tmp_path / "run").glob("*.ckpt"))
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_learning_rate_that_is_too_high_stops_after_a_good_validation(
    refused: Callable[..., str], tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    # The rate rises from 0 over the two epochs: the first step is harmless.
    options = [*fit_options(tiny_bert, reviews, run), "--model.learning_rate", 1e30, "--model.warmup_ratio", 1]
    options += ["--trainer.val_check_interval", 2, "--trainer.accumulate_grad_batches", 2]
    sentence = refused("fit", *options)
    assert sentence.startswith("The validation loss is nan after optimizer step 2: give a lower --model.learning_rate")
    best = torch.load(run / "best.ckpt", weights_only=True)
    assert best["global_step"] == 1
    assert best["reports"]["val"]["val/loss"] < 3


def test_two_processes_end_together(poisoned: Path, one_hotel: Path, tmp_path: Path) -> None:
    options = [*fit_options(poisoned, one_hotel, tmp_path / "run"), "--data.val_size", "null", *TWO]
    options += ["--data.on_duplicate", "keep", "--trainer.log_every_n_steps", 7, "--checkpoint.every_n_steps", 1]
    process = run_process("fit", *options, cwd=ROOT)
    assert process.returncode == 2, process.stderr
    assert process.stderr.count("error:") == 1
    assert "Traceback" not in process.stderr
    (sentence,) = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    step, _, _, lines, _ = FOUND.fullmatch(sentence.removeprefix("error: ")).groups()
    assert "31" in lines.split(", ")
    assert len(lines.split(", ")) <= 8  # of the device that had it
    # What is kept can be gone on from.
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert last["global_step"] == int(step) - 1
    assert all(weight.isfinite().all() for weight in last["state_dict"].values())


# Of the step that is skipped.
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize(
    ("precision", "every_n_steps", "found"),
    [
        ("32-true", None, "The training loss is nan at optimizer step 2 "),
        ("32-true", 1, "There are weights that are no finite numbers after optimizer step 1: give a lower --model"),
        ("16-mixed", 1, None),
    ],
)
def test_infinite_gradients_are_left_to_the_scaler(
    tiny_bert: Path, reviews: Path, tmp_path: Path, precision: str, every_n_steps: int | None, found: str | None
) -> None:
    class HugeGradients(StarClassifier):
        def on_after_backward(self) -> None:
            if self.trainer.global_step == 0:
                next(self.parameters()).grad.fill_(float("inf"))

    # Lightning refuses 16-mixed on a CPU by name, not the plugin with its scaler.
    scaler = torch.amp.GradScaler("cpu")
    how = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]} if precision == "16-mixed" else {}
    trainer = Trainer(
        accelerator="cpu", max_steps=4, limit_val_batches=0, logger=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=tmp_path,
        callbacks=[FiniteLoss(), LastCheckpoint(str(tmp_path), Signals(None), every_n_steps)], **how,
    )  # fmt: skip
    model = HugeGradients(str(tiny_bert), warmup_ratio=0)
    data = ReviewDataModule(
        str(tiny_bert), source=str(reviews), max_length=32, val_size=20, cache_dir=str(tmp_path / "c")
    )
    if found is None:
        trainer.fit(model, data)
        assert scaler.get_scale() < 2**16  # it skipped
    else:
        with pytest.raises(UsageError, match=found):
            trainer.fit(model, data)
    assert (tmp_path / "last.ckpt").exists() == (found is None)


def test_a_loss_that_is_no_number_is_in_the_mean() -> None:
    metrics = StarMetrics(5)
    for loss in (1.0, float("nan")):
        metrics.update(torch.tensor(loss), torch.eye(5), torch.arange(5))
    assert math.isnan(metrics.compute()[0]["loss"])
    # Each batch counts by its rows.
    metrics.update(torch.tensor(1.0), torch.eye(5)[:1], torch.arange(1))
    metrics.update(torch.tensor(2.0), torch.eye(5)[:3], torch.arange(3))
    assert metrics.compute()[0]["loss"] == 1.75


def test_a_validation_loss_that_is_no_number(
    refused: Callable[..., str], poisoned: Path, one_hotel: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows = [json.loads(line) for line in (one_hotel / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    write_jsonl(source / "validation.jsonl", [*rows, review(2)])
    write_jsonl(source / "train.jsonl", [review(number) for number in range(300, 330) if number % 10 != 2])  # 27
    options = [*fit_options(poisoned, source, tmp_path / "run"), "--data.val_size", "null"]
    sentence = refused("fit", *options, "--trainer.num_sanity_val_steps", 0, "--trainer.max_epochs", 1)
    assert sentence.startswith("The validation loss is nan after optimizer step 4: give a lower --model.learning_rate")
    assert not list((tmp_path / "run").glob("*.ckpt"))


def test_epochs_without_a_batch_or_a_validation(fit_refused: Callable[..., str]) -> None:
    assert fit_refused("--trainer.val_check_interval", 24) == (
        "`--trainer.val_check_interval` is 24, but an epoch has 23 batches: give at most that, or count batches over "
        "epochs by --trainer.check_val_every_n_epoch null."
    )
    assert "but an epoch has 5 batches" in fit_refused(
        "--trainer.val_check_interval", 6, "--trainer.limit_train_batches", 5
    )
    assert fit_refused("--trainer.limit_train_batches", 0.01) == (
        "`--trainer.limit_train_batches` is 0.01, of an epoch's 23 batches less than one: give a larger share, or a "
        "number of batches."
    )


def test_validation_over_epochs(cli: Callable[..., None], tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    options = ["--trainer.val_check_interval", 24, "--trainer.check_val_every_n_epoch", "null"]
    cli("fit", *fit_options(tiny_bert, reviews, tmp_path / "run"), *options)
    assert torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)["global_step"] == 24


@pytest.mark.parametrize("shape", ["list", "one"])
def test_a_callback_that_refuses_its_options(fit_refused: Callable[..., str], tmp_path: Path, shape: str) -> None:
    callback = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "mode": "least"}}
    config = {"trainer": {"callbacks": [callback] if shape == "list" else callback}}
    (tmp_path / "callbacks.yaml").write_text(json.dumps(config), encoding="utf-8")
    assert fit_refused("--config", tmp_path / "callbacks.yaml") == (
        "`--trainer.callbacks`: EarlyStopping refuses (`mode` can be min, max, got least): mend its init_args."
    )


def test_nothing_comes_before_an_error(
    cli: Callable[..., None], tiny_bert: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli("fit", "--model.pretrained", tiny_bert, "--checkpoint.monitor", "accuracy")
    shown = capfd.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith("error: `checkpoint.monitor` is 'accuracy'")
    assert shown.out == ""
