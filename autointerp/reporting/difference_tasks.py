"""Differences of single probe tasks -> a section, and lines: which known features a release lost or won."""

from collections.abc import Sequence

from autointerp.records import Comparison, Measured
from autointerp.reporting import numbers
from autointerp.reporting.difference_cells import (
    TONES,
    detectable_cell,
    difference_cell,
    finding_cell,
    p_cell,
)
from autointerp.reporting.latent_browser_packing import shown_text
from autointerp.reporting.parts import Callout, Cell, Column, Part, Row, Section, Table
from autointerp.reporting.run_differences import (
    ADJUSTMENT,
    RunDifferences,
    detectable,
    finding,
    pair_words,
)
from autointerp.reporting.summary import measure_cell

__all__ = ["task_lines", "tasks_section"]

_MOST_LINES = 20
_FINDINGS = ("worse", "better", "equal", "cannot tell")
_COLUMNS = (
    Column("Checkpoint"),
    Column("Task"),
    Column("Metric"),
    Column("Finding", hint="of A's checkpoint"),
    Column("A", is_numeric=True, hint="on all units of run A"),
    Column("B", is_numeric=True, hint="on all units of run B"),
    Column("A − B", is_numeric=True, hint="with its interval, on common examples"),
    Column("Detectable", is_numeric=True, hint="smallest difference that is found with 80 % probability"),
    Column("p, adjusted", is_numeric=True, hint=f"{ADJUSTMENT}, over the rows of this table"),
)


def tasks_section(found: RunDifferences) -> tuple[Section, ...]:
    """Task by task; none where the runs have no probe task in common."""
    if not found.tasks:
        return ()
    measured = [each for each in found.tasks if isinstance(each.outcome, Measured)]
    parts: list[Part] = [Callout("Of A’s checkpoints", (_counts(found),), "neutral")]
    for word in ("worse", "better"):
        lines = [_sentence(found, each) for each in measured if _word(found, each) == word]
        if lines:
            parts.append(Callout(word.capitalize(), _first(lines), TONES[word]))
    rows = tuple(Row(_cells(found, each)) for each in found.tasks)
    parts.append(Table("task-differences", "A minus B, by task", _COLUMNS, rows, is_filterable=True))
    lead = (
        "Of every probe task that both runs have. The latent is chosen anew in each run, so a task is worse "
        "where no latent of A knows the answer as well as one of B did. p-values are adjusted over these "
        f"rows (Benjamini and Hochberg); a difference counts from {1 - found.level:.2g} down."
    )
    return (Section("tasks", "Which known features changed", lead, tuple(parts)),)


def task_lines(found: RunDifferences) -> list[str]:
    """The same in words: how many tasks differ, and those that do, worse ones first."""
    if not found.tasks:
        return []
    told = [
        f"{word}: {_sentence(found, each)}"
        for word in ("worse", "better")
        for each in found.tasks
        if _word(found, each) == word
    ]
    return [f"Probe tasks. {_counts(found)}", *_first(told)]


def _first(lines: Sequence[str]) -> tuple[str, ...]:
    rest = len(lines) - _MOST_LINES
    return (*lines[:_MOST_LINES], f"And {rest} more.") if rest > 0 else tuple(lines)


def _word(found: RunDifferences, comparison: Comparison) -> str:
    return finding(comparison, found.definition(comparison), level=found.level)


def _task(comparison: Comparison) -> str:
    return shown_text(str(comparison.slice["task"]))


def _counts(found: RunDifferences) -> str:
    words = [_word(found, each) for each in found.tasks]
    known = {word: words.count(word) for word in _FINDINGS}
    without = len(words) - sum(known.values())
    said = [f"{count} {word}" for word, count in known.items() if count]
    said += [f"{without} without a number"] if without else []
    return f"Of {numbers.count(len(words))} differences: {', '.join(said)}."


def _sentence(found: RunDifferences, comparison: Comparison) -> str:
    assert isinstance(comparison.outcome, Measured)
    estimate, definition = comparison.outcome.estimate, found.definition(comparison)
    value = numbers.value_with_interval(estimate.value, estimate.low, estimate.high, show_sign=True)
    where = f"{shown_text(pair_words(comparison))}, {_task(comparison)}"
    return f"{where}, {definition.title}: {value} {definition.unit}"


def _cells(found: RunDifferences, comparison: Comparison) -> tuple[Cell, ...]:
    definition, word = found.definition(comparison), _word(found, comparison)
    mine, theirs = found.sides(comparison)
    return (
        Cell(shown_text(pair_words(comparison)), sort=comparison.checkpoint),
        Cell(_task(comparison), sort=_task(comparison)),
        Cell(definition.title, sort=definition.title, detail=definition.unit, hint=comparison.metric),
        finding_cell(word),
        measure_cell(mine),
        measure_cell(theirs),
        difference_cell(comparison),
        detectable_cell(detectable(comparison)),
        p_cell(comparison.adjusted_p_value),
    )
