"""The last layer for the first token alone: the same logits and gradients as by all tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    CamembertConfig,
    CamembertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.network.attention import ATTENTION
from yelp_lightning.network.first_token import reads_first_token, skip_other_tokens
from yelp_lightning.network.layers import encoder_layers

SIZES: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "num_labels": 5, "pad_token_id": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [
        (BertForSequenceClassification, BertConfig),
        (RobertaForSequenceClassification, RobertaConfig),
        (XLMRobertaForSequenceClassification, XLMRobertaConfig),
        (CamembertForSequenceClassification, CamembertConfig),
        (ElectraForSequenceClassification, ElectraConfig),
    ],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_logits_and_gradients_are_the_same(model_class: Any, config_class: Any, checkpointing: bool) -> None:
    torch.manual_seed(0)
    model = model_class(config_class(**SIZES)).double().eval()
    model.set_attn_implementation(ATTENTION)
    batch = {"input_ids": torch.randint(5, 99, (3, 9)), "attention_mask": torch.ones(3, 9, dtype=torch.int64)}
    batch["attention_mask"][1, 5:] = 0
    if checkpointing:
        model.train()
        for layer in model.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        model.base_model.activation_checkpointing_enable({"use_reentrant": False})
    found = []
    for skips in (False, True):
        if skips:
            assert reads_first_token(model)
            skip_other_tokens(model)
        logits = model(**batch).logits
        model.zero_grad()
        logits.sin().sum().backward()
        found.append([logits, *(one.grad for one in model.parameters() if one.grad is not None)])
    for whole, first in zip(*found, strict=True):
        torch.testing.assert_close(first, whole)
    assert model.base_model(**batch).last_hidden_state.shape == (3, 1, 32)
    with torch.no_grad():  # torch's own attention
        torch.testing.assert_close(model(**batch).logits, found[0][0])


def test_others_are_left_whole() -> None:
    distilled = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=9, dim=8, n_heads=2, hidden_dim=8))
    assert not reads_first_token(distilled)
    assert not reads_first_token(BertModel(BertConfig(**SIZES)))
    decoder = BertForSequenceClassification(BertConfig(**SIZES, is_decoder=True))
    assert not reads_first_token(decoder)


@pytest.mark.parametrize(("pooling", "attn_implementation", "skips"), [
    ("cls", "auto", True), ("cls", "eager", False), ("mean", "auto", False),
])  # fmt: skip
def test_when_it_is_done(tiny_bert: Path, pooling: Any, attn_implementation: str, skips: bool) -> None:
    module = StarClassifier(str(tiny_bert), pooling=pooling, attn_implementation=attn_implementation)
    module.configure_model()
    assert ("forward" in vars(encoder_layers(module.model)[-1])) == skips
    ids = torch.randint(5, 99, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    module.eval()
    if pooling == "cls":
        plain = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=5).eval()
        plain.load_state_dict(module.model.state_dict())
        torch.testing.assert_close(module(ids, mask), plain(input_ids=ids, attention_mask=mask).logits)
