"""Tested rows: their labels and lengths, and what a report shows of single ones; and what a model made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.modeling.metrics import Measured
from yelp_lightning.pretrained import class_names


@dataclass(frozen=True)
class Shown:
    """A row that is shown.

    Args:
        place: Where it stands, such as ``line 12 of test.csv``.
        text: The review.
    """

    place: str
    text: str


@dataclass(frozen=True)
class TestedRows:
    """The rows that models were tested on; ``n`` of them.

    Args:
        labels: True classes, ``(n,)``, 0..C-1.
        lengths: Tokens before truncation, ``(n,)``.
        truncated: Whether the model saw only a part of the review, ``(n,)``.
        class_names: Names of the ``C`` classes.
        ordered: Whether the classes are ordered.
        shown: Reads rows, given their numbers in any order: texts stay in their files until then.
    """

    __test__ = False  # pytest would take it for a test

    labels: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    class_names: tuple[str, ...]
    ordered: bool
    shown: Callable[[Sequence[int]], list[Shown]]

    @classmethod
    def of(cls, datamodule: ReviewDataModule, ordered: bool, measured: npt.NDArray[np.int64]) -> "TestedRows":
        """The test rows of a data module.

        Args:
            datamodule: Its ``test`` stage has been set up.
            ordered: ``model.ordered``.
            measured: Numbers of the rows that were measured: all, but for ``trainer.limit_test_batches``.

        Returns:
            The rows.
        """
        tokens = datamodule.tokens["test"]
        labels, lengths = tokens.labels[measured].astype(np.int64), tokens.full_lengths[measured]
        table, chosen = datamodule.reviews.rows["test"].table, datamodule.reviews.chosen["test"][measured]

        def shown(rows: Sequence[int]) -> list[Shown]:
            # Both are read in the order of the table, once.
            numbers, order = np.unique(chosen[np.asarray(rows, np.int64)], return_inverse=True)
            read = zip(table.places(numbers), table.texts(numbers), strict=True)
            found = [Shown(f"{file.unit} {line} of {file}", text) for (file, line), text in read]
            return [found[place] for place in order.tolist()]

        options = datamodule.hparams
        names = class_names(options["num_labels"], options["label_names"])
        return cls(labels, lengths, lengths > tokens.lengths[measured], tuple(names.values()), ordered, shown)


@dataclass(frozen=True)
class Tested:
    """A model on the tested rows.

    Args:
        name: What it is called in the report.
        measured: Its logits, in the order of the rows.
    """

    __test__ = False

    name: str
    measured: Measured

    @property
    def preds(self) -> npt.NDArray[np.int64]:
        """Most probable class of each row, ``(n,)``."""
        preds: npt.NDArray[np.int64] = self.measured.logits.argmax(-1)
        return preds

    @property
    def raw(self) -> Measured:
        """The same before temperature."""
        return replace(self.measured, temperature=1.0)
