"""Two finished runs -> how their checkpoints differ in every metric, with p-values and what could be seen.

Nothing is run again: both runs' observations are set side by side. Documents and tasks are paired (the same
content has the same id in every run); metrics whose unit is the latent are compared as two independent
samples, for latents of two dictionaries are not the same units.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import polars as pl

from autointerp.errors import RunStoreError
from autointerp.estimates import compare_all
from autointerp.records import (
    OBSERVATION_SCHEMA,
    Comparison,
    EvaluationReport,
    Measured,
    MetricDefinition,
    Outcome,
)
from autointerp.report_keys import judges_of, slice_key
from autointerp.reporting.difference_cells import detectable_cell, difference_cell, p_cell
from autointerp.reporting.json_file import read_report
from autointerp.reporting.markdown_file import escaped
from autointerp.reporting.outcome_fields import outcome_fields
from autointerp.reporting.parts import Cell, Column, Row, Table

__all__ = [
    "ADJUSTMENT",
    "RunDifferences",
    "compare_runs",
    "detectable",
    "differences_json",
    "differences_markdown",
    "differences_table",
    "finding",
    "pair_of",
    "pair_words",
    "run_facts",
]

ADJUSTMENT = "Benjamini-Hochberg"
_POWER = 0.8
_MINE, _THEIRS = "A: ", "B: "
_COLUMNS = (
    Column("Checkpoint"),
    Column("Metric"),
    Column("A − B", is_numeric=True, hint="of A's checkpoint, minus B's"),
    Column("p, adjusted", is_numeric=True, hint="Benjamini and Hochberg over all rows"),
    Column("Detectable", is_numeric=True, hint="smallest difference found with 80 % probability"),
    Column("Finding"),
)


@dataclass(frozen=True, eq=False)
class RunDifferences:
    """Differences `A - B`, checkpoint by checkpoint and metric by metric."""

    comparisons: Sequence[Comparison]
    definitions: Sequence[MetricDefinition]
    notes: Sequence[str]
    """What is not alike in the two runs, and what was left out for it."""
    level: float
    pairs: Sequence[tuple[str, str]] = ()
    """Names of the checkpoints that were compared, nulls left out."""
    reports: Sequence[EvaluationReport] = ()
    """Of A and of B."""
    folders: Sequence[Path] = ()
    """Where they lie."""
    alone: Sequence[Sequence[str]] = ((), ())
    """Checkpoints that are in A only, and those in B only."""
    tasks: Sequence[Comparison] = ()
    """Of single probe tasks, nulls left out; their p-values are adjusted over them alone."""

    def sides(self, comparison: Comparison) -> tuple[Outcome | None, Outcome | None]:
        """Each run's own number, on all units that it has; None where the run has no such result."""
        key = (comparison.metric, slice_key(comparison.slice))
        names = pair_of(comparison)
        found = [outcomes.get((name, *key)) for outcomes, name in zip(self._outcomes, names, strict=False)]
        return (found[0], found[1]) if found else (None, None)

    def definition(self, comparison: Comparison) -> MetricDefinition:
        """What is compared."""
        return next(each for each in self.definitions if each.name == comparison.metric)

    @cached_property
    def _outcomes(self) -> list[dict[tuple[str, str, str], Outcome]]:
        return [
            {(each.checkpoint, each.metric, slice_key(each.slice)): each.outcome for each in report.results}
            for report in self.reports
        ]


def compare_runs(mine: Path, theirs: Path, *, allow_other_judge: bool = False) -> RunDifferences:
    """`A - B` of every metric that both runs have, for checkpoints of the same name.

    Where each run has one checkpoint only, these two are compared whatever their names are. The p-values
    are adjusted by Benjamini and Hochberg's procedure over all rows.

    Args:
        mine: directory of run A.
        theirs: directory of run B, the reference.
        allow_other_judge: whether explanation scores are compared that different judges gave.

    Raises:
        RunStoreError: a directory holds no finished run, or the two have no checkpoint in common.
    """
    reports = [read_report(run / "report.json" if run.is_dir() else run) for run in (mine, theirs)]
    pairs = _pairs(*reports)
    notes = _unlike(*reports)
    definitions, left_out = _common_definitions(*reports, allow_other_judge=allow_other_judge)
    observations = pl.concat(
        [_renamed(run, side) for run, side in ((mine, _MINE), (theirs, _THEIRS))], how="vertical"
    )
    level = float(reports[0].suite.get("estimates", {}).get("level", 0.95))
    seed = int(reports[0].suite.get("seed", 0))
    named = [(_MINE + one, _THEIRS + other) for one, other in pairs]
    # The subject's own loss is no checkpoint's.
    of_pairs = observations.filter(pl.col("checkpoint").is_in([name for pair in named for name in pair]))
    seen = set(of_pairs["metric"].unique())
    definitions = [definition for definition in definitions if definition.name in seen]
    found = compare_all(of_pairs, definitions, named, level=level, seed=seed)
    nulls = {each.name for report in reports for each in report.checkpoints if each.role == "null"}
    judged = [pair for pair in pairs if not nulls & set(pair)]
    of_tasks = compare_all(
        of_pairs,
        definitions,
        [(_MINE + one, _THEIRS + other) for one, other in judged],
        slices=_task_slices(of_pairs),
        level=level,
        seed=seed,
    )
    compared = [{pair[side] for pair in pairs} for side in (0, 1)]
    alone = [
        [each.name for each in report.checkpoints if each.name not in names]
        for report, names in zip(reports, compared, strict=True)
    ]
    return RunDifferences(
        found, definitions, (*notes, *left_out), level, judged, reports, (mine, theirs), alone, of_tasks
    )


