"""Ranking: how often a passage in which the latent fires gets more than one in which it does not."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from autointerp.records import Undefined
from autointerp.scoring.score import Interval, Score, effective_size, normal_quantile

__all__ = ["auroc", "auroc_interval", "auroc_value"]

_MOST_STEPS = 200
_STILL = 1e-15


def auroc(
    prediction: Float[np.ndarray, " example"],
    fires: Bool[np.ndarray, " example"],
    *,
    weight: Float[np.ndarray, " example"] | None = None,
    cluster: np.ndarray | None = None,
    level: float = 0.95,
    name: str = "auroc",
) -> Score | Undefined:
    """P(a positive's prediction > a negative's) + P(equal) / 2 over weighted pairs; 0.5 is chance, 1 best.

    Args:
        prediction: finite; only its order counts. Infinite ones are allowed: they rank at the ends.
        fires: the truth.
        weight: of each example, at least 0; None: all alike.
        cluster: what makes examples dependent (documents), one id each.
        level: coverage of the interval.
        name: what the score is called.

    Undefined without an example of either class of positive weight.

    The interval is Newcombe's, see `auroc_interval`, with effective sizes for weights and documents.

    Raises:
        ValueError: a prediction is NaN, or a weight is negative or not finite.
    """
    weight = np.ones(len(prediction)) if weight is None else weight
    if np.isnan(prediction).any() or not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError("predictions must be numbers, weights finite and at least 0")
    sizes = [effective_size(weight, cluster, side) for side in (fires, ~fires)]
    for size, what in zip(sizes, ("fires", "is silent"), strict=True):
        if size == 0:
            return Undefined(f"no passage in which the latent {what}")
    value = auroc_value(prediction, fires, weight)
    interval = auroc_interval(value, *sizes, level=level)
    return Score(
        name=name,
        value=value,
        low=interval.low,
        high=interval.high,
        level=level,
        method=f"Newcombe's method 5, effective sizes {sizes[0]:.3g} and {sizes[1]:.3g}",
        n=len(prediction),
        n_positive=int(fires.sum()),
        n_negative=int((~fires).sum()),
    )


def auroc_value(
    prediction: Float[np.ndarray, " example"],
    fires: Bool[np.ndarray, " example"],
    weight: Float[np.ndarray, " example"],
) -> float:
    """The AUROC alone; both classes must have weight."""
    levels, place = np.unique(prediction, return_inverse=True)
    positive = np.bincount(place, weights=np.where(fires, weight, 0.0), minlength=len(levels))
    negative = np.bincount(place, weights=np.where(fires, 0.0, weight), minlength=len(levels))
    below = np.cumsum(negative) - negative / 2
    share = float(positive @ below) / (float(positive.sum()) * float(negative.sum()))
    return min(1.0, max(0.0, share))


def auroc_interval(value: float, positives: float, negatives: float, *, level: float) -> Interval:
    """Newcombe's method 5: all a for which |value - a| <= z sqrt(V(a)).

    V(a) = a (1 - a) [1 + N ((1 - a) / (2 - a) + a / (1 + a))] / (m n), N = (m + n) / 2 - 1: Hanley and
    McNeil's variance under exponential distributions, taken at the unknown a and with both classes' sizes
    replaced by their mean in N. Like Wilson's interval it stays in [0, 1] and has width at 0 and 1. With tied
    predictions it is rather too wide.

    Source: Newcombe 2006, Statistics in Medicine 25:559-573 (method 5, the one recommended there).

    Args:
        value: the AUROC seen.
        positives: size m, at least 1, not necessarily whole.
        negatives: size n.
        level: coverage.
    """
    square = normal_quantile(level) ** 2
    middle = (positives + negatives) / 2 - 1

    def width(a: float) -> float:
        return square * (1 + middle * ((1 - a) / (2 - a) + a / (1 + a))) / (positives * negatives)

    low, high = (_crossing(value, width, is_upper=is_upper) for is_upper in (False, True))
    return Interval(min(low, value), max(high, value))


def _crossing(value: float, width: Callable[[float], float], *, is_upper: bool) -> float:
    """The a below or above the value with (value - a)^2 = w(a) a (1 - a).

    Were w a constant, this would be a quadratic equation, and Wilson's interval. It varies by a third at
    most, so solving with the w of the solution before comes to rest at the root.
    """
    a = value
    for _ in range(_MOST_STEPS):
        w = width(a)
        larger = (2 * value + w + math.sqrt(w * w + 4 * w * value * (1 - value))) / 2
        before, a = a, larger / (1 + w) if is_upper else value**2 / larger
        if abs(a - before) < _STILL:
            break
    return min(a, 1.0)
