"""The shape of report.json: the models that other programs rely on, and what they refuse.

A result that was measured has `value`, `ci_low`, `ci_high`, `ci_level`, `ci_method` and `n`; any other has
`reason`, and none of those keys. Missing is absent: no null, NaN or sentinel ever stands in for a number.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.json_schema import SkipJsonSchema

__all__ = [
    "SCHEMA_VERSION",
    "CheckpointJson",
    "ComparisonJson",
    "CoverageJson",
    "MetricJson",
    "OutcomeJson",
    "ReportJson",
    "ResultJson",
]

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
    site: str = Field(description="What it reconstructs or predicts, and where it is judged.")
    input_site: str | Absent = Field(default=None, description="What it reads, if that is another place.")
    role: Literal["checkpoint", "null"]
    normalization: str = Field(description="What the dictionary does to its input: none, layer_norm, ...")
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
    in_summary: bool = True
    parameters: dict[str, JsonValue] = {}
    pairing: Literal["units", "independent"] = Field(
        default="units", description="Checkpoints are compared on shared units, or as independent samples."
    )


class OutcomeJson(_Model):
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
    def _number_or_reason(self) -> "OutcomeJson":
        present = [key for key in _MEASURED_KEYS if getattr(self, key) is not None]
        if self.status == "measured":
            if len(present) < len(_MEASURED_KEYS) or self.reason is not None:
                raise ValueError(f"a measured result has {', '.join(_MEASURED_KEYS)} and no reason")
            if self.ci_low > self.ci_high:  # type: ignore[operator]  # both are there
                raise ValueError(f"ci_low {self.ci_low:g} lies above ci_high {self.ci_high:g}")
        elif present or self.reason is None:
            raise ValueError(
                f"a result that is {self.status} has a reason and no {', '.join(_MEASURED_KEYS)}"
            )
        return self


class ResultJson(OutcomeJson):
    """One metric of one checkpoint at one slice."""

    checkpoint: str
    metric: str
    slice: dict[str, JsonValue]
    sampled: str
    functional: str
    unit: str
    better: Literal["lower", "higher", "neither"]


class ComparisonJson(OutcomeJson):
    """Difference, checkpoint minus reference; paired unless the metric's pairing is `independent`."""

    checkpoint: str
    reference: str
    metric: str
    slice: dict[str, JsonValue]
    sampled: str | Absent = None
    p_value: Finite | Absent = None
    adjusted_p_value: Finite | Absent = Field(default=None, description="After false discovery rate control.")


class CoverageJson(_Model):
    """What scores of a dictionary's sampled latents can speak for."""

    checkpoint: str
    status: Literal["measured", "failed", "skipped"]
    reason: str | Absent = None
    latent_count: int | Absent = None
    live_count: int | Absent = Field(default=None, description="Fire at least once.")
    scorable_count: int | Absent = Field(default=None, description="In enough documents of every split.")
    ultra_dense_count: int | Absent = None
    sampled_count: int | Absent = None
    sampled_scorable_count: int | Absent = None
    scorable_fraction: Finite | Absent = Field(default=None, description="scorable_count / latent_count.")
    scorable_mass_fraction: Finite | Absent = Field(
        default=None, description="Share of all |activation| that scorable latents hold."
    )
    dropped_for_leaks: int | Absent = Field(
        default=None, description="Examples left out that would have shown text around a scored peak."
    )


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
    coverage: tuple[CoverageJson, ...] = ()
    explanations: dict[str, JsonValue] = Field(
        default={},
        description="Who explained and who judged; scores of different judges are not to be compared.",
    )
    studies: dict[str, JsonValue] = Field(
        default={}, description="By family of metrics, what it is worth knowing beside its results."
    )
    cost: dict[str, JsonValue]
    provenance: dict[str, JsonValue]

    @model_validator(mode="after")
    def _metrics_are_defined(self) -> "ReportJson":
        undefined = {result.metric for result in self.results} - {metric.name for metric in self.metrics}
        if undefined:
            raise ValueError(f"results of metrics without a definition: {sorted(undefined)}")
        return self
