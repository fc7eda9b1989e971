"""Pooling: padding changes nothing, every weight learns, and public libraries load what is saved to the same logits."""

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from yelp_lightning.network.pooling import PooledClassifier, save_pooled
from yelp_lightning.pretrained import load_classifier

TEXTS = ["good food", "the service was terrible and slow , never again", "nice " * 60]
MAX_LENGTH = 32


@pytest.fixture
def model(tiny_bert: Path, request: pytest.FixtureRequest) -> PooledClassifier:
    torch.manual_seed(0)
    model = load_classifier(str(tiny_bert), 5, pooling=request.param)
    assert isinstance(model, PooledClassifier)
    if request.param == "attention":
        torch.nn.init.normal_(model.scorer.weight)  # as if it had been trained
    return model.eval()


both = pytest.mark.parametrize("model", ["mean", "attention"], indirect=True)


def encode(folder: Path, texts: list[str], width: int | None = None) -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if width else "longest"
    batch = tokenizer(texts, truncation=True, max_length=width or MAX_LENGTH, padding=padding, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@both
@torch.no_grad()
def test_padding_changes_no_logit(model: PooledClassifier, tiny_bert: Path) -> None:
    alone, padded = (model(**encode(tiny_bert, TEXTS[:1], width)).logits for width in (None, 32))
    torch.testing.assert_close(padded, alone, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("model", ["mean"], indirect=True)
def test_mean_is_that_of_the_real_tokens(model: PooledClassifier, tiny_bert: Path) -> None:
    batch = encode(tiny_bert, TEXTS)
    hidden = model.encoder(**batch).last_hidden_state
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        expected = model.classifier(hidden[row, :length].mean(0))
        torch.testing.assert_close(model(**batch).logits[row], expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_both_begin_as_the_mean(tiny_bert: Path, pooling: str) -> None:
    torch.manual_seed(0)
    model = load_classifier(str(tiny_bert), 5, pooling=pooling)
    torch.manual_seed(0)
    mean = load_classifier(str(tiny_bert), 5, pooling="mean")
    batch = encode(tiny_bert, TEXTS)
    torch.testing.assert_close(model(**batch).logits, mean(**batch).logits, atol=1e-6, rtol=0)


@both
def test_every_weight_gets_a_gradient(model: PooledClassifier, tiny_bert: Path) -> None:
    model(**encode(tiny_bert, TEXTS)).logits.logsumexp(-1).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("model", ["mean"], indirect=True)
def test_mean_loads_in_sentence_transformers(model: PooledClassifier, tiny_bert: Path, tmp_path: Path) -> None:
    save_pooled(model, AutoTokenizer.from_pretrained(tiny_bert), MAX_LENGTH, tmp_path)
    with torch.no_grad():
        expected = model(**encode(tiny_bert, TEXTS)).logits
    found = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert "SentenceTransformer(" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", ["attention"], indirect=True)
@torch.no_grad()
def test_attention_loads_in_torch_alone(model: PooledClassifier, tiny_bert: Path, tmp_path: Path) -> None:
    save_pooled(model, AutoTokenizer.from_pretrained(tiny_bert), MAX_LENGTH, tmp_path)
    program = torch.export.load(tmp_path / "model.pt2").module()
    for texts in (TEXTS, TEXTS[:1], TEXTS[2:], TEXTS * 5):  # other numbers of rows and tokens than at the export
        batch = encode(tmp_path, texts)
        expected = model(**batch).logits
        torch.testing.assert_close(program(batch["input_ids"], batch["attention_mask"]), expected, atol=1e-5, rtol=0)
