"""What travels between the steps: observations, outcomes and summaries. Knows neither torch nor files.

Axis words used in shape annotations everywhere in the package (a closed list):
document, token, latent, d_model, vocabulary, context_token, probe_example, batch, position; and in the
statistics of observations row, cluster, group, example, sum, column, resample, level, point, draw.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from autointerp.report_keys import slice_key

__all__ = [
    "OBSERVATION_SCHEMA",
    "CheckpointSummary",
    "Comparison",
    "Estimate",
    "EvaluationReport",
    "Failed",
    "LatentCoverage",
    "Measured",
    "MetricDefinition",
    "MetricResult",
    "Outcome",
    "Skipped",
    "Undefined",
    "observation_frame",
    "slice_key",
]

Better = Literal["lower", "higher", "neither"]

OBSERVATION_SCHEMA: dict[str, Any] = {
    "checkpoint": pl.String,
    "metric": pl.String,
    "slice": pl.String,  # canonical JSON of the setting, "{}" for the headline one
    "group": pl.String,  # what the functional is taken within before the mean over groups; else ""
    "group_weight": pl.Float64,  # inverse inclusion probability of the group
    "unit": pl.String,  # what was sampled: a document, an example, a latent
    "cluster": pl.String,  # what makes units dependent: the document
    "stratum": pl.String,
    "numerator": pl.Float64,  # for rankings: the prediction
    "denominator": pl.Float64,
    "label": pl.Float64,  # for rankings: the truth; else null
    "sampling_weight": pl.Float64,
    "replicate": pl.Int32,
    "status": pl.String,  # measured | undefined | failed | skipped
    "reason": pl.String,
}
"""Columns and types of every observation; a unit without a number stays a row with its status."""

_DEFAULTS: dict[str, Any] = {
    "slice": "{}",
    "group": "",
    "group_weight": 1.0,
    "cluster": "",
    "stratum": "",
    "denominator": 1.0,
    "label": None,
    "sampling_weight": 1.0,
    "replicate": 0,
    "status": "measured",
    "reason": "",
}


def observation_frame(**given: Any) -> pl.DataFrame:
    """Observations from columns; scalars are repeated, absent columns take their neutral value.

    `checkpoint`, `metric`, `unit` and `numerator` are required. `slice` may be a mapping. A null numerator
    is allowed only where `status` is not "measured".

    Raises:
        ValueError: a column is unknown or missing, or a measured row has a number that is not finite.
    """
    unknown = given.keys() - OBSERVATION_SCHEMA.keys()
    missing = {"checkpoint", "metric", "unit", "numerator"} - given.keys()
    if unknown or missing:
        raise ValueError(f"observations: unknown columns {sorted(unknown)}, missing {sorted(missing)}")
    values = {name: given.get(name, _DEFAULTS.get(name)) for name in OBSERVATION_SCHEMA}
    if isinstance(values["slice"], Mapping):
        values["slice"] = slice_key(values["slice"])
    if isinstance(values["unit"], str):
        values["unit"] = [values["unit"]]
    units = pl.Series("unit", values.pop("unit"), dtype=pl.String)
    columns = [_column(name, value, OBSERVATION_SCHEMA[name]) for name, value in values.items()]
    frame = units.to_frame().with_columns(columns).select(list(OBSERVATION_SCHEMA))
    numbers = frame.filter(pl.col("status") == "measured").select("numerator", "denominator")
    if not numbers.select(pl.all().is_finite().fill_null(value=False)).to_numpy().all():
        raise ValueError("observations: a measured row has no finite numerator and denominator")
    return frame


def _column(name: str, value: Any, dtype: Any) -> Any:  # an expression, or a series
    return (
        pl.lit(value, dtype=dtype).alias(name) if _is_scalar(value) else pl.Series(name, value, dtype=dtype)
    )


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


@dataclass(frozen=True)
class MetricDefinition:
    """What a metric means and how its observations become one number."""

    name: str
    """Dotted and stable: `reconstruction.normalized_mse`."""
    title: str
    """What a table's header says."""
    meaning: str
    """One or two sentences for a reader of the report: formula, choices made, source."""
    unit: str
    """Unit of measure: nats, fraction, latents per token."""
    better: Better
    functional: str
    """Name in `estimates.FUNCTIONALS`: how observations become the estimate."""
    sampled: str
    """What `n` counts: document, latent, example."""
    lowest: float | None = None
    highest: float | None = None
    in_summary: bool = True
    """Whether the summary table has a column for it; all results stand in the full table."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Constants that the functional needs (a fitted curve's points), JSON-able."""
    pairing: Literal["units", "independent"] = "units"
    """How two checkpoints are set against each other: on the units that both have, or, where units are each
    checkpoint's own (latents), as two independent samples."""


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty. All floats are finite."""

    value: float
    low: float
    high: float
    level: float
    """Coverage of [low, high], e.g. 0.95."""
    method: str
    """How the interval was made."""
    n: int
    """How many of `sampled` it rests on."""
    sampled: str

    def __post_init__(self) -> None:
        """Refuse what is not a number: missing is a status, never a NaN."""
        if not all(math.isfinite(x) for x in (self.value, self.low, self.high, self.level)):
            raise ValueError(f"an estimate must be finite, got {self}")


@dataclass(frozen=True)
class Measured:
    """There is a number."""

    estimate: Estimate
    status: Literal["measured"] = "measured"


@dataclass(frozen=True)
class Undefined:
    """The quantity does not exist here (empty input, zero denominator, outside a curve's range)."""

    reason: str
    status: Literal["undefined"] = "undefined"


@dataclass(frozen=True)
class Failed:
    """The quantity exists, computing it went wrong."""

    reason: str
    status: Literal["failed"] = "failed"


@dataclass(frozen=True)
class Skipped:
    """It was not tried, on purpose."""

    reason: str
    status: Literal["skipped"] = "skipped"


Outcome = Measured | Undefined | Failed | Skipped


@dataclass(frozen=True)
class MetricResult:
    """One metric of one checkpoint at one slice."""

    checkpoint: str
    metric: str
    slice: Mapping[str, Any]
    outcome: Outcome


@dataclass(frozen=True)
class Comparison:
    """Difference `checkpoint - reference` of one metric.

    Paired on the units that both have seen, or of two independent samples, as the metric's `pairing` says.
    """

    checkpoint: str
    reference: str
    metric: str
    slice: Mapping[str, Any]
    outcome: Outcome
    p_value: float | None = None
    """Two-sided, for no difference; None when not measured."""
    adjusted_p_value: float | None = None
    """The same after control of the false discovery rate over all comparisons of the report."""


@dataclass(frozen=True)
class CheckpointSummary:
    """What the report says of a checkpoint before any number."""

    name: str
    path: str
    sha256: str
    format: str
    architecture: str
    """e.g. `topk(k=32)`, `relu`."""
    latent_count: int
    d_model: int
    site: str
    """What it reconstructs or predicts, and where it is judged."""
    role: Literal["checkpoint", "null"]
    normalization: str
    """What the dictionary does to its input: `none`, `layer_norm`."""
    notes: Sequence[str] = ()
    """What a reader should know: missing fields, guesses made, how a null was built."""
    input_site: str | None = None
    """What it reads, if that is another place than `site` (a transcoder)."""


@dataclass(frozen=True)
class LatentCoverage:
    """What scores of a dictionary's sampled latents can speak for; counts are of this run's text.

    A score is a mean over latents that fire in enough documents to be explained on some and scored on others.
    Dead and rare latents have none, so a wide dictionary of which few latents fire would look better than it
    is if these shares did not stand beside every such mean.
    """

    checkpoint: str
    status: Literal["measured", "failed", "skipped"]
    reason: str = ""
    """Of a dictionary whose latents could not be sampled."""
    latent_count: int | None = None
    """None, as are all that follow, where the status is not `measured`."""
    live_count: int | None = None
    """Latents that fire at least once."""
    scorable_count: int | None = None
    """Latents that fire in enough documents of every split."""
    ultra_dense_count: int | None = None
    sampled_count: int | None = None
    sampled_scorable_count: int | None = None
    scorable_fraction: float | None = None
    """`scorable_count / latent_count`."""
    scorable_mass_fraction: float | None = None
    """Share of all |activation| that scorable latents hold; None also where nothing fires."""
    dropped_for_leaks: int | None = None
    """Examples for explaining that shared 16 tokens with a scored peak, and were left out."""


@dataclass(frozen=True)
class EvaluationReport:
    """Everything that a run found, ready to be written or gated."""

    suite: Mapping[str, Any]
    subject: Mapping[str, Any]
    corpus: Mapping[str, Any]
    checkpoints: Sequence[CheckpointSummary]
    definitions: Sequence[MetricDefinition]
    results: Sequence[MetricResult]
    comparisons: Sequence[Comparison]
    cost: Mapping[str, Any]
    """Seconds per step, tokens, peak memory; for LLM metrics money."""
    provenance: Mapping[str, Any]
    studies: Mapping[str, Any] = field(default_factory=dict)
    """By family of metrics (`probe`, `n2g`, ...) what the report says of it besides its results."""
    coverage: Sequence[LatentCoverage] = ()
    """One of each dictionary whose latents were to be sampled."""
    explanations: Mapping[str, Any] = field(default_factory=dict)
    """Who explained and who judged: `explainers` and `methods` in order, the first ones the headline;
    `models`: role, model, endpoint, what it answered as, fingerprints, settings; `prompts`: versions. Empty
    where nothing was explained."""

    @property
    def failures(self) -> list[MetricResult]:
        """Results whose metric failed; the command line then returns 4."""
        return [result for result in self.results if isinstance(result.outcome, Failed)]
