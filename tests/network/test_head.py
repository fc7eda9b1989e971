"""The head: the layer that the logits come from is found in every architecture, and takes a temperature."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from yelp_lightning.errors import UsageError
from yelp_lightning.network.head import divide_logits, output_layer

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}


@pytest.mark.parametrize("num_labels", [3, 16])  # 16: as wide as every other layer
@pytest.mark.parametrize("kind", [BertConfig, DistilBertConfig, ElectraConfig, RobertaConfig])
def test_logits_are_divided_in_every_architecture(kind: type[PreTrainedConfig], num_labels: int) -> None:
    small = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16} if kind is DistilBertConfig else SMALL
    config = AutoConfig.for_model(kind.model_type, **{**small, "vocab_size": 50, "num_labels": num_labels})
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.randint(5, 50, (2, 7))
    with torch.inference_mode():
        before = model(input_ids=ids).logits
    divide_logits(model, 2.5)
    with torch.inference_mode():
        torch.testing.assert_close(model(input_ids=ids).logits, before / 2.5)


def test_a_model_without_such_a_layer_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    model.config = BertConfig(num_labels=5)
    with pytest.raises(UsageError, match="no linear layer"):
        output_layer(model)
