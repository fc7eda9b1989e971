"""Pooling: one vector of a review from the vectors of its tokens, and the head on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Pooling = Literal["cls", "mean", "attention"]
# Initial standard deviation of a head's weights; Devlin et al. 2019, the released code.
HEAD_STD = 0.02
# B rows, T tokens, D hidden, C classes


class PooledClassifier(nn.Module):
    """An encoder whose token vectors are averaged, and a linear head on the average.

    Args:
        encoder: A bare encoder: ``input_ids (B, T)``, ``attention_mask (B, T)`` to ``last_hidden_state (B, T, D)``.
        pooling: ``mean``: every real token counts alike; ``attention``: by a learned weight (Yang et al. 2016, without
            their hidden layer).

    The encoder's config says how many classes there are, and its ``classifier_dropout`` or ``hidden_dropout_prob`` the
    dropout before the head.
    """

    base_model_prefix = "encoder"

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        config = encoder.config
        self.dropout = nn.Dropout(head_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        nn.init.normal_(self.classifier.weight, std=HEAD_STD)
        nn.init.zeros_(self.classifier.bias)
        if pooling == "attention":
            # Zero: at the start it is the mean.
            self.scorer = nn.Linear(config.hidden_size, 1, bias=False)
            nn.init.zeros_(self.scorer.weight)

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's config, with ``id2label``."""
        return self.encoder.config

    @property
    def base_model(self) -> PreTrainedModel:
        """The encoder, by the name that transformers' models have for it."""
        return self.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """Score each class.

        Args:
            input_ids: ``(B, T)`` int64.
            attention_mask: ``(B, T)`` int64, 1 at real tokens.

        Returns:
            ``logits (B, C)``; padding never changes them.
        """
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, T, D)
        # Summed in float32: hundreds of tokens in half precision lose digits.
        real = attention_mask.unsqueeze(-1).float()  # (B, T, 1)
        if self.pooling == "attention":
            scores = self.scorer(hidden).float().masked_fill(real == 0, -torch.inf)
            weights = scores.softmax(1)
        else:
            weights = real / real.sum(1, keepdim=True)
        pooled = (weights * hidden).sum(1)  # (B, D)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))


def head_dropout(config: PretrainedConfig) -> float:
    """Dropout before a head, as the encoder's config has it.

    Args:
        config: Of a BERT-like encoder.

    Returns:
        The probability.
    """
    own = getattr(config, "classifier_dropout", None)
    return float(getattr(config, "hidden_dropout_prob", 0.1) if own is None else own)


def save_pooled(model: PooledClassifier, tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path) -> None:
    """Write a model with pooling as a folder that a public library loads with the same logits.

    Mean pooling is a sentence-transformers folder of Transformer, Pooling and Dense, whose ``encode`` gives the logits.
    No library has a class for attention pooling: it becomes a program of ``torch.export``.

    Args:
        model: The tuned model, in evaluation mode.
        tokenizer: Its tokenizer.
        max_length: Tokens of the longest review.
        folder: An existing folder.
    """
    tokenizer.save_pretrained(folder)
    saving: dict[str, Callable[[PooledClassifier, int, Path], str]] = {"mean": _save_mean, "attention": _save_attention}
    how = saving[model.pooling](model, max_length, folder)
    (folder / "README.md").write_text(
        f"The stars of reviews, {model.pooling} pooling over {model.config.model_type}, class names in `config.json` "
        f"(`id2label`).\n\n```python\n{how}```\n",
        encoding="utf-8",
    )


def _save_mean(model: PooledClassifier, max_length: int, folder: Path) -> str:
    from safetensors.torch import save_file

    model.encoder.save_pretrained(folder)
    width, classes = model.config.hidden_size, model.config.num_labels
    for name in ("1_Pooling", "2_Dense"):
        (folder / name).mkdir()
    files = {
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")])
        ],
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {
            "in_features": width, "out_features": classes, "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    head = {f"linear.{name}": tensor.contiguous() for name, tensor in model.classifier.state_dict().items()}
    save_file(head, folder / "2_Dense" / "model.safetensors")
    return (
        "from sentence_transformers import SentenceTransformer\n"
        'logits = SentenceTransformer("model").encode(["Lovely staff, but the soup came cold."])\n'
        "print(logits.argmax(-1))\n"
    )


def _save_attention(model: PooledClassifier, max_length: int, folder: Path) -> str:
    model.config.save_pretrained(folder)
    # torch.export takes a size of 1 or of the example's own kind for a constant: hence two rows and a declared range.
    # Without a zero in the mask, transformers would leave the mask out of the program.
    input_ids, attention_mask = torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)
    attention_mask[1, 4:] = 0
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=max_length)
    shapes = {name: {0: batch, 1: tokens} for name in ("input_ids", "attention_mask")}
    program = torch.export.export(_Logits(model), (input_ids, attention_mask), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    return (
        "import torch, transformers\n"
        'tokenizer = transformers.AutoTokenizer.from_pretrained("model")\n'
        'batch = tokenizer(["Lovely staff, but the soup came cold."], truncation=True, '
        f'max_length={max_length}, return_tensors="pt")\n'
        'print(torch.export.load("model/model.pt2").module()(batch["input_ids"], batch["attention_mask"]).argmax(-1))\n'
    )


class _Logits(nn.Module):
    def __init__(self, model: PooledClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids, attention_mask).logits
        return logits
