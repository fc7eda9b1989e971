"""Truncation: head and tail as transformers cuts them, head and tail together as Sun et al. do."""

from pathlib import Path
from typing import Any

import pytest
from conftest import review
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from yelp_lightning.data.truncation import Encoder, Truncation

TEXTS = ["good food", "bad", "bad " * 100, "the soup [SEP] was [PAD] cold [PAD]", "café 🍕\n日本", "", " "]


@pytest.fixture
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.mark.parametrize("side", ["head", "tail"])
@pytest.mark.parametrize("max_length", [3, 10, 64])
def test_head_and_tail_are_those_of_transformers(
    tokenizer: PreTrainedTokenizerBase, side: Truncation, max_length: int
) -> None:
    text = " ".join(str(review(number)["text"]) for number in range(20))
    (found,), (full,) = Encoder(tokenizer, max_length, side)([text])
    tokenizer.truncation_side = {"head": "right", "tail": "left"}[side]
    assert found == tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    assert full == len(tokenizer(text)["input_ids"]) > max_length


def test_head_tail_is_that_of_sun_et_al(tokenizer: PreTrainedTokenizerBase) -> None:
    text = " ".join(str(review(number)["text"]) for number in range(200))
    whole = tokenizer(text)["input_ids"]
    content = whole[1:-1]
    (found,), _ = Encoder(tokenizer, 512, "head_tail")([text])
    assert found == [whole[0], *content[:128], *content[-382:], whole[-1]]
    # A text that fits is left as it is.
    (found,), _ = Encoder(tokenizer, len(whole), "head_tail")([text])
    assert found == whole


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
@pytest.mark.parametrize("max_length", range(3, 12))
def test_length_is_kept_to(tokenizer: PreTrainedTokenizerBase, truncation: Truncation, max_length: int) -> None:
    encoder = Encoder(tokenizer, max_length, truncation)
    found, full = encoder(["a " * number for number in range(1, 20)])
    assert [len(tokens) for tokens in found] == [min(number + 2, max_length) for number in range(1, 20)]
    assert full == [number + 2 for number in range(1, 20)]


def test_tokenizer_without_rust(tokenizer: PreTrainedTokenizerBase) -> None:
    class Slow:
        """What is left of a tokenizer that has no fast form: to be called."""

        def __call__(self, *args: object, **options: object) -> object:
            return tokenizer(*args, **options)

    slow: Any = Slow()
    for truncation in ("head", "tail", "head_tail"):
        assert Encoder(slow, 12, truncation)(TEXTS) == Encoder(tokenizer, 12, truncation)(TEXTS)
