"""EvaluationReport -> the sections that explain it: metrics, checkpoints, where all came from."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.records import CheckpointSummary, EvaluationReport, MetricDefinition
from autointerp.reporting import numbers
from autointerp.reporting.parts import Badge, Cell, Chart, Code, Column, Part, RangeBar, Row, Section, Table

__all__ = ["checkpoints_section", "origin_section", "reproduce_command", "words_section"]

_SHOWN_HASH_DIGITS = 12
_NORMALIZATION_WORDS = {
    "none": "raw is activations as the subject makes them",
    "layer_norm": "layer_norm is activations normalised per token, and errors are measured after undoing it",
    "constant_norm": "constant_norm is tokens brought to one norm, and errors are measured after undoing it",
    "scale": "scale(s) is activations times a constant, and errors are measured after undoing it",
}


def words_section(report: EvaluationReport) -> Section:
    """What each metric means, its range and direction."""
    columns = tuple(Column(title) for title in ("Metric", "Meaning and choices", "Unit", "Better", "Range"))
    rows = tuple(
        Row(
            (
                Cell(d.title, sort=d.title, detail=d.name),
                Cell(d.meaning),
                Cell(d.unit),
                Cell({"neither": "—"}.get(d.better, d.better)),
                Cell(_range_words(d)),
            )
        )
        for d in report.definitions
    )
    return Section(
        name="meanings",
        title="What the metrics mean",
        lead="Formulas, choices and sources, as the code that computed them states them.",
        parts=(Table("meanings", "Definitions of the metrics", columns, rows),),
    )


def _range_words(definition: MetricDefinition) -> str:
    if definition.lowest is None and definition.highest is None:
        return "any"
    low = "…" if definition.lowest is None else numbers.plain(definition.lowest)
    high = "…" if definition.highest is None else numbers.plain(definition.highest)
    return f"{low} to {high}"


def checkpoints_section(report: EvaluationReport, charts: Sequence[Chart] = ()) -> Section:
    """What was evaluated: where each came from, what it reads, what a reader should know of it.

    Where the charts hold a histogram of a checkpoint's latents, a small copy of it stands beside its width.
    """
    titles = ("Checkpoint", "Format", "Architecture", "Latents", "Site", "Notes")
    hints = {
        "Format": "Below it the beginning of the sha256",
        "Architecture": "Below it what is done to the input",
        "Latents": "The width; the small histogram shows how often the latents fire",
    }
    columns = tuple(Column(t, hint=hints.get(t, ""), is_numeric=t == "Latents") for t in titles)
    shapes = {p.label: p.counts for chart in charts if chart.kind == "histogram" for p in chart.panels}
    rows = tuple(_checkpoint_row(c, shapes.get(c.name, ())) for c in report.checkpoints)
    return Section(
        name="checkpoints",
        title="Checkpoints",
        lead=_normalization_lead(report.checkpoints),
        parts=(Table("checkpoints", "The evaluated checkpoints", columns, rows),),
    )


def _checkpoint_row(checkpoint: CheckpointSummary, shape: Sequence[int]) -> Row:
    tallest = max(shape, default=0)
    is_null = checkpoint.role == "null"
    return Row(
        (
            Cell(
                checkpoint.name,
                sort=checkpoint.name,
                detail=checkpoint.path,
                badges=(Badge("null", "null"),) if is_null else (),
            ),
            Cell(
                checkpoint.format,
                sort=checkpoint.format,
                detail=checkpoint.sha256[:_SHOWN_HASH_DIGITS],
                hint=checkpoint.sha256,
            ),
            Cell(checkpoint.architecture, sort=checkpoint.architecture, detail=_input_words(checkpoint)),
            Cell(
                numbers.count(checkpoint.latent_count),
                sort=checkpoint.latent_count,
                kind="number",
                detail=f"{numbers.count(checkpoint.d_model)} dimensions",
                sparkline=tuple(count / tallest for count in shape) if tallest else (),
            ),
            Cell(_site_words(checkpoint), sort=checkpoint.site, kind="code"),
            Cell("; ".join(checkpoint.notes)),
        ),
        is_null=is_null,
    )


def _input_words(checkpoint: CheckpointSummary) -> str:
    return f"{'raw' if checkpoint.normalization == 'none' else checkpoint.normalization} input"


def _site_words(checkpoint: CheckpointSummary) -> str:
    """A transcoder's two sites stand in one cell, in the order in which it works."""
    if checkpoint.input_site is None:
        return checkpoint.site
    return f"{checkpoint.input_site} → {checkpoint.site}"


