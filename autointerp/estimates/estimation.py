"""Observations -> one outcome for each checkpoint, metric and slice."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import stdtrit

from autointerp.estimates.bootstrap import (
    FEWEST_CLUSTERS,
    Interval,
    Replicates,
    binomial_interval,
    bootstrap_interval,
    resample_all,
    unseen_share,
)
from autointerp.estimates.functionals import FUNCTIONALS
from autointerp.estimates.series import Series, SeriesKey, read_series
from autointerp.estimates.statistics import ClusterStatistic, JackknifeStatistic, Statistic
from autointerp.records import Estimate, Measured, MetricDefinition, MetricResult, Outcome, Undefined

__all__ = [
    "EstimateOptions",
    "estimate",
    "estimate_all",
    "jackknife_difference",
    "jackknife_interval",
    "lack_of_values",
    "may_be_unlike",
    "measured",
    "not_excluded",
    "prepare",
    "with_width",
]

HEADLINE = "{}"


@dataclass(frozen=True)
class EstimateOptions:
    """How intervals are made."""

    level: float = 0.95
    """Coverage of every interval."""
    resamples: int = 2000
    """Bootstrap samples."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what gives no interval."""
        if not 0 < self.level < 1 or self.resamples < 1:
            raise ValueError(f"level must lie in (0, 1) and resamples be positive, got {self}")


