"""Labels: which class each value of the label column means; never guessed, always said."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from yelp_lightning.errors import UsageError

# `4`, `4.0`, `4 stars`: whole numbers as files have them.
_WHOLE = re.compile(r"\s*(-?\d{1,18})(?:\.0*)?(?:\s+stars?)?\s*", re.IGNORECASE)
_UNKNOWN = -1


class LabelMap:
    """From the values of the label column to classes.

    Args:
        column: The column's name.
        num_labels: Classes ``C``.
        offset: What is subtracted from whole numbers (also ``4.0``, ``4 stars``) to count from 0.
        names: Values in the order of the classes, instead of ``offset``.

    Raises:
        UsageError: If the names do not fit.

    Example:
        >>> LabelMap("stars", 5, offset=1).classes(["5 stars", 1.0, "6"]).tolist()
        [4, 0, -1]
        >>> LabelMap("mood", 2, names=["negative", "positive"]).classes(["positive"]).tolist()
        [1]
    """

    def __init__(self, column: str, num_labels: int, offset: int = 0, names: Sequence[str] | None = None) -> None:
        if names is not None:
            _check_names(names, num_labels, offset)
        self.column = column
        self.num_labels = num_labels
        self.offset = offset
        self.names = None if names is None else {name: label for label, name in enumerate(names)}

    @property
    def allowed(self) -> str:
        """The values that have a class, in words."""
        if self.names is not None:
            return f"{', '.join(map(repr, self.names))} (data.label_names)"
        return f"whole numbers {self.offset}..{self.offset + self.num_labels - 1} (data.label_offset {self.offset})"

    def describe(self, class_names: Sequence[str]) -> str:
        """What was decided, in one line.

        Args:
            class_names: Names of the classes.

        Returns:
            Which value means which class.
        """
        first, last = (
            (self.offset, self.offset + self.num_labels - 1)
            if self.names is None
            else (repr(next(iter(self.names))), repr(list(self.names)[-1]))
        )
        option = f"data.label_offset {self.offset}" if self.names is None else "data.label_names"
        return f"Labels: {first} in column {self.column!r} is {class_names[0]}, {last} is {class_names[-1]} ({option})"

    def classes(self, values: Sequence[Any] | pa.Array) -> npt.NDArray[np.int16]:
        """Classes of a column of values.

        Args:
            values: As a reader has them, ``(n,)``.

        Returns:
            ``(n,)``, -1 where a value has no class.
        """
        if isinstance(values, pa.Array) and (pa.types.is_nested(values.type) or pa.types.is_null(values.type)):
            values = values.to_pylist()
        if isinstance(values, pa.Array):
            # Few values stand in many rows: each is looked at once.
            encoded = values.dictionary_encode("encode")
            known = np.array([self._class(value) for value in encoded.dictionary.to_pylist()], np.int16)
            return known[encoded.indices.to_numpy(zero_copy_only=False)] if len(known) else np.empty(0, np.int16)
        seen: dict[Any, int] = {}
        found = []
        for value in values:
            # 1, 1.0 and True are equal to a dict; a list is none of its keys.
            key = (type(value), value if isinstance(value, str | int | float) else repr(value))
            if (label := seen.get(key)) is None:
                label = seen[key] = self._class(value)
            found.append(label)
        return np.array(found, np.int16)

    def problem(self, value: Any) -> tuple[str, str]:
        """Why a value has no class.

        Args:
            value: As a reader has it.

        Returns:
            The kind of reason, and the reason.
        """
        if value is None or (isinstance(value, str) and not value.strip()):
            return "no label", f"{self.column!r} is empty"
        shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:40] + "..."
        return "label outside", f"{self.column!r} is {shown}"

    def _class(self, value: Any) -> int:
        if self.names is not None:
            if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
                value = int(value)
            # NaN is what pandas makes of a missing value.
            no_name = value is None or isinstance(value, bool) or value != value
            return _UNKNOWN if no_name else self.names.get(str(value).strip(), _UNKNOWN)
        if isinstance(value, str):
            match = _WHOLE.fullmatch(value)
            value = int(match[1]) if match else None
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            return _UNKNOWN
        # A whole number may be too large for isfinite.
        if not isinstance(value, int) and (not math.isfinite(value) or value != int(value)):
            return _UNKNOWN
        label = int(value) - self.offset
        return label if 0 <= label < self.num_labels else _UNKNOWN


def _check_names(names: Sequence[str], num_labels: int, offset: int) -> None:
    if len(names) != num_labels:
        raise UsageError(
            f"`data.label_names` are {len(names)} ({', '.join(names)}), but `model.num_labels` is {num_labels}: "
            f"give as many names as classes, or --model.num_labels {len(names)}."
        )
    if len(set(names)) < len(names) or not all(name.strip() == name != "" for name in names):
        raise UsageError(
            f"`data.label_names` are {list(names)!r}, but must be different texts without space at their ends: "
            "mend them."
        )
    if offset:
        raise UsageError(
            f"`data.label_offset` is {offset} beside data.label_names, which say what each value means: leave one out."
        )
