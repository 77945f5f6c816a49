"""A finished run -> whether some of its questions were refused only because requests failed."""

import json
from pathlib import Path

import polars as pl

__all__ = ["has_failed_requests"]

_CAUSE = "failed_request"


def has_failed_requests(run: Path) -> bool:
    """Whether asking again may bring answers that the run lacks: the endpoint did not give them that time.

    Other refusals are answers; those stay as they are. What cannot be read counts as lacking.

    Args:
        run: its folder.
    """
    try:
        return any(map(_failed_here, sorted(run.glob("predictions/*.parquet")))) or _unexplained(run)
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return True


def _failed_here(predictions: Path) -> bool:
    causes = pl.scan_parquet(predictions, glob=False).select((pl.col("cause") == _CAUSE).any())
    return bool(causes.collect().item())


def _unexplained(run: Path) -> bool:
    file = run / "explanations.jsonl"
    if not file.is_file():
        return False
    with file.open(encoding="utf-8") as lines:
        return any(_CAUSE in line and json.loads(line).get("cause") == _CAUSE for line in lines)
