"""Single reviews in the report: the wrong ones that the model is surest of, and those whose label is likely wrong."""

import html
from collections.abc import Sequence

import numpy as np

from yelp_lightning.page import NAMED_CLASSES
from yelp_lightning.report.counts import surest_wrong
from yelp_lightning.report.noise import EXTRA, can_find, enough, label_errors
from yelp_lightning.report.rows import Tested, TestedRows
from yelp_lightning.report.shares import ENOUGH

# Characters of a review that are shown, reviews at most, those of them that are open at first, probabilities of many
# classes.
TEXT, REVIEWS, OPEN, TOP = 600, 50, 10, 5


def wrong_section(rows: TestedRows, tested: Tested) -> str:
    """The wrong reviews of the highest confidence, with their probabilities.

    Args:
        rows: The rows.
        tested: The model.

    Returns:
        The html.
    """
    shown = surest_wrong(tested)
    wrong = int((tested.preds != rows.labels).sum())
    if not wrong:
        return "<p>No review was read wrong.</p>"
    return f"<p>{len(shown):,} of {wrong:,}, the surest first.</p>{_reviews(rows, tested, shown)}"


def label_errors_section(rows: TestedRows, tested: Tested) -> str:
    """Reviews whose label is likely wrong.

    Args:
        rows: The rows.
        tested: The model; it was not trained on them.

    Returns:
        The html.
    """
    if not enough(tested.measured):
        return f"<p>Label errors are looked for in {ENOUGH} reviews or more, of two classes or more.</p>"
    if not can_find():
        return f'<p>They are found by cleanlab: <code>pip install "yelp-lightning[{EXTRA}]"</code>.</p>'
    found = label_errors(tested.measured)
    if not found:
        return f"<p>None was found among {len(rows.labels):,} reviews.</p>"
    said = (
        f"<p>{len(found):,} of {len(rows.labels):,} labels, by confident learning (cleanlab): the model is surer of "
        "another class than it usually is of that class's reviews. It may be the model that is wrong: read them. The "
        f"{min(len(found), REVIEWS):,} whose label has the lowest probability:</p>"
    )
    return said + _reviews(rows, tested, found[:REVIEWS])


def _reviews(rows: TestedRows, tested: Tested, numbers: Sequence[int]) -> str:
    probabilities = tested.measured.probabilities[numbers]
    items = []
    for number, shown, one in zip(numbers, rows.shown(numbers), probabilities, strict=True):
        true, predicted = int(rows.labels[number]), int(tested.preds[number])
        names = rows.class_names
        listed = range(len(names)) if len(names) <= NAMED_CLASSES else np.argsort(-one, kind="stable")[:TOP].tolist()
        chances = ", ".join(f"{names[label]} {one[label]:.3f}" for label in dict.fromkeys([*listed, true]))
        text = shown.text if len(shown.text) <= TEXT else f"{shown.text[:TEXT]} …"
        head = f"{names[true]}, read as {names[predicted]} ({100 * one[predicted]:.1f} %)"
        items.append(
            f"<li><strong>{html.escape(head)}</strong>, {html.escape(shown.place)}<blockquote>{html.escape(text)}"
            f"</blockquote>{html.escape(chances)}</li>"
        )
    opened = f"<ol>{''.join(items[:OPEN])}</ol>"
    if len(items) <= OPEN:
        return opened
    return (
        f"{opened}<details><summary>The other {len(items) - OPEN}</summary>"
        f'<ol start="{OPEN + 1}">{"".join(items[OPEN:])}</ol></details>'
    )
