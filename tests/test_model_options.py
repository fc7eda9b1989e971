"""`fit` with the options of the network: what is trained, what is left behind, and that it loads elsewhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, fit_options, run_process
from sentence_transformers import SentenceTransformer
from tiny_bert import write_tiny_bert
from transformers import AlbertConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.inference.text import star_probabilities
from yelp_lightning.pretrained import load_classifier

TEXT = "the service was terrible and slow, never again"


@pytest.fixture
def fitted(cli: Callable[..., None], tiny_bert: Path, reviews: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run a short `fit` in this process and return its run folder."""

    def run(*arguments: object) -> Path:
        short = ["--trainer.max_epochs", 1, "--data.train_size", 64]
        cli("fit", *fit_options(tiny_bert, reviews, tmp_path / "run"), *short, *arguments)
        return tmp_path / "run"

    return run


def own_probabilities(run: Path) -> torch.Tensor:
    return torch.from_numpy(star_probabilities(read_checkpoint(run / "best.ckpt"), TEXT))


def plain_probabilities(run: Path) -> torch.Tensor:
    """By transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(run / "model")
    batch = AutoTokenizer.from_pretrained(run / "model")(TEXT, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits[0].softmax(-1)


def test_everything_at_once(fitted: Callable[..., Path]) -> None:
    """Options that change training alone; the model stays one of plain transformers."""
    options = {
        "dropout": 0.2, "loss": "soft_stars", "softness": 0.7, "label_smoothing": 0.1, "class_weights": "balanced",
        "head_learning_rate": 0.02, "layer_decay": 0.8, "schedule": "warmup_stable_decay", "frozen_layers": 0,
        "reinit_layers": 1, "gradient_checkpointing": "true", "attn_implementation": "sdpa",
    }  # fmt: skip
    run = fitted(*(argument for name, value in options.items() for argument in (f"--model.{name}", value)))
    torch.testing.assert_close(plain_probabilities(run), own_probabilities(run), atol=1e-5, rtol=0)


@pytest.mark.parametrize("config_class", [AlbertConfig, DistilBertConfig])
def test_other_architectures(
    fitted: Callable[..., Path], refused: Callable[..., str], tiny_bert: Path, tmp_path: Path, config_class: Any
) -> None:
    """One names its sizes otherwise, one has the same weights in all layers."""
    folder = shutil.copytree(tiny_bert, tmp_path / "encoder")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = config_class(vocab_size=read_vocabulary(tiny_bert), embedding_size=32, hidden_dim=64, **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    options = ["--model.pretrained", folder, "--trainer.max_steps", 2]
    if config_class is AlbertConfig:
        for name, value in (("frozen_layers", 1), ("reinit_layers", 1), ("layer_decay", 0.9)):
            assert "which AlbertModel does not have: leave them out." in refused(
                "fit", *fit_options(folder, tmp_path, tmp_path / name), f"--model.{name}", value
            )
    else:
        options += ["--model.frozen_layers", 1]
        said = refused("fit", *fit_options(folder, tmp_path, tmp_path / "3"), "--model.frozen_layers", 3)
        assert said.endswith("has 2 layers: give at most 2.")
    run = fitted(*options)
    torch.testing.assert_close(plain_probabilities(run), own_probabilities(run), atol=1e-5, rtol=0)


def test_frozen_weights_stay(fitted: Callable[..., Path], tiny_bert: Path) -> None:
    run = fitted("--model.frozen_layers", 1)
    before = load_classifier(str(tiny_bert), 5).state_dict()
    after = AutoModelForSequenceClassification.from_pretrained(run / "model").state_dict()
    kept = {name for name in before if torch.equal(before[name], after[name])}
    lowest = {name for name in before if name.startswith(("bert.embeddings", "bert.encoder.layer.0."))}
    assert kept == lowest


def test_mean_pooling_is_a_folder_of_sentence_transformers(fitted: Callable[..., Path], cli, capsys) -> None:
    run = fitted("--model.pooling", "mean")
    logits = SentenceTransformer(str(run / "model"), device="cpu").encode([TEXT], convert_to_tensor=True)[0]
    torch.testing.assert_close(logits.softmax(-1), own_probabilities(run), atol=1e-5, rtol=0)
    capsys.readouterr()
    cli("predict", "--ckpt_path", run, "--text", TEXT, "--output", run / "p.jsonl", "--trainer.logger", "false")
    row = json.loads((run / "p.jsonl").read_text(encoding="utf-8"))
    assert [row[f"p{star}"] for star in range(1, 6)] == pytest.approx(own_probabilities(run).tolist(), abs=1e-5)


def test_attention_pooling_is_a_program_of_torch(fitted: Callable[..., Path]) -> None:
    run = fitted("--model.pooling", "attention")
    batch = AutoTokenizer.from_pretrained(run / "model")(TEXT, truncation=True, max_length=32, return_tensors="pt")
    logits = torch.export.load(run / "model" / "model.pt2").module()(batch["input_ids"], batch["attention_mask"])[0]
    torch.testing.assert_close(logits.softmax(-1), own_probabilities(run), atol=1e-5, rtol=0)


LORA = ("--model.lora.r", 8)


def test_lora_keeps_what_is_trained_and_exports_the_whole(fitted: Callable[..., Path], tiny_bert: Path) -> None:
    run = fitted(*LORA)
    state = read_checkpoint(run / "best.ckpt")["state_dict"]
    assert {name.split(".")[-3] for name in state if "lora_" in name} == {"lora_A", "lora_B"}
    assert all("lora_" in name or "pooler" in name or ".classifier." in name for name in state)
    torch.testing.assert_close(plain_probabilities(run), own_probabilities(run), atol=1e-5, rtol=0)
    base = load_classifier(str(tiny_bert), 5).state_dict()
    merged = AutoModelForSequenceClassification.from_pretrained(run / "model").state_dict()
    assert base.keys() == merged.keys()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert {name for name in changed if ".layer." in name} == {
        f"bert.encoder.layer.{layer}.attention.self.{kind}.weight" for layer in (0, 1) for kind in ("query", "value")
    }


def test_another_network_than_the_checkpoints_is_refused(fitted: Callable[..., Path], refused) -> None:
    run = fitted("--model.pooling", "mean")
    for options, typed, was in [(["--model.pooling", "cls"], "'cls'", "'mean'"), (LORA, "{'r': 8, ", "None")]:
        name = options[0].removeprefix("--").removesuffix(".r")
        said = refused("validate", "--ckpt_path", run, *options)
        assert said.startswith(f"`{name}` is {typed}")
        assert f"was trained with {was}" in said


def test_lora_goes_on(fitted: Callable[..., Path], cli: Callable[..., None], capfd) -> None:
    run = fitted(*LORA)
    before = read_checkpoint(run / "last.ckpt")["state_dict"]
    before = {name: tensor.clone() for name, tensor in before.items()}
    capfd.readouterr()
    cli("fit", "--config", run / "config.yaml", "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert "model.lora" not in capfd.readouterr().err  # the same adapters are no difference
    cli("validate", "--ckpt_path", run)
    after = read_checkpoint(run / "last.ckpt")["state_dict"]
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_lora_refuses_another_base(fitted: Callable[..., Path], refused, tiny_bert: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_bert, base)
    run = fitted(*LORA, "--model.pretrained", base)
    shutil.rmtree(base)
    write_tiny_bert(base, seed=1)
    said = refused("predict", "--ckpt_path", run, "--text", TEXT)
    assert said == (
        f"`--ckpt_path` holds adapters of {str(base)!r}, which has other weights than when they were trained: put the "
        "encoder back that it was."
    )


def test_lora_trains_less_than_three_percent_of_minilm() -> None:
    from yelp_lightning.network.lora import add_lora

    model = load_classifier("embedded", 5)
    add_lora(model, {"r": 8, "alpha": 16.0, "dropout": 0.0, "target": "attention"})
    every = [parameter for parameter in model.parameters()]
    assert sum(p.numel() for p in every if p.requires_grad) < 0.03 * sum(p.numel() for p in every)


CASES = [
    (("--model.frozen_layers", 3), "`model.frozen_layers` is 3, but {bert} has 2 layers: give at most 2."),
    (("--model.reinit_layers", 9), "`model.reinit_layers` is 9, but {bert} has 2 layers: give at most 2."),
    (
        (*LORA, "--model.frozen_layers", 1),
        "`model.frozen_layers` is 1 together with model.lora, which keeps the whole encoder as it is: give one of "
        "them.",
    ),
    (
        ("--model.class_weights", "[1, 2]"),
        "`model.class_weights` is [1.0, 2.0], but must be 5 numbers of at least 0, one for each class in order: give "
        "such a list, or balanced.",
    ),
    (
        ("--data.label_column", "null"),
        "`data.label_column` is null, but the stars are what is learned: name their column.",
    ),
    (
        ("--task", "masked_words", "--model.pooling", "mean"),
        "`model.pooling` is 'mean', which means nothing for --task masked_words: leave it out.",
    ),
]


@pytest.mark.parametrize(("arguments", "sentence"), CASES, ids=[" ".join(map(str, case[0])) for case in CASES])
def test_refused(fit_refused: Callable[..., str], tiny_bert: Path, arguments: Any, sentence: str) -> None:
    assert fit_refused(*arguments) == sentence.format(bert=tiny_bert)


def test_masked_words_make_an_encoder(
    fitted: Callable[..., Path], cli: Callable[..., None], refused, tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    unlabelled = ("--task", "masked_words", "--data.label_column", "null", "--trainer.max_epochs", 3)
    run = fitted(*unlabelled, "--trainer.gradient_clip_val", 1.0)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["val/perplexity"] == pytest.approx(np.exp(metrics["val/loss"]))
    assert metrics["n"] > 10
    # It learned something: a guess among equals has the loss ln V.
    assert metrics["val/loss"] < np.log(read_vocabulary(tiny_bert))
    said = refused("test", "--ckpt_path", run)
    assert said.endswith(f"knows no stars: fine-tune it by fit --model.pretrained {run}.")
    tuned = tmp_path / "tuned"
    said = refused("fit", *fit_options(tiny_bert, reviews, tuned), "--model.pretrained", run / "best.ckpt")
    assert said.endswith(f"which has no head for stars: give its run folder, {run}.")
    cli("fit", *fit_options(tiny_bert, reviews, tuned), "--model.pretrained", run, "--trainer.max_epochs", 1,
        "--model.frozen_layers", 2)  # fmt: skip
    encoder = read_checkpoint(run / "best.ckpt")["state_dict"]
    found = read_checkpoint(tuned / "best.ckpt")["state_dict"]
    name = "model.bert.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(found[name], encoder[name])


def read_vocabulary(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"])


@pytest.mark.filterwarnings("ignore:.*no units for bfloat16")
def test_a_run_goes_on_and_is_measured_in_another_precision(
    fitted: Callable[..., Path], cli: Callable[..., None], tiny_bert: Path, reviews: Path
) -> None:
    run = fitted("--trainer.precision", "bf16-mixed", "--model.gradient_checkpointing", "true")
    state = read_checkpoint(run / "best.ckpt")["state_dict"]
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    cli("fit", *fit_options(tiny_bert, reviews, run), "--ckpt_path", "last", "--data.train_size", 64,
        "--model.attn_implementation", "eager")  # fmt: skip
    cli("test", "--ckpt_path", run)
    assert json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test/n"] == 41
    torch.testing.assert_close(plain_probabilities(run), own_probabilities(run), atol=1e-5, rtol=0)


def test_training_is_the_same_with_and_without_gradient_checkpointing(
    tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    losses = []
    for value in ("false", "true"):
        run = tmp_path / value
        process = run_process(
            "fit", *fit_options(tiny_bert, reviews, run), "--trainer.max_steps", 5, "--model.gradient_checkpointing",
            value, cwd=ROOT,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        losses.append(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["val/loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