def _task_slices(observations: pl.DataFrame) -> list[str]:
    """Those of one probe task, in alphabetical order; a task's nulls and baselines have a further key."""
    found = observations.filter(pl.col("metric").str.starts_with("probe."))["slice"].unique().sort()
    return [text for text in found if _keys(text) == {"task"}]


def _keys(slice_text: str) -> set[str]:
    try:
        return set(dict(json.loads(slice_text)))
    except (ValueError, TypeError, RecursionError):
        raise RunStoreError("holds a slice that is none", where="observations") from None


def _pairs(mine: EvaluationReport, theirs: EvaluationReport) -> list[tuple[str, str]]:
    names = [[each.name for each in report.checkpoints] for report in (mine, theirs)]
    judged = [
        [each.name for each in report.checkpoints if each.role == "checkpoint"] for report in (mine, theirs)
    ]
    pairs = [(name, name) for name in names[0] if name in names[1]]
    if not any(name in judged[0] for name, _ in pairs) and len(judged[0]) == 1 == len(judged[1]):
        pairs = [(judged[0][0], judged[1][0]), *pairs]
    if not pairs:
        raise RunStoreError(
            f"have no checkpoint of the same name (A: {', '.join(judged[0])}; B: {', '.join(judged[1])})",
            where="the two runs",
            remedy="give checkpoints the same `name` in both suites",
        )
    return pairs


def _unlike(mine: EvaluationReport, theirs: EvaluationReport) -> list[str]:
    kinds = {
        "subject": [report.subject.get("sha256") for report in (mine, theirs)],
        "corpus": [report.corpus.get("fingerprint") for report in (mine, theirs)],
        "way of cutting contexts": [report.corpus.get("contexts") for report in (mine, theirs)],
        "version of autointerp": [report.provenance.get("autointerp_version") for report in (mine, theirs)],
    }
    return [f"the two runs have another {kind}" for kind, (one, other) in kinds.items() if one != other]


def _common_definitions(
    mine: EvaluationReport, theirs: EvaluationReport, *, allow_other_judge: bool
) -> tuple[list[MetricDefinition], list[str]]:
    """Metrics that mean the same in both, and why others are left out."""
    others = {definition.name: definition for definition in theirs.definitions}
    kept, notes = [], []
    is_same_judge = judges_of(mine.explanations) == judges_of(theirs.explanations)
    for definition in mine.definitions:
        other = others.get(definition.name)
        if other is None:
            notes.append(f"{definition.name} is in A only")
        elif definition.name.startswith("explanation.") and not is_same_judge and not allow_other_judge:
            notes.append(
                f"{definition.name} is left out: other judges, prompts or methods (--allow-other-judge)"
            )
        elif (definition.functional, dict(definition.parameters)) != (
            other.functional,
            dict(other.parameters),
        ):
            notes.append(f"{definition.name} is left out: it is estimated otherwise in B")
        else:
            kept.append(definition)
    notes += [f"{name} is in B only" for name in others if name not in {d.name for d in mine.definitions}]
    return kept, notes


def _renamed(run: Path, side: str) -> pl.DataFrame:
    folder = (run if run.is_dir() else run.parent) / "observations"
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise RunStoreError("there are no observations", where=folder, remedy="give the run's directory")
    try:
        frame = pl.concat([pl.read_parquet(file) for file in files])
        if frame.schema != pl.Schema(OBSERVATION_SCHEMA):
            raise RunStoreError("holds no observations of this version", where=folder)
        return frame.with_columns(checkpoint=side + pl.col("checkpoint"))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunStoreError(f"cannot be read ({type(error).__name__})", where=folder) from None


# ---- showing them -----------------------------------------------------------------------------------


def detectable(comparison: Comparison) -> float | None:
    """The smallest true difference that a test at this level finds with 80 % probability.

    (z_level + z_power) standard errors, the error read off the interval's width.
    """
    if not isinstance(comparison.outcome, Measured):
        return None
    estimate = comparison.outcome.estimate
    z = NormalDist().inv_cdf((1 + estimate.level) / 2)
    error = (estimate.high - estimate.low) / (2 * z)
    return (z + NormalDist().inv_cdf(_POWER)) * error if error > 0 else None


