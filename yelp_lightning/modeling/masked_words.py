"""Masked words: an encoder goes on learning the language of reviews, without their stars."""

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric, SumMetric
from transformers import DataCollatorForLanguageModeling
from typing_extensions import override

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.errors import UsageError
from yelp_lightning.modeling.assembly import prepare
from yelp_lightning.modeling.finetuned import FineTuned
from yelp_lightning.modeling.intervals import share_interval
from yelp_lightning.modeling.optim import Schedule
from yelp_lightning.pretrained import load_masked_words, unpack_masked_words
from yelp_lightning.ranges import ClosedUnitInterval, NonNegativeFloat, PositiveFloat

Batch = dict[str, Tensor]
# Validation masks the same words each time, so that epochs and runs compare.
VALIDATION_SEED = 0


class MaskedWords(FineTuned):
    """A pretrained encoder with its masked-language head, trained to guess words that are hidden from it.

    The model folder that a run leaves is an encoder for ``model.pretrained``. Letters: ``B`` rows of a batch, ``T``
    tokens of its longest row, ``M`` masked tokens in a batch, ``V`` words of the vocabulary.

    Args:
        pretrained: As for the classifier.
        mask_ratio: Share of the words that are hidden: of ten, eight become ``[MASK]``, one another word, one stays.
        dropout: As for the classifier.
        learning_rate: As for the classifier.
        weight_decay: As for the classifier.
        warmup_ratio: As for the classifier.
        schedule: As for the classifier.
        attn_implementation: As for the classifier.
        gradient_checkpointing: As for the classifier.
        compile: As for the classifier.

    Source:
        Devlin et al. 2019, section 3.1; Sun et al. 2019, section 5.4 (within-task further pretraining).
    """

    def __init__(
        self,
        pretrained: str = "embedded",
        mask_ratio: ClosedUnitInterval = 0.15,
        dropout: ClosedUnitInterval | None = None,
        learning_rate: PositiveFloat = 5e-5,
        weight_decay: NonNegativeFloat = 0.01,
        warmup_ratio: ClosedUnitInterval = 0.1,
        schedule: Schedule = "linear",
        attn_implementation: str = "auto",
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(pretrained)
        self.save_hyperparameters()
        self.loss, self.accuracy, self.words = MeanMetric(), MeanMetric(), SumMetric()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Make one of those options that it shares with the classifier.

        Args:
            options: The options ``model.*``.

        Returns:
            The module.
        """
        return cls(**{name: options[name] for name in inspect.signature(cls).parameters if name in options})

    @override
    def _assemble(self, source: str) -> Any:
        if source.endswith(".ckpt"):
            model = unpack_masked_words(read_checkpoint(Path(source)))
        else:
            model = load_masked_words(source)
        if masked_word_head(model) is None:
            raise UsageError(
                f"`model.pretrained` is {self.hparams['pretrained']!r}, a {type(model).__name__}, whose head for "
                "masked words is not known here (BERT's and RoBERTa's are): give another encoder."
            )
        prepare(model, {**self.hparams, "frozen_layers": None})
        return model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Guess the words at some places.

        Args:
            input_ids: ``(B, T)`` int64.
            attention_mask: ``(B, T)`` int64, 1 at real tokens.
            wanted: ``(B, T)`` bool, true at M places.

        Returns:
            Logits ``(M, V)`` float32.
        """
        hidden = self.model.base_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[wanted]
        # The head has the size of the vocabulary: at every token, it would cost as much as the encoder.
        logits: Tensor = masked_word_head(self.model)(hidden)
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of one training batch.

        Args:
            batch: ``input_ids (B, T)``, ``attention_mask (B, T)``, ``weight ()``.
            batch_idx: Number of the batch in the epoch.

        Returns:
            ``loss ()``, mean cross-entropy of the masked words, nats, times the batch's weight. And ``accuracy ()``,
            the share that was guessed right, for the progress bar.
        """
        logits, words = self._guess(batch, None)
        loss = cross_entropy(logits, words)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["input_ids"]))
        return {"loss": loss * batch["weight"], "accuracy": (logits.argmax(-1) == words).float().mean()}

    def on_validation_epoch_start(self) -> None:
        """Mask as in every other validation."""
        self._generator = torch.Generator().manual_seed(VALIDATION_SEED + self.global_rank)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a validation batch to the metrics.

        Args:
            batch: As in ``training_step``.
            batch_idx: Number of the batch.
        """
        logits, words = self._guess(batch, self._generator)
        self.loss.update(cross_entropy(logits, words, reduction="none"))
        self.accuracy.update((logits.argmax(-1) == words).float())
        self.words.update(len(words))

    def on_validation_epoch_end(self) -> None:
        """Log ``val/loss`` (nats per masked word), ``val/perplexity`` and ``val/accuracy`` (share guessed right)."""
        loss, accuracy, words = self.loss.compute(), self.accuracy.compute(), int(self.words.compute())
        values = {"val/loss": float(loss), "val/perplexity": math.exp(loss), "val/accuracy": float(accuracy)}
        right = round(float(accuracy) * words)
        self.reports["val"] = {**values, "val/n": words, "val/accuracy_interval": list(share_interval(right, words))}
        for metric in (self.loss, self.accuracy, self.words):
            metric.reset()
        self.log("val/accuracy", values.pop("val/accuracy"), prog_bar=True, sync_dist=True)
        self.log_dict(values, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint self-contained.

        Args:
            checkpoint: Lightning's mapping.
        """
        super().on_save_checkpoint(checkpoint)
        checkpoint["encoder"]["task"] = "masked_words"

    def _guess(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Logits ``(M, V)`` at the masked places, and the words ``(M,)`` that stood there."""
        assert self.tokenizer is not None
        # Masks are drawn on the CPU, so that any device has the same.
        input_ids = batch["input_ids"].cpu()
        collator = DataCollatorForLanguageModeling(self.tokenizer, mlm_probability=self.hparams["mask_ratio"])
        collator.generator = generator
        special = torch.isin(input_ids, torch.tensor(self.tokenizer.all_special_ids))
        masked, words = collator.torch_mask_tokens(input_ids.clone(), special)
        wanted = words >= 0  # elsewhere it is -100
        if not wanted.any():
            # Few short reviews: one word must be hidden for there to be a loss.
            place = tuple((~special).nonzero()[0]) if not special.all() else (0, 0)
            words[place], wanted[place] = input_ids[place], True
            masked[place] = self.tokenizer.mask_token_id
        logits = self(masked.to(self.device), batch["attention_mask"], wanted.to(self.device))
        return logits, words[wanted].to(self.device)


def masked_word_head(model: Any) -> Any:
    """The head of a masked-language model: hidden states ``(M, D)`` to logits ``(M, V)``.

    Args:
        model: A transformers model for masked words.

    Returns:
        BERT's ``cls``, or ``lm_head`` of RoBERTa and those after it; None where the architecture has neither.
    """
    return getattr(model, "cls", None) or getattr(model, "lm_head", None)
