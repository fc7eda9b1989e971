"""One truth: `test`, `predict` + scikit-learn, and model/ in plain transformers give the same metrics of a file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from conftest import review, write_jsonl
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from yelp_lightning.modeling.rounding import rounding_errors

ROWS = [review(number) for number in range(7000, 7200)]


def reference(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    stars, confidence = probabilities.argmax(1), probabilities.max(1)
    bins = np.minimum((confidence * 15).astype(int), 14)
    right = stars == labels
    return {
        "accuracy": sklearn.metrics.accuracy_score(labels, stars),
        "macro_f1": sklearn.metrics.f1_score(labels, stars, average="macro"),
        "mae": sklearn.metrics.mean_absolute_error(labels, stars),
        "within_1": float((np.abs(labels - stars) <= 1).mean()),
        "qwk": sklearn.metrics.cohen_kappa_score(labels, stars, weights="quadratic"),
        "loss": sklearn.metrics.log_loss(labels, probabilities / probabilities.sum(1, keepdims=True)),
        "ece": sum(abs((right - confidence)[bins == b].sum()) for b in range(15)) / len(labels),
        **rounding_errors(probabilities, labels),
    }


def test_test_predict_and_the_model_folder_agree(trained: Path, tmp_path: Path, cli: Callable[..., object]) -> None:
    source, output = write_jsonl(tmp_path / "held_out.jsonl", ROWS), tmp_path / "predicted.jsonl"
    cli("test", "--ckpt_path", trained, "--data.source", source, "--trainer.default_root_dir", tmp_path / "tested")
    tested = json.loads((tmp_path / "tested" / "metrics.json").read_text(encoding="utf-8"))
    cli("predict", "--ckpt_path", trained, "--data.predict_path", source, "--output", output)
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    predicted = np.array([[line[f"p{star}"] for star in range(1, 6)] for line in lines], np.float64)
    labels = np.array([row["label"] for row in ROWS])

    model = AutoModelForSequenceClassification.from_pretrained(trained / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    encoded = tokenizer(
        [str(row["text"]) for row in ROWS], truncation=True, max_length=32, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        plain = model(**encoded).logits.double().softmax(-1).numpy()

    assert tested["test/temperature"] != 1
    assert tested["test/loss_uncalibrated"] != pytest.approx(tested["test/loss"], abs=1e-3)
    for probabilities in (predicted, plain):
        for name, value in reference(probabilities, labels).items():
            assert tested[f"test/{name}"] == pytest.approx(value, abs=1e-6), name
