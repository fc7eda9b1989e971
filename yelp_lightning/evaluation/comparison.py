"""The comparison: models on the same rows, each metric with its 95 % interval, and each pair with its differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from yelp_lightning.evaluation.scores import METRICS, ORDINAL, Answers, Floats, metrics, scores
from yelp_lightning.modeling.intervals import share_interval
from yelp_lightning.modeling.rounding import rounding_errors

RESAMPLES = 2_000
# Of the metrics that have an upper one too.
BOUNDS = {"accuracy": (0, 1), "macro_f1": (0, 1), "within_1": (0, 1), "qwk": (-1, 1), "ece": (0, 1)}
# Resamples that are summed at once: 100 of 50,000 rows are 40 MB.
_AT_ONCE = 100
# n rows, R resamples, M members


@dataclass(frozen=True)
class Contestant:
    """A row of the comparison: one model, or several that differ in their seed alone.

    Args:
        members: What each said, of the same rows.
        sources: Where each comes from, in the same order.
    """

    members: Sequence[Answers]
    sources: Sequence[str]

    @property
    def typical(self) -> int:
        """Number of the member of median accuracy."""
        accuracies = [float(member.right.mean()) for member in self.members]
        return int(np.argsort(accuracies, kind="stable")[(len(accuracies) - 1) // 2])


def compare(contestants: Mapping[str, Contestant], ordered: bool = True, seed: int = 0) -> dict[str, Any]:
    """Measure contestants and what differs between them.

    Rows are drawn anew, the same ones for all; the mean of several seeds also gets the error that so few of them leave,
    by Student's t. The accuracy of a single model has Wilson's interval. The calibration error grows by drawing anew,
    as every noise in a bin counts: its interval is mirrored (the basic bootstrap).

    Args:
        contestants: By name; all members answered the same rows.
        ordered: Whether classes are ordered, as stars are.
        seed: Of the rows that are drawn.

    Returns:
        What comparison.json holds: ``n``; ``models``, of each its ``runs``, each metric (the mean over members), its
        ``_interval`` and, of several members, ``_sd``; and ``differences``, of each pair the metrics of ``of`` less
        those of ``over``, with paired intervals, and ``mcnemar``: rows that only the one and only the other has right,
        and the exact ``p`` of such a split by chance, of the members of median accuracy.

    Source:
        Efron 1979 (percentile bootstrap); Davison and Hinkley 1997 (basic bootstrap); McNemar 1947, exact, by
        ``scipy.stats``.
    """
    names = [name for name in METRICS if ordered or name not in ORDINAL]
    drawn = _drawn(contestants, seed)
    first = next(iter(contestants.values())).members[0]
    return {
        "n": len(first.labels),
        "resamples": RESAMPLES,
        "models": {name: _of_one(one, drawn[name], names, ordered) for name, one in contestants.items()},
        "differences": [
            _of_pair(over, of, contestants, drawn, names) for over, of in combinations(contestants, 2)
        ],
    }  # fmt: skip


def mcnemar(one: Answers, other: Answers) -> dict[str, float]:
    """Whether two models have the same share of rows right.

    Args:
        one: A model's answers.
        other: Another's, to the same rows.

    Returns:
        ``only_one`` and ``only_other``, rows that one of them alone has right; ``p``, two-sided, exact.
    """
    from scipy.stats import binomtest

    only_one, only_other = int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum())
    both = only_one + only_other
    return {
        "only_one": only_one,
        "only_other": only_other,
        "p": float(binomtest(only_one, both).pvalue) if both else 1.0,
    }


def _drawn(contestants: Mapping[str, Contestant], seed: int) -> dict[str, dict[str, Floats]]:
    """Metrics ``(R,)`` of each contestant, over rows that are drawn anew."""
    rows, classes = next(iter(contestants.values())).members[0].probabilities.shape
    generator = np.random.default_rng(seed)
    found: dict[str, list[list[dict[str, Floats]]]] = {
        name: [[] for _ in one.members] for name, one in contestants.items()
    }
    for _ in range(0, RESAMPLES, _AT_ONCE):
        counts = np.stack([np.bincount(generator.integers(rows, size=rows), minlength=rows) for _ in range(_AT_ONCE)])
        for name, one in contestants.items():
            for member, answers in enumerate(one.members):
                sums = np.asarray((answers.statistics.T @ counts.T.astype(np.float64)).T)
                found[name][member].append(metrics(sums, rows, classes))
    each = {name: [scores(member) for member in of.members] for name, of in contestants.items()}
    return {name: _over_members(parts, each[name], generator) for name, parts in found.items()}


def _over_members(
    members: list[list[dict[str, Floats]]], each: list[dict[str, float]], generator: np.random.Generator
) -> dict[str, Floats]:
    """Means over the members, and what other seeds would have made of them."""
    luck = generator.standard_t(max(len(members) - 1, 1), size=RESAMPLES)
    drawn = {}
    for name in METRICS:
        mean = np.mean([np.concatenate([part[name] for part in parts]) for parts in members], axis=0)
        if len(members) > 1:
            mean += luck * np.std([values[name] for values in each], ddof=1) / np.sqrt(len(members))
        drawn[name] = mean
    return drawn


def _of_one(one: Contestant, drawn: dict[str, Floats], names: list[str], ordered: bool) -> dict[str, Any]:
    each = [scores(member) for member in one.members]
    found: dict[str, Any] = {"runs": list(one.sources)}
    for name in names:
        values = [values[name] for values in each]
        found[name] = _number(np.mean(values))
        found[f"{name}_interval"] = _interval(name, found[name], drawn[name])
        if len(values) > 1:
            found[f"{name}_sd"] = _number(np.std(values, ddof=1))
    if len(one.members) == 1:
        right = one.members[0].right
        found["accuracy_interval"] = list(share_interval(int(right.sum()), len(right)))
    if ordered:
        rules = [rounding_errors(member.probabilities, member.labels) for member in one.members]
        found |= {name: float(np.mean([rule[name] for rule in rules])) for name in rules[0]}
    return found


def _of_pair(
    over: str, of: str, contestants: Mapping[str, Contestant], drawn: dict[str, dict[str, Floats]], names: list[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {"of": of, "over": over}
    for name in names:
        means = [np.mean([scores(member)[name] for member in contestants[side].members]) for side in (of, over)]
        found[name] = _number(means[0] - means[1])
        found[f"{name}_interval"] = _interval(name, found[name], drawn[of][name] - drawn[over][name], False)
    tested = mcnemar(*(contestants[name].members[contestants[name].typical] for name in (of, over)))
    return {**found, "mcnemar": {"only_of": tested["only_one"], "only_over": tested["only_other"], "p": tested["p"]}}


def _interval(name: str, value: float | None, drawn: Floats, bounded: bool = True) -> list[float] | None:
    """The middle 95 %; None where all rows are alike, or the metric is not defined."""
    defined = drawn[np.isfinite(drawn)]
    if value is None or not len(defined) or np.ptp(defined) == 0:
        return None
    ends = np.percentile(defined, [2.5, 97.5])
    if name == "ece":
        ends = 2 * value - ends[::-1]
        ends = np.array([min(ends[0], value), max(ends[1], value)])
    return [float(end) for end in (ends.clip(*BOUNDS.get(name, (0, np.inf))) if bounded else ends)]


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None  # json knows no nan
