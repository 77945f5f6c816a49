"""A report from disk -> what makes it unusable for a gate: missing parts, odd numbers, rows listed twice."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autointerp.report_keys import slice_key

__all__ = ["first_problem"]

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


def first_problem(report: Mapping[str, Any]) -> str | None:
    """One line about the first thing that is no report's; None where a gate can rely on all of it."""
    return next(_problems(report), None)


def _problems(report: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"`{key}` is no object" for key in _OBJECTS if not isinstance(report.get(key), dict))
    for key in ("suite", "explanations"):
        if not isinstance(report.get(key) or {}, dict):
            yield f"`{key}` is no object"
    for name in _LISTS:
        rows = report.get(name, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            yield f"`{name}` is no list of objects"
            return
        yield from _of_list(name, rows)
    yield from _out_of_range(report.get("metrics", []), report.get("results", []))


def _out_of_range(
    metrics: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Values that their metric cannot have: a limit would be held against nonsense."""
    ranges = {each["name"]: (each.get("lowest"), each.get("highest")) for each in metrics}
    for place, row in enumerate(results):
        lowest, highest = ranges.get(row["metric"], (None, None))
        if row["status"] != "measured":
            continue
        is_below = lowest is not None and row["value"] < lowest - _ROUNDING
        is_above = highest is not None and row["value"] > highest + _ROUNDING
        if is_below or is_above:
            yield f"results[{place}]: {row['value']:g} lies outside of the range of {row['metric']}"


def _of_list(name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names, seen = _KEYS[name], set()
    for place, row in enumerate(rows):
        key = []
        for each in names:
            part = row.get(each)
            if not isinstance(part, dict if each == "slice" else str):
                yield f"{name}[{place}] lacks one of {', '.join(names)}"
                return
            key.append(slice_key(part) if each == "slice" else part)
        if tuple(key) in seen:
            yield f"{name}[{place}] is listed twice: {', '.join(key)}"
        seen.add(tuple(key))
        problem = _of_row(name, row)
        if problem:
            yield f"{name}[{place}]: {problem}"


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
