"""The dropout of processors against torch's: rate, scale, gradient, and attention by it."""

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout, scaled_dot_product_attention
from transformers import AutoModel

from yelp_lightning.network.dropout import ATTENTION, ByteDropout, attention, byte_dropout, set_dropout


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


def test_gradient_is_that_of_the_mask() -> None:
    torch.manual_seed(0)
    values = torch.randn(1000, requires_grad=True)
    found = byte_dropout(values, 0.25, training=True)
    found.sum().backward()
    torch.testing.assert_close(values.grad, torch.where(found == 0, 0.0, 1 / 0.75))


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


@pytest.mark.parametrize("masked", [True, False])
def test_attention_equals_torchs_where_nothing_is_dropped(masked: bool) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 4) for _ in range(3))
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    mask[1, :, :, 4:] = False
    given = mask if masked else None
    expected = scaled_dot_product_attention(query, key, value, given).transpose(1, 2)
    module = nn.Module()
    module.is_causal = False  # as in every encoder
    torch.testing.assert_close(attention(module, query, key, value, given)[0], expected)
    # A rate that rounds to no level drops hardly anything: the products are the same.
    torch.manual_seed(1)
    found = attention(module, query, key, value, given, dropout=1e-9)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_attention_drops_in_training_alone(tiny_bert) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_pretrained(tiny_bert, attn_implementation=ATTENTION)
    plain = AutoModel.from_pretrained(tiny_bert)
    batch = {"input_ids": torch.randint(5, 99, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.int64)}
    batch["attention_mask"][1, 5:] = 0
    torch.testing.assert_close(model(**batch).last_hidden_state, plain(**batch).last_hidden_state)
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    for layer in model.encoder.layer:
        layer.attention.self.dropout.p = 0.5  # in attention alone
    first, second = (model(**batch).last_hidden_state for _ in range(2))
    assert not torch.allclose(first, second)
