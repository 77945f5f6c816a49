"""RunDifferences -> ReportDocument: what two runs differ in and by how much, and what was compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.records import Comparison, Measured, MetricDefinition
from autointerp.reporting import numbers
from autointerp.reporting.difference_cells import (
    TONES,
    detectable_cell,
    difference_cell,
    finding_cell,
    p_cell,
)
from autointerp.reporting.difference_latents import latents_sections
from autointerp.reporting.difference_tasks import tasks_section
from autointerp.reporting.latent_browser_packing import shown_text
from autointerp.reporting.parts import (
    Badge,
    Callout,
    Cell,
    Column,
    Part,
    RangeBar,
    ReportDocument,
    Row,
    Section,
    Table,
)
from autointerp.reporting.run_differences import (
    ADJUSTMENT,
    RunDifferences,
    detectable,
    finding,
    pair_of,
    pair_words,
    run_facts,
)
from autointerp.reporting.summary import measure_cell

__all__ = ["difference_document"]

_MOST_SENTENCES = 8
_WIDEST_SCALE = 6.0
"""In detectable differences, on either side of none; what is beyond is drawn at the edge."""
_HASH_DIGITS = 12
_FINDINGS = ("better", "worse", "differs", "equal", "cannot tell")
_COLUMNS = (
    Column("Checkpoint"),
    Column("Metric"),
    Column("Finding", hint="of A's checkpoint"),
    Column("A", is_numeric=True, hint="on all units of run A"),
    Column("B", is_numeric=True, hint="on all units of run B"),
    Column("A − B", is_numeric=True, hint="with its interval; on common units where they are paired"),
    Column("In detectable", is_numeric=True, hint="the difference as a multiple of the detectable one"),
    Column("Detectable", is_numeric=True, hint="smallest difference that is found with 80 % probability, "
           "before adjustment"),
    Column("p", is_numeric=True, hint="two-sided, for no difference"),
    Column("p, adjusted", is_numeric=True, hint=f"{ADJUSTMENT}, over all rows"),
    Column("Units", hint="what was resampled: the same units for both, or two independent samples"),
    Column("Slice"),
)  # fmt: skip


def difference_document(
    found: RunDifferences, matched: Sequence[Mapping[str, Any]] | None = None
) -> ReportDocument:
    """The page of a comparison.

    Args:
        found: from `compare_runs`.
        matched: latents of both, as `matching_json` gives them, if they were asked for.
    """
    suites = [shown_text(str(report.suite.get("name") or "run")) for report in found.reports]
    rows = _rows(found)
    return ReportDocument(
        title=" against ".join(suites) if len(set(suites)) > 1 else f"{suites[0]}: A against B",
        facts=(
            *((side, shown_text(str(folder), 400)) for side, folder in zip("AB", found.folders, strict=True)),
            ("Differences", numbers.count(sum(row is not None for row in rows))),
            ("Level", f"{100 * found.level:g} %"),
            ("Correction", ADJUSTMENT),
        ),
        sections=(
            _findings_section(found),
            _differences_section([row for row in rows if row is not None]),
            *tasks_section(found),
            *latents_sections(matched or ()),
            _open_section(found),
            _compared_section(found),
        ),
        kind="Comparison of two evaluations",
        data_name="differences.json",
    )


def _definitions(found: RunDifferences) -> dict[str, MetricDefinition]:
    return {definition.name: definition for definition in found.definitions}


def _nulls(found: RunDifferences) -> set[str]:
    return {each.name for report in found.reports for each in report.checkpoints if each.role == "null"}


def _measured(found: RunDifferences) -> list[Comparison]:
    return [each for each in found.comparisons if isinstance(each.outcome, Measured)]


# ---- what can be said -------------------------------------------------------------------------------


def _findings_section(found: RunDifferences) -> Section:
    definitions, nulls = _definitions(found), _nulls(found)
    words = {
        id(each): finding(each, definitions[each.metric], level=found.level) for each in _measured(found)
    }
    judged = [each for each in _measured(found) if not nulls & set(pair_of(each))]
    counts = {word: sum(words[id(each)] == word for each in judged) for word in _FINDINGS}
    parts = [Callout("Of A’s checkpoints", (_count_words(counts, len(judged)),), "neutral")]
    for word in ("worse", "better", "differs"):
        told = [each for each in judged if words[id(each)] == word]
        lines = [_sentence(each, definitions[each.metric]) for each in told[:_MOST_SENTENCES]]
        if len(told) > len(lines):
            lines.append(f"And {len(told) - len(lines)} more, in the table.")
        if lines:
            parts.append(Callout(word.capitalize(), tuple(lines), TONES.get(word, "neutral")))
    lead = (
        "A minus B. A difference counts where its p-value, adjusted over all rows (Benjamini and Hochberg), "
        f"is at most {1 - found.level:.2g}. “Cannot tell” is not “no difference”: see what was detectable."
    )
    return Section("findings", "What can be said", lead, tuple(parts))


def _count_words(counts: Mapping[str, int], total: int) -> str:
    said = [f"{count} {word}" for word, count in counts.items() if count]
    return f"Of {numbers.count(total)} differences, nulls apart: {', '.join(said)}." if said else (
        "No difference was measured."
    )  # fmt: skip


def _sentence(comparison: Comparison, definition: MetricDefinition) -> str:
    assert isinstance(comparison.outcome, Measured)
    estimate = comparison.outcome.estimate
    value = numbers.value_with_interval(estimate.value, estimate.low, estimate.high, show_sign=True)
    p = comparison.adjusted_p_value
    said = "" if p is None else f", adjusted p {numbers.p_value(p)}"
    return f"{shown_text(pair_words(comparison))}, {definition.title}: {value} {definition.unit}{said}"


# ---- the table --------------------------------------------------------------------------------------


def _differences_section(rows: Sequence[Row]) -> Section:
    nothing = Callout("Nothing", ("No metric has a number in both runs.",), "neutral")
    table = Table("differences", "A minus B", _COLUMNS, tuple(rows), is_filterable=len(rows) > 12)
    return Section(
        name="all-differences",
        title="All differences",
        lead="A and B are each run's own numbers, on all that it saw. Paired differences are taken on the "
        "units that both have, with the same documents (or tasks) resampled for both, so they may differ "
        "from A minus B. The bar shows the difference and its interval in multiples of the detectable "
        "difference; its middle is none.",
        parts=(table if rows else nothing,),
    )


def _rows(found: RunDifferences) -> list[Row | None]:
    """One of each comparison; None where there is no number."""
    definitions, nulls = _definitions(found), _nulls(found)
    scale = _scale(found)
    rows: list[Row | None] = []
    for each in found.comparisons:
        if not isinstance(each.outcome, Measured):
            rows.append(None)
            continue
        cells = _row_cells(found, each, definitions[each.metric], scale)
        rows.append(Row(cells, is_null=bool(nulls & set(pair_of(each)))))
    return rows


def _row_cells(
    found: RunDifferences, each: Comparison, definition: MetricDefinition, scale: float
) -> tuple[Cell, ...]:
    mine, theirs = found.sides(each)
    least = detectable(each)
    word = finding(each, definition, level=found.level)
    settings = numbers.slice_words(each.slice)
    return (
        Cell(shown_text(pair_words(each)), sort=each.checkpoint),
        Cell(definition.title, sort=definition.title, detail=definition.unit, hint=each.metric),
        finding_cell(word),
        measure_cell(mine),
        measure_cell(theirs),
        difference_cell(each),
        _missing() if least is None else _multiple_cell(each, least, scale),
        detectable_cell(least),
        p_cell(each.p_value),
        p_cell(each.adjusted_p_value),
        _units_cell(each),
        Cell(settings, sort=settings),
    )


def _missing() -> Cell:
    return Cell("—", kind="missing")


def _units_cell(comparison: Comparison) -> Cell:
    """`paired` or `independent`, with how many of what."""
    assert isinstance(comparison.outcome, Measured)
    estimate = comparison.outcome.estimate
    first = estimate.method.partition(",")[0]
    if first.startswith("independent"):
        return Cell("independent", detail=first.removeprefix("independent "), hint=estimate.method)
    noun = estimate.sampled if estimate.n == 1 else f"{estimate.sampled}s"
    return Cell("paired", detail=f"{numbers.count(estimate.n)} {noun}", hint=estimate.method)


def _multiples(comparison: Comparison) -> tuple[float, float, float] | None:
    least = detectable(comparison)
    if least is None or not isinstance(comparison.outcome, Measured):
        return None
    estimate = comparison.outcome.estimate
    return estimate.low / least, estimate.value / least, estimate.high / least


def _scale(found: RunDifferences) -> float:
    """How many detectable differences lie between a bar's middle and its end."""
    ends = [abs(end) for each in found.comparisons for end in _multiples(each) or ()]
    return min(max([1.0, *ends]), _WIDEST_SCALE)


