"""Ranges of numeric options: plain numbers to a type checker, checked values to the command line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    PositiveInt = int
    NonNegativeInt = int
    PositiveFloat = float
    NonNegativeFloat = float
    ClosedUnitInterval = float
    OpenUnitInterval = float
else:
    from jsonargparse.typing import (  # noqa: F401  (imported from here by the option holders)
        ClosedUnitInterval,
        NonNegativeFloat,
        NonNegativeInt,
        OpenUnitInterval,
        PositiveFloat,
        PositiveInt,
    )
