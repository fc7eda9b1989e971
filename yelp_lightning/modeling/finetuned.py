"""Fine-tuned: what every task shares, from a pretrained encoder over its optimizer to a self-contained checkpoint."""

import math
from abc import abstractmethod
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from yelp_lightning import __version__
from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.errors import UsageError
from yelp_lightning.modeling.optim import OptimizerOptions, adamw
from yelp_lightning.modeling.shards import share_out
from yelp_lightning.pretrained import encoder_config, load_tokenizer, pack_encoder


class FineTuned(LightningModule):
    """A network that is made of a pretrained encoder when the devices are known, and trained by AdamW.

    Subclasses save their hyperparameters, among them those of ``OptimizerOptions``, and say in ``_assemble`` what the
    network is.

    Args:
        pretrained: Where the encoder comes from.
    """

    def __init__(self, pretrained: str) -> None:
        super().__init__()
        self.source = pretrained
        self.model: Any = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        # Of the running epoch; a task without any keeps this.
        self.train_metrics: nn.Module = nn.ModuleList()
        self.parameter_counts = {"all": 0, "trained": 0}
        """Of the whole network, on however many devices its parts are; known once the network is made."""
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
        model.restore(str(checkpoint_path))
        model.configure_model()
        return model.to(map_location or "cpu")

    def restore(self, ckpt_path: str) -> None:
        """Build the model from a checkpoint alone: the pretrained folder and the network are not asked.

        Args:
            ckpt_path: A ``.ckpt`` file that ``fit`` wrote.
        """
        self.source = ckpt_path

    def check(self) -> None:
        """Check the options before anything is loaded.

        Raises:
            UsageError: If there is no encoder, or an option does not fit it.
        """
        encoder_config(self.source)

    def configure_model(self) -> None:
        """Load encoder and tokenizer; Lightning calls it once the devices are known."""
        if self.model is None:
            self.model, self.tokenizer = self._assemble(self.source), load_tokenizer(self.source)
            # Now: where a strategy has shared parameters out, a device could count its own parts alone. ZeRO-3 does so
            # while the network is made, and tells the size.
            for parameter in self.model.parameters():
                size = getattr(parameter, "ds_numel", parameter.numel())
                self.parameter_counts["all"] += size
                self.parameter_counts["trained"] += size * parameter.requires_grad
            if self.device_mesh is not None:  # only a strategy that shares models out has one
                share_out(self.model, self.device_mesh["data_parallel"])
            # The encoder's buffers are constants (position ids). Told so, DDP does not broadcast them before every
            # forward.
            self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]

    @abstractmethod
    def _assemble(self, source: str) -> Any:
        """The network in training mode, from a pretrained encoder or from a checkpoint."""

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a schedule over the run's optimizer steps.

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
        names = (field.name for field in fields(OptimizerOptions) if field.name in self.hparams)
        options = OptimizerOptions(
            **{name: self.hparams[name] for name in names},
            # A fused step undoes the loss scaling of float16 by itself, before gradients could be clipped.
            fused=self.trainer.precision != "16-mixed",
        )
        optimizer, schedule = adamw(self.model, options, int(total_steps))
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
