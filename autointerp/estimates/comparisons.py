"""Observations of several checkpoints -> differences with p-values.

A difference is taken on the observations that both checkpoints have, with the same documents resampled for
both: what makes a text hard for one of them makes it hard for the other, and cancels. Where units are each
checkpoint's own (latents), there is nothing to pair: the two are resampled as independent samples.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy.special import stdtr
from scipy.stats import false_discovery_control

from autointerp.estimates.bootstrap import (
    Interval,
    Replicates,
    bootstrap_interval,
    resample_all,
    smallest_p_value,
    two_sided_p_value,
)
from autointerp.estimates.estimation import (
    HEADLINE,
    EstimateOptions,
    jackknife_difference,
    lack_of_values,
    may_be_unlike,
    measured,
    ordered_checkpoints,
    prepare,
    with_width,
)
from autointerp.estimates.series import Series, SeriesKey, read_series
from autointerp.estimates.statistics import ClusterStatistic, JackknifeStatistic, Statistic
from autointerp.records import (
    Comparison,
    Failed,
    Measured,
    MetricDefinition,
    Outcome,
    Undefined,
)

__all__ = ["compare_all", "compare_paired"]


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two checkpoints' statistics on the observations that both have."""

    comparison: Comparison
    rows: Series
    statistics: tuple[Statistic, Statistic]
    note: str
    counts: tuple[int, int] | None = None
    """Units on either side, where the samples are independent; None where they are paired."""


