"""EvaluationReport <-> report.json, whose shape `json_models` has; reading trusts nothing."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autointerp.errors import BadInputError
from autointerp.records import (
    CheckpointSummary,
    Comparison,
    Estimate,
    EvaluationReport,
    Failed,
    LatentCoverage,
    Measured,
    MetricDefinition,
    MetricResult,
    Outcome,
    Skipped,
    Undefined,
)
from autointerp.reporting.json_models import (
    SCHEMA_VERSION,
    CheckpointJson,
    ComparisonJson,
    CoverageJson,
    MetricJson,
    OutcomeJson,
    ReportJson,
    ResultJson,
)
from autointerp.reporting.outcome_fields import outcome_fields

__all__ = ["SCHEMA_VERSION", "ReportFileError", "ReportJson", "read_report", "report_json", "schema_json"]

_DEEPEST = 100
_TOO_DEEP = f"nested more than {_DEEPEST} deep"


class ReportFileError(BadInputError):
    """A file is no report.json, is damaged, or was written by another version."""


def report_json(report: EvaluationReport) -> str:
    """The text of report.json: keys sorted, two spaces of indent, the order of results kept.

    Raises:
        ValueError: the report names a metric it does not define, or holds what JSON cannot.
    """
    model = _to_model(report)
    content = model.model_dump(mode="json", exclude_none=True)
    return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def schema_json() -> str:
    """The JSON Schema of report.json."""
    schema = ReportJson.model_json_schema()
    schema["title"] = "autointerp report.json"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def read_report(path: Path | str) -> EvaluationReport:
    """The report that a file holds; a directory stands for its `report.json`.

    Raises:
        ReportFileError: there is none, it is no JSON, or it does not follow the schema.
    """
    where = Path(path) / "report.json" if Path(path).is_dir() else Path(path)
    try:
        text = where.read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        _refuse_depth(content)
    except OSError as error:
        raise ReportFileError(
            error.strerror or "cannot be read", where=where, remedy="name a run directory or its report.json"
        ) from error
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else _TOO_DEEP
        raise ReportFileError(f"no JSON ({reason})", where=where, remedy="run the evaluation again") from None
    _require_version(content, where)
    try:
        return _from_model(ReportJson.model_validate(content))
    except ValidationError as error:
        raise ReportFileError(_first_problem(error), where=where, remedy="see `autointerp schema`") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _refuse_depth(content: Any) -> None:
    """What nests deeper than any report would end in a RecursionError wherever it is walked through."""
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _require_version(content: object, where: Path) -> None:
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found == SCHEMA_VERSION:
        return
    said = (
        "no report.json"
        if found is None
        else f"schema_version {found!r}, this version reads {SCHEMA_VERSION}"
    )
    raise ReportFileError(said, where=where, remedy="write it with the matching version of autointerp")


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    place = ".".join(str(step) for step in problems[0]["loc"]) or "report"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {problems[0]['msg'].removeprefix('Value error, ')}{more}"


def _to_model(report: EvaluationReport) -> ReportJson:
    definitions = {definition.name: definition for definition in report.definitions}
    undefined = {result.metric for result in report.results} - definitions.keys()
    if undefined:
        raise ValueError(f"report: results of metrics without a definition: {sorted(undefined)}")
    return ReportJson(
        schema_version=SCHEMA_VERSION,
        suite=_plain(report.suite),
        subject=_plain(report.subject),
        corpus=_plain(report.corpus),
        checkpoints=tuple(_checkpoint_json(checkpoint) for checkpoint in report.checkpoints),
        metrics=tuple(_metric_json(definition) for definition in report.definitions),
        results=tuple(_result_json(result, definitions[result.metric]) for result in report.results),
        comparisons=tuple(_comparison_json(comparison) for comparison in report.comparisons),
        coverage=tuple(CoverageJson(**_coverage_fields(coverage)) for coverage in report.coverage),
        explanations=_plain(report.explanations),
        studies=_plain(report.studies),
        cost=_plain(report.cost),
        provenance=_plain(report.provenance),
    )


def _plain(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy in JSON's own types: tuples become lists; what JSON has no word for is a ValueError."""
    try:
        return json.loads(json.dumps(_without_none(mapping), allow_nan=False))
    except TypeError as error:
        raise ValueError(f"report: {error}") from error


