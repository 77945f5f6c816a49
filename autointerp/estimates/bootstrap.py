"""Statistics of clusters -> resampled values -> intervals and p-values.

Nothing here depends on the order in which statistics come: each set of clusters has its own random stream,
seeded by the clusters' ids, and all sums over clusters are exact.

Resampling D clusters shows sqrt((D-1)/D) of the true spread, and its quantiles are a normal's where a
Student's t is asked for. Both are made good before BCa's correction: the tail alpha is replaced by
Phi(sqrt(D/(D-1)) t_alpha(D-1)) (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", the
expanded percentile interval). At 1000 clusters nothing is left of it.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.special import betaincinv, ndtr, ndtri, stdtr, stdtrit

from autointerp.estimates.statistics import ClusterStatistic

__all__ = [
    "FEWEST_CLUSTERS",
    "Interval",
    "Replicates",
    "binomial_interval",
    "bootstrap_interval",
    "resample_all",
    "smallest_p_value",
    "two_sided_p_value",
    "unseen_share",
]

FEWEST_CLUSTERS = 5
"""Below, even the range of all D values misses their median with probability 2^(1-D) > 10 %."""

_BLOCK_BYTES = 64 * 2**20  # of resampling counts held at once
_NUMBERS_AT_ONCE = 2**22  # sums held at once where a statistic has many
_FEW = 30  # clusters below which the widening of the tails is worth a word (4 % of the width)
_ROUNDING = 1e-10  # spread, relative to the numbers themselves, that fixed-point sums can feign


@dataclass(frozen=True, eq=False)
class Replicates:
    """A statistic under resampling of clusters and with each cluster left out; NaN where undefined."""

    value: float
    resampled: Float[np.ndarray, " resample"]
    left_out: Float[np.ndarray, " cluster"] | None
    """None where the number rests on more than the clusters, so that BCa does not apply."""
    cluster_count: int
    magnitude: float
    """Largest absolute value behind these numbers: what their rounding errors are relative to."""

    @property
    def is_constant(self) -> bool:
        """Whether resampling changed nothing: all clusters are alike."""
        return _is_constant(self.resampled[np.isfinite(self.resampled)], self)

    def minus(self, other: "Replicates") -> "Replicates":
        """The paired difference: both were resampled with the same counts."""
        has_both = self.left_out is not None and other.left_out is not None
        return Replicates(
            self.value - other.value,
            self.resampled - other.resampled,
            self.left_out - other.left_out if has_both else None,
            self.cluster_count,
            max(self.magnitude, other.magnitude),
        )

    def minus_independent(self, other: "Replicates") -> "Replicates":
        """The difference of two samples that share no cluster: each was resampled by itself.

        Degrees of freedom are those of the smaller sample, the fewest that Welch's can be. Influences on the
        difference are those on either side, each about its own mean.
        """
        left_out = None
        if self.left_out is not None and other.left_out is not None:
            own, others = (side - side.mean() for side in (self.left_out, other.left_out))
            left_out = np.concatenate([own, -others])
        return Replicates(
            self.value - other.value,
            self.resampled - other.resampled,
            left_out,
            min(self.cluster_count, other.cluster_count),
            max(self.magnitude, other.magnitude),
        )


@dataclass(frozen=True)
class Interval:
    """Ends of an interval and how they were found."""

    low: float
    high: float
    method: str


def resample_all(
    statistics: Sequence[ClusterStatistic], cluster_ids: np.ndarray, *, resamples: int, seed: int
) -> list[Replicates]:
    """Replicates of every statistic; those on the same clusters share their resampling counts.

    Args:
        statistics: each has a value (is not Undefined).
        cluster_ids: what the statistics' cluster ranks stand for.
        resamples: how many bootstrap samples.
        seed: enters the random stream beside the clusters' ids.
    """
    by_clusters: dict[bytes, list[int]] = defaultdict(list)
    for number, statistic in enumerate(statistics):
        by_clusters[statistic.clusters.tobytes()].append(number)
    replicates: dict[int, Replicates] = {}
    for numbers in by_clusters.values():
        members = [statistics[number] for number in numbers]
        generator = _generator(cluster_ids[members[0].clusters], seed)
        resampled = _resample(members, generator, resamples)
        for number, member, values in zip(numbers, members, resampled, strict=True):
            replicates[number] = _replicates(member, values)
    return [replicates[number] for number in range(len(statistics))]


def _generator(ids: np.ndarray, seed: int) -> np.random.Generator:
    digest = hashlib.sha256("\n".join([str(seed), *ids.tolist()]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _resample(
    members: Sequence[ClusterStatistic], generator: np.random.Generator, resamples: int
) -> list[np.ndarray]:
    """Values of each statistic, which all rest on the same clusters, in every resample."""
    cluster_count = len(members[0].clusters)
    dense = [n for n, member in enumerate(members) if not sparse.issparse(member.rows)]
    stacked = np.concatenate([members[n].rows for n in dense]) if dense else None
    values = [np.empty(resamples) for _ in members]
    start = 0
    for counts in _counts(cluster_count, generator, resamples):
        columns = slice(start, start + counts.shape[1])
        start = columns.stop
        dense_sums = None if stacked is None else stacked @ counts
        row = 0
        for n, member in enumerate(members):
            if sparse.issparse(member.rows):
                values[n][columns] = _finish_in_blocks(member, counts)
            else:
                values[n][columns] = member.finish(dense_sums[row : row + len(member.rows)])
                row += len(member.rows)
    return values


def _finish_in_blocks(member: ClusterStatistic, counts: np.ndarray) -> np.ndarray:
    """Values in each resample; rows may be many (one an example), so a few resamples at a time."""
    width = max(1, _NUMBERS_AT_ONCE // member.rows.shape[0])
    starts = range(0, counts.shape[1], width)
    return np.concatenate([member.finish(member.rows @ counts[:, n : n + width]) for n in starts])


def _counts(
    cluster_count: int, generator: np.random.Generator, resamples: int
) -> Iterator[Float[np.ndarray, "cluster resample"]]:
    """How often each cluster occurs in each resample, in blocks of bounded size."""
    block = max(1, min(resamples, _BLOCK_BYTES // (8 * cluster_count)))
    for start in range(0, resamples, block):
        width = min(block, resamples - start)
        draws = generator.integers(0, cluster_count, size=(width, cluster_count), dtype=np.int32)
        draws = draws + np.arange(width, dtype=np.int64)[:, None] * cluster_count
        counts = np.bincount(draws.ravel(), minlength=width * cluster_count)
        yield counts.reshape(width, cluster_count).T.astype(np.float64, order="C")


def _replicates(statistic: ClusterStatistic, values: np.ndarray) -> Replicates:
    value = statistic.value()
    if not isinstance(value, float):
        raise TypeError(f"only a statistic with a value can be resampled, got {value}")
    left_out = None if statistic.transform else jackknife(statistic)
    values = statistic.transform.replicates(values) if statistic.transform else values
    magnitude = max(abs(value), float(np.abs(values[np.isfinite(values)]).max(initial=0.0)))
    return Replicates(value, values, left_out, len(statistic.clusters), magnitude)


def jackknife(statistic: ClusterStatistic) -> Float[np.ndarray, " cluster"]:
    """The statistic with each cluster left out: its sums less that cluster's share of them."""
    rows = statistic.rows
    row_count, cluster_count = rows.shape
    totals = np.asarray(rows.sum(axis=1)).reshape(-1, 1)
    width = max(1, _NUMBERS_AT_ONCE // row_count)
    columns = rows.tocsc() if sparse.issparse(rows) else rows
    parts = []
    for start in range(0, cluster_count, width):
        part = columns[:, start : start + width]
        part = part.toarray() if sparse.issparse(part) else part
        parts.append(statistic.finish(totals - part))
    return np.concatenate(parts)


def bootstrap_interval(replicates: Replicates, *, level: float) -> Interval | None:
    """BCa interval (Efron 1987); percentile where its correction does not exist; one point if all are equal.

    Its tails are widened for the number of clusters, see above. Under six clusters, no interval of 95 % can
    be had without assuming a distribution: what is given covers about 90 %.

    Resamples in which the statistic does not exist are left out and counted in the method. None where they
    are more than half: an interval from the rest would be one of another quantity.
    """
    values = replicates.resampled[np.isfinite(replicates.resampled)]
    resamples = len(replicates.resampled)
    if 2 * len(values) < resamples:
        return None
    over = f"over {replicates.cluster_count} clusters, {resamples} resamples"
    if len(values) < resamples:
        over = f"{over} ({resamples - len(values)} of them undefined)"
    if _is_constant(values, replicates):
        return Interval(replicates.value, replicates.value, f"bootstrap {over}: all equal, no spread")
    tails = _widened(np.array([(1 - level) / 2, (1 + level) / 2]), replicates.cluster_count)
    tails, name = _corrected_tails(tails, values, replicates)
    low, high = np.quantile(values, tails)
    if replicates.cluster_count < _FEW:
        over = f"{over}, tails widened for so few clusters"
    if min(tails[0], 1 - tails[1]) * len(values) < 1:
        over = f"{over}, a tail lies beyond them: more are needed"
    return Interval(float(low), float(high), f"{name} {over}")


def _widened(tails: np.ndarray, cluster_count: int) -> np.ndarray:
    """Phi(sqrt(D/(D-1)) t): the tail of a normal where D clusters need that of a Student's t."""
    return ndtr(math.sqrt(cluster_count / (cluster_count - 1)) * stdtrit(cluster_count - 1, tails))


def _corrected_tails(tails: np.ndarray, values: np.ndarray, replicates: Replicates) -> tuple[np.ndarray, str]:
    """Which quantiles of the resampled values to take, and what that is called."""
    correction = _correction(values, replicates)
    if correction is not None:
        bias, acceleration = correction
        shifted = bias + ndtri(tails)
        if (np.abs(acceleration * shifted) < 1).all():
            return ndtr(bias + shifted / (1 - acceleration * shifted)), "BCa bootstrap"
    return tails, "percentile bootstrap"


def _is_constant(values: np.ndarray, replicates: Replicates) -> bool:
    """Whether resampling changed nothing beyond the last bits of the sums."""
    return float(np.ptp(values)) <= _ROUNDING * replicates.magnitude


def _correction(values: np.ndarray, replicates: Replicates) -> tuple[float, float] | None:
    """Bias correction and acceleration, or None where either does not exist.

    Values equal to the statistic, up to rounding, count half on each side.
    """
    if replicates.left_out is None or not np.isfinite(replicates.left_out).all():
        return None
    slack = _ROUNDING / 10 * replicates.magnitude
    below = np.count_nonzero(values < replicates.value - slack)
    not_above = np.count_nonzero(values <= replicates.value + slack)
    share = (below + not_above) / (2 * len(values))
    deviations = replicates.left_out.mean() - replicates.left_out
    squares = float((deviations**2).sum())
    if not 0 < share < 1 or squares == 0:
        return None
    return float(ndtri(share)), float((deviations**3).sum()) / (6 * squares**1.5)


def two_sided_p_value(replicates: Replicates) -> float:
    """Two-sided p for a true value of zero: the level at which the interval would just touch zero.

    The tails are counted add-one, so the smallest p is 2 / (resamples + 1), never 0; nor is it ever below
    what flipping the signs of the clusters could give.
    """
    values = replicates.resampled[np.isfinite(replicates.resampled)]
    smallest = max(2 / (len(values) + 1), smallest_p_value(replicates.cluster_count))
    if _is_constant(values, replicates):
        return 1.0 if abs(replicates.value) <= _ROUNDING * replicates.magnitude else smallest
    below = (np.count_nonzero(values < 0) + np.count_nonzero(values <= 0)) / 2
    deviate = float(ndtri((below + 0.5) / (len(values) + 1)))
    correction = _correction(values, replicates)
    if correction is not None:
        bias, acceleration = correction
        shifted = deviate - bias
        # where the divisor reaches 0, no level's interval is wide enough to touch zero on this side
        divisor = 1 + acceleration * shifted
        deviate = shifted / divisor - bias if divisor > 0 else math.copysign(math.inf, shifted)
    freedom = replicates.cluster_count - 1
    tail = float(stdtr(freedom, -abs(deviate) * math.sqrt(freedom / (freedom + 1))))
    return min(1.0, max(2 * tail, smallest))


def unseen_share(size: float, *, level: float) -> float:
    """Largest share of the population that can be unlike everything seen on `size` clusters.

    1 - ((1 - level) / 2)^(1 / size): Clopper and Pearson's limit for none in `size`. It makes an interval
    where resampling shows no spread: so many, but no more, may be of a kind that was not seen.
    """
    return 1 - ((1 - level) / 2) ** (1 / max(size, 1.0))


def binomial_interval(fraction: float, size: int, *, level: float) -> tuple[float, float]:
    """Clopper and Pearson's exact interval for a share seen among `size` independent units, within [0, 1].

    `fraction * size` need be no whole number. At 0 and 1 the other end is that of `unseen_share`.
    """
    tail, seen = (1 - level) / 2, fraction * size
    low = 0.0 if fraction <= 0 else float(betaincinv(seen, size - seen + 1, tail))
    high = 1.0 if fraction >= 1 else float(betaincinv(seen + 1, size - seen, 1 - tail))
    return low, high


def smallest_p_value(cluster_count: int) -> float:
    """2^(1-D): two of the 2^D ways to flip the signs of D clusters put them all on one side."""
    return 2.0 ** (1 - cluster_count)
