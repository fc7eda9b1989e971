"""The classifier: its loss, its gradients, its modes, padding, its checkpoint, and its metrics against scikit-learn."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from conftest import review, write_jsonl
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor
from torch.nn.functional import cross_entropy

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.errors import UsageError
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.run_folder import AtomicCheckpointIO, write_metrics

Batch = dict[str, Tensor]


def quiet_trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder, **options,
    )  # fmt: skip


def review_data(pretrained: Path, reviews: Path, cache: Path, **options: Any) -> ReviewDataModule:
    return ReviewDataModule(
        str(pretrained), source=str(reviews), max_length=32, val_size=40, cache_dir=str(cache), **options
    )


def fresh(pretrained: Path, seed: int = 0, **options: Any) -> StarClassifier:
    seed_everything(seed, verbose=False)
    model = StarClassifier(str(pretrained), **options)
    model.configure_model()
    return model


def logits_of(model: StarClassifier, batch: Batch) -> Tensor:
    model.eval()
    with torch.inference_mode():
        return model(batch["input_ids"], batch["attention_mask"])


@pytest.fixture
def batch(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Batch:
    """Forty real reviews of different lengths, padded."""
    data = review_data(tiny_bert, reviews, tmp_path / "cache")
    data.setup("validate")
    only = data.tokens["val"][list(range(40))]
    assert len(set(only["attention_mask"].sum(1).tolist())) > 3
    return only


class Watch(Callback):
    """Keeps the modes of all modules at each training batch, and the gradients of the first."""

    def __init__(self) -> None:
        self.training: list[bool] = []
        self.gradients: dict[str, Tensor | None] = {}

    def on_train_batch_start(self, trainer: Trainer, model: StarClassifier, batch: Batch, batch_idx: int) -> None:
        self.training.append(all(module.training for module in model.model.modules()))

    def on_after_backward(self, trainer: Trainer, model: StarClassifier) -> None:
        if not self.gradients:
            named = model.model.named_parameters()
            self.gradients = {name: None if weight.grad is None else weight.grad.clone() for name, weight in named}


class ShortRun:
    """A training of three batches a validation, whose pretrained folder is gone."""

    def __init__(self, tiny_bert: Path, reviews: Path, folder: Path) -> None:
        pretrained = shutil.copytree(tiny_bert, folder / "pretrained")
        seed_everything(0, verbose=False)
        self.model = StarClassifier(str(pretrained), learning_rate=1e-2)
        self.data = review_data(pretrained, reviews, folder / "cache")
        self.watch = Watch()
        options = {"max_epochs": 2, "limit_train_batches": 3, "num_sanity_val_steps": 1}
        trainer = quiet_trainer(folder, callbacks=[self.watch], plugins=[AtomicCheckpointIO()], **options)
        trainer.fit(self.model, self.data)
        self.checkpoint = folder / "short.ckpt"
        trainer.save_checkpoint(self.checkpoint)
        self.source = str(pretrained)
        shutil.rmtree(pretrained)


@pytest.fixture(scope="module")
def short_run(tiny_bert: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> ShortRun:
    return ShortRun(tiny_bert, reviews, tmp_path_factory.mktemp("short"))


def test_initial_loss_is_ln_5(tiny_bert: Path, batch: Batch) -> None:
    for seed in range(3):
        loss = cross_entropy(logits_of(fresh(tiny_bert, seed), batch), batch["labels"])
        assert loss.item() == pytest.approx(math.log(5), abs=0.05)


def test_gradient_reaches_every_tensor(short_run: ShortRun) -> None:
    gradients = short_run.watch.gradients
    assert len(gradients) == 41
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        # A bias of the keys adds the same number to all scores of a query, which softmax takes out again.
        if not name.endswith("key.bias"):
            assert gradient.abs().max() > 0, name


def test_training_moves_every_tensor(short_run: ShortRun, tiny_bert: Path) -> None:
    before = dict(fresh(tiny_bert).model.named_parameters())
    after = dict(short_run.model.model.named_parameters())
    assert [name for name in after if torch.equal(before[name], after[name])] == []


def test_trains_in_train_mode_before_and_after_validation(short_run: ShortRun) -> None:
    # transformers loads in evaluation mode, and Lightning keeps what it finds.
    assert short_run.watch.training == [True] * 6


def test_parameters_are_counted_when_the_network_is_made(tiny_bert: Path) -> None:
    model = fresh(tiny_bert, frozen_layers=1)
    found = {"all": model.model.num_parameters(), "trained": model.model.num_parameters(only_trainable=True)}
    assert model.parameter_counts == found
    assert 0 < found["trained"] < found["all"]


def test_dropout_is_active_in_training_and_off_in_evaluation(tiny_bert: Path, batch: Batch) -> None:
    model = fresh(tiny_bert)
    assert model.training
    first, second = (model(batch["input_ids"], batch["attention_mask"]) for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-4)
    assert torch.equal(logits_of(model, batch), logits_of(model, batch))


@pytest.mark.parametrize("length", [3, 4, 17, 64, 200])
@pytest.mark.parametrize("padding", [1, 7, 300])
def test_padding_never_changes_logits(tiny_bert: Path, length: int, padding: int) -> None:
    model = fresh(tiny_bert)
    torch.nn.init.normal_(model.model.classifier.weight)  # a head of size 1, so that 1e-5 says something
    ids = torch.randint(5, 700, (2, length))
    bare = logits_of(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    # Whatever stands in the padding, the mask hides it.
    for filler in (torch.zeros(2, padding, dtype=torch.int64), torch.randint(5, 700, (2, padding))):
        mask = torch.cat([torch.ones_like(ids), torch.zeros_like(filler)], 1)
        padded = logits_of(model, {"input_ids": torch.cat([ids, filler], 1), "attention_mask": mask})
        torch.testing.assert_close(padded, bare, atol=1e-5, rtol=0)
    assert (bare[0] - bare[1]).abs().max() > 1e-3  # other reviews do get other logits


def test_neighbours_in_a_batch_never_change_logits(short_run: ShortRun, batch: Batch) -> None:
    together = logits_of(short_run.model, batch)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = {name: batch[name][row : row + 1, :length] for name in ("input_ids", "attention_mask")}
        torch.testing.assert_close(logits_of(short_run.model, alone)[0], together[row], atol=1e-5, rtol=0)


def test_logits_are_float32(tiny_bert: Path, batch: Batch) -> None:
    model = fresh(tiny_bert)
    assert logits_of(model, batch).shape == (40, 5)
    assert logits_of(model, batch).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert logits_of(model, batch).dtype == torch.float32
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_checkpoint_loads_without_the_pretrained_folder(short_run: ShortRun, batch: Batch) -> None:
    assert not Path(short_run.source).exists()
    expected = logits_of(short_run.model, batch)

    loaded = StarClassifier.load_from_checkpoint(short_run.checkpoint, weights_only=True)
    assert torch.equal(logits_of(loaded, batch), expected)

    restored = StarClassifier(short_run.source)
    restored.restore(str(short_run.checkpoint))
    restored.configure_model()
    assert torch.equal(logits_of(restored, batch), expected)
    assert restored.tokenizer("nice soup")["input_ids"] == short_run.model.tokenizer("nice soup")["input_ids"]

    with pytest.raises(UsageError, match=r"`model\.pretrained` is .*pretrained'"):
        StarClassifier(short_run.source).configure_model()


def test_checkpoint_holds_plain_values(short_run: ShortRun, trained: Path) -> None:
    for path in (short_run.checkpoint, trained / "best.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        for name in ("hyper_parameters", "datamodule_hyper_parameters"):
            assert checkpoint[name]
            for key, value in checkpoint[name].items():
                assert type(value) in (int, float, str, bool, type(None)), (key, value)
        assert set(checkpoint["hyper_parameters"]) >= {"pretrained", "num_labels", "learning_rate", "weight_decay"}
        assert all(type(text) is str for text in checkpoint["encoder"]["tokenizer"].values())


def test_checkpoint_goes_on_training(short_run: ShortRun, tmp_path: Path) -> None:
    model = StarClassifier.load_from_checkpoint(short_run.checkpoint)
    data = short_run.data
    data.restore(str(short_run.checkpoint), read_checkpoint(short_run.checkpoint))
    watch = Watch()
    quiet_trainer(tmp_path, max_steps=1, callbacks=[watch]).fit(model, data)
    assert watch.training == [True]
    assert watch.gradients


def reference(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The metrics of concatenated rows, by scikit-learn and numpy."""
    truth, preds = labels.numpy(), logits.argmax(-1).numpy()
    probabilities = logits.double().softmax(-1).numpy()
    return {
        "loss": sklearn.metrics.log_loss(truth, probabilities, labels=range(5)),
        "accuracy": (truth == preds).mean(),
        "macro_f1": sklearn.metrics.f1_score(truth, preds, average="macro"),
        "mae": sklearn.metrics.mean_absolute_error(truth, preds),
        "within_1": (np.abs(truth - preds) <= 1).mean(),
        "qwk": sklearn.metrics.cohen_kappa_score(truth, preds, weights="quadratic"),
    }


