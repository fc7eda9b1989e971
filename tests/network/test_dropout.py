"""The dropout of processors against torch's: rate, scale and gradient."""

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout
from transformers import AutoModel

from yelp_lightning.network.dropout import ByteDropout, byte_dropout, set_dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rate_and_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 400_003  # no multiple of 8
    found = byte_dropout(torch.ones(n, dtype=dtype), p, training=True).float()
    exact = round(256 * p) / 256
    # Five standard deviations of a binomial share.
    assert (found == 0).float().mean().item() == pytest.approx(exact, abs=5 * (p * (1 - p) / n) ** 0.5)
    kept = torch.tensor(1 / (1 - exact)).to(dtype).item()
    assert sorted(found.unique().tolist()) == [0.0, pytest.approx(kept, rel=1e-2)]


def test_places_are_independent() -> None:
    """Neighbours share a draw of 64 bits; that must not show."""
    torch.manual_seed(0)
    dropped = byte_dropout(torch.ones(80_000), 0.5, training=True).view(-1, 8) == 0
    together = torch.corrcoef(dropped.T.float()) - torch.eye(8)
    assert together.abs().max() < 5 / 10_000**0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_and_gradient_are_those_of_the_mask(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.randn(10, 100, dtype=dtype).T.requires_grad_()  # whose memory has another order
    found = byte_dropout(values, 0.25, training=True)
    found.sum().backward()
    kept = found != 0
    scale = torch.tensor(1 / 0.75, dtype=dtype)
    torch.testing.assert_close(values.grad, torch.where(kept, scale, 0))
    torch.testing.assert_close(found, torch.where(kept, values * scale, 0))


@pytest.mark.parametrize(("p", "training"), [(0.3, False), (0.0, True), (1.0, True), (0.001, True)])
def test_limits_are_torchs_own(p: float, training: bool) -> None:
    values = torch.randn(1000)
    torch.manual_seed(0)
    expected = dropout(values, p, training)
    torch.manual_seed(0)
    torch.testing.assert_close(byte_dropout(values, p, training), expected)


def test_the_same_seed_gives_the_same_mask() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(byte_dropout(torch.ones(100), 0.5, training=True))
    assert torch.equal(*found)


def test_every_dropout_of_a_network_is_replaced(tiny_bert) -> None:
    model = AutoModel.from_pretrained(tiny_bert)
    kept = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    set_dropout(model, None)
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert {type(layer) for layer in layers} == {ByteDropout}
    assert [layer.p for layer in layers] == kept != []
    model = AutoModel.from_pretrained(tiny_bert)
    set_dropout(model, 0.3)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.3}
