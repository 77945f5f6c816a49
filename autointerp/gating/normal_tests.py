"""One-sided tests and bounds from an estimate and its standard error; the standard library alone."""

import math
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["Uncertain", "holm_rejections", "units_needed"]

_NORMAL = NormalDist()
_NEAREST = 1e-6


@dataclass(frozen=True)
class Uncertain:
    """A number, and how far off it may be to either side."""

    value: float
    error_low: float
    """Standard error towards smaller values; an interval need not be symmetric."""
    error_high: float
    n: int
    """Of units or clusters; few of them widen everything, as Student's t does."""
    sampled: str

    @classmethod
    def of_interval(
        cls,
        value: float,
        low: float,
        high: float,
        *,
        level: float,
        n: int,
        sampled: str,
        is_cut_low: bool = False,
        is_cut_high: bool = False,
    ) -> "Uncertain":
        """From a two-sided interval: an end is where a normal of that side's width would have it.

        Student's widening is in such an interval already, so none is added (n counts as many). An end that is
        cut off at the bound of the metric's range, or that lies beyond the value, as a bootstrap's can, is
        too near: that side's error is then no smaller than the other's, or the whole interval's half.
        """
        z = _NORMAL.inv_cdf((1 + level) / 2)
        below, above = value - low, high - value
        half = (high - low) / 2
        least_below = half if below < 0 else above if is_cut_low else 0.0
        least_above = half if above < 0 else below if is_cut_high else 0.0
        return cls(value, max(below, least_below) / z, max(above, least_above) / z, n, sampled)

    def minus(self, other: "Uncertain") -> "Uncertain":
        """The difference of two independent ones."""
        return Uncertain(
            self.value - other.value,
            math.hypot(self.error_low, other.error_high),
            math.hypot(self.error_high, other.error_low),
            min(self.n, other.n),
            self.sampled,
        )

    def negated(self) -> "Uncertain":
        """With the sign turned."""
        return Uncertain(-self.value, self.error_high, self.error_low, self.n, self.sampled)

    @property
    def has_width(self) -> bool:
        """Whether it is uncertain at all."""
        return self.error_low > 0 or self.error_high > 0

    def all_alike(self, lowest: float, highest: float) -> "Uncertain":
        """Of n units that are all alike: a share of others, 1 - .025^(1/n), may lie anywhere in the range."""
        share = (1 - 0.025 ** (1 / self.n)) / _NORMAL.inv_cdf(0.975)
        low, high = share * (self.value - lowest), share * (highest - self.value)
        return Uncertain(self.value, low, high, self.n, self.sampled)

    def upper(self, level: float) -> float:
        """The one-sided upper bound."""
        return self.value + _NORMAL.inv_cdf(level) * self.error_high

    def p_above(self, limit: float) -> float:
        """p-value for the truth being above the limit: small where the value lies clearly above it."""
        return _tail(self.value - limit, self.error_low)


def _tail(excess: float, error: float) -> float:
    if error == 0:
        return 0.0 if excess > 0 else 1.0
    return 1.0 - _NORMAL.cdf(excess / error)


def holm_rejections(p_values: list[float], *, alpha: float) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects at a familywise error rate of `alpha`.

    The smallest p-value is held against alpha / m, the next against alpha / (m - 1), ...; it ends at the
    first that is not below. Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    rejected = [False] * len(p_values)
    for step, place in enumerate(order):
        if p_values[place] > alpha / (len(p_values) - step):
            break
        rejected[place] = True
    return rejected


def units_needed(found: Uncertain, limit: float, *, level: float) -> int | None:
    """How many units in all would decide, if the value stayed as it is: widths fall with the root of n.

    None where the value lies on the limit, or so near that none that exist would do.
    """
    distance = abs(found.value - limit)
    width = _NORMAL.inv_cdf(level) * (found.error_high if found.value < limit else found.error_low)
    if width == 0 or distance <= width * _NEAREST:
        return None
    return math.ceil(found.n * (width / distance) ** 2)
