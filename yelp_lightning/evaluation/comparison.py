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
# Resamples that are summed at once: 100 of 50,000 rows are 40 MB.
_AT_ONCE = 100
# n rows, R resamples, M members


@dataclass(frozen=True)
class Group:
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


def compare(groups: Mapping[str, Group], ordered: bool = True, seed: int = 0) -> dict[str, Any]:
    """Measure groups and what differs between them.

    Rows are drawn anew, the same ones for all groups, and of each group the members too: an interval then holds what
    other rows and other seeds would do. The accuracy of a single model has Wilson's interval.

    Args:
        groups: By name; all members answered the same rows.
        ordered: Whether classes are ordered, as stars are.
        seed: Of the rows that are drawn.

    Returns:
        What comparison.json holds: ``n``; ``models``, of each its ``runs``, each metric (the mean over members), its
        ``_interval`` and, of several members, ``_sd``; and ``differences``, of each pair the metrics of ``of`` less
        those of ``over``, with paired intervals, and ``mcnemar``: rows that only the one and only the other has right,
        and the exact ``p`` of such a split by chance, of the members of median accuracy.

    Source:
        Efron 1979 (percentile bootstrap); McNemar 1947, exact, by ``scipy.stats``.
    """
    names = [name for name in METRICS if ordered or name not in ORDINAL]
    drawn = _drawn(groups, seed)
    first = next(iter(groups.values())).members[0]
    return {
        "n": len(first.labels),
        "resamples": RESAMPLES,
        "models": {name: _of_group(group, drawn[name], names, ordered) for name, group in groups.items()},
        "differences": [
            _of_pair(over, of, groups, drawn, names) for over, of in combinations(groups, 2)
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


def _drawn(groups: Mapping[str, Group], seed: int) -> dict[str, dict[str, Floats]]:
    """Metrics ``(R,)`` of each group over rows and members that are drawn anew."""
    rows, classes = next(iter(groups.values())).members[0].probabilities.shape
    generator = np.random.default_rng(seed)
    found: dict[str, list[list[dict[str, Floats]]]] = {
        name: [[] for _ in group.members] for name, group in groups.items()
    }
    for _ in range(0, RESAMPLES, _AT_ONCE):
        counts = np.stack([np.bincount(generator.integers(rows, size=rows), minlength=rows) for _ in range(_AT_ONCE)])
        for name, group in groups.items():
            for member, answers in enumerate(group.members):
                sums = np.asarray((answers.statistics.T @ counts.T.astype(np.float64)).T)
                found[name][member].append(metrics(sums, rows, classes))
    return {name: _over_members(parts, generator) for name, parts in found.items()}


def _over_members(members: list[list[dict[str, Floats]]], generator: np.random.Generator) -> dict[str, Floats]:
    chosen = generator.integers(len(members), size=(len(members), RESAMPLES))
    means = {}
    for name in METRICS:
        values = np.stack([np.concatenate([part[name] for part in parts]) for parts in members])  # (M, R)
        means[name] = np.take_along_axis(values, chosen, axis=0).mean(0)
    return means


def _of_group(group: Group, drawn: dict[str, Floats], names: list[str], ordered: bool) -> dict[str, Any]:
    each = [scores(member) for member in group.members]
    found: dict[str, Any] = {"runs": list(group.sources)}
    for name in names:
        values = [values[name] for values in each]
        found[name] = _number(np.mean(values))
        found[f"{name}_interval"] = _interval(drawn[name])
        if len(values) > 1:
            found[f"{name}_sd"] = _number(np.std(values, ddof=1))
    if len(group.members) == 1:
        right = group.members[0].right
        found["accuracy_interval"] = list(share_interval(int(right.sum()), len(right)))
    if ordered:
        rules = [rounding_errors(member.probabilities, member.labels) for member in group.members]
        found |= {name: float(np.mean([rule[name] for rule in rules])) for name in rules[0]}
    return found


def _of_pair(
    over: str, of: str, groups: Mapping[str, Group], drawn: dict[str, dict[str, Floats]], names: list[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {"of": of, "over": over}
    for name in names:
        means = [np.mean([scores(member)[name] for member in groups[group].members]) for group in (of, over)]
        found[name] = _number(means[0] - means[1])
        found[f"{name}_interval"] = _interval(drawn[of][name] - drawn[over][name])
    tested = mcnemar(*(groups[name].members[groups[name].typical] for name in (of, over)))
    return {**found, "mcnemar": {"only_of": tested["only_one"], "only_over": tested["only_other"], "p": tested["p"]}}


def _interval(values: Floats) -> list[float] | None:
    """The middle 95 %; None where a metric is defined for no resample."""
    defined = values[np.isfinite(values)]
    return [float(end) for end in np.percentile(defined, [2.5, 97.5])] if len(defined) else None


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None  # json knows no nan
