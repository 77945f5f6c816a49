"""What a functional makes of a series: a number that can be resampled, or jackknifed, document by document.

Every functional but one is a function of sums over clusters of documents, so all share one form: a matrix of
rows to be summed, and `finish`, which turns those sums into the number. Whoever resamples clusters needs no
more than that, and leaving a cluster out is a subtraction.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from autointerp.compute_curve import ComputeCurve, CurveDraws
from autointerp.records import Outcome, Undefined

__all__ = ["ClusterStatistic", "CurveTransform", "JackknifeStatistic", "Statistic"]


@dataclass(frozen=True, eq=False)
class ClusterStatistic:
    """finish(rows @ counts): a number for each column of counts, the clusters' multiplicities."""

    rows: Float[np.ndarray, "sum cluster"] | sparse.csr_array
    totals: Float[np.ndarray, " sum"]
    """Sums of `rows` over all clusters, correctly rounded whatever the order of the observations."""
    finish: Callable[[np.ndarray], np.ndarray]
    """Sums [sum, column] -> values [column]; NaN where the quantity does not exist."""
    clusters: Int[np.ndarray, " cluster"]
    undefined_reason: str
    note: str = ""
    """What the estimate's `method` must say beside how the interval was made."""
    transform: "CurveTransform | None" = None
    unclear_reason: str = ""
    """Why the number does not exist if it is lacking in more resamples than one tail of the interval holds;
    empty where resamples without a value say nothing of the number itself."""

    def value(self) -> float | Outcome:
        """The number on the sample as it is, or why there is none."""
        number = float(self.finish(self.totals[:, None])[0])
        if not math.isfinite(number):
            return Undefined(self.undefined_reason)
        return self.transform.point(number) if self.transform else number


@dataclass(frozen=True, eq=False)
class JackknifeStatistic:
    """A number and what it becomes when one document is left out, where only some documents matter."""

    number: float
    documents: Int[np.ndarray, " document"]
    """Ranks of the documents whose absence changes the number."""
    changes: Float[np.ndarray, " document"]
    """By how much."""
    document_count: int
    unit_count: int
    """How many latents the number is a share of; of a difference, those of the smaller side."""
    note: str

    def standard_error(self) -> float:
        """sqrt((D-1)/D sum (change - mean change)^2) over all D documents, most of which change nothing."""
        total = self.document_count
        squares = math.fsum(self.changes**2) - math.fsum(self.changes) ** 2 / total
        return math.sqrt(max(squares, 0.0) * (total - 1) / total)

    def minus(self, other: "JackknifeStatistic") -> "JackknifeStatistic":
        """The difference of two numbers seen on the same documents."""
        documents = np.union1d(self.documents, other.documents)
        changes = np.zeros(len(documents))
        np.add.at(changes, np.searchsorted(documents, self.documents), self.changes)
        np.subtract.at(changes, np.searchsorted(documents, other.documents), other.changes)
        return JackknifeStatistic(
            self.number - other.number,
            documents,
            changes,
            self.document_count,
            min(self.unit_count, other.unit_count),
            note="",
        )


@dataclass(frozen=True, eq=False)
class CurveTransform:
    """Rise of the loss -> fraction of training compute that a model with the risen loss would need."""

    curve: ComputeCurve
    draws: CurveDraws
    full_flops: float

    def point(self, delta_nats: float) -> float | Outcome:
        """C(L(full) + delta) / full on the fitted curve; Undefined outside the supplied points."""
        loss = self.curve.loss(self.full_flops) + delta_nats
        flops = self.curve.compute(loss)
        if flops is None:
            lowest, highest = self.curve.loss_range
            return Undefined(
                f"the substituted model's loss of {loss:.4g} nats lies outside the compute curve's "
                f"range of {lowest:.4g} to {highest:.4g} nats"
            )
        return flops / self.full_flops

    def replicates(self, delta_nats: Float[np.ndarray, " resample"]) -> Float[np.ndarray, " resample"]:
        """Each resample through another draw of the curve, clipped to the curve's range; NaN stays NaN."""
        draw_count = len(self.draws.exponent)
        picks = np.arange(len(delta_nats)) % draw_count
        draws = CurveDraws(
            self.draws.irreducible_nats[picks],
            self.draws.scale_nats[picks],
            self.draws.exponent[picks],
            self.draws.lowest_flops,
            self.draws.highest_flops,
            self.draws.unit_flops,
        )
        fractions = draws.compute_after(delta_nats, from_flops=self.full_flops) / self.full_flops
        return np.where(np.isnan(delta_nats), np.nan, fractions)  # clipping would make numbers of them

    @property
    def fraction_range(self) -> tuple[float, float]:
        """The smallest and the largest fraction that the supplied points can give."""
        return self.draws.lowest_flops / self.full_flops, self.draws.highest_flops / self.full_flops


Statistic = ClusterStatistic | JackknifeStatistic