def estimate(
    observations: pl.DataFrame,
    definition: MetricDefinition,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Outcome:
    """The number that one checkpoint's observations of one metric at one slice give, with its interval.

    Rows of other metrics are ignored. An outcome over rows of which any failed is Failed. Units without a
    number do not enter; `method` says how many they are.

    Raises:
        ValueError: the rows belong to more than one checkpoint or slice.
    """
    series = read_series(observations, [definition])
    if not series:
        return Undefined("no observations")
    if len(series) > 1:
        raise ValueError(f"estimate takes one checkpoint and slice, got {list(series)}")
    options = EstimateOptions(level, resamples, seed)
    return _outcomes(series, {definition.name: definition}, options)[next(iter(series))]


def estimate_all(
    observations: pl.DataFrame,
    definitions: Sequence[MetricDefinition],
    *,
    checkpoints: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[MetricResult]:
    """Every metric of every checkpoint at every slice that was observed, and at the headline slice always.

    Sorted by checkpoint (as given, else by name with numbers in their order), definition, slice. A metric
    that a checkpoint has no row of is Undefined, not absent. Metrics without a definition are ignored.
    """
    by_name = {definition.name: definition for definition in definitions}
    series = read_series(observations, definitions)
    outcomes = _outcomes(series, by_name, EstimateOptions(level, resamples, seed))
    names = ordered_checkpoints(observations, checkpoints)
    results = []
    for checkpoint in names:
        for metric in by_name:
            slices = {key.slice for key in series if key[:2] == (checkpoint, metric)} | {HEADLINE}
            for text in sorted(slices, key=_slice_order):
                outcome = outcomes.get(SeriesKey(checkpoint, metric, text), Undefined("no observations"))
                results.append(MetricResult(checkpoint, metric, json.loads(text), outcome))
    return results


def ordered_checkpoints(observations: pl.DataFrame, checkpoints: Sequence[str] | None) -> list[str]:
    """Names as given, else all that occur, sorted so that `step 500` comes before `step 1000`."""
    if checkpoints is not None:
        return list(checkpoints)
    return sorted(observations["checkpoint"].unique().to_list(), key=_natural)


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Sort key that reads runs of digits as numbers."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text)]


def _slice_order(text: str) -> tuple[bool, list[tuple[bool, int, str]]]:
    return text != HEADLINE, _natural(text)


def _outcomes(
    series: dict[SeriesKey, Series], definitions: dict[str, MetricDefinition], options: EstimateOptions
) -> dict[SeriesKey, Outcome]:
    """Settle what needs no resampling, then resample all the rest together."""
    outcomes: dict[SeriesKey, Outcome] = {}
    pending: dict[SeriesKey, ClusterStatistic] = {}
    for key, rows in series.items():
        prepared = prepare(rows, definitions[key.metric])
        if isinstance(prepared, ClusterStatistic):
            pending[key] = prepared
        elif isinstance(prepared, JackknifeStatistic):
            interval = jackknife_interval(prepared, level=options.level)
            outcomes[key] = measured(prepared.number, interval, rows, definitions[key.metric], options)
        else:
            outcomes[key] = prepared
    cluster_ids = next(iter(series.values())).cluster_ids if series else np.array([])
    replicates = resample_all(
        list(pending.values()), cluster_ids, resamples=options.resamples, seed=options.seed
    )
    for (key, statistic), values in zip(pending.items(), replicates, strict=True):
        outcomes[key] = _bootstrap_outcome(statistic, values, series[key], definitions[key.metric], options)
    return outcomes


def prepare(rows: Series, definition: MetricDefinition) -> Statistic | Outcome:
    """The statistic of a series, ready to be resampled, or the outcome if there is nothing to resample.

    Raises:
        ValueError: the definition names an unknown functional.
    """
    if definition.functional not in FUNCTIONALS:
        raise ValueError(f"{definition.name}: no functional {definition.functional!r} in {list(FUNCTIONALS)}")
    if rows.without_number is not None:
        return rows.without_number
    statistic = FUNCTIONALS[definition.functional](rows, definition.parameters)
    if isinstance(statistic, JackknifeStatistic):
        return _too_few(statistic.document_count, "document") or statistic
    if not isinstance(statistic, ClusterStatistic):
        return statistic
    value = statistic.value()
    if not isinstance(value, float):
        return value
    return _too_few(len(statistic.clusters), _cluster_noun(definition)) or statistic


def _cluster_noun(definition: MetricDefinition) -> str:
    """What is resampled: documents, but for metrics whose units share none."""
    return "document" if definition.pairing == "units" else definition.sampled


def _too_few(count: int, noun: str) -> Undefined | None:
    if count >= FEWEST_CLUSTERS:
        return None
    return Undefined(f"only {count} {noun if count == 1 else f'{noun}s'}: no interval can be trusted")


def lack_of_values(
    statistic: ClusterStatistic, replicates: Replicates, definition: MetricDefinition, *, level: float
) -> Undefined | None:
    """Why there is no number where too many resamples have none, the share allowed being the statistic's."""
    # D clusters, each with either sign, show nothing rarer than 2^(1-D): a tail beyond that is no finding.
    if 2.0 ** (1 - replicates.cluster_count) > 2 * (1 - level):
        count = replicates.cluster_count
        noun = _cluster_noun(definition)
        return Undefined(f"only {count} {noun}s: no interval of {100 * level:g} % can be trusted")
    without = np.count_nonzero(~np.isfinite(replicates.resampled))
    if statistic.unclear_reason and without > (1 - level) / 2 * len(replicates.resampled):
        return Undefined(f"{statistic.unclear_reason} in {without} of {len(replicates.resampled)} resamples")
    return None


def _bootstrap_outcome(
    statistic: ClusterStatistic,
    replicates: Replicates,
    rows: Series,
    definition: MetricDefinition,
    options: EstimateOptions,
) -> Outcome:
    lack = lack_of_values(statistic, replicates, definition, level=options.level)
    if lack is not None:
        return lack
    interval = bootstrap_interval(replicates, level=options.level)
    if interval is None:
        return Undefined("too few resamples have a value: too little of what the metric needs was seen")
    if may_be_unlike(definition):
        interval = with_width(interval, replicates, definition, level=options.level)
    notes = [interval.method, statistic.note, _clipping(statistic, interval)]
    interval = Interval(interval.low, interval.high, "; ".join(note for note in notes if note))
    return measured(replicates.value, interval, rows, definition, options)


def may_be_unlike(definition: MetricDefinition) -> bool:
    """Whether units that are all alike leave a width: of latents always, of documents where a range is known.

    A share (of tokens, of examples) that is 0 in every document seen may be above it in others. A number
    without bounds that is the same in all (TopK's L0) is a constant of the dictionary.
    """
    return definition.pairing == "independent" or None not in (definition.lowest, definition.highest)


def with_width(
    interval: Interval, replicates: Replicates, definition: MetricDefinition, *, level: float
) -> Interval:
    """The interval itself, unless all units had the same value: then what they cannot exclude.

    A share of unseen units may have any value that the metric can have (or one of distance 1, where it has no
    such bound). Few latents that all score 1 do not prove that all do.
    """
    if interval.low < interval.high:
        return interval
    value = replicates.value
    lowest = value - 1 if definition.lowest is None else definition.lowest
    highest = value + 1 if definition.highest is None else definition.highest
    size, bounds = replicates.cluster_count, (lowest, highest)
    return not_excluded(value, size, interval.method, bounds=bounds, level=level)


def not_excluded(
    value: float, size: int, method: str, *, bounds: tuple[float, float], level: float
) -> Interval:
    """What `size` units that are all alike cannot exclude: that a share of others lies anywhere in bounds."""
    share = unseen_share(size, level=level)
    low, high = value - share * (value - bounds[0]), value + share * (bounds[1] - value)
    return Interval(low, high, f"{method}: what they cannot exclude")


def _clipping(statistic: ClusterStatistic, interval: Interval) -> str:
    """What to say where an interval was cut at the ends of the compute curve."""
    if statistic.transform is None:
        return ""
    lowest, highest = statistic.transform.fraction_range
    ends = [
        name
        for name, is_cut in (
            ("lower", interval.low <= lowest * (1 + 1e-9)),
            ("upper", interval.high >= highest * (1 - 1e-9)),
        )
        if is_cut
    ]
    return f"{' and '.join(ends)} end clipped to the compute curve's range" if ends else ""


def jackknife_interval(statistic: JackknifeStatistic, *, level: float) -> Interval:
    """Of a share of latents: Student's t interval from the delete-one-document jackknife, within [0, 1].

    Where no latent was seen in just one document, leaving one out changes nothing, and the jackknife knows
    no width: above all where none, or all, of few latents were seen. Then the exact binomial interval of as
    many latents as there are documents, or of all if they are fewer. Latents fire together, so more than
    there are documents do not count as independent. It covers its level wherever at least so many fire
    independently of one another, and less if fewer do (a dictionary of a few blocks that fire as one).
    """
    if statistic.standard_error() > 0:
        return _students_t(statistic, level, (0.0, 1.0))
    latents, documents = statistic.unit_count, statistic.document_count
    size = min(latents, documents)
    low, high = binomial_interval(statistic.number, size, level=level)
    over = f"{latents} latents" if latents < documents else f"{documents} documents"
    method = f"exact binomial (Clopper-Pearson) as of {size} independent latents, over {over}"
    why = "no latent rests on one document alone"
    return Interval(low, high, "; ".join(note for note in (method, why, statistic.note) if note))


def jackknife_difference(difference: JackknifeStatistic, *, level: float) -> Interval:
    """The same of a difference of two shares, within [-1, 1].

    Where no document alone changes the difference, what so many documents cannot exclude: a share of them,
    `unseen_share`, may be of a kind that was not seen, with any difference.
    """
    if difference.standard_error() > 0:
        return _students_t(difference, level, (-1.0, 1.0))
    documents = difference.document_count
    method = f"over {documents} documents, of which none alone changes it"
    size = min(difference.unit_count, documents)
    return not_excluded(difference.number, size, method, bounds=(-1.0, 1.0), level=level)


def _students_t(statistic: JackknifeStatistic, level: float, bounds: tuple[float, float]) -> Interval:
    quantile = float(stdtrit(statistic.document_count - 1, (1 + level) / 2))
    reach = quantile * statistic.standard_error()
    low, high = np.clip([statistic.number - reach, statistic.number + reach], *bounds).tolist()
    method = f"delete-one jackknife over {statistic.document_count} documents"
    return Interval(low, high, "; ".join(note for note in (method, statistic.note) if note))


def measured(
    value: float, interval: Interval, rows: Series, definition: MetricDefinition, options: EstimateOptions
) -> Measured:
    """The outcome of a series that has a number; its method also says which units have none."""
    return Measured(
        Estimate(
            value=value,
            low=interval.low,
            high=interval.high,
            level=options.level,
            method="; ".join(note for note in (interval.method, rows.note) if note),
            n=rows.unit_count,
            sampled=definition.sampled,
        )
    )