def _multiple_cell(comparison: Comparison, least: float, scale: float) -> Cell:
    low, value, high = _multiples(comparison) or (0.0, 0.0, 0.0)
    places = [min(max(0.5 + 0.5 * end / scale, 0.0), 1.0) for end in (low, value, high)]
    beyond = "right" if value > scale else "left" if value < -scale else ""
    bar = RangeBar(places[0], places[1], places[2], beyond, has_middle=True)  # type: ignore[arg-type]
    return Cell(f"{numbers.signed(value, 1)} ×", sort=value, kind="number", bar=bar, hint=f"of {least:.2g}")


# ---- what could not be compared ---------------------------------------------------------------------


def _open_section(found: RunDifferences) -> Section:
    definitions = _definitions(found)
    causes: dict[tuple[str, str, str], list[str]] = {}
    for each in found.comparisons:
        if not isinstance(each.outcome, Measured):
            key = (each.outcome.status, pair_words(each), each.outcome.reason)
            causes.setdefault(key, []).append(definitions[each.metric].title)
    rows = tuple(
        Row(
            (
                Cell(shown_text(pair), sort=pair),
                Cell("", sort=status, badges=(Badge(status, "bad" if status == "failed" else "neutral"),)),
                Cell(", ".join(titles)),
                Cell(shown_text(reason, 400)),
            )
        )
        for (status, pair, reason), titles in causes.items()
    )
    columns = tuple(Column(title) for title in ("Checkpoint", "Status", "Metrics", "Reason"))
    parts: list[Part] = []
    said = [*found.notes, *_alone_lines(found)]
    if said:
        lines = tuple(shown_text(line, 400) for line in said)
        parts.append(Callout("What is not alike, and what was left out", lines, "neutral"))
    if rows:
        parts.append(
            Table("open", "Differences without a number", columns, rows, is_filterable=len(rows) > 12)
        )
    nothing = Callout("Nothing was left out", ("Both runs have the same checkpoints and metrics.",), "good")
    lead = "Of these the two runs say nothing about each other; none of them counts as equal."
    return Section("open", "What could not be compared", lead, tuple(parts) or (nothing,))