@pytest.mark.parametrize("eval_tokens", [1, 90, 300, 10_000])
def test_val_metrics_equal_sklearn_for_any_batches(
    short_run: ShortRun, reviews: Path, tmp_path: Path, eval_tokens: int
) -> None:
    data = review_data(short_run.checkpoint, reviews, tmp_path / "cache", eval_tokens=eval_tokens)
    (returned,) = quiet_trainer(tmp_path).validate(short_run.model, data, verbose=False)
    batches = list(data.val_dataloader())
    assert (len(batches) == 40) == (eval_tokens == 1)
    logits = torch.cat([logits_of(short_run.model, batch) for batch in batches])
    labels = torch.cat([batch["labels"] for batch in batches])
    expected = reference(logits, labels)
    report = short_run.model.reports["val"]
    for found in (report, returned):
        assert {name: found[f"val/{name}"] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert report["val/n"] == 40
    matrix = sklearn.metrics.confusion_matrix(labels, logits.argmax(-1), labels=range(5))
    assert report["val/confusion_matrix"] == matrix.tolist()
    for name in ("accuracy", "mae"):
        low, high = report[f"val/{name}_interval"]
        assert low <= expected[name] <= high


def test_predict_gives_each_row_its_probabilities(short_run: ShortRun, reviews: Path, tmp_path: Path) -> None:
    data = review_data(
        short_run.checkpoint, reviews, tmp_path / "cache", eval_tokens=90, predict_path=str(reviews / "test.jsonl")
    )
    found = quiet_trainer(tmp_path).predict(short_run.model, data)
    assert len(found) > 1
    rows = torch.cat([part["row"] for part in found])
    probabilities = torch.cat([part["probabilities"] for part in found])
    assert sorted(rows.tolist()) == list(range(41))
    assert np.array_equal(short_run.model.predicted, probabilities[rows.argsort()].numpy())
    # A part of them is predicted too, and the rows of a prediction that broke off are forgotten.
    short_run.model.predict_outputs.update(**found[0])
    (first,) = quiet_trainer(tmp_path, limit_predict_batches=1).predict(short_run.model, data)
    assert np.array_equal(short_run.model.predicted, first["probabilities"][first["row"].argsort()].numpy())
    texts = [json.loads(line)["text"] for line in (reviews / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, probability in zip(rows.tolist(), probabilities, strict=True):
        encoded = short_run.model.tokenizer([texts[row]], truncation=True, max_length=32, return_tensors="pt")
        expected = (logits_of(short_run.model, encoded) / short_run.model.temperature).softmax(-1)[0]
        torch.testing.assert_close(expected, probability, atol=1e-5, rtol=0)


def test_what_is_undefined_is_null_in_json(tiny_bert: Path, tmp_path: Path) -> None:
    # All reviews have 1 star and get 1 star: kappa is 0 / 0.
    source = tmp_path / "source"
    source.mkdir()
    write_jsonl(source / "train.jsonl", [review(number) for number in range(20)])
    write_jsonl(source / "test.jsonl", [review(5 * number) for number in range(20, 30)])
    model = fresh(tiny_bert)
    model.model.classifier.bias.data = torch.tensor([9.0, 0, 0, 0, 0])
    data = review_data(tiny_bert, source, tmp_path / "cache")
    (returned,) = quiet_trainer(tmp_path).test(model, data, verbose=False)
    assert math.isnan(returned["test/qwk"])
    assert returned["test/accuracy"] == 1
    assert model.reports["test"]["test/qwk"] is None

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not json")

    write_metrics(tmp_path, "test", model.reports["test"])
    written = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert written["test/qwk"] is None
    assert written["test/accuracy"] == 1


def test_a_run_without_end_is_refused(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    data = review_data(tiny_bert, reviews, tmp_path / "cache")
    trainer = quiet_trainer(tmp_path, max_epochs=-1, num_sanity_val_steps=0)
    with pytest.raises(UsageError, match=r"`--trainer\.max_epochs` is -1"):
        trainer.fit(fresh(tiny_bert), data)


def test_same_seed_same_training(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    def weights(seed: int) -> Tensor:
        model, data = fresh(tiny_bert, seed), review_data(tiny_bert, reviews, tmp_path / "cache")
        quiet_trainer(tmp_path, max_steps=2, num_sanity_val_steps=0).fit(model, data)
        return torch.cat([weight.detach().flatten() for weight in model.parameters()])

    first = weights(1)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))
