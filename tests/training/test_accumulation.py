"""8 x 4 is 32 x 1: the gradient is the mean over the rows of the optimizer step, however they are cut."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import review, write_jsonl
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.modeling.classifier import StarClassifier

Train = Callable[..., dict[str, Tensor]]


@pytest.fixture
def train(tiny_bert_without_dropout: Path, tmp_path: Path) -> Train:
    """Five epochs from the same start on that many rows; the weights after them."""

    def run(rows: int, batch_size: int, accumulate: int, **options: object) -> dict[str, Tensor]:
        source = tmp_path / str(rows)
        source.mkdir(exist_ok=True)
        write_jsonl(source / "train.jsonl", [review(number) for number in range(rows)])
        write_jsonl(source / "validation.jsonl", [review(number) for number in range(500, 520)])
        seed_everything(0, verbose=False)
        pretrained = str(tiny_bert_without_dropout)
        model = StarClassifier(pretrained, learning_rate=1e-3)
        data = ReviewDataModule(
            pretrained, source=str(source), max_length=32, batch_size=batch_size, cache_dir=str(tmp_path / "cache")
        )
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=5,
            enable_model_summary=False, use_distributed_sampler=False, default_root_dir=tmp_path, limit_val_batches=0,
            num_sanity_val_steps=0, accumulate_grad_batches=accumulate, **options,
        )  # fmt: skip
        trainer.fit(model, data)
        assert trainer.global_step == trainer.estimated_stepping_batches == 5 * -(-rows // (batch_size * accumulate))
        return {name: weight.detach().clone() for name, weight in model.named_parameters()}

    return run


# The last step of an epoch: 4 full batches; 2 full ones and one of 4; one of 5; one row.
@pytest.mark.parametrize("rows", [128, 116, 101, 97])
def test_accumulated_batches_are_one_large_batch(train: Train, rows: int) -> None:
    large = train(rows, 32, 1, gradient_clip_val=1.0)
    for batch_size, accumulate in ((8, 4), (4, 8)):
        small = train(rows, batch_size, accumulate, gradient_clip_val=1.0)
        for name, weight in large.items():
            torch.testing.assert_close(small[name], weight, atol=1e-5, rtol=0, msg=lambda text, name=name: name + text)


def test_weights_tell_steps_of_other_rows_apart(train: Train) -> None:
    # What the comparison above would see: as many steps, of the same rows but one.
    one, other = train(101, 32, 1), train(100, 32, 1)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) > 1e-4


def test_the_shown_loss_is_not_weighted(tiny_bert_without_dropout: Path) -> None:
    model = StarClassifier(str(tiny_bert_without_dropout))
    model.configure_model()
    shown: dict[str, float] = {}
    model.log = lambda name, value, **options: shown.update({name: float(value)})  # the Trainer's part
    batch = {"input_ids": torch.tensor(2 * [[2, 90, 91, 3]]), "attention_mask": torch.ones(2, 4, dtype=torch.int64)}
    guess = int(model(**batch)[0].argmax())
    batch |= {"labels": torch.tensor([guess, (guess + 1) % 5]), "weight": torch.tensor(0.25)}
    trained_on = model.training_step(batch, 0)
    assert trained_on["accuracy"] == 0.5
    assert trained_on["loss"].item() == pytest.approx(shown["train/loss"] / 4)
