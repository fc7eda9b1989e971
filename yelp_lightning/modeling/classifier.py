"""The classifier: a pretrained encoder with a head that reads the stars, as a LightningModule."""

import math
from pathlib import Path
from typing import Any, Self

import numpy as np
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from yelp_lightning import __version__
from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.errors import UsageError
from yelp_lightning.modeling.intervals import accuracy_interval, mae_interval
from yelp_lightning.modeling.metrics import StarMetrics
from yelp_lightning.modeling.optim import adamw_with_linear_decay
from yelp_lightning.modeling.shards import share_out
from yelp_lightning.pretrained import (
    load_classifier,
    load_tokenizer,
    pack_encoder,
    unpack_classifier,
    unpack_tokenizer,
)
from yelp_lightning.ranges import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt

Batch = dict[str, Tensor]


class StarClassifier(LightningModule):
    """A pretrained encoder with a classification head, fine-tuned whole by cross-entropy.

    Letters: ``B`` rows of a batch, ``T`` tokens of its longest row, ``C`` classes.

    Args:
        pretrained: Where the encoder comes from: a Hub id such as ``google-bert/bert-base-cased``, a folder that
            transformers wrote, or ``embedded`` (MiniLM-L6, which the extra ``embedded`` installs).
        num_labels: Classes; label 0 means 1 star.
        label_names: Names of the classes; taken from ``data.label_names``.
        ordered: Whether the classes are ordered, as stars are; otherwise there is no mae, within_1 and qwk.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: AdamW's decay of matrices; biases and LayerNorm weights never decay.
        warmup_ratio: Share of all optimizer steps, in [0, 1], over which the learning rate rises; then it falls
            linearly to 0.

    Raises:
        UsageError: In ``configure_model``, if nothing can be loaded from ``pretrained``.
    """

    def __init__(
        self,
        pretrained: str = "embedded",
        num_labels: PositiveInt = 5,
        label_names: list[str] | None = None,
        ordered: bool = True,
        learning_rate: PositiveFloat = 5e-5,
        weight_decay: NonNegativeFloat = 0.01,
        warmup_ratio: ClosedUnitInterval = 0.1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.source = pretrained
        self.model: PreTrainedModel | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.train_metrics, self.val_metrics, self.test_metrics = (StarMetrics(num_labels, ordered) for _ in range(3))
        # What the latest evaluation of a stage measured, in the form of metrics.json.
        self.reports: dict[str, dict[str, Any]] = {}

    @classmethod
    @override
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        hparams_file: None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **options: Any,
    ) -> Self:
        """Build the tuned model from a checkpoint alone.

        Lightning's own would ask for the pretrained weights first, which may be gone.

        Args:
            checkpoint_path: A ``.ckpt`` file that ``fit`` wrote.
            map_location: Device of the model; None means the CPU.
            hparams_file: Not used: the checkpoint holds the options.
            strict: Not used: it is always True.
            weights_only: Not used: it is always True.
            **options: Options of this class that replace the checkpoint's, such as ``learning_rate``.

        Returns:
            The model, in training mode.

        Raises:
            UsageError: If the file is no checkpoint of this project.
        """
        checkpoint = read_checkpoint(Path(checkpoint_path))
        saved = {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}
        model = cls(**{**saved, **options})
        model._attach(unpack_classifier(checkpoint), unpack_tokenizer(checkpoint["encoder"]))
        return model.to(map_location or "cpu")

    def restore(self, ckpt_path: str) -> None:
        """Build the model from a checkpoint alone: the pretrained folder and the network are not asked.

        Args:
            ckpt_path: A ``.ckpt`` file that ``fit`` wrote.
        """
        self.source = ckpt_path

    def configure_model(self) -> None:
        """Load encoder and tokenizer; Lightning calls it once the devices are known."""
        if self.model is None:
            self._attach(
                load_classifier(self.source, self.hparams["num_labels"], self.hparams["label_names"]),
                load_tokenizer(self.source),
            )

    def _attach(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        # transformers loads in evaluation mode, and Lightning keeps the mode it finds: without this, no dropout.
        self.model, self.tokenizer = model.train(), tokenizer
        if self.device_mesh is not None:  # only a strategy that shares models out has one
            share_out(self.model, self.device_mesh["data_parallel"])
        # The encoder's buffers are constants (position ids). Told so, DDP does not broadcast them before every forward.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Score each class.

        Args:
            input_ids: ``(B, T)`` int64.
            attention_mask: ``(B, T)`` int64, 1 at real tokens.

        Returns:
            Logits ``(B, C)`` float32; padding never changes them.
        """
        assert self.model is not None, "configure_model has not run"
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float()

    def on_fit_start(self) -> None:
        """Say what is trained."""
        trained = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        rank_zero_info(f"Fine-tuning {trained / 1e6:.1f} M parameters, from {self.source}")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one training batch.

        Args:
            batch: ``input_ids (B, T)``, ``attention_mask (B, T)``, ``labels (B,)``, ``weight ()``.
            batch_idx: Number of the batch in the epoch.

        Returns:
            Mean cross-entropy ``()``, nats, times the batch's weight: its gradient, meant over devices and accumulated
            batches, is that of the mean over the rows of the optimizer step. What is logged is not weighted.
        """
        loss = self._step("train", batch)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["labels"]))
        return loss * batch["weight"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a validation batch to the metrics.

        Args:
            batch: As in ``training_step``, without ``weight``.
            batch_idx: Number of the batch.
        """
        self._step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a test batch to the metrics.

        Args:
            batch: As in ``training_step``, without ``weight``.
            batch_idx: Number of the batch.
        """
        self._step("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Probabilities of the classes.

        Args:
            batch: ``input_ids (B, T)``, ``attention_mask (B, T)``, ``row (B,)``.
            batch_idx: Number of the batch.

        Returns:
            ``row (B,)`` int64 and ``probabilities (B, C)`` float32.
        """
        logits = self(batch["input_ids"], batch["attention_mask"])
        return {"row": batch["row"], "probabilities": logits.softmax(-1)}

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics; its loss is logged step by step."""
        if not self.train_metrics.loss.update_called:  # a resumed run closes an epoch that had been trained to its end
            return
        values = {name: value for name, value in self._measure("train").items() if name != "train/loss"}
        self.log_dict(values, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log exact validation metrics."""
        # Each device computed the same values, so there is nothing to reduce; the best checkpoint is chosen by them.
        values = self._measure("val")
        self.log("val/accuracy", values.pop("val/accuracy"), prog_bar=True, sync_dist=True)
        self.log_dict(values, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log exact test metrics."""
        self.log_dict(self._measure("test"), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a linear schedule over the run's optimizer steps.

        Returns:
            Lightning's optimizer and scheduler config.

        Raises:
            UsageError: If the run has no end.
        """
        assert self.model is not None, "configure_model has not run"
        total_steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(total_steps):
            raise UsageError(
                "`--trainer.max_epochs` is -1 without --trainer.max_steps, but the learning rate falls to 0 over the "
                "whole run, whose length must be known: give one of them."
            )
        optimizer, schedule = adamw_with_linear_decay(
            self.model,
            self.hparams["learning_rate"],
            self.hparams["weight_decay"],
            self.hparams["warmup_ratio"],
            int(total_steps),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint self-contained.

        Args:
            checkpoint: Lightning's mapping; gains ``encoder``, ``reports`` and ``yelp_lightning_version``.
        """
        assert self.model is not None, "configure_model has not run"
        assert self.tokenizer is not None
        checkpoint["encoder"] = pack_encoder(self.model.config, self.tokenizer)
        checkpoint["reports"] = self.reports
        checkpoint["yelp_lightning_version"] = __version__

    def _step(self, stage: str, batch: Batch) -> Tensor:
        logits = self(batch["input_ids"], batch["attention_mask"])
        loss = cross_entropy(logits, batch["labels"])
        self._stage_metrics(stage).update(loss.detach(), logits.detach(), batch["labels"])
        return loss

    def _stage_metrics(self, stage: str) -> StarMetrics:
        return {"train": self.train_metrics, "val": self.val_metrics, "test": self.test_metrics}[stage]

    def _measure(self, stage: str) -> dict[str, float]:
        values, matrix = self._stage_metrics(stage).compute()
        confusion = np.array(matrix)
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self.reports[stage] = {
            # json knows no nan: what is undefined is null there.
            **{name: value if math.isfinite(value) else None for name, value in named.items()},
            f"{stage}/n": int(confusion.sum()),
            f"{stage}/accuracy_interval": list(accuracy_interval(confusion)),
            **({f"{stage}/mae_interval": list(mae_interval(confusion))} if self.hparams["ordered"] else {}),
            f"{stage}/confusion_matrix": matrix,
        }
        return named