def differences_table(found: RunDifferences) -> Table:
    """All rows, as a table of a report."""
    rows = []
    for each in found.comparisons:
        definition = found.definition(each)
        rows.append(
            Row(
                (
                    Cell(pair_words(each), sort=each.checkpoint),
                    Cell(definition.title, sort=definition.title, detail=definition.unit, hint=each.metric),
                    difference_cell(each),
                    p_cell(each.adjusted_p_value),
                    detectable_cell(detectable(each)),
                    Cell(finding(each, definition, level=found.level)),
                )
            )
        )
    return Table("differences", "A minus B", _COLUMNS, tuple(rows))


def pair_of(comparison: Comparison) -> tuple[str, str]:
    """Names of the two checkpoints, as each run has them."""
    return comparison.checkpoint.removeprefix(_MINE), comparison.reference.removeprefix(_THEIRS)


def pair_words(comparison: Comparison) -> str:
    """The common name, or `one − other`."""
    one, other = pair_of(comparison)
    return one if one == other else f"{one} − {other}"


def finding(comparison: Comparison, definition: MetricDefinition, *, level: float) -> str:
    """One word of A's checkpoint: `better`, `worse`, `differs`, `equal`, `cannot tell`, or the status.

    `differs` is of a metric without a direction, `equal` the same on every unit; the status stands where
    there is no number.
    """
    p = comparison.adjusted_p_value
    if not isinstance(comparison.outcome, Measured):
        return comparison.outcome.status
    estimate = comparison.outcome.estimate
    if estimate.low == estimate.high == 0:
        return "equal"
    if p is None or p > 1 - level:
        return "cannot tell"
    if definition.better == "neither":
        return "differs"
    return "better" if (estimate.value > 0) == (definition.better == "higher") else "worse"


def differences_json(found: RunDifferences) -> dict[str, Any]:
    """The same for programs; keys without a value are left out."""
    return {
        "schema_version": 1,
        **{key: run_facts(report) for key, report in zip("ab", found.reports, strict=False)},
        "differences": [_as_json(found, each) for each in found.comparisons],
        "tasks": [_as_json(found, each) for each in found.tasks],
        "only_in_a": list(found.alone[0]),
        "only_in_b": list(found.alone[1]),
        "notes": list(found.notes),
        "level": found.level,
        "adjustment": ADJUSTMENT,
        "detectable_power": _POWER,
    }


def _as_json(found: RunDifferences, comparison: Comparison) -> dict[str, Any]:
    definition = found.definition(comparison)
    names, sides = pair_of(comparison), found.sides(comparison)
    row: dict[str, Any] = {
        "checkpoint": names[0],
        "reference": names[1],
        "metric": comparison.metric,
        "slice": dict(comparison.slice),
        **outcome_fields(comparison.outcome),
        "finding": finding(comparison, definition, level=found.level),
        **{key: outcome_fields(side) for key, side in zip("ab", sides, strict=True) if side is not None},
    }
    optional = {
        "p_value": comparison.p_value,
        "adjusted_p_value": comparison.adjusted_p_value,
        "minimum_detectable_difference": detectable(comparison),
    }
    return row | {key: value for key, value in optional.items() if value is not None}


def run_facts(report: EvaluationReport) -> dict[str, Any]:
    """What a compared run was of; what it does not say has no key."""
    facts = {
        "suite": report.suite.get("name"),
        "date": report.provenance.get("date") or report.provenance.get("started"),
        "subject": report.subject.get("name"),
        "subject_sha256": report.subject.get("sha256"),
        "corpus": report.corpus.get("name") or report.corpus.get("kind"),
        "corpus_fingerprint": report.corpus.get("fingerprint"),
        "autointerp_version": report.provenance.get("autointerp_version"),
    }
    checkpoints = [
        {"name": each.name, "sha256": each.sha256, "site": each.site, "role": each.role}
        for each in report.checkpoints
    ]
    return {key: value for key, value in facts.items() if value} | {"checkpoints": checkpoints}


def differences_markdown(found: RunDifferences, lines: Sequence[str] = ()) -> str:
    """The same as a Markdown table, and below it further lines, of latents for one."""
    table = differences_table(found)
    text = [f"| {' | '.join(column.title for column in table.columns)} |", "|---" * len(table.columns) + "|"]
    for row in table.rows:
        cells = [escaped(" ".join(part for part in (cell.text, cell.detail) if part)) for cell in row.cells]
        text.append(f"| {' | '.join(cells)} |")
    alone = [
        f"{side} only: {', '.join(names)}" for side, names in zip("AB", found.alone, strict=True) if names
    ]
    adjusted = f"p-values are adjusted over all rows ({ADJUSTMENT}), for a level of {found.level:g}"
    notes = [f"- {escaped(note)}" for note in (*lines, *found.notes, *alone, adjusted)]
    return "\n".join([*text, "", *notes, ""])
