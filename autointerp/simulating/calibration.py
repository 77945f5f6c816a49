"""A simulator's scale -> units of activation, for R^2 and absolute deviation; fitted on held-out text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

__all__ = [
    "Calibration",
    "LinearCalibration",
    "PercentileCalibration",
    "fit_calibration",
    "fit_linear",
    "fit_percentile",
]

_Values = Float64[np.ndarray, " token"] | Sequence[float]


@runtime_checkable
class Calibration(Protocol):
    """Turns predictions into activations; NaN stays NaN."""

    def apply(self, predicted: _Values) -> Float64[np.ndarray, " token"]:
        """The activations that the predictions stand for."""
        ...


@dataclass(frozen=True)
class LinearCalibration:
    """activation = slope * prediction + intercept; leaves correlations as they are where the slope is > 0."""

    slope: float
    """Units of activation per unit of prediction."""
    intercept: float

    def apply(self, predicted: _Values) -> Float64[np.ndarray, " token"]:
        """The activations that the predictions stand for."""
        return self.slope * np.asarray(predicted, dtype=np.float64) + self.intercept


@dataclass(frozen=True)
class PercentileCalibration:
    """The activation of the same rank: piecewise linear between the fitted values, constant beyond them."""

    predicted: tuple[float, ...]
    """The distinct predictions, ascending."""
    activation: tuple[float, ...]
    """Mean of the sorted activations at each one's ranks."""

    def apply(self, predicted: _Values) -> Float64[np.ndarray, " token"]:
        """The activations that the predictions stand for."""
        values = np.asarray(predicted, dtype=np.float64)
        found = np.interp(values, self.predicted, self.activation)
        return np.where(np.isnan(values), np.nan, found)


def fit_linear(predicted: _Values, truth: _Values) -> LinearCalibration | None:
    """Least squares of the activations on the predictions, over the tokens where both are known.

    slope = cov(p, t) / var(p), intercept = mean(t) - slope mean(p) (Bills et al. 2023).

    Returns:
        None where it is undefined: fewer than two tokens, or all predictions equal.
    """
    p, t = _known(predicted, truth)
    if p.size < 2 or p.min() == p.max():
        return None
    centred = p - p.mean()
    slope = float(centred @ (t - t.mean()) / (centred @ centred))
    return LinearCalibration(slope, float(t.mean() - slope * p.mean()))


def fit_percentile(predicted: _Values, truth: _Values) -> PercentileCalibration | None:
    """The k-th smallest prediction stands for the k-th smallest activation; equal predictions for their mean.

    Which prediction belongs to which activation does not matter (Bills et al. 2023).

    Returns:
        None where it is undefined: no token where both are known.
    """
    p, t = _known(predicted, truth)
    if not p.size:
        return None
    distinct, first, count = np.unique(np.sort(p), return_index=True, return_counts=True)
    means = np.add.reduceat(np.sort(t), first) / count
    return PercentileCalibration(tuple(distinct.tolist()), tuple(means.tolist()))


def fit_calibration(
    kind: Literal["none", "linear", "percentile"], predicted: _Values, truth: _Values
) -> Calibration | None:
    """The calibration that a suite asks for; None for `none`, and where it is undefined.

    Args:
        kind: `suite.explanations.calibration`.
        predicted: of all tokens of the validate split's passages.
        truth: their activations, raw.
    """
    if kind == "none":
        return None
    return fit_linear(predicted, truth) if kind == "linear" else fit_percentile(predicted, truth)


def _known(predicted: _Values, truth: _Values) -> tuple[np.ndarray, np.ndarray]:
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if p.shape != t.shape:
        raise ValueError(f"{p.size} predictions and {t.size} activations")
    known = np.isfinite(p) & np.isfinite(t)
    return p[known], t[known]
