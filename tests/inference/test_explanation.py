"""Explanation: exact where the model is linear, complete on every architecture, on the review's own characters."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer, SentencePieceUnigramTokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from yelp_lightning.data.truncation import Encoder, Truncation
from yelp_lightning.errors import UsageError
from yelp_lightning.inference import explanation as module
from yelp_lightning.inference.explanation import Explanation, explain
from yelp_lightning.network.lora import add_lora, merge_lora
from yelp_lightning.network.pooling import PooledClassifier
from yelp_lightning.pretrained import Classifier, load_classifier

TEXT = "The pizza was amazing, but the waiter's jokes were overpriced and stale."


@pytest.fixture
def encoder(tiny_bert: Path) -> Encoder:
    return Encoder(transformers.AutoTokenizer.from_pretrained(tiny_bert), 64, "head")


@pytest.fixture
def bert(tiny_bert: Path) -> Classifier:
    return sharpened(load_classifier(str(tiny_bert), 5))


def sharpened(model: Classifier) -> Classifier:
    """Fresh weights hardly tell words apart: larger ones bend the way from baseline to review."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                scale = 1.0 if "embeddings" in name else 1.5 * weight.shape[1] ** -0.5
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return model.eval()


def marked(found: Explanation) -> list[str]:
    return [found.text[word.start : word.end] for word in found.words]


# --- the numbers


class Bag(nn.Module):
    """An encoder that does nothing but look words up."""

    def __init__(self, config: transformers.BertConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.words(input_ids))


def test_parts_of_a_linear_model_are_exact(encoder: Encoder) -> None:
    tokenizer = encoder.tokenizer
    torch.manual_seed(0)
    bag = Bag(transformers.BertConfig(vocab_size=len(tokenizer), hidden_size=8, num_labels=3))
    model = PooledClassifier(bag, "mean").eval()
    found = explain(model, encoder, TEXT)
    # logit = weight . mean of the token vectors + bias: a token's part is weight . (its vector - that of [MASK]) / T.
    ids = tokenizer(TEXT)["input_ids"]
    label = found.names.index(found.label)
    table, head = bag.words.weight.detach(), model.classifier.weight.detach()
    by_id = (table - table[tokenizer.mask_token_id]) @ head[label] / len(ids)
    assert len(found.words) > 10
    for word, text in zip(found.words, marked(found), strict=True):
        pieces = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert word.part == pytest.approx(float(by_id[pieces].sum()), abs=1e-5), text
    assert found.steps == module.FIRST_STEPS
    assert found.error < 1e-5


def test_parts_equal_a_plain_integral(bert: Classifier, encoder: Encoder) -> None:
    found = explain(bert, encoder, TEXT)
    tokenizer = encoder.tokenizer
    ids = torch.tensor(tokenizer(TEXT)["input_ids"])
    without = ids.clone()
    without[1:-1] = tokenizer.mask_token_id
    table = bert.base_model.get_input_embeddings().weight.detach()
    start, way = table[without], table[ids] - table[without]  # (T, D)
    steps = 1000
    shares = ((torch.arange(steps) + 0.5) / steps)[:, None, None]  # the middle of each step
    points = (start + shares * way).requires_grad_()
    label = found.names.index(found.label)
    (slopes,) = torch.autograd.grad(bert(inputs_embeds=points).logits[:, label].sum(), points)
    tokens = (slopes.mean(0) * way).sum(-1)
    expected = [0.0] * len(found.words)
    for token, word in enumerate(tokenizer(TEXT).word_ids()):
        if word is None:
            assert tokens[token] == 0  # [CLS] and [SEP] are the same at both ends
        else:
            expected[word] += float(tokens[token])
    assert [word.part for word in found.words] == pytest.approx(expected, abs=0.02 * abs(found.difference))


@pytest.mark.parametrize("kind", ["cls", "mean", "attention", "lora", "distilbert", "roberta", "electra", "modernbert"])
def test_parts_add_up_to_the_difference(tiny_bert: Path, encoder: Encoder, kind: str) -> None:
    found = explain(sharpened(make_model(tiny_bert, encoder, kind)), encoder, TEXT)
    assert found.is_exact
    assert sum(word.part for word in found.words) == pytest.approx(found.difference, rel=0.01, abs=0.001)
    assert abs(found.difference) > 0.1
    assert max(abs(found.strength(word)) for word in found.words) == pytest.approx(1)
    assert "".join(marked(found)) == TEXT.replace(" ", "")


