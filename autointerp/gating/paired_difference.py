"""Two runs' observations of one metric -> the paired difference with its standard error, by bootstrap."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from autointerp.errors import RunStoreError
from autointerp.gating.normal_tests import Uncertain

__all__ = ["PAIRED_FUNCTIONALS", "observed_rows", "paired_difference"]

PAIRED_FUNCTIONALS = ("ratio", "one_minus_ratio", "mean_of_group_ratios")
"""Those that a few sums decide. Others (rankings, fitted curves) are compared as two independent samples,
which is wider than pairing would be."""

_RESAMPLES = 2000
_AT_ONCE = 200
_ROUNDING = 1e-10
_LEAST_CLUSTERS = 5
_NUMBERS = ["group_weight", "numerator", "denominator", "sampling_weight"]
_KEY = ["group", "unit", "replicate"]


def paired_difference(mine: Any, theirs: Any, *, functional: str, seed: int = 0) -> Uncertain | str:
    """`mine - theirs` of one metric on the units that both have, or why there is none.

    Whole clusters (documents) are drawn with replacement, the same for both sides, 2,000 times. The standard
    error is the resamples' deviation times sqrt(C / (C - 1)) for C clusters, and wider for few of them (the
    95 % point of Student's t over that of the normal, to second order).

    Args:
        mine: the checkpoint's rows, from `observed_rows`.
        theirs: those of the baseline's.
        functional: one of `PAIRED_FUNCTIONALS`.
        seed: of the resamples.
    """
    import numpy as np
    import polars as pl

    sides = [mine, theirs]
    without = [int((side["status"] != "measured").sum()) for side in sides]
    if any(without):
        return f"{max(without)} units of one side have no number"
    try:
        both = sides[0].join(sides[1], on=_KEY, suffix="_theirs", validate="1:1")
    except pl.exceptions.ComputeError:
        return "a unit has more than one row"  # joined, each would count several times
    if both.is_empty():
        return "no unit in common"
    cluster = np.unique(both["cluster"].to_numpy(), return_inverse=True)[1]
    count = int(cluster.max()) + 1
    if count < _LEAST_CLUSTERS:
        return f"only {count} clusters in common, at least {_LEAST_CLUSTERS} are needed"
    counts = _multiplicities(count, seed)
    found = [_statistic(np, both, suffix, cluster, count, counts, functional) for suffix in ("", "_theirs")]
    difference = found[0] - found[1]
    if not np.isfinite(difference).all():
        return "the denominator is not clearly above 0"
    degrees = count - 1
    widened = 1 + (1.96**2 + 1) / (4 * degrees)
    error = float(difference[1:].std() * np.sqrt(count / degrees) * widened)
    if error <= _ROUNDING * max(np.abs(side).max() for side in found):
        error = 0.0  # last bits of sums
    return Uncertain(float(difference[0]), error, error, count, "cluster in common")


@lru_cache(maxsize=1)  # a pure function, and every checkpoint has the same documents
def _multiplicities(count: int, seed: int) -> Any:
    """How often each cluster occurs: once each in the first row, as drawn in the others."""
    import numpy as np

    found, generator = np.ones((_RESAMPLES + 1, count)), np.random.default_rng(seed)
    for start in range(1, _RESAMPLES + 1, _AT_ONCE):
        draws = generator.integers(0, count, size=(_AT_ONCE, count)) + count * np.arange(_AT_ONCE)[:, None]
        found[start : start + _AT_ONCE] = np.bincount(draws.ravel(), minlength=draws.size).reshape(-1, count)
    return found


def observed_rows(file: Path, metric: str, slice_text: str) -> dict[str, Any]:
    """A run's observations of one metric at one slice, by checkpoint.

    Args:
        file: of observations.
        metric: which metric.
        slice_text: its slice, as `slice_key` spells it.

    Raises:
        RunStoreError: the file is damaged, or none of observations.
    """
    import numpy as np
    import polars as pl

    columns = ["checkpoint", *_KEY, "cluster", "status", *_NUMBERS]
    wanted = (pl.col("metric") == metric) & (pl.col("slice") == slice_text)
    try:
        rows = pl.scan_parquet(file).filter(wanted).select(columns).collect()
        is_measured = (rows["status"] == "measured").to_numpy()
        # NumPy, since each step of polars is a query of its own.
        is_sound = all(np.isfinite(rows[name].to_numpy()[is_measured]).all() for name in _NUMBERS)
    except (OSError, TypeError, pl.exceptions.PolarsError) as error:
        raise RunStoreError(f"cannot be read ({type(error).__name__})", where=file) from None
    if not is_sound:
        raise RunStoreError(f"holds measured rows of {metric} without a finite number", where=file)
    return {name: part for (name,), part in rows.partition_by("checkpoint", as_dict=True).items()}


def _statistic(
    np: Any, both: Any, suffix: str, cluster: Any, count: int, counts: Any, functional: str
) -> Any:
    weight = both[f"sampling_weight{suffix}"].to_numpy()
    terms = [both[f"{name}{suffix}"].to_numpy() * weight for name in ("numerator", "denominator")]
    grouped = functional == "mean_of_group_ratios"
    group = (
        np.unique(both["group"].to_numpy(), return_inverse=True)[1] if grouped else np.zeros(len(weight), int)
    )
    groups = int(group.max()) + 1
    cell = cluster * groups + group
    cells = [np.bincount(cell, term, count * groups).reshape(count, groups) for term in terms]
    sums = [part.T for part in np.split(np.hstack(cells).T @ counts.T, 2)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = sums[0] / sums[1]
    shares = np.zeros(groups)
    shares[group] = both[f"group_weight{suffix}"].to_numpy() if grouped else 1.0
    is_there = np.isfinite(ratios) if grouped else np.ones_like(ratios, bool)
    # A group that a resample has none of does not enter that resample's mean.
    weights = shares * is_there
    value = (np.where(is_there, ratios, 0.0) * weights).sum(axis=1) / weights.sum(axis=1)
    return 1.0 - value if functional == "one_minus_ratio" else value
