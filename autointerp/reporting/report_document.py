"""EvaluationReport -> ReportDocument: which sections a report has, and in which order."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from autointerp.records import EvaluationReport
from autointerp.reporting import background, numbers, sections
from autointerp.reporting.ablation import ablation_sections
from autointerp.reporting.across_checkpoints import across_sections
from autointerp.reporting.chart_data import charts_of
from autointerp.reporting.coverage import coverage_sections
from autointerp.reporting.explanations import explanation_sections
from autointerp.reporting.failures import failure_lines
from autointerp.reporting.graphs import graph_sections
from autointerp.reporting.imported.result import ImportedResult
from autointerp.reporting.imported_section import imported_sections
from autointerp.reporting.latent_matches import LatentMatches
from autointerp.reporting.layers import layer_sections
from autointerp.reporting.parts import Callout, ReportDocument, Section
from autointerp.reporting.probes import probe_sections
from autointerp.reporting.refinement import refinement_sections
from autointerp.reporting.scaling import scaling_sections
from autointerp.reporting.spectrum import spectrum_sections
from autointerp.reporting.summary import subject_facts, summary_section
from autointerp.reporting.verdict_section import ShownVerdict, verdict_box, verdict_sections

__all__ = ["build_document"]


def build_document(
    report: EvaluationReport,
    observations: pl.DataFrame | None = None,
    explained: Sequence[Mapping[str, Any]] = (),
    imported: Sequence[ImportedResult] = (),
    verdict: ShownVerdict | None = None,
    matches: LatentMatches | None = None,
) -> ReportDocument:
    """The document of a run.

    Args:
        report: what the run found.
        observations: rows as in `OBSERVATION_SCHEMA`; only those of `reconstruction.latent_density` are used,
            for histograms and the spectrum, which are left out without them.
        explained: rows of the run's scores.jsonl, for some explanations to be shown.
        imported: what others published, shown beside.
        verdict: a gate's, if there was one.
        matches: of latents across checkpoints, if the run has them.

    Returns:
        Sections in reading order, numbers already in words and digits; the same for every way of drawing it.
    """
    charts = charts_of(report, observations)
    return ReportDocument(
        title=str(report.suite.get("name") or "Evaluation of sparse autoencoders"),
        facts=_facts(report),
        sections=(
            *_alarm(report),
            *verdict_box(verdict),
            summary_section(report),
            *coverage_sections(report),
            *probe_sections(report),
            *explanation_sections(report, explained),
            *across_sections(report, matches, explained),
            *graph_sections(report, explained),
            *ablation_sections(report),
            *refinement_sections(report),
            *imported_sections(report, imported),
            sections.charts_section(charts),
            *spectrum_sections(report, observations),
            *layer_sections(report),
            *scaling_sections(report),
            sections.missing_section(report),
            *verdict_sections(verdict),
            sections.comparisons_section(report),
            sections.results_section(report),
            background.words_section(report),
            background.checkpoints_section(report, charts),
            background.origin_section(report),
        ),
    )


def _facts(report: EvaluationReport) -> tuple[tuple[str, str], ...]:
    judged = sum(checkpoint.role == "checkpoint" for checkpoint in report.checkpoints)
    null_count = len(report.checkpoints) - judged
    facts: list[tuple[str, Any]] = [
        ("Subject", report.subject.get("name")),
        *subject_facts(report),
        ("Corpus", report.corpus.get("name") or report.corpus.get("kind")),
        ("Checkpoints", f"{judged} and {null_count} null{'' if null_count == 1 else 's'}"),
        ("Results", numbers.count(len(report.results))),
        ("Date", report.provenance.get("date") or report.provenance.get("started")),
    ]
    return tuple((name, str(value)) for name, value in facts if value)


def _alarm(report: EvaluationReport) -> tuple[Section, ...]:
    """A box above everything else when something failed; nothing otherwise."""
    failures = report.failures
    if not failures:
        return ()
    noun = "result" if len(failures) == 1 else "results"
    box = Callout(f"{len(failures)} {noun} failed", tuple(failure_lines(report)), "bad")
    return (Section("failures", "", "", (box,)),)
