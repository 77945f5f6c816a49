"""EvaluationReport -> the section that says what scores of sampled latents can speak for."""

from autointerp.records import EvaluationReport, LatentCoverage
from autointerp.reporting import numbers
from autointerp.reporting.parts import Badge, Cell, Column, Row, Section, Table

__all__ = ["coverage_sections"]

_COLUMNS = (
    Column("Checkpoint"),
    Column("Latents", is_numeric=True),
    Column("Dead", is_numeric=True, hint="fired on no token of this text"),
    Column("Too rare", is_numeric=True, hint="fire, but in too few documents to be explained and scored"),
    Column("Ultra-dense", is_numeric=True, hint="fire on more than the stated share of tokens"),
    Column("Scorable", is_numeric=True, hint="fire in enough documents of every split"),
    Column("Share of latents", is_numeric=True, hint="scorable / all latents"),
    Column("Share of activation", is_numeric=True, hint="sum of |activation| that scorable latents hold"),
    Column("Sampled", is_numeric=True, hint="latents with examples, of those that were drawn"),
)


def coverage_sections(report: EvaluationReport) -> tuple[Section, ...]:
    """The section, or none where no latents were to be sampled."""
    if not report.coverage:
        return ()
    nulls = {checkpoint.name for checkpoint in report.checkpoints if checkpoint.role == "null"}
    rows = tuple(Row(_cells(entry), is_null=entry.checkpoint in nulls) for entry in report.coverage)
    return (
        Section(
            name="coverage",
            title="Which latents can be scored",
            lead="Explanations are made from some documents and scored on others, so a latent needs a few of "
            "each. What a score of the sampled latents says holds for this share of the dictionary and of "
            "its activation, and for nothing beyond. Counts are of this text. "
            "The command “autointerp show” prints them one by one.",
            parts=(Table("coverage", "Coverage of latent scores", _COLUMNS, rows),),
        ),
    )


def _cells(entry: LatentCoverage) -> tuple[Cell, ...]:
    name = Cell(entry.checkpoint, sort=entry.checkpoint)
    if entry.status != "measured":
        tone = "bad" if entry.status == "failed" else "neutral"
        badges = (Badge(entry.status, tone),)
        name = Cell(entry.checkpoint, sort=entry.checkpoint, detail=entry.reason, badges=badges)
        return name, *(Cell("—", kind="missing") for _ in _COLUMNS[1:])
    latents, live, scorable = entry.latent_count or 0, entry.live_count or 0, entry.scorable_count or 0
    drawn = _count(entry.sampled_scorable_count)
    return (
        name,
        _count(latents),
        _count(latents - live),
        _count(live - scorable),
        _count(entry.ultra_dense_count),
        _count(scorable),
        _share(entry.scorable_fraction),
        _share(entry.scorable_mass_fraction),
        Cell(f"{drawn.text} of {numbers.count(entry.sampled_count or 0)}", sort=drawn.sort, kind="number"),
    )


def _count(value: int | None) -> Cell:
    return (
        Cell("—", kind="missing") if value is None else Cell(numbers.count(value), sort=value, kind="number")
    )


def _share(value: float | None) -> Cell:
    """One digit behind the point; what is not quite all never reads as 100 %."""
    if value is None:
        return Cell("—", kind="missing", hint="nothing fired")
    text = "100 %" if value == 1 else f"{min(100 * value, 99.9):.1f} %"
    return Cell(text, sort=value, kind="number")
