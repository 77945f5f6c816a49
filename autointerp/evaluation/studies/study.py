"""What a family of metrics with steps of its own does in a run, and how a failure of it becomes rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import polars as pl

from autointerp.errors import BadInputError
from autointerp.evaluation.inputs import Measurable
from autointerp.evaluation.work import Work
from autointerp.records import OBSERVATION_SCHEMA, MetricDefinition
from autointerp.sampling.document_sums import failed_observations

__all__ = ["Studied", "Study", "failure_reason", "guarded", "run_studies"]


@dataclass(frozen=True, eq=False)
class Studied:
    """What a study found."""

    observations: pl.DataFrame
    """As in `records.OBSERVATION_SCHEMA`."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able; what the report says besides numbers with intervals: tasks, settings, costs."""


@runtime_checkable
class Study(Protocol):
    """One family of metrics that is observed after the pass over the text."""

    family: str
    """First word of its metrics, and its name in `metrics.families`."""
    title: str
    """Of the step, as a progress bar says it."""

    @property
    def metrics(self) -> Sequence[MetricDefinition]:
        """All that it observes."""
        ...

    def observe(self, work: Work, entries: Sequence[Measurable]) -> Studied:
        """Observations of dictionaries that came through the pass.

        What was done is kept with `work.store.write`, so that a killed run loses at most some seconds of it;
        a dictionary that fails gives failed rows (`guarded`) and does not stop the others.
        """
        ...


def failure_reason(error: Exception) -> str:
    """One line about what a dictionary or a model raised, for a row that failed."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def guarded(checkpoint: str, metrics: Sequence[str], observe: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """What `observe` gives, or a failed row for each metric.

    Raises:
        BadInputError: the run as a whole cannot go on (a changed file, an absent data set).
    """
    try:
        return observe()
    except BadInputError:
        raise
    except Exception as error:  # whatever a dictionary or a model can raise is a row, not the end of the run
        return failed_observations(checkpoint, metrics, unit="all", reason=failure_reason(error))


def run_studies(
    work: Work,
    studies: Sequence[Study],
    entries: Sequence[Measurable],
    left_out: Mapping[str, tuple[str, str]],
) -> dict[str, Studied]:
    """The studies that the suite asks for, by family; each is timed as a step of the run.

    Args:
        work: the run.
        studies: all that there are.
        entries: every dictionary of the run.
        left_out: by name, (status, reason) of those that did not come through the pass.
    """
    found: dict[str, Studied] = {}
    going = [entry for entry in entries if entry.summary.name not in left_out]
    for study in studies:
        if study.family in work.suite.metrics.families:
            with work.clock.step(study.title):
                studied = study.observe(work, going)
            observations = pl.concat([studied.observations, _left_out(study, left_out)])
            found[study.family] = Studied(observations, studied.facts)
    return found


def _left_out(study: Study, left_out: Mapping[str, tuple[str, str]]) -> pl.DataFrame:
    names = [metric.name for metric in study.metrics]
    frames = [
        failed_observations(checkpoint, names, unit="first look", reason=reason, status=status)
        for checkpoint, (status, reason) in left_out.items()
    ]
    return pl.concat(frames) if frames else pl.DataFrame(schema=OBSERVATION_SCHEMA)
