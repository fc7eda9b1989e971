"""Shares: how many of how many, how sure that is, and from how many rows on it is said."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yelp_lightning.modeling.intervals import share_interval

# Of fewer rows nothing is said: at 20, the 95 % interval of a half reaches from 30 to 70 %.
ENOUGH = 20


@dataclass(frozen=True)
class Share:
    """A share of some rows.

    Args:
        count: How many.
        n: Of how many.
    """

    count: int
    n: int

    @classmethod
    def of(cls, true: npt.NDArray[np.bool_]) -> "Share":
        """The share of rows for which something is true.

        Args:
            true: Whether it is, ``(n,)``.

        Returns:
            The share.
        """
        return cls(int(true.sum()), len(true))

    @property
    def value(self) -> float:
        """The share itself, of 1; nan of no rows."""
        return self.count / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, shares of 1; all from 0 to 1 where there are no rows."""
        return share_interval(self.count, self.n) if self.n else (0.0, 1.0)

    @property
    def enough(self) -> bool:
        """Whether there are rows enough to say it."""
        return self.n >= ENOUGH

    @property
    def percent(self) -> str:
        """The share in percent, such as ``31 %``; with a decimal where it is near 0 or 100."""
        percent = 100 * self.value
        return f"{percent:.0f} %" if 10 <= percent <= 90 or self.count in (0, self.n) else f"{percent:.1f} %"

    def __str__(self) -> str:
        low, high = (f"{100 * end:.0f}" for end in self.interval)
        return f"{self.percent} ({self.count:,} of {self.n:,}; 95 % interval {low} to {high} %)"

    def differs(self, other: "Share") -> bool:
        """Whether the difference of two shares, of different rows, is more than chance makes.

        Args:
            other: The other share.

        Returns:
            True if the 95 % interval of the difference leaves out 0.

        Source:
            Newcombe 1998, method 10: the interval of a difference from the two Wilson intervals.
        """
        low, high = sorted((self, other), key=lambda share: share.value)
        down, up = high.value - high.interval[0], low.interval[1] - low.value
        return high.value - low.value > float(np.hypot(down, up))
