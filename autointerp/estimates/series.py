"""Observations -> one `Series` of arrays for each (checkpoint, metric, slice).

Ids become ranks in their sorted order, so whatever follows cannot depend on the order of the rows.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from autointerp.records import OBSERVATION_SCHEMA, Failed, MetricDefinition, Outcome, Skipped, Undefined

__all__ = ["Series", "SeriesKey", "read_series"]

_STATUSES = ("measured", "undefined", "failed", "skipped")
_ROW_COLUMNS = (
    *("numerator", "denominator", "weight", "group_weight", "label"),
    *("unit", "group", "cluster", "is_clustered"),
)
_GROUP_LIMIT = 1 << 30  # more groups than any frame has, so that keys of two series are comparable


class SeriesKey(NamedTuple):
    """What one estimate is about; `slice` is its canonical JSON."""

    checkpoint: str
    metric: str
    slice: str


@dataclass(frozen=True, eq=False)
class Series:
    """Measured rows of one checkpoint, metric and slice, and a count of those that have no number."""

    numerator: Float[np.ndarray, " row"]
    denominator: Float[np.ndarray, " row"]
    weight: Float[np.ndarray, " row"]
    """Sampling weight."""
    group_weight: Float[np.ndarray, " row"]
    label: Float[np.ndarray, " row"]
    """NaN where there is none."""
    unit: Int[np.ndarray, " row"]
    group: Int[np.ndarray, " row"]
    cluster: Int[np.ndarray, " row"]
    """Rank among `cluster_ids`; a row without a cluster has its unit as cluster."""
    is_clustered: np.ndarray
    """Whether the row named a cluster itself."""
    cluster_ids: np.ndarray
    """Ids of all clusters of the whole observation frame, sorted."""
    without_number: Outcome | None
    """What the outcome is if rows without a number already decide it."""
    note: str
    """How many units have no number, for the estimate's `method`; empty if all do."""

    @cached_property
    def unit_count(self) -> int:
        """How many different units were measured."""
        return len(np.unique(self.unit))

    @cached_property
    def row_key(self) -> Int[np.ndarray, " row"]:
        """One number for each (unit, group, label): rows that share it are parts of one observation."""
        label_code = np.where(np.isnan(self.label), 2, self.label == 1.0).astype(np.int64)
        return (self.unit * _GROUP_LIMIT + self.group) * 3 + label_code

    def only(self, keep: np.ndarray) -> "Series":
        """The series restricted to the rows of a mask."""
        names = [
            "numerator",
            "denominator",
            "weight",
            "group_weight",
            "label",
            "unit",
            "group",
            "cluster",
            "is_clustered",
        ]
        return replace(self, **{name: getattr(self, name)[keep] for name in names})


def read_series(
    observations: pl.DataFrame, definitions: Sequence[MetricDefinition]
) -> dict[SeriesKey, Series]:
    """All series of the metrics that have a definition, in sorted order of their keys.

    Raises:
        ValueError: columns are missing, or a status is unknown.
    """
    missing = OBSERVATION_SCHEMA.keys() - set(observations.columns)
    if missing:
        raise ValueError(f"observations: missing columns {sorted(missing)}")
    frame = observations.filter(pl.col("metric").is_in([d.name for d in definitions]))
    unknown = set(frame["status"].unique()) - set(_STATUSES)
    if unknown:
        raise ValueError(f"observations: unknown status {sorted(unknown)}")
    return dict(_split(frame)) if frame.height else {}