def _without_none(value: Any) -> Any:
    """Mappings lose keys that say nothing, at every depth."""
    if isinstance(value, Mapping):
        return {str(key): _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def _checkpoint_json(summary: CheckpointSummary) -> CheckpointJson:
    fields = {name: getattr(summary, name) for name in CheckpointJson.model_fields}
    return CheckpointJson(**fields | {"notes": tuple(summary.notes)})


def _metric_json(definition: MetricDefinition) -> MetricJson:
    fields = {name: getattr(definition, name) for name in MetricJson.model_fields}
    return MetricJson(**fields | {"parameters": _plain(definition.parameters)})


def _result_json(result: MetricResult, definition: MetricDefinition) -> ResultJson:
    shared = {name: getattr(definition, name) for name in ("sampled", "functional", "unit", "better")}
    return ResultJson(
        checkpoint=result.checkpoint,
        metric=result.metric,
        slice=_plain(result.slice),
        **shared | outcome_fields(result.outcome),
    )


def _comparison_json(comparison: Comparison) -> ComparisonJson:
    return ComparisonJson(
        checkpoint=comparison.checkpoint,
        reference=comparison.reference,
        metric=comparison.metric,
        slice=_plain(comparison.slice),
        **_without_none({"p_value": comparison.p_value, "adjusted_p_value": comparison.adjusted_p_value}),
        **outcome_fields(comparison.outcome),
    )


def _coverage_fields(coverage: LatentCoverage) -> dict[str, Any]:
    fields = asdict(coverage) | {"reason": coverage.reason or None}
    return {name: value for name, value in fields.items() if value is not None}


def _from_model(model: ReportJson) -> EvaluationReport:
    return EvaluationReport(
        suite=model.suite,
        subject=model.subject,
        corpus=model.corpus,
        checkpoints=tuple(CheckpointSummary(**checkpoint.model_dump()) for checkpoint in model.checkpoints),
        definitions=tuple(MetricDefinition(**metric.model_dump()) for metric in model.metrics),
        results=tuple(
            MetricResult(result.checkpoint, result.metric, result.slice, _outcome(result, result.sampled))
            for result in model.results
        ),
        comparisons=tuple(_comparison(comparison) for comparison in model.comparisons),
        coverage=tuple(LatentCoverage(**found.model_dump(exclude_none=True)) for found in model.coverage),
        explanations=model.explanations,
        studies=model.studies,
        cost=model.cost,
        provenance=model.provenance,
    )


def _comparison(found: ComparisonJson) -> Comparison:
    return Comparison(
        checkpoint=found.checkpoint,
        reference=found.reference,
        metric=found.metric,
        slice=found.slice,
        outcome=_outcome(found, found.sampled or ""),
        p_value=found.p_value,
        adjusted_p_value=found.adjusted_p_value,
    )


def _outcome(found: OutcomeJson, sampled: str) -> Outcome:
    if found.status != "measured":
        kinds = {"undefined": Undefined, "failed": Failed, "skipped": Skipped}
        return kinds[found.status](found.reason or "")
    return Measured(
        Estimate(
            value=found.value,  # type: ignore[arg-type]  # the validator has seen that it is there
            low=found.ci_low,  # type: ignore[arg-type]
            high=found.ci_high,  # type: ignore[arg-type]
            level=found.ci_level,  # type: ignore[arg-type]
            method=found.ci_method or "",
            n=found.n or 0,
            sampled=sampled,
        )
    )
