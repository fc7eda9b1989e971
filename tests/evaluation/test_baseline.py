"""The baseline: it reads words, knows classes that it never saw as impossible, and beats guessing on real reviews."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from yelp_lightning.evaluation.baseline import baseline

WORDS = ["awful", "poor", "okay", "good", "superb"]


def texts_of(labels: list[int]) -> tuple[list[str], np.ndarray]:
    return [f"the food was {WORDS[label]} today" for label in labels], np.array(labels)


def test_it_reads_words() -> None:
    probabilities = baseline(texts_of([0, 1, 2, 3, 4] * 8), texts_of([0, 1, 2, 3, 4]), texts_of([4, 0, 2])[0], 5)
    assert probabilities.shape == (3, 5)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert probabilities.argmax(1).tolist() == [4, 0, 2]


def test_a_class_without_training_rows_is_impossible() -> None:
    probabilities = baseline(texts_of([0, 4] * 8), texts_of([0, 4, 2]), texts_of([2])[0], 5)
    assert (probabilities[:, 1:4] == 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1)


@pytest.mark.real
def test_real_reviews(real_yelp: Path) -> None:
    train, test = (pq.read_table(real_yelp / f"{name}.parquet").to_pydict() for name in ("train", "test"))
    labels = np.array(train["label"])
    parts = [(train["text"][part], labels[part]) for part in (slice(0, 1000), slice(1000, 1500))]
    right = baseline(*parts, test["text"], 5).argmax(1) == np.array(test["label"])
    assert right.mean() > 0.40
