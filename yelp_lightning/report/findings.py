"""Findings: a sentence for each thing that the tested rows show, with its n, and none where n does not suffice."""

import numpy as np

from yelp_lightning.report.counts import by_length, by_truncation, confusions, mistakes
from yelp_lightning.report.rows import Tested, TestedRows
from yelp_lightning.report.shares import ENOUGH, Share

# Of many classes, as many kinds of mistakes are told.
MISTAKES = 10
# A prediction counts as confident from this probability on.
CONFIDENT = 0.9


def findings(rows: TestedRows, tested: Tested) -> list[str]:
    """Everything that is said of a model.

    Args:
        rows: The rows.
        tested: The model.

    Returns:
        Plain sentences. A share is said of ``ENOUGH`` rows or more; a difference where chance hardly makes it.
    """
    right = Share.of(tested.preds == rows.labels)
    said = [f"{_reviews(right.n)} tested: {right} read right."]
    if not right.enough:
        return [*said, f"Fewer than {ENOUGH} reviews tell no more than that."]
    said += [*_mistakes(rows, tested), *_balance(rows, tested)]
    if rows.ordered:
        said += _distances(rows, tested)
    return [*said, *_confidence(rows, tested), *_lengths(rows, tested)]


def _reviews(n: int) -> str:
    return f"{n:,} review{'' if n == 1 else 's'}"


def _mistakes(rows: TestedRows, tested: Tested) -> list[str]:
    """The most frequent mistake of each class."""
    matrix, names = confusions(rows, tested), rows.class_names
    n, right = matrix.sum(1).tolist(), matrix.diagonal().tolist()
    said: dict[int, str] = {}
    for one in mistakes(matrix):
        if one.share.enough and len(said) < MISTAKES:
            said.setdefault(
                one.true, f"Reviews of {names[one.true]} are read as {names[one.predicted]} in {one.share}."
            )
    for label, name in enumerate(names):
        if n[label] == right[label] >= ENOUGH and len(said) < MISTAKES:
            said[label] = f"All {n[label]:,} reviews of {name} are read right."
    few = [name for name, count in zip(names, n, strict=True) if count < ENOUGH]
    more = f" and {len(few) - MISTAKES} more" if len(few) > MISTAKES else ""
    unsaid = f"Nothing is said of classes with fewer than {ENOUGH} reviews: {', '.join(few[:MISTAKES])}{more}."
    return [sentence for _, sentence in sorted(said.items())] + [unsaid] * bool(few)


def _balance(rows: TestedRows, tested: Tested) -> list[str]:
    """Classes that are predicted more or less often than they are true."""
    matrix = confusions(rows, tested)
    true, predicted = matrix.sum(1), matrix.sum(0)
    # McNemar 1947: of the rows where only one of both has the class, chance would give half to each.
    only = true + predicted - 2 * matrix.diagonal()
    far = np.abs(predicted - true) / np.sqrt(np.maximum(only, 1))
    said = []
    for label in sorted(np.argsort(-far, kind="stable")[:MISTAKES].tolist()):
        if only[label] >= ENOUGH and far[label] > 1.96:
            often = "more" if predicted[label] > true[label] else "less"
            name = rows.class_names[label]
            said.append(
                f"{name} is predicted {often} often than it is true: {predicted[label]:,} against {true[label]:,} of "
                f"{len(rows.labels):,} reviews."
            )
    return said


def _distances(rows: TestedRows, tested: Tested) -> list[str]:
    """How far off the wrong rows are, and in which direction all are."""
    off = tested.preds - rows.labels
    wrong = off[off != 0]
    near = Share.of(np.abs(wrong) == 1)
    said = [f"Of the wrong reviews, {near} are off by one class only."] if near.enough else []
    mean, error = float(off.mean()), float(off.std(ddof=1) / np.sqrt(len(off)))
    if abs(mean) > 1.96 * error:
        side = "high" if mean > 0 else "low"
        said.append(
            f"Predictions are too {side}, by {abs(mean):.2f} classes on average (95 % interval "
            f"{abs(mean) - 1.96 * error:.2f} to {abs(mean) + 1.96 * error:.2f}, n = {len(off):,})."
        )
    return said


def _confidence(rows: TestedRows, tested: Tested) -> list[str]:
    """Whether the probabilities promise what comes true, before and after temperature."""
    right = Share.of(tested.preds == rows.labels)
    low, high = right.interval
    said = []
    confidences = {"Before temperature": tested.raw.probabilities.max(1)}
    if tested.measured.temperature != 1:
        confidences[f"With temperature {tested.measured.temperature:.2f}"] = tested.measured.probabilities.max(1)
    for when, confidence in confidences.items():
        mean = float(confidence.mean())
        judged = "too sure" if mean > high else "too little sure" if mean < low else "about as sure as it may be"
        said.append(
            f"{when} the model is {judged}: its mean confidence is {100 * mean:.0f} %, and {right.percent} of "
            f"{_reviews(right.n)} are read right."
        )
    sure = Share.of(tested.preds[confidence >= CONFIDENT] != rows.labels[confidence >= CONFIDENT])
    if sure.enough:
        said.append(f"Of the reviews read with a confidence of {100 * CONFIDENT:.0f} % or more, {sure} are read wrong.")
    return said


def _lengths(rows: TestedRows, tested: Tested) -> list[str]:
    """The shortest reviews against the longest, and whole against truncated ones."""
    said, right = [], tested.preds == rows.labels
    kinds = [(f"reviews of {group.name} tokens", group.inside) for group in by_length(rows)]
    for groups in (kinds, [(f"{group.name} reviews", group.inside) for group in by_truncation(rows)]):
        (first, inside), (last, others) = groups[0], groups[-1]
        one, other = Share.of(right[inside]), Share.of(right[others])
        if first != last and one.enough and other.enough:
            judged = (
                "a difference that chance hardly makes" if one.differs(other) else "chance alone may differ as much"
            )
            said.append(f"{first.capitalize()} are read right in {one}, {last} in {other}: {judged}.")
    return said