def make_model(tiny_bert: Path, encoder: Encoder, kind: str) -> Classifier:
    if kind in ("cls", "mean", "attention"):
        return load_classifier(str(tiny_bert), 5, None, kind)
    if kind == "lora":
        model = load_classifier(str(tiny_bert), 5)
        add_lora(model, {"r": 2, "alpha": 4.0, "dropout": 0.0, "target": "attention"})
        merge_lora(model)
        return model
    sizes: dict[str, Any] = {
        "vocab_size": len(encoder.tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 128, "pad_token_id": 0, "num_labels": 5,
        "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3,
    }  # fmt: skip
    config = transformers.AutoConfig.for_model(kind, **sizes)
    torch.manual_seed(0)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def test_steps_rise_until_the_error_is_small(
    bert: Classifier, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = explain(bert, encoder, TEXT)
    monkeypatch.setattr(module, "FIRST_STEPS", 1)
    found = explain(bert, encoder, TEXT)
    assert found.is_exact
    assert found.steps > 1
    assert [word.part for word in found.words] == pytest.approx(
        [word.part for word in exact.words], abs=0.05 * abs(exact.difference)
    )
    monkeypatch.setattr(module, "MOST_STEPS", 1)
    assert not explain(bert, encoder, TEXT).is_exact


def test_batches_do_not_matter(bert: Classifier, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = explain(bert, encoder, TEXT)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 60)
    parts = explain(bert, encoder, TEXT)
    assert [word.part for word in parts.words] == pytest.approx([word.part for word in whole.words], abs=1e-4)


def test_the_logit_is_that_of_the_prediction(bert: Classifier, encoder: Encoder) -> None:
    found = explain(bert, encoder, TEXT)
    with torch.inference_mode():
        logits = bert(**encoder.tokenizer(TEXT, return_tensors="pt")).logits[0]
    assert found.probabilities == pytest.approx(logits.softmax(-1).numpy(), abs=1e-6)
    assert found.label == bert.config.id2label[int(logits.argmax())]
    assert found.logit == pytest.approx(float(logits.max()), abs=1e-5)
    assert found.baseline == "[MASK]"


def test_without_a_mask_token_the_baseline_is_padding(bert: Classifier, encoder: Encoder) -> None:
    encoder.tokenizer.mask_token = None
    assert explain(bert, encoder, TEXT).baseline == "[PAD]"


# --- the words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The OVERPRICED soup", ["The", "OVERPRICED", "soup"]),
        ("don't", ["don", "'", "t"]),
        ("Café, CRÈME  brûlée!", ["Café", ",", "CRÈME", "brûlée", "!"]),
        ("cafe\u0301 nai\u0308ve", ["cafe\u0301", "nai\u0308ve"]),
        ("so good 😀👍🏽 really", ["so", "good", "😀👍🏽", "really"]),
        ("\t👨‍👩‍👧\n\nfun ", ["👨‍👩‍👧", "fun"]),
        ("日本 pizza", ["日", "本", "pizza"]),
        ("bad\x00ly \x1b[31mred", ["bad\x00ly", "[", "31mred"]),
        ("say [SEP] or [MASK] here", ["say", "[SEP]", "or", "[MASK]", "here"]),
        ("", []),
        (" \n\t", []),
        ("\u200b", []),
    ],
)
def test_words_are_those_of_the_review(bert: Classifier, encoder: Encoder, text: str, words: list[str]) -> None:
    found = explain(bert, encoder, text)
    assert marked(found) == words
    assert found.unread is None
    assert found.is_exact
    if not words:
        assert found.difference == 0
    masks = [word.part for word, name in zip(found.words, words, strict=True) if name == "[MASK]"]
    assert masks == [0] * words.count("[MASK]")


def fast_tokenizer(kind: str) -> Any:
    trained: Any = {"bytes": ByteLevelBPETokenizer, "unigram": SentencePieceUnigramTokenizer}[kind]()
    special = ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    options = {"unk_token": "<unk>"} if kind == "unigram" else {}
    trained.train_from_iterator([TEXT, "good food ½ and 😀"] * 3, vocab_size=300, special_tokens=special, **options)
    pair = [(token, trained.token_to_id(token)) for token in ("<s>", "</s>")]
    trained._tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=pair)
    names = dict(zip(("bos_token", "eos_token", "pad_token", "unk_token", "mask_token"), special, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, **names)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("bytes", "good  food 😀!\nreally", ["good", "food", "😀!", "\n", "really"]),
        ("unigram", "good food, 😀 really", ["good", "food,", "😀", "really"]),
        ("unigram", "about ½ of it", ["about", "½", "of", "it"]),
    ],
)
def test_other_tokenizers_words(kind: str, text: str, words: list[str]) -> None:
    tokenizer = fast_tokenizer(kind)
    config = transformers.BertConfig(vocab_size=len(tokenizer), hidden_size=8, num_labels=3)
    found = explain(PooledClassifier(Bag(config), "mean").eval(), Encoder(tokenizer, 99, "head"), text)
    assert [word for word in marked(found) if word.strip() or word in words] == words
    assert found.error < 1e-4


@pytest.mark.parametrize(
    ("truncation", "read", "unread"),
    [
        ("head", ["one", "two", "three", "four"], "five six seven eight nine ten"),
        ("tail", ["seven", "eight", "nine", "ten"], "one two three four five six"),
        ("head_tail", ["one", "eight", "nine", "ten"], "two three four five six seven"),
    ],
)
def test_what_truncation_leaves_out_is_said(
    bert: Classifier, encoder: Encoder, truncation: Truncation, read: list[str], unread: str
) -> None:
    text = "one two three four five six seven eight nine ten"
    found = explain(bert, Encoder(encoder.tokenizer, 6, truncation), text)
    assert marked(found) == read
    assert found.unread is not None
    assert text[slice(*found.unread)] == unread
    assert found.unread_words == 6
    assert found.is_exact


def test_a_word_that_is_cut_in_two_is_read(bert: Classifier, encoder: Encoder) -> None:
    text = "overpriced zzzz"
    assert len(encoder.tokenizer(text)["input_ids"]) == 7
    found = explain(bert, Encoder(encoder.tokenizer, 5, "head"), text)
    assert marked(found) == ["overpriced", "zzzz"]
    assert found.unread is None


# --- what it needs


def test_without_captum_one_sentence_says_how_to_get_it(
    bert: Classifier, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'`--explain` needs an extra .*pip install "yelp-lightning\[explain\]"'):
        explain(bert, encoder, TEXT)


def test_a_tokenizer_that_tells_no_places_is_refused(bert: Classifier, encoder: Encoder) -> None:
    encoder.backend = None
    with pytest.raises(UsageError, match="where in the review each token is"):
        explain(bert, encoder, TEXT)
