"""|activation| -> log-scale histograms of each latent, and from them quantiles and strata.

The bins are those of DDSketch (Masson, Rim and Lee 2019, "DDSketch: a fast and fully-mergeable quantile
sketch with relative-error guarantees", VLDB 12) with relative accuracy 1 % and no bound on their number: bin
b holds (BASE^(b-1), BASE^b], and 2 BASE^b / (1 + BASE), which stands for all of it, lies within 1 % of each
of its values. Histograms of two parts add up to that of the whole, bin by bin.
"""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float32, Int32, Int64, UInt32, UInt64

__all__ = [
    "BASE",
    "HIGHEST_BIN",
    "HISTOGRAM_SCHEMA",
    "LOWEST_BIN",
    "Histograms",
    "bins_of",
    "quantiles",
    "strata_edges",
]

BASE = 1.01 / 0.99
_LOG_BASE = math.log(BASE)

LOWEST_BIN = math.ceil(math.log(2.0**-149) / _LOG_BASE)
"""Bin of the smallest float32 above 0."""
HIGHEST_BIN = math.ceil(math.log(float(np.finfo(np.float32).max)) / _LOG_BASE)
"""Bin of the largest finite float32."""

HISTOGRAM_SCHEMA = {"latent": pl.UInt32, "bin": pl.Int32, "count": pl.UInt32}
"""Non-empty bins only."""

_PENDING_BINS = 1 << 20
_LATENT_SHIFT = 16  # there are fewer than 2^14 bins


def _first_values() -> Float32[np.ndarray, " bin_edge"]:
    """The smallest float32 of each bin, from LOWEST_BIN (0 there) to the one past HIGHEST_BIN (infinity)."""
    edges = np.power(BASE, np.arange(LOWEST_BIN, HIGHEST_BIN, dtype=np.float64))
    nearest = edges.astype(np.float32)
    above = np.where(nearest > edges, nearest, np.nextafter(nearest, np.float32(np.inf)))
    return np.concatenate([[0.0], above, [np.inf]]).astype(np.float32)


_FIRST_VALUES = _first_values()


def bins_of(values: Float32[np.ndarray, " value"]) -> Int32[np.ndarray, " value"]:
    """The bin of each |value|: ceil(log |value| / log BASE), settled by a table where rounding decides.

    So x of bin b has exactly `first value of b <= |x| < first value of b + 1`, and cutting by bins agrees
    with cutting by the values that `strata_edges` gives.

    Raises:
        ValueError: a value is 0 or not finite: that is no firing.
    """
    size = np.abs(values)
    if not ((size > 0) & (size < np.inf)).all():
        raise ValueError("activations of firings must be finite and not 0")
    guess = np.ceil(np.log(size, dtype=np.float64) / _LOG_BASE).astype(np.int32) - LOWEST_BIN
    guess = np.clip(guess, 0, HIGHEST_BIN - LOWEST_BIN)
    guess += size >= _FIRST_VALUES[guess + 1]
    guess -= size < _FIRST_VALUES[guess]
    return guess + np.int32(LOWEST_BIN)


