"""A report -> its rows by key; refused where no gate can rely on it: parts missing, odd numbers, doubles."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.report_keys import slice_key

__all__ = ["UnsoundReportError", "keyed_rows"]

_OBJECTS = ("subject", "corpus", "provenance")
_LISTS = ("checkpoints", "metrics", "results", "comparisons", "coverage")
_LARGEST = 1e150  # squares and quotients of what a gate reckons with stay finite
_ROUNDING = 1e-5  # of float32
_MOST_UNITS = 2**53
_STATUSES = ("measured", "undefined", "skipped", "failed")
_KEYS = {
    "checkpoints": ("name",),
    "metrics": ("name",),
    "results": ("checkpoint", "metric", "slice"),
    "comparisons": ("checkpoint", "reference", "metric", "slice"),
    "coverage": ("checkpoint",),
}
"""What may stand in each list only once: of two rows of one name, nobody knows which is meant."""


class UnsoundReportError(ValueError):
    """One line about the first thing that is no report's."""


def keyed_rows(report: Mapping[str, Any]) -> dict[str, dict[tuple[str, ...], Mapping[str, Any]]]:
    """The rows of each of the report's lists, by what may stand there only once, slices spelled.

    Raises:
        UnsoundReportError: it is no whole report.
    """
    for key in _OBJECTS:
        if not isinstance(report.get(key), dict):
            raise UnsoundReportError(f"`{key}` is no object")
    for key in ("suite", "explanations"):
        if not isinstance(report.get(key) or {}, dict):
            raise UnsoundReportError(f"`{key}` is no object")
    keyed = {name: _of_list(name, report.get(name, [])) for name in _LISTS}
    _refuse_out_of_range(report.get("metrics", []), report.get("results", []))
    return keyed


def _refuse_out_of_range(metrics: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> None:
    """Values that their metric cannot have: a limit would be held against nonsense."""
    ranges = {each["name"]: (each.get("lowest"), each.get("highest")) for each in metrics}
    for place, row in enumerate(results):
        lowest, highest = ranges.get(row["metric"], (None, None))
        if row["status"] != "measured":
            continue
        is_below = lowest is not None and row["value"] < lowest - _ROUNDING
        is_above = highest is not None and row["value"] > highest + _ROUNDING
        if is_below or is_above:
            raise UnsoundReportError(
                f"results[{place}]: {row['value']:g} lies outside of the range of {row['metric']}"
            )


def _of_list(name: str, rows: object) -> dict[tuple[str, ...], Mapping[str, Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnsoundReportError(f"`{name}` is no list of objects")
    keyed: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for place, row in enumerate(rows):
        key = _key(name, place, row)
        if key in keyed:
            raise UnsoundReportError(f"{name}[{place}] is listed twice: {', '.join(key)}")
        keyed[key] = row
        problem = _of_row(name, row)
        if problem:
            raise UnsoundReportError(f"{name}[{place}]: {problem}")
    return keyed


def _key(name: str, place: int, row: Mapping[str, Any]) -> tuple[str, ...]:
    key = []
    for each in _KEYS[name]:
        part = row.get(each)
        if not isinstance(part, dict if each == "slice" else str):
            raise UnsoundReportError(f"{name}[{place}] lacks one of {', '.join(_KEYS[name])}")
        key.append(slice_key(part) if each == "slice" else part)
    return tuple(key)


def _of_row(name: str, row: Mapping[str, Any]) -> str:
    """What is wrong with it; empty where nothing is."""
    if name == "checkpoints":
        has_place = row.get("role") in ("checkpoint", "null") and isinstance(row.get("site"), str)
        return "" if has_place else "has no known role, or no site"
    if name == "metrics":
        ends = [row[key] for key in ("lowest", "highest") if row.get(key) is not None]
        return "" if all(map(_is_finite, ends)) else "a bound is no finite number"
    if row.get("status", "measured") not in _STATUSES or (name != "coverage" and "status" not in row):
        return f"has no known status: {row.get('status')!r}"
    if name == "coverage":
        shares = [key for key, value in row.items() if key.endswith("_fraction") and value is not None]
        return next((f"{key} is no share" for key in shares if not _is_share(row[key])), "")
    return _of_outcome(name, row)


def _of_outcome(name: str, row: Mapping[str, Any]) -> str:
    if name == "results":
        if row.get("better") not in ("lower", "higher", "neither"):
            return "has no known better direction"
        if not isinstance(row.get("unit"), str) or not isinstance(row.get("functional"), str):
            return "lacks its unit or functional"
    return _of_numbers(row) if row["status"] == "measured" else ""


def _of_numbers(row: Mapping[str, Any]) -> str:
    for key in ("value", "ci_low", "ci_high", "ci_level"):
        number = row.get(key)
        if type(number) is not float and not _is_finite(number):
            return f"{key} is no finite number"
        if not -_LARGEST <= number <= _LARGEST:  # of an infinity and of NaN, too
            return f"{key} is no finite number" if not _is_finite(number) else f"{key} is beyond {_LARGEST:g}"
    low, high, level = row["ci_low"], row["ci_high"], row["ci_level"]
    if not low <= high or not _is_level(level):
        return f"is no interval: {low:g} to {high:g} at level {level:g}"
    n = row.get("n")
    is_count = isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= _MOST_UNITS
    return "" if is_count else "n is no count"


def _is_level(value: float) -> bool:
    """Whether a normal has quantiles at its ends, other than its middle."""
    return 0.5 < (1 + value) / 2 < 1


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_share(value: object) -> bool:
    return _is_finite(value) and 0 <= value <= 1  # type: ignore[operator]  # a number