def _split(frame: pl.DataFrame) -> Iterator[tuple[SeriesKey, Series]]:
    """Cut the frame's columns, as arrays, at the borders between series."""
    codes, keys = _series_codes(frame)
    frame = frame.with_columns(
        cluster_or_unit=pl.when(pl.col("cluster") == "").then(pl.col("unit")).otherwise(pl.col("cluster"))
    )
    cluster, cluster_ids = _ranks(frame["cluster_or_unit"])
    columns = {
        "numerator": _floats(frame["numerator"]),
        "denominator": _floats(frame["denominator"]),
        "weight": _floats(frame["sampling_weight"]),
        "group_weight": _floats(frame["group_weight"]),
        "label": _floats(frame["label"]),
        "unit": _ranks(frame["unit"])[0],
        "group": _ranks(frame["group"])[0],
        "cluster": cluster,
        "is_clustered": (frame["cluster"] != "").to_numpy(),
    }
    is_measured = (frame["status"] == "measured").to_numpy()
    reasons = frame.select("status", "reason", "unit")
    order = np.argsort(codes, kind="stable")
    borders = np.searchsorted(codes[order], np.arange(len(keys) + 1))
    for number, key in enumerate(keys):
        rows = order[borders[number] : borders[number + 1]]
        measured = rows[is_measured[rows]]
        outcome, note = None, ""
        if len(measured) < len(rows):
            outcome, note = _without_number(reasons[rows])
        part = {name: column[measured] for name, column in columns.items()}
        outcome = outcome or _not_finite(part)
        yield key, Series(**part, cluster_ids=cluster_ids, without_number=outcome, note=note)


def _series_codes(frame: pl.DataFrame) -> tuple[np.ndarray, list[SeriesKey]]:
    """Rank of each row's (checkpoint, metric, slice) among all that occur, and those keys, sorted."""
    parts = [_ranks(frame[name]) for name in SeriesKey._fields]
    combined = np.zeros(frame.height, dtype=np.int64)
    for codes, names in parts:
        combined = combined * len(names) + codes
    present, codes = np.unique(combined, return_inverse=True)
    keys = []
    for value in present.tolist():
        names = []
        for _, ids in reversed(parts):
            value, code = divmod(value, len(ids))  # noqa: PLW2901 - digits of a mixed-radix number
            names.append(str(ids[code]))
        keys.append(SeriesKey(*reversed(names)))
    return codes, keys


def _ranks(strings: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each string among the sorted distinct ones, and those."""
    distinct = strings.unique().sort()
    table = pl.DataFrame({"id": distinct, "rank": np.arange(len(distinct), dtype=np.int64)})
    ranks = strings.to_frame("id").join(table, on="id", how="left", maintain_order="left")["rank"]
    return ranks.to_numpy(), distinct.to_numpy()


def _floats(column: pl.Series) -> np.ndarray:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _without_number(rows: pl.DataFrame) -> tuple[Outcome | None, str]:
    """The outcome that rows without a number force, else the remark that the method must carry."""
    by_status = {status: rows.filter(pl.col("status") == status) for status in _STATUSES}
    failed = by_status["failed"]
    if failed.height:
        share = f" ({failed.height} of {rows.height} rows failed)" if failed.height < rows.height else ""
        return Failed(f"{_reason(failed)}{share}"), ""
    unit_count = rows["unit"].n_unique()
    counts = {s: by_status[s]["unit"].n_unique() for s in ("undefined", "skipped") if by_status[s].height}
    note = ", ".join(f"{count} of {unit_count} units {status}" for status, count in counts.items())
    if by_status["measured"].height:
        return None, note
    kind = Undefined if "undefined" in counts else Skipped
    first = by_status["undefined"] if "undefined" in counts else by_status["skipped"]
    return kind(f"{_reason(first)} ({note})"), note


def _reason(rows: pl.DataFrame) -> str:
    """The most frequent reason (by alphabet where several are), so that no order of rows matters."""
    counts = Counter(reason or "no reason was given" for reason in rows["reason"])
    return min(counts, key=lambda reason: (-counts[reason], reason))


def _not_finite(columns: dict[str, np.ndarray]) -> Failed | None:
    """A measured row without finite numbers or with a negative weight is a defect of whoever wrote it."""
    names = ("numerator", "denominator", "weight", "group_weight")
    bad = sum(~np.isfinite(columns[name]) for name in names) + (columns["weight"] < 0)
    bad = np.count_nonzero(bad + (columns["group_weight"] < 0))
    return Failed(f"{bad} measured rows have numbers that are not finite or weights below 0") if bad else None
