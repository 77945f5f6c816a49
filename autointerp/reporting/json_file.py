"""EvaluationReport <-> report.json: the models that other programs rely on, and nothing else.

A result that was measured has `value`, `ci_low`, `ci_high`, `ci_level`, `ci_method` and `n`; any other has
`reason`, and none of those keys. Missing is absent: no null, NaN or sentinel ever stands in for a number.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema

from autointerp.errors import BadInputError
from autointerp.records import (
    CheckpointSummary,
    Comparison,
    Estimate,
    EvaluationReport,
    Failed,
    Measured,
    MetricDefinition,
    MetricResult,
    Outcome,
    Skipped,
    Undefined,
)

__all__ = ["SCHEMA_VERSION", "ReportFileError", "ReportJson", "read_report", "report_json", "schema_json"]

SCHEMA_VERSION = 1
"""Raised by one when a key changes its meaning or goes; a new key alone does not raise it."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Absent = SkipJsonSchema[None]
"""In Python an absent key is None; in the file and in its schema there is no null."""
_MEASURED_KEYS = ("value", "ci_low", "ci_high", "ci_level", "ci_method", "n")
_NUMBER_OR_REASON: dict[str, Any] = {
    "if": {"properties": {"status": {"const": "measured"}}},
    "then": {"required": list(_MEASURED_KEYS), "not": {"required": ["reason"]}},
    "else": {"required": ["reason"], "not": {"anyOf": [{"required": [key]} for key in _MEASURED_KEYS]}},
}


class ReportFileError(BadInputError):
    """A file is no report.json, is damaged, or was written by another version."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CheckpointJson(_Model):
    """One checkpoint, or null, that was evaluated."""

    name: str
    path: str
    sha256: str
    format: str
    architecture: str
    latent_count: int
    d_model: int
    site: str
    role: Literal["checkpoint", "null"]
    normalization: str = Field(description="What the dictionary does to its input: none, layer_norm.")
    notes: tuple[str, ...] = ()


class MetricJson(_Model):
    """What a metric means and how its estimate is made."""

    name: str
    title: str
    meaning: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    functional: str
    sampled: str = Field(description="What n counts.")
    lowest: Finite | Absent = None
    highest: Finite | Absent = None
    parameters: dict[str, JsonValue] = {}


class _OutcomeJson(_Model):
    """The keys that a result and a comparison share: a number with its interval, or why there is none."""

    model_config = ConfigDict(json_schema_extra=_NUMBER_OR_REASON)

    status: Literal["measured", "undefined", "failed", "skipped"]
    value: Finite | Absent = None
    ci_low: Finite | Absent = None
    ci_high: Finite | Absent = None
    ci_level: Finite | Absent = None
    ci_method: str | Absent = None
    n: int | Absent = Field(default=None, description="How many of `sampled` the estimate rests on.")
    reason: str | Absent = None

    @model_validator(mode="before")
    @classmethod
    def _no_null(cls, content: Any) -> Any:
        nulls = [key for key, value in content.items() if value is None] if isinstance(content, dict) else []
        if nulls:
            raise ValueError(f"{', '.join(nulls)}: what is missing is left out, never null")
        return content

    @model_validator(mode="after")
    def _number_or_reason(self) -> "_OutcomeJson":
        present = [key for key in _MEASURED_KEYS if getattr(self, key) is not None]
        if self.status == "measured":
            if len(present) < len(_MEASURED_KEYS) or self.reason is not None:
                raise ValueError(f"a measured result has {', '.join(_MEASURED_KEYS)} and no reason")
        elif present or self.reason is None:
            raise ValueError(
                f"a result that is {self.status} has a reason and no {', '.join(_MEASURED_KEYS)}"
            )
        return self


class ResultJson(_OutcomeJson):
    """One metric of one checkpoint at one slice."""

    checkpoint: str
    metric: str
    slice: dict[str, JsonValue]
    sampled: str
    functional: str
    unit: str
    better: Literal["lower", "higher", "neither"]


class ComparisonJson(_OutcomeJson):
    """Paired difference, checkpoint minus reference."""

    checkpoint: str
    reference: str
    metric: str
    slice: dict[str, JsonValue]
    sampled: str | Absent = None
    p_value: Finite | Absent = None
    adjusted_p_value: Finite | Absent = Field(default=None, description="After false discovery rate control.")


class ReportJson(_Model):
    """The whole of report.json."""

    schema_version: Literal[1]
    suite: dict[str, JsonValue]
    subject: dict[str, JsonValue]
    corpus: dict[str, JsonValue]
    checkpoints: tuple[CheckpointJson, ...]
    metrics: tuple[MetricJson, ...]
    results: tuple[ResultJson, ...]
    comparisons: tuple[ComparisonJson, ...]
    cost: dict[str, JsonValue]
    provenance: dict[str, JsonValue]


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
        content = json.loads(where.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ReportFileError(
            error.strerror or "cannot be read", where=where, remedy="name a run directory or its report.json"
        ) from error
    except ValueError as error:
        raise ReportFileError(f"no JSON ({error})", where=where, remedy="run the evaluation again") from error
    _require_version(content, where)
    try:
        return _from_model(ReportJson.model_validate(content))
    except ValidationError as error:
        raise ReportFileError(_first_problem(error), where=where, remedy="see `autointerp schema`") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


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
    return f"{place}: {problems[0]['msg']}{more}"


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


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome, Measured):
        return {"status": outcome.status, "reason": outcome.reason}
    estimate = outcome.estimate
    return {
        "status": "measured",
        "value": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "ci_level": estimate.level,
        "ci_method": estimate.method,
        "n": estimate.n,
        "sampled": estimate.sampled,
    }


def _result_json(result: MetricResult, definition: MetricDefinition) -> ResultJson:
    shared = {name: getattr(definition, name) for name in ("sampled", "functional", "unit", "better")}
    return ResultJson(
        checkpoint=result.checkpoint,
        metric=result.metric,
        slice=_plain(result.slice),
        **shared | _outcome_fields(result.outcome),
    )


def _comparison_json(comparison: Comparison) -> ComparisonJson:
    return ComparisonJson(
        checkpoint=comparison.checkpoint,
        reference=comparison.reference,
        metric=comparison.metric,
        slice=_plain(comparison.slice),
        **_without_none({"p_value": comparison.p_value, "adjusted_p_value": comparison.adjusted_p_value}),
        **_outcome_fields(comparison.outcome),
    )


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


def _outcome(found: _OutcomeJson, sampled: str) -> Outcome:
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
