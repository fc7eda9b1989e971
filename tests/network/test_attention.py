"""Attention for processors against torch's own: values, gradients, masks, dropout, and when it is used."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModel

from yelp_lightning.network import attention as module
from yelp_lightning.network.attention import ATTENTION, ReviewAttention, attention
from yelp_lightning.network.dropout import LEVELS


def heads(rows: int = 5, queries: int = 7, tokens: int = 7, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values of 3 heads, 4 wide, laid out as a layer has them."""
    torch.manual_seed(0)
    sizes = (queries, tokens, tokens)
    return [torch.randn(rows, size, 3, 4, dtype=dtype).transpose(1, 2).requires_grad_() for size in sizes]


def padding(lengths: list[int], queries: int, tokens: int) -> Tensor:
    real = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    return real[:, None, None].expand(-1, 1, queries, tokens)


def layer() -> nn.Module:
    found = nn.Module()
    found.is_causal = False  # as in every encoder
    return found


@pytest.mark.parametrize("queries", [7, 1])
@pytest.mark.parametrize("scores", [1, 3 * 7 * 7 * 2, 10_000])  # one review at a time, two, all
@pytest.mark.parametrize("multiple", [1, 2, 32])
@pytest.mark.parametrize("lengths", [None, [7, 7, 4, 2, 1], [2, 7, 7, 1, 7]])
def test_values_and_gradients_are_torchs(
    queries: int, scores: int, multiple: int, lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHED_SCORES", scores)
    monkeypatch.setattr(module, "WIDTH_MULTIPLE", multiple)
    given = heads(queries=queries)
    mask = None if lengths is None else padding(lengths, queries, 7)
    expected = scaled_dot_product_attention(*given, mask).transpose(1, 2)
    with patch.object(module, "sdpa_attention_forward", side_effect=AssertionError("torch's own was used")):
        found, _ = attention(layer(), *given, mask)
    # What stands at padding is nobody's, but it is a number.
    assert found.isfinite().all()
    real = torch.ones(5, queries, dtype=torch.bool) if lengths is None or queries == 1 else mask[:, 0, 0]
    torch.testing.assert_close(found[real], expected[real])
    weights = torch.randn(found.shape) * real[..., None, None]
    one, other = (torch.autograd.grad((output * weights).sum(), given) for output in (found, expected))
    for mine, torchs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, torchs)


def test_gradients_by_finite_differences() -> None:
    given = heads(rows=2, queries=3, tokens=3, dtype=torch.float64)
    real = padding([3, 2], 3, 3)[:, 0, 0, :, None, None]

    def output(*each: Tensor) -> Tensor:
        return ReviewAttention.apply(*each, [3, 2], 0.5, 0.0).transpose(1, 2) * real

    assert torch.autograd.gradcheck(output, given)


def test_gradients_with_dropout_are_those_of_the_mask_that_was_drawn() -> None:
    """The same by torch's autograd, with the same bytes."""
    p, lengths = 0.25, [7, 7, 4, 2, 1]
    given = heads()
    torch.manual_seed(3)
    found, _ = attention(layer(), *given, padding(lengths, 7, 7), dropout=p)
    torch.manual_seed(3)
    kept = module.draw_kept((5 * 3, 7, 7), p).unflatten(0, (5, 3)) < 0
    query, key, value = given
    weights = (query @ key.transpose(2, 3) / 2).masked_fill(~padding(lengths, 7, 7), -torch.inf).softmax(-1)
    scale = LEVELS / (LEVELS - round(p * LEVELS))
    expected = ((weights * kept * scale) @ value).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape)
    one, other = (torch.autograd.grad((output * weights).sum(), given) for output in (found, expected))
    for mine, torchs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, torchs)


@pytest.mark.parametrize(
    "kind", ["causal", "none of padding", "padding before", "nothing but padding", "layer is causal", "fewer keys"]
)
def test_other_masks_are_left_to_torch(kind: str) -> None:
    query, key, value = heads()
    mask: Tensor | None = torch.ones(5, 1, 7, 7, dtype=torch.bool)
    where = layer()
    if kind == "causal":
        mask = mask.tril()
    elif kind == "none of padding":
        mask[..., 2] = False
    elif kind == "nothing but padding":
        mask[1] = False
    elif kind == "padding before":
        mask = padding([5] * 5, 7, 7).flip(-1)
    elif kind == "fewer keys":
        key, value = key[:, :1], value[:, :1]
        where.num_key_value_groups = 3
    else:
        where.is_causal, mask = True, None
    with patch.object(ReviewAttention, "apply", side_effect=AssertionError("ours was used")):
        found, _ = attention(where, query, key, value, mask)
    own = (one.expand(-1, 3, -1, -1) for one in (key, value))
    expected = scaled_dot_product_attention(query, *own, mask, is_causal=kind == "layer is causal").transpose(1, 2)
    torch.testing.assert_close(found, expected)


def test_float32_without_gradients_is_torchs_own() -> None:
    """So that other libraries get the same digits."""
    given = heads()
    with torch.no_grad():
        found, _ = attention(layer(), *given, None)
        assert torch.equal(found, scaled_dot_product_attention(*given).transpose(1, 2))


def test_a_model_with_it_is_the_plain_one(tiny_bert: Path) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_pretrained(tiny_bert, attn_implementation=ATTENTION)
    plain = AutoModel.from_pretrained(tiny_bert)
    batch = {"input_ids": torch.randint(5, 99, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.int64)}
    batch["attention_mask"][1, 5:] = 0
    with patch.object(ReviewAttention, "apply", wraps=ReviewAttention.apply) as used:
        found = model(**batch).last_hidden_state
    assert used.call_count == model.config.num_hidden_layers
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], plain(**batch).last_hidden_state[real])


def test_it_drops_in_training_alone(tiny_bert: Path) -> None:
    model = AutoModel.from_pretrained(tiny_bert, attn_implementation=ATTENTION)
    batch = {"input_ids": torch.randint(5, 99, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.int64)}
    assert torch.equal(*(model(**batch).last_hidden_state for _ in range(2)))
    model.train()
    for each in model.modules():
        if isinstance(each, nn.Dropout):
            each.p = 0.0
    for each in model.encoder.layer:
        each.attention.self.dropout.p = 0.5  # in attention alone
    first, second = (model(**batch).last_hidden_state for _ in range(2))
    assert not torch.allclose(first, second)
