"""Made-up tested rows for the report, of any number of rows and classes."""

from collections.abc import Sequence

import numpy as np

from yelp_lightning.modeling.metrics import Measured
from yelp_lightning.pretrained import class_names
from yelp_lightning.report.rows import Shown, Tested, TestedRows

MAX_LENGTH = 128


def made(
    n: int = 400, classes: int = 5, names: Sequence[str] | None = None, ordered: bool = True,
    absent: Sequence[int] = (), seed: int = 0, temperature: float = 1.5, skill: float = 2.0,
) -> tuple[TestedRows, Tested]:  # fmt: skip
    """Rows and a model that reads them with some skill; classes that are absent are never true."""
    random = np.random.default_rng(seed)
    labels = random.choice([label for label in range(classes) if label not in absent], n)
    logits = random.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += np.float32(skill)
    lengths = random.integers(3, 300, n).astype(np.int32)

    def shown(rows: Sequence[int]) -> list[Shown]:
        return [Shown(f"line {row + 2} of made.csv", f"<script>{row}</script> " + "so good " * 100) for row in rows]

    rows = TestedRows(
        labels, lengths, lengths > MAX_LENGTH, tuple(class_names(classes, names).values()), ordered, shown
    )
    return rows, Tested("mine", Measured(logits, labels, np.arange(n), temperature))