def compare_paired(
    observations: pl.DataFrame,
    definition: MetricDefinition,
    checkpoint: str,
    reference: str,
    *,
    slice_text: str = HEADLINE,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """`checkpoint - reference` of one metric at one slice (canonical JSON), without control over others.

    Of metrics whose `pairing` is `independent`, the difference of two samples, which need no unit in common;
    where they have the very same units, as two copies of a checkpoint do, it is paired all the same.
    Undefined where paired ones have no unit in common; Failed or Undefined where either checkpoint's metric
    is.
    The p-value is two-sided, for no difference.
    """
    options = EstimateOptions(level, resamples, seed)
    keys = [(SeriesKey(c, definition.name, slice_text)) for c in (checkpoint, reference)]
    series = read_series(observations, [definition])
    cache: dict[tuple[SeriesKey, bytes], Statistic | Outcome] = {}
    pair = _pair(series, keys[0], keys[1], definition, cache)
    return _compare([pair], {definition.name: definition}, series, options)[0]


def compare_all(
    observations: pl.DataFrame,
    definitions: Sequence[MetricDefinition],
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    checkpoints: Sequence[str] | None = None,
    slices: Sequence[str] = (HEADLINE,),
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Comparison]:
    """Every metric at its slices, for every pair of checkpoints, with false discoveries controlled.

    Paired or not, as each metric's `pairing` says.

    `adjusted_p_value` is Benjamini and Hochberg's over all comparisons returned that have a p-value.

    Args:
        observations: rows of all checkpoints.
        definitions: the metrics to compare.
        pairs: (checkpoint, reference); if None, each later checkpoint minus each earlier one.
        checkpoints: their order for that; if None, by name with numbers in their order.
        slices: canonical JSON of each; a metric without rows at one is not compared there, but at the
            headline slice.
        level: coverage of the intervals.
        resamples: bootstrap samples.
        seed: of the bootstrap.
    """
    if pairs is None:
        names = ordered_checkpoints(observations, checkpoints)
        pairs = [(later, earlier) for n, later in enumerate(names) for earlier in names[:n]]
    series = read_series(observations.filter(pl.col("slice").is_in(list(slices))), definitions)
    there = {(key.metric, key.slice) for key in series}
    cache: dict[tuple[SeriesKey, bytes], Statistic | Outcome] = {}
    prepared = [
        _pair(series, *(SeriesKey(name, definition.name, each) for name in names), definition, cache)
        for names in pairs
        for definition in definitions
        for each in slices
        if each == HEADLINE or (definition.name, each) in there
    ]
    options = EstimateOptions(level, resamples, seed)
    by_name = {definition.name: definition for definition in definitions}
    return _adjusted(_compare(prepared, by_name, series, options))


def _pair(
    series: dict[SeriesKey, Series],
    key: SeriesKey,
    reference: SeriesKey,
    definition: MetricDefinition,
    cache: dict[tuple[SeriesKey, bytes], Statistic | Outcome],
) -> _Pair | Comparison:
    """Both statistics on common observations; a Comparison at once where there can be none."""

    def settled(outcome: Outcome) -> Comparison:
        return Comparison(key.checkpoint, reference.checkpoint, key.metric, json.loads(key.slice), outcome)

    for each in (key, reference):
        if each not in series:
            return settled(Undefined(f"{each.checkpoint}: no observations"))
    outcomes = [(each.checkpoint, series[each].without_number) for each in (key, reference)]
    if any(outcome for _, outcome in outcomes):
        return settled(_worst(outcomes))
    is_shared = definition.pairing == "units" and definition.functional != "unseen_fraction"
    parts, note = _common(series[key], series[reference], is_paired=is_shared)
    if not len(parts[0].unit):
        return settled(Undefined("no unit in common"))
    statistics = [
        _prepared(each, part, definition, cache) for each, part in zip((key, reference), parts, strict=True)
    ]
    names = (key.checkpoint, reference.checkpoint)
    outcomes = [
        (name, None if isinstance(statistic, Statistic) else statistic)
        for name, statistic in zip(names, statistics, strict=True)
    ]
    if any(outcome for _, outcome in outcomes):
        return settled(_worst(outcomes))
    both = (statistics[0], statistics[1])
    is_paired = _same_clusters(*both)
    if not is_paired and definition.pairing == "units":
        return settled(Failed("the same units lie in different clusters for the two checkpoints"))
    counts = None if is_paired else (parts[0].unit_count, parts[1].unit_count)
    return _Pair(settled(Undefined("")), parts[0], both, note, counts)


def _prepared(
    key: SeriesKey,
    rows: Series,
    definition: MetricDefinition,
    cache: dict[tuple[SeriesKey, bytes], Statistic | Outcome],
) -> Statistic | Outcome:
    identity = (key, rows.row_key.tobytes())
    if identity not in cache:
        cache[identity] = prepare(rows, definition)
    return cache[identity]


def _same_clusters(one: Statistic, other: Statistic) -> bool:
    if isinstance(one, ClusterStatistic) and isinstance(other, ClusterStatistic):
        return np.array_equal(one.clusters, other.clusters)
    return True


def _worst(outcomes: Sequence[tuple[str, Outcome | None]]) -> Outcome:
    """The failed one of two outcomes, else the first that is not a number; it names its checkpoint."""
    missing = [(name, outcome) for name, outcome in outcomes if outcome is not None]
    name, outcome = min(missing, key=lambda item: not isinstance(item[1], Failed))
    return replace(outcome, reason=f"{name}: {outcome.reason}")


def _common(one: Series, other: Series, *, is_paired: bool) -> tuple[tuple[Series, Series], str]:
    """Rows of the observations that both have, and what to say of the others.

    Where units are latents, no two checkpoints share any: there the documents are what is common.
    """
    if not is_paired or np.array_equal(one.row_key, other.row_key):
        return (one, other), ""
    common = np.intersect1d(one.row_key, other.row_key)
    parts = tuple(each.only(np.isin(each.row_key, common)) for each in (one, other))
    counts = (one.unit_count, other.unit_count)
    shared = parts[0].unit_count
    if counts == (shared, shared):
        return (parts[0], parts[1]), ""
    return (parts[0], parts[1]), f"on the {shared} units common to both (of {counts[0]} and {counts[1]})"


def _compare(
    pairs: Sequence[_Pair | Comparison],
    definitions: dict[str, MetricDefinition],
    series: dict[SeriesKey, Series],
    options: EstimateOptions,
) -> list[Comparison]:
    """Resample each statistic once, however many pairs it occurs in, then take differences."""
    distinct: dict[int, ClusterStatistic] = {
        id(statistic): statistic
        for pair in pairs
        if isinstance(pair, _Pair)
        for statistic in pair.statistics
        if isinstance(statistic, ClusterStatistic)
    }
    cluster_ids = next(iter(series.values())).cluster_ids if series else np.array([])
    values = resample_all(
        list(distinct.values()), cluster_ids, resamples=options.resamples, seed=options.seed
    )
    replicates = dict(zip(distinct, values, strict=True))
    return [
        pair
        if isinstance(pair, Comparison)
        else _difference(pair, replicates, definitions[pair.comparison.metric], options)
        for pair in pairs
    ]


def _difference(
    pair: _Pair, replicates: dict[int, Replicates], definition: MetricDefinition, options: EstimateOptions
) -> Comparison:
    one, other = pair.statistics
    if isinstance(one, JackknifeStatistic) and isinstance(other, JackknifeStatistic):
        return _jackknife_difference(pair, one, other, definition, options)
    names = (pair.comparison.checkpoint, pair.comparison.reference)
    lacks = [
        (name, lack_of_values(statistic, replicates[id(statistic)], definition, level=options.level))
        for name, statistic in zip(names, pair.statistics, strict=True)
    ]
    if any(lack for _, lack in lacks):
        return replace(pair.comparison, outcome=_worst(lacks))
    mine, others = replicates[id(one)], replicates[id(other)]
    difference = mine.minus(others) if pair.counts is None else mine.minus_independent(others)
    interval = bootstrap_interval(difference, level=options.level)
    if interval is None:
        return replace(pair.comparison, outcome=Undefined("too few resamples have a value"))
    p_value: float | None = two_sided_p_value(difference)
    is_apart = difference.value != 0 and mine.is_constant and others.is_constant
    if interval.low == interval.high and (pair.counts or (is_apart and may_be_unlike(definition))):
        interval = _difference_with_width(mine, others, interval.method, definition, options.level)
        is_clear = difference.value == 0 or not interval.low <= 0 <= interval.high
        p_value = p_value if is_clear else None  # no spread was seen: nothing to test against
    outcome = _measured(pair, difference.value, interval, definition, options)
    return replace(pair.comparison, outcome=outcome, p_value=p_value)


def _difference_with_width(
    one: Replicates, other: Replicates, method: str, definition: MetricDefinition, level: float
) -> Interval:
    """Of two sides without any spread: both their widths, as if at right angles."""
    points = (Interval(side.value, side.value, method) for side in (one, other))
    mine, others = (
        with_width(point, side, definition, level=level)
        for point, side in zip(points, (one, other), strict=True)
    )
    low = math.hypot(one.value - mine.low, others.high - other.value)
    high = math.hypot(mine.high - one.value, other.value - others.low)
    value = one.value - other.value
    return Interval(value - low, value + high, mine.method)


def _jackknife_difference(
    pair: _Pair,
    one: JackknifeStatistic,
    other: JackknifeStatistic,
    definition: MetricDefinition,
    options: EstimateOptions,
) -> Comparison:
    if one.document_count != other.document_count:
        reason = f"seen on {one.document_count} and on {other.document_count} documents"
        return replace(pair.comparison, outcome=Undefined(reason))
    difference = one.minus(other)
    interval = jackknife_difference(difference, level=options.level)
    outcome = _measured(pair, difference.number, interval, definition, options)
    error = difference.standard_error()
    if error == 0:
        # The level at which the interval of what was not seen would just touch zero.
        size = min(difference.unit_count, difference.document_count)
        tail = (1 + abs(difference.number)) ** -size if difference.number else 0.5
    else:
        tail = float(stdtr(difference.document_count - 1, -abs(difference.number) / error))
    p_value = min(1.0, max(2 * tail, smallest_p_value(difference.document_count), 1e-300))
    return replace(pair.comparison, outcome=outcome, p_value=p_value)


def _measured(
    pair: _Pair, value: float, interval: Interval, definition: MetricDefinition, options: EstimateOptions
) -> Measured:
    if pair.counts is None:
        method = "; ".join(note for note in (f"paired {interval.method}", pair.note) if note)
        return measured(value, replace(interval, method=method), pair.rows, definition, options)
    one, other = pair.counts
    method = f"independent samples of {one} and {other} {definition.sampled}s, {interval.method}"
    found = measured(value, replace(interval, method=method), pair.rows, definition, options)
    return Measured(replace(found.estimate, n=one + other))


def _adjusted(comparisons: list[Comparison]) -> list[Comparison]:
    """Benjamini and Hochberg's step-up adjustment over all p-values of the table."""
    tested = [n for n, comparison in enumerate(comparisons) if comparison.p_value is not None]
    if not tested:
        return comparisons
    adjusted = false_discovery_control([comparisons[n].p_value for n in tested], method="bh")
    result = list(comparisons)
    for n, value in zip(tested, adjusted, strict=True):
        result[n] = replace(comparisons[n], adjusted_p_value=float(value))
    return result