class Histograms:
    """Histograms of |value| of any latents, filled by any parts in any order.

    Memory: 16 bytes per non-empty bin of a latent; twice that, or 16 MB more, while parts wait to be added
    up. A latent whose values span a factor of 1000 has at most 346 bins. Cost of a part: one sort.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._keys: list[UInt64[np.ndarray, " cell"]] = [np.zeros(0, np.uint64)]
        self._counts: list[Int64[np.ndarray, " cell"]] = [np.zeros(0, np.int64)]

    def add(self, latent: UInt32[np.ndarray, " firing"], value: Float32[np.ndarray, " firing"]) -> None:
        """Count some firings, or peaks, in any order.

        Raises:
            ValueError: a value is 0 or not finite.
        """
        bins = (bins_of(value) - LOWEST_BIN).astype(np.uint64)
        keys = np.sort(latent.astype(np.uint64) << _LATENT_SHIFT | bins)
        starts = _run_starts(keys)
        self._append(keys[starts], np.diff(starts, append=keys.size))

    def merge(self, other: "Histograms") -> None:
        """Add what another one counted."""
        other._settle()
        self._append(other._keys[0], other._counts[0])

    def frame(self) -> pl.DataFrame:
        """HISTOGRAM_SCHEMA, by latent and bin."""
        self._settle()
        keys = self._keys[0]
        bins = (keys & np.uint64((1 << _LATENT_SHIFT) - 1)).astype(np.int32) + np.int32(LOWEST_BIN)
        columns = {"latent": keys >> _LATENT_SHIFT, "bin": bins, "count": self._counts[0]}
        return pl.DataFrame(columns).cast(HISTOGRAM_SCHEMA)  # type: ignore[arg-type]

    def _append(self, keys: UInt64[np.ndarray, " cell"], counts: Int64[np.ndarray, " cell"]) -> None:
        self._keys.append(keys)
        self._counts.append(counts)
        pending = sum(part.size for part in self._keys[1:])
        if pending > max(_PENDING_BINS, self._keys[0].size):
            self._settle()

    def _settle(self) -> None:
        if len(self._keys) > 1:
            keys, counts = _added_up(np.concatenate(self._keys), np.concatenate(self._counts))
            self._keys, self._counts = [keys], [counts]


def quantiles(histograms: pl.DataFrame, levels: Sequence[float]) -> pl.DataFrame:
    """Quantiles of each latent's |value| by nearest rank, each within 1 % of the exact one.

    The quantile at level q of n values is the ceil(q n)-th smallest, the smallest for q = 0. What is read is
    the number that stands for its bin. Ranks are computed with a slack of one part in 10^12, so that 0.07 of
    100 values is the 7th and not, by rounding, the 8th.

    Args:
        histograms: HISTOGRAM_SCHEMA, in any order.
        levels: in [0, 1], in hundredths.

    Returns:
        `latent`, and for each level a column such as `q05` (Float64); by latent, those with a histogram only.
    """
    count = pl.col("count").cast(pl.UInt64)
    bins = histograms.sort("latent", "bin").with_columns(
        upto=count.cum_sum().over("latent"), total=count.sum().over("latent")
    )
    value = 2.0 * pl.lit(BASE).pow(pl.col("bin")) / (1.0 + BASE)
    columns = {}
    for level in levels:
        rank = (level * (1.0 - 1e-12) * pl.col("total")).ceil().clip(lower_bound=1)
        columns[f"q{round(100 * level):02d}"] = value.filter(pl.col("upto") >= rank).first()
    return bins.group_by("latent", maintain_order=True).agg(**columns)


def strata_edges(histograms: pl.DataFrame, *, strata: int) -> pl.DataFrame:
    """Cut each latent's histogram into strata of counts as equal as its bins allow.

    The j-th cut lies at the edge between bins whose count below is nearest to j/strata of all (of two as
    near, the lower). A stratum keeps its number, 0 the weakest, whichever others come out empty; those are
    left out: a latent that always fires at one value has the single stratum strata // 2. Strata of a latent
    meet without a gap and cover every value.

    Args:
        histograms: HISTOGRAM_SCHEMA, in any order.
        strata: how many, at most.

    Returns:
        By latent and stratum: `latent` UInt32, `stratum` Int16; `lower_bin`, `upper_bin` Int32: bins
        lower_bin <= b < upper_bin; `lower`, `upper` Float64: the same in values, float32 values lower <= |x|
        < upper (0 below the first, infinity above the last).
    """
    count = pl.col("count").cast(pl.UInt64)
    upto, total = count.cum_sum().over("latent"), count.sum().over("latent")
    # A bin lies below the j-th cut if its middle does: strata (upto - count / 2) < j total, in whole numbers.
    stratum = (pl.lit(strata, pl.UInt64) * (2 * upto - count) // (2 * total)).cast(pl.Int16)
    groups = (
        histograms.sort("latent", "bin")
        .with_columns(stratum=stratum)
        .group_by("latent", "stratum", maintain_order=True)
        .agg(lower_bin=pl.col("bin").min())
    )
    following = pl.col("lower_bin").shift(-1).over("latent")
    is_lowest = pl.col("latent").is_first_distinct()
    groups = groups.with_columns(
        lower_bin=pl.when(is_lowest).then(pl.lit(LOWEST_BIN)).otherwise("lower_bin").cast(pl.Int32),
        upper_bin=following.fill_null(HIGHEST_BIN + 1).cast(pl.Int32),
    )
    values = {
        name: pl.Series(_FIRST_VALUES[groups[f"{name}_bin"].to_numpy() - LOWEST_BIN].astype(np.float64))
        for name in ("lower", "upper")
    }
    return groups.with_columns(**values).sort("latent", "stratum")


def _added_up(
    keys: UInt64[np.ndarray, " cell"], counts: Int64[np.ndarray, " cell"]
) -> tuple[UInt64[np.ndarray, " distinct"], Int64[np.ndarray, " distinct"]]:
    """Distinct keys, sorted, with the sum of their counts."""
    order = np.argsort(keys)
    keys, counts = keys[order], counts[order]
    starts = _run_starts(keys)
    return keys[starts], np.add.reduceat(counts, starts) if starts.size else counts


def _run_starts(ordered: UInt64[np.ndarray, " cell"]) -> Int64[np.ndarray, " distinct"]:
    """Where each run of equal keys begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: ordered.size])