def _alone_lines(found: RunDifferences) -> list[str]:
    return [
        f"{name} is a checkpoint of run {side} only: skipped"
        for side, names in zip("AB", found.alone, strict=True)
        for name in names
    ]


# ---- what was compared ------------------------------------------------------------------------------


def _compared_section(found: RunDifferences) -> Section:
    facts = [run_facts(report) for report in found.reports]
    titles = {
        "suite": "Suite",
        "date": "Date",
        "subject": "Subject",
        "subject_sha256": "Subject, sha256",
        "corpus": "Corpus",
        "corpus_fingerprint": "Corpus, fingerprint",
        "autointerp_version": "autointerp",
    }
    rows = tuple(
        Row((Cell(title, sort=title), *(_fact_cell(key, side.get(key)) for side in facts)))
        for key, title in titles.items()
        if any(key in side for side in facts)
    )
    columns = (Column("What"), Column("A"), Column("B"))
    return Section(
        name="compared",
        title="What was compared",
        lead="Nothing was run again: both runs' observations were set side by side.",
        parts=(Table("compared", "The two runs", columns, rows), _checkpoints_table(found)),
    )


def _fact_cell(key: str, value: Any) -> Cell:
    if value is None:
        return Cell("—", kind="missing", hint="the run does not say")
    is_hash = key.endswith(("sha256", "fingerprint"))
    text = shown_text(str(value), 400)
    return Cell(text[:_HASH_DIGITS], kind="code", hint=text) if is_hash else Cell(text)


def _checkpoints_table(found: RunDifferences) -> Table:
    columns = (Column("A"), Column("sha256 of A"), Column("B"), Column("sha256 of B"), Column("File"))
    sides = [{each.name: each for each in report.checkpoints} for report in found.reports]
    rows = []
    for pair in dict.fromkeys(pair_of(each) for each in found.comparisons):
        one, other = (side.get(name) for side, name in zip(sides, pair, strict=True))
        if one is None or other is None:
            continue
        cells: list[Cell] = []
        for each in (one, other):
            cells.append(Cell(shown_text(each.name), sort=each.name, detail=shown_text(each.site)))
            cells.append(_fact_cell("sha256", each.sha256))
        same = "the same" if one.sha256 == other.sha256 else "another"
        rows.append(Row((*cells, Cell(same, sort=same)), is_null="null" in (one.role, other.role)))
    return Table("compared-checkpoints", "The compared checkpoints", columns, tuple(rows))
