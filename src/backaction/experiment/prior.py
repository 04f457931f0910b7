"""What is known of a parameter before a record."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Prior:
    """What is known of a parameter before the record.

    Normal (mean, sd), cut at `lower` and `upper` where these are given; uniform between `lower` and `upper` alone; or
    log-normal: ln x is normal about ln `median` with standard deviation ln `factor`.
    """

    mean: float | None = None
    sd: float | None = None
    lower: float | None = None
    upper: float | None = None
    median: float | None = None
    factor: float | None = None

    def outside(self, low: float, high: float) -> bool:
        """Whether it leaves nothing (or nothing within 8 sd) of a field's bounds."""
        low = low if self.lower is None else max(low, self.lower)
        high = high if self.upper is None else min(high, self.upper)
        if self.mean is not None and self.sd is not None:
            return not low < high or (low - self.mean) / self.sd > 8 or (high - self.mean) / self.sd < -8
        return not low < high if self.median is None else not low <= self.median <= high

    def moved(self, value: float) -> Prior:
        """The same prior about another centre; a uniform one stays."""
        if self.mean is not None:
            return replace(self, mean=value)
        return replace(self, median=value) if self.median is not None else self
