"""Layers of an encoder: frozen from below, drawn anew from above, numbered by their depth."""

from pathlib import Path

import pytest
import torch

from yelp_lightning.network.layers import depths, encoder_layers, freeze, reinitialize
from yelp_lightning.pretrained import Classifier, load_classifier


@pytest.fixture
def model(tiny_bert: Path) -> Classifier:
    return load_classifier(str(tiny_bert), 5)


def trained(model: Classifier) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("layers", "kept"), [(0, {"0", "1"}), (1, {"1"}), (2, set())])
def test_embeddings_and_the_lowest_layers_are_frozen(model: Classifier, layers: int, kept: set[str]) -> None:
    before = trained(model)
    freeze(model, layers)
    expected = {
        name
        for name in before
        if not name.startswith("bert.embeddings")
        and (not name.startswith("bert.encoder.layer") or name.split(".")[3] in kept)
    }
    assert trained(model) == expected
    assert {"classifier.weight", "bert.pooler.dense.weight"} <= expected


def test_only_the_highest_layers_are_drawn_anew(model: Classifier, tiny_bert: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(1)
    reinitialize(model, 1)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[3] for name in changed} == {"1"}
    layer = encoder_layers(model)[1]
    weights = layer.intermediate.dense.weight
    assert weights.std().item() == pytest.approx(model.config.initializer_range, rel=0.1)
    assert weights.mean().item() == pytest.approx(0, abs=0.005)
    assert not layer.intermediate.dense.bias.any()
    assert bool((layer.output.LayerNorm.weight == 1).all())


def test_depth_counts_from_the_head(model: Classifier) -> None:
    found = depths(model)
    names = {name: found.get(id(parameter)) for name, parameter in model.named_parameters()}
    assert names["bert.encoder.layer.1.output.dense.weight"] == 0
    assert names["bert.encoder.layer.0.output.dense.weight"] == 1
    assert names["bert.embeddings.word_embeddings.weight"] == 2
    assert names["classifier.weight"] is names["bert.pooler.dense.weight"] is None
