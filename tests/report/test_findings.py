"""Findings: what is planted is said, with its n; what chance makes, or too few rows, is not."""

import numpy as np
from tested import made

from yelp_lightning.modeling.metrics import Measured
from yelp_lightning.report.findings import findings
from yelp_lightning.report.rows import Shown, Tested, TestedRows


def rows_of(labels: list[int], names: tuple[str, ...], lengths: list[int], ordered: bool = True) -> TestedRows:
    tokens = np.array(lengths, np.int32)
    return TestedRows(np.array(labels), tokens, tokens > 100, names, ordered, lambda rows: [Shown("", "")] * len(rows))


def reads(labels: list[int], preds: list[int], classes: int, sureness: float, temperature: float = 1.0) -> Tested:
    logits = np.zeros((len(labels), classes), np.float32)
    logits[np.arange(len(labels)), preds] = sureness
    return Tested("mine", Measured(logits, np.array(labels), np.arange(len(labels)), temperature))


STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")


def test_what_is_planted_is_said() -> None:
    labels = [3] * 100 + [4] * 100 + [0] * 19
    preds = [4] * 31 + [2] * 4 + [3] * 65 + [4] * 100 + [0] * 19
    lengths = [200] * 35 + [10] * 165 + [10] * 19
    said = findings(rows_of(labels, STARS, lengths), reads(labels, preds, 5, 9.0, temperature=4.0))
    assert said == [
        "219 reviews tested: 84 % (184 of 219; 95 % interval 79 to 88 %) read right.",
        "Reviews of 4 stars are read as 5 stars in 31 % (31 of 100; 95 % interval 23 to 41 %).",
        "All 100 reviews of 5 stars are read right.",
        "Nothing is said of classes with fewer than 20 reviews: 1 star, 2 stars, 3 stars.",
        "4 stars is predicted less often than it is true: 65 against 100 of 219 reviews.",
        "5 stars is predicted more often than it is true: 131 against 100 of 219 reviews.",
        "Of the wrong reviews, 100 % (35 of 35; 95 % interval 90 to 100 %) are off by one class only.",
        "Predictions are too high, by 0.12 classes on average (95 % interval 0.07 to 0.17, n = 219).",
        "Before temperature the model is too sure: its mean confidence is 100 %, and 84 % of 219 reviews are read "
        "right.",
        "With temperature 4.00 the model is too little sure: its mean confidence is 70 %, and 84 % of 219 reviews are "
        "read right.",
        "Reviews of 10 tokens are read right in 100 % (184 of 184; 95 % interval 98 to 100 %), reviews of 200 tokens "
        "in 0 % (0 of 35; 95 % interval 0 to 10 %): a difference that chance hardly makes.",
        "Whole reviews are read right in 100 % (184 of 184; 95 % interval 98 to 100 %), truncated reviews in 0 % (0 of "
        "35; 95 % interval 0 to 10 %): a difference that chance hardly makes.",
    ]


def test_unordered_classes_have_no_distance() -> None:
    rows, tested = made(names=["bad", "so so", "good", "rude", "dear"], ordered=False)
    said = " ".join(findings(rows, tested))
    assert "Reviews of so so are read as " in said
    for word in ("off by", "too high", "too low", "star"):
        assert word not in said


def test_one_row_says_little() -> None:
    rows, tested = made(1)
    first, last = findings(rows, tested)
    assert first.startswith("1 review tested: ")
    assert last == "Fewer than 20 reviews tell no more than that."


def test_many_classes_say_no_more_than_few() -> None:
    rows, tested = made(9000, classes=300, ordered=False)
    assert len(findings(rows, tested)) < 30


def test_no_bias_is_claimed_of_a_fair_model() -> None:
    # Of 40 fair models, one or the other shows by chance what 95 % of them do not.
    claims = [" ".join(findings(*made(seed=seed))) for seed in range(40)]
    assert sum("too high" in said or "too low" in said for said in claims) <= 6
    assert sum("hardly makes" in said for said in claims) <= 8
