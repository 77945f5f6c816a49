"""EvaluationReport -> Parquet tables of everything in it, for notebooks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from autointerp.records import Comparison, EvaluationReport, MetricResult, slice_key
from autointerp.reporting.outcome_fields import outcome_fields

__all__ = ["write_parquet_tables"]

_NUMBERS = {
    "value": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "ci_level": pl.Float64,
    "ci_method": pl.String,
    "n": pl.Int64,
    "sampled": pl.String,
    "reason": pl.String,
}
_RESULTS = {"checkpoint": pl.String, "metric": pl.String, "slice": pl.String, "status": pl.String} | _NUMBERS
_COMPARISONS = {"reference": pl.String, "p_value": pl.Float64, "adjusted_p_value": pl.Float64}
_SCORES = {
    "checkpoint": pl.String,
    "latent": pl.Int64,
    "explainer": pl.String,
    "text": pl.String,
    "explanation": pl.String,
    "metric": pl.String,
    "slice": pl.String,
    "value": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "reason": pl.String,
}


def write_parquet_tables(
    report: EvaluationReport, explained: Sequence[Mapping[str, Any]], folder: Path
) -> list[Path]:
    """`results`, `comparisons`, `checkpoints`, `coverage` and `scores` (of latents), a file each.

    What has no number is null with its reason; a table without rows is written too, with its columns.

    Args:
        report: the run's.
        explained: as from `explanation_rows.explained_rows`.
        folder: where to; made if it is not there.
    """
    tables = {
        "results": pl.DataFrame([_result(each) for each in report.results], schema=_RESULTS),
        "comparisons": pl.DataFrame(
            [_comparison(each) for each in report.comparisons], schema=_RESULTS | _COMPARISONS
        ),
        "checkpoints": pl.DataFrame(
            [asdict(each) | {"notes": "\n".join(each.notes)} for each in report.checkpoints],
            infer_schema_length=None,
        ),
        "coverage": pl.DataFrame([asdict(each) for each in report.coverage], infer_schema_length=None),
        "scores": pl.DataFrame(_scores(explained), schema=_SCORES),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in tables.items():
        part = folder / f".{name}.parquet.tmp"
        table.write_parquet(part)
        written.append(part.replace(folder / f"{name}.parquet"))
    return written


def _result(result: MetricResult | Comparison) -> dict[str, Any]:
    return {
        "checkpoint": result.checkpoint,
        "metric": result.metric,
        "slice": slice_key(result.slice),
        **outcome_fields(result.outcome),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return _result(comparison) | {
        "reference": comparison.reference,
        "p_value": comparison.p_value,
        "adjusted_p_value": comparison.adjusted_p_value,
    }


def _scores(explained: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **{key: row.get(key) for key in ("checkpoint", "latent", "explainer", "text")},
            **{
                key: score.get(key)
                for key in ("explanation", "metric", "value", "ci_low", "ci_high", "reason")
            },
            "slice": slice_key(score.get("slice") or {}),
        }
        for row in explained
        for score in row.get("scores", ())
    ]