def _normalization_lead(checkpoints: Sequence[CheckpointSummary]) -> str:
    """Which inputs are raw and which normalised; a warning where both occur."""
    kinds = list(dict.fromkeys(checkpoint.normalization for checkpoint in checkpoints))
    words = list(
        dict.fromkeys(
            _NORMALIZATION_WORDS.get(kind.partition("(")[0], f"{kind} is what its format says")
            for kind in kinds
        )
    )
    text = f"Input: {'; '.join(words)}." if words else "No checkpoint was evaluated."
    if len(words) < 2:
        return text
    return f"{text} {'Both' if len(words) == 2 else 'All these'} kinds occur in this report."


def origin_section(report: EvaluationReport) -> Section:
    """The subject, the corpus, the settings, what the run cost, what it ran on, and how to repeat it."""
    parts: list[Part] = [Code("How to reproduce", reproduce_command(report))]
    for name, caption, mapping in (
        ("subject", "Subject", report.subject),
        ("corpus", "Corpus", report.corpus),
        ("suite", "Settings", report.suite),
        ("cost", "Cost", report.cost),
        ("provenance", "Provenance", report.provenance),
    ):
        if mapping:
            parts.append(_facts_table(name, caption, mapping))
    return Section(
        name="origin",
        title="Subject, corpus, cost and provenance",
        lead="What else the numbers depend on. The same facts are in report.json.",
        parts=tuple(parts),
    )


def reproduce_command(report: EvaluationReport) -> str:
    """The command that made the report, else the one that its settings amount to."""
    command = report.provenance.get("command")
    if isinstance(command, str) and command:
        return command
    if isinstance(command, list | tuple) and command:
        return shlex.join(str(word) for word in command)
    return "autointerp evaluate suite.toml   # the resolved settings lie beside this report"


def _facts_table(name: str, caption: str, mapping: Mapping[str, Any]) -> Table:
    facts = _flattened(mapping)
    longest = max((value for key, value in facts if _is_duration(key, value)), default=0.0)
    rows = tuple(
        Row((Cell(key, sort=key, kind="code"), _fact_cell(key, value, longest=longest)))
        for key, value in facts
    )
    return Table(f"facts-{name}", caption, (Column("Key"), Column("Value")), rows)


def _flattened(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings with dotted keys."""
    found: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            found += _flattened(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _is_duration(key: str, value: Any) -> bool:
    return "seconds" in key and isinstance(value, int | float) and not isinstance(value, bool)


def _fact_cell(key: str, value: Any, *, longest: float | int) -> Cell:
    if isinstance(value, list | tuple):
        return Cell(", ".join(str(item) for item in value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value), kind="code" if "sha256" in key else "text")
    if _is_duration(key, value):
        share = value / longest if longest else 0.0
        return Cell(numbers.duration(value), sort=value, bar=RangeBar(0.0, share, share))
    if "bytes" in key:
        return Cell(numbers.byte_count(int(value)), sort=value)
    text = numbers.count(value) if isinstance(value, int) and _is_amount(key) else numbers.plain(value)
    return Cell(text, sort=value)


def _is_amount(key: str) -> bool:
    return key.endswith(("_count", "tokens", "documents", "latents"))
