"""Ranges of numeric options: plain numbers to a type checker, checked values to the command line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    PositiveInt = int
    NonNegativeInt = int
    PositiveFloat = float
    NonNegativeFloat = float
    ClosedUnitInterval = float
    RowCount = int | float
else:
    from jsonargparse.typing import (  # noqa: F401  (imported from here by the option holders)
        ClosedUnitInterval,
        NonNegativeInt,
        PositiveInt,
        register_type,
        restricted_number_type,
    )

    # jsonargparse's own take inf.
    PositiveFloat = restricted_number_type("FinitePositiveFloat", float, [(">", 0), ("<", float("inf"))])
    NonNegativeFloat = restricted_number_type("FiniteNonNegativeFloat", float, [(">=", 0), ("<", float("inf"))])

    class RowCount:
        """A number of rows, or a share of them. As a union of two ranges, a share would be saved as the number 0."""

    def _row_count(value: Any) -> int | float:
        number = float(value)
        if 0 < number < 1:
            return number
        # 1.0 may be meant as one row or as all of them.
        if isinstance(value, float) or "." in str(value) or number < 1:
            raise ValueError("it is neither a number of rows nor a share")
        return int(value)

    def _is_row_count(value: Any, _: type) -> bool:
        return (type(value) is int and value >= 1) or (type(value) is float and 0 < value < 1)

    register_type(RowCount, serializer=lambda value: value, deserializer=_row_count, type_check=_is_row_count)
