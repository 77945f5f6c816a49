"""Losses of models trained with known compute -> the scaling curve L(C) = e + a C^-b and its inverse.

Knows nothing of observations: `autointerp.estimates` brings in the measured loss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

__all__ = ["ComputeCurve", "CurveDraws"]

_EXPONENTS = np.geomspace(0.005, 4.0, 600)  # published exponents of language models lie between 0.02 and 0.5
_SMALLEST = 1e-12  # keeps logarithms of parameters finite; far below any loss in nats

_SMALLEST_FALL = 1e-9  # of the loss itself; a curve that falls less has no inverse worth the name
_NO_FALL = "the losses of the compute curve's points do not fall with compute"


@dataclass(frozen=True)
class CurveDraws:
    """Curves refitted to resampled residuals, all parameters as arrays with one entry a draw."""

    irreducible_nats: Float[np.ndarray, " draw"]
    scale_nats: Float[np.ndarray, " draw"]
    exponent: Float[np.ndarray, " draw"]
    lowest_flops: float
    highest_flops: float
    unit_flops: float

    def compute_after(
        self, delta_nats: Float[np.ndarray, " draw"], *, from_flops: float
    ) -> Float[np.ndarray, " draw"]:
        """FLOPs at which each draw's curve lies `delta_nats` above its value at `from_flops`.

        Draws that leave the range of the supplied points are clipped to its ends.
        """
        floor_distance = self.scale_nats * (from_flops / self.unit_flops) ** -self.exponent + delta_nats
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            flops = self.unit_flops * (self.scale_nats / floor_distance) ** (1.0 / self.exponent)
        flops = np.where(floor_distance > 0, flops, np.inf)  # below the curve's floor: more than any compute
        return np.clip(flops, self.lowest_flops, self.highest_flops)


@dataclass(frozen=True)
class ComputeCurve:
    """L(C) = e + a (C / C0)^-b in nats, fitted by least squares; valid between its outermost points only."""

    irreducible_nats: float
    """e: the loss that no compute removes."""
    scale_nats: float
    """a: what compute can still remove at C0."""
    exponent: float
    """b > 0: the power of compute."""
    flops: Float[np.ndarray, " point"]
    """Training compute of the points, rising."""
    losses: Float[np.ndarray, " point"]
    """Their losses in nats."""
    unit_flops: float
    """C0: the geometric mean of the points' compute; keeps the fit's numbers near one."""

    @classmethod
    def fit(cls, points: Sequence[Sequence[float]]) -> "ComputeCurve":
        """Nonlinear least squares over (log e, log a, log b) from several starts; the best one wins.

        Args:
            points: (training FLOPs, loss in nats) of each model.

        Raises:
            ValueError: fewer than four points with different compute, a number that is not positive, or
                losses that do not fall with compute.
        """
        table = np.asarray(sorted(map(tuple, points)), dtype=np.float64).reshape(-1, 2)
        flops, losses = table[:, 0], table[:, 1]
        if len(np.unique(flops)) < 4:
            raise ValueError(f"a compute curve needs at least 4 points, got {len(np.unique(flops))}")
        if not (np.isfinite(table).all() and (table > 0).all()):
            raise ValueError("compute and loss of every point of a compute curve must be positive")
        if _slope(np.log(flops), losses) >= 0:
            raise ValueError(_NO_FALL)
        unit_flops = float(np.exp(np.log(flops).mean()))
        relative = flops / unit_flops
        fits = [_refine(relative, losses, start) for start in _starts(relative, losses)]
        best = min(fits, key=lambda fit: fit.cost)
        irreducible, scale, exponent = np.exp(best.x).tolist()
        curve = cls(irreducible, scale, exponent, flops, losses, unit_flops)
        lowest, highest = curve.loss_range
        if highest - lowest <= _SMALLEST_FALL * highest:
            raise ValueError(_NO_FALL)
        return curve

    def loss(self, flops: float) -> float:
        """Loss in nats of a model trained with `flops`."""
        return self.irreducible_nats + self.scale_nats * (flops / self.unit_flops) ** -self.exponent

    @property
    def loss_range(self) -> tuple[float, float]:
        """Lowest and highest loss within the supplied points: where the inverse may be trusted."""
        return self.loss(float(self.flops[-1])), self.loss(float(self.flops[0]))

    def compute(self, loss_nats: float) -> float | None:
        """FLOPs of a model with this loss; None outside the range of the supplied points."""
        lowest, highest = self.loss_range
        # the two ends themselves must invert although exponentiation rounds
        slack = 1e-12 * highest
        if not lowest - slack <= loss_nats <= highest + slack:
            return None
        floor_distance = loss_nats - self.irreducible_nats
        if floor_distance <= 0:  # by rounding only: the curve's end all but reaches its floor
            return float(self.flops[-1])
        # in logarithms, for a steep inverse overflows before it can be clipped
        log_ratio = (math.log(self.scale_nats) - math.log(floor_distance)) / self.exponent
        log_ends = np.log(self.flops[[0, -1]] / self.unit_flops)
        flops = self.unit_flops * math.exp(np.clip(log_ratio, *log_ends))
        return float(np.clip(flops, self.flops[0], self.flops[-1]))

    def draws(self, count: int, generator: np.random.Generator) -> CurveDraws:
        """Residual bootstrap: curves refitted to the fitted losses plus resampled residuals.

        Residuals are centred and widened by sqrt(point / (point - 3)), since three parameters were fitted.
        """
        fitted = np.array([self.loss(c) for c in self.flops])
        residuals = self.losses - fitted
        point_count = len(residuals)
        spare = max(point_count - 3, 1)
        residuals = (residuals - residuals.mean()) * np.sqrt(point_count / spare)
        picks = generator.integers(0, point_count, size=(count, point_count))
        irreducible, scale, exponent = _profile_fit(self.flops / self.unit_flops, fitted + residuals[picks])
        return CurveDraws(
            irreducible, scale, exponent, float(self.flops[0]), float(self.flops[-1]), self.unit_flops
        )


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of the line through the points: its sign says whether the losses fall."""
    centred = x - x.mean()
    return float(centred @ (y - y.mean()) / (centred @ centred))


