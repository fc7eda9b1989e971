"""Comparisons: intervals against scipy's bootstrap, McNemar against its formula, and how often they hold the truth."""

import json

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from yelp_lightning.evaluation.comparison import Contestant, compare, mcnemar
from yelp_lightning.evaluation.scores import METRICS, Answers
from yelp_lightning.modeling.intervals import share_interval


def model(seed: int, labels: np.ndarray, skill: float) -> Answers:
    """Probabilities that lean to the true class by ``skill``."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(len(labels), 5))
    logits[np.arange(len(labels)), labels] += skill
    weights = np.exp(logits)
    return Answers(weights / weights.sum(1, keepdims=True), labels)


LABELS = np.random.default_rng(0).integers(5, size=300)


def test_intervals_are_those_of_scipy() -> None:
    one, other = model(1, LABELS, 1.0), model(2, LABELS, 1.5)
    found = compare({"one": Contestant([one], ["a"]), "other": Contestant([other], ["b"])})
    assert found["n"] == 300
    assert set(METRICS) <= set(found["models"]["one"])
    assert found["models"]["one"]["accuracy_interval"] == list(share_interval(int(one.right.sum()), 300))
    errors = [np.abs(answers.predicted - LABELS).astype(float) for answers in (one, other)]
    expected = bootstrap((errors[0],), np.mean, method="percentile", n_resamples=5000, rng=0).confidence_interval
    assert found["models"]["one"]["mae_interval"] == pytest.approx(list(expected), abs=0.02)
    (pair,) = found["differences"]
    assert (pair["of"], pair["over"]) == ("other", "one")
    expected = bootstrap((errors[1] - errors[0],), np.mean, method="percentile", n_resamples=5000, rng=0)
    assert pair["mae"] == pytest.approx(errors[1].mean() - errors[0].mean())
    assert pair["mae_interval"] == pytest.approx(list(expected.confidence_interval), abs=0.02)
    assert json.loads(json.dumps(found)) == found


def test_mcnemar_is_exact() -> None:
    one, other = model(1, LABELS, 1.0), model(2, LABELS, 1.5)
    found = mcnemar(one, other)
    first, second = int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum())
    assert (found["only_one"], found["only_other"]) == (first, second)
    assert found["p"] == pytest.approx(min(1, 2 * binom.cdf(min(first, second), first + second, 0.5)))
    assert mcnemar(one, one) == {"only_one": 0, "only_other": 0, "p": 1.0}


def test_several_seeds_have_a_mean_a_spread_and_a_wider_interval() -> None:
    seeds = [model(seed, LABELS, skill) for seed, skill in enumerate([0.4, 1.0, 1.6])]
    found = compare({"seeds": Contestant(seeds, ["a", "b", "c"]), "one": Contestant([seeds[1]], ["b"])})["models"]
    accuracies = [seed.right.mean() for seed in seeds]
    assert found["seeds"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["seeds"]["accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert "accuracy_sd" not in found["one"]
    widths = {name: np.diff(of["mae_interval"])[0] for name, of in found.items()}
    assert widths["seeds"] > widths["one"]


def test_an_interval_over_seeds_holds_what_other_seeds_would_do() -> None:
    # Seeds whose accuracy varies, five of them: the mean over all seeds lies in 95 % of the intervals or more.
    held, generator = 0, np.random.default_rng(7)
    labels = np.random.default_rng(8).integers(5, size=400)
    skills = generator.normal(1.0, 0.4, size=400)
    truth = np.mean([model(1000 + number, labels, skill).right.mean() for number, skill in enumerate(skills)])
    for draw in range(30):
        seeds = [model(5000 + 10 * draw + number, labels, generator.normal(1.0, 0.4)) for number in range(5)]
        low, high = compare({"seeds": Contestant(seeds, list("abcde"))})["models"]["seeds"]["accuracy_interval"]
        held += low <= truth <= high
    assert held >= 27


def test_a_calibration_error_lies_in_its_interval() -> None:
    # Perfectly calibrated: the error is that of few rows alone, and drawing them anew would only add to it.
    for seed in range(10):
        generator = np.random.default_rng(seed)
        probabilities = generator.dirichlet(np.ones(5), size=500)
        labels = np.array([generator.choice(5, p=row) for row in probabilities])
        found = compare({"one": Contestant([Answers(probabilities, labels)], ["a"])})["models"]["one"]
        low, high = found["ece_interval"]
        assert 0 <= low <= high
        assert low < 0.02


def test_the_typical_member_has_the_median_accuracy() -> None:
    seeds = [model(seed, LABELS, skill) for seed, skill in enumerate([2.0, 0.2, 1.0])]
    assert Contestant(seeds, ["a", "b", "c"]).typical == 2


def test_an_interval_of_a_difference_holds_the_truth() -> None:
    # Two models of the same skill: zero lies in 95 % of the intervals, give or take the luck of 60 draws.
    held = 0
    for seed in range(60):
        labels = np.random.default_rng(1000 + seed).integers(5, size=150)
        groups = {str(number): Contestant([model(2 * seed + number, labels, 1.0)], [""]) for number in range(2)}
        low, high = compare(groups, seed=seed)["differences"][0]["accuracy_interval"]
        held += low <= 0 <= high
    assert 51 <= held <= 60


@pytest.mark.parametrize("labels", [[2], [3, 3, 3, 3]])
def test_one_row_and_one_class_are_compared(labels: list[int]) -> None:
    rows = np.array(labels)
    found = compare({name: Contestant([model(seed, rows, 9.0)], [name]) for seed, name in enumerate(("one", "other"))})
    assert found["models"]["one"]["accuracy"] == 1.0
    assert found["models"]["one"]["qwk"] is None
    assert found["models"]["one"]["qwk_interval"] is None
    assert found["differences"][0]["mcnemar"]["p"] == 1.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_classes_without_an_order_have_no_distances() -> None:
    found = compare({"one": Contestant([model(1, LABELS, 1.0)], ["a"])}, ordered=False)["models"]["one"]
    assert not {"mae", "within_1", "qwk", "mae_median"} & set(found)
