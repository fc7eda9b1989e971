"""LoRA by peft: few weights are trained, nothing changes at the start, and merging changes no logit."""

from pathlib import Path

import pytest
import torch

from yelp_lightning.network.lora import LoraOptions, add_lora, fingerprint, merge_lora, plain
from yelp_lightning.pretrained import Classifier, load_classifier

OPTIONS = {"r": 4, "alpha": 8.0, "dropout": 0.0, "target": "attention"}


def logits(model: Classifier) -> torch.Tensor:
    batch = {"input_ids": torch.arange(5, 35).view(3, 10), "attention_mask": torch.ones(3, 10, dtype=torch.int64)}
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(("target", "matrices"), [("attention", 2), ("all", 6)])
def test_adapters_and_head_are_trained(tiny_bert: Path, pooling: str, target: str, matrices: int) -> None:
    model = load_classifier(str(tiny_bert), 5, pooling=pooling)
    before = logits(model)
    add_lora(model, {**OPTIONS, "target": target})
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    adapters = {name for name in trained if "lora_" in name}
    assert len(adapters) == 2 * matrices * 2  # A and B of each matrix of two layers
    head = {"classifier.weight", "classifier.bias"}
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} if pooling == "cls" else set()
    assert trained - adapters == head | pooler
    torch.testing.assert_close(logits(model), before)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("target", ["attention", "all"])
def test_merging_changes_no_logit_and_leaves_the_plain_network(tiny_bert: Path, pooling: str, target: str) -> None:
    model = load_classifier(str(tiny_bert), 5, pooling=pooling)
    names = list(model.state_dict())
    start = logits(model)
    add_lora(model, {**OPTIONS, "target": target})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    before = logits(model)
    assert not torch.allclose(before, start)
    merge_lora(model)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)


def test_fingerprint_is_of_the_encoder_alone(tiny_bert: Path) -> None:
    # The head is fresh in each, and so is the pooler of an encoder without one.
    first, second = (load_classifier(str(tiny_bert), 5) for _ in range(2))
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    assert fingerprint(first) == fingerprint(second) == fingerprint(load_classifier(str(tiny_bert), 3, pooling="mean"))
    with torch.no_grad():
        second.base_model.embeddings.word_embeddings.weight[7, 7] += 1
    assert fingerprint(first) != fingerprint(second)


def test_options_become_plain_numbers_and_words() -> None:
    assert plain(None) is None
    assert plain(LoraOptions(4, 8.0)) == plain(OPTIONS) == OPTIONS