def _starts(relative: np.ndarray, losses: np.ndarray) -> list[np.ndarray]:
    """Log parameters to start from: the best of a grid over b, and guesses far from it."""
    profiled = np.log([max(float(p[0]), _SMALLEST) for p in _profile_fit(relative, losses[None, :])])
    lowest, spread = losses.min(), max(float(np.ptp(losses)), _SMALLEST)
    guesses = [np.log([lowest * share, spread, b]) for share in (0.3, 0.9) for b in (0.05, 0.3, 1.0)]
    return [profiled, *guesses]


def _refine(relative: np.ndarray, losses: np.ndarray, start: np.ndarray) -> "OptimizeResult":  # noqa: F821
    """One least-squares descent with the analytic Jacobian in log parameters."""

    def residuals(log_parameters: np.ndarray) -> np.ndarray:
        irreducible, scale, exponent = np.exp(log_parameters)
        return irreducible + scale * relative**-exponent - losses

    def jacobian(log_parameters: np.ndarray) -> np.ndarray:
        irreducible, scale, exponent = np.exp(log_parameters)
        power = scale * relative**-exponent
        constant = np.full_like(relative, irreducible)
        return np.stack([constant, power, -exponent * np.log(relative) * power], axis=1)

    lower = np.log([_SMALLEST, _SMALLEST, 1e-4])
    upper = np.log([1e3, 1e6, 10.0])
    start = np.clip(start, lower + 1e-9, upper - 1e-9)
    return least_squares(
        residuals, start, jac=jacobian, bounds=(lower, upper), xtol=1e-14, ftol=1e-14, gtol=1e-14
    )


def _profile_fit(
    relative: Float[np.ndarray, " point"], losses: Float[np.ndarray, "draw point"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares for many loss vectors at once: for a fixed b the rest is linear, so b is scanned.

    Only as fine as the grid of b (about 1 %), which is far below the scatter that draws are meant to show.
    """
    shape = (len(_EXPONENTS), len(losses))
    errors, intercepts, slopes = np.empty(shape), np.empty(shape), np.empty(shape)
    means = losses.mean(axis=1)
    for row, exponent in enumerate(_EXPONENTS):
        power = relative**-exponent
        centred = power - power.mean()
        slope = (losses @ centred) / (centred @ centred)
        intercept = means - slope * power.mean()
        # a negative floor is no loss: the best fit with e >= 0 then has e = 0
        at_zero = intercept < 0
        slope = np.where(at_zero, (losses @ power) / (power @ power), slope)
        intercept = np.where(at_zero, 0.0, intercept)
        slope = np.maximum(slope, _SMALLEST)
        intercepts[row], slopes[row] = intercept, slope
        errors[row] = ((intercept[:, None] + slope[:, None] * power - losses) ** 2).sum(axis=1)
    best, draw = errors.argmin(axis=0), np.arange(len(losses))
    return intercepts[best, draw], slopes[best, draw], _EXPONENTS[best]
