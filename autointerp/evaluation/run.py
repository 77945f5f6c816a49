"""A suite -> an EvaluationReport and its run directory."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from autointerp.atomic_files import reported
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.config import CorpusSection, Suite, suite_from_mapping, suite_toml
from autointerp.errors import (
    BadInputError,
    BudgetReachedError,
    CheckpointError,
    CorpusError,
    InterruptedRunError,
)
from autointerp.evaluation.explanations import Explained, explain_latents, same_explanations
from autointerp.evaluation.explanations.unanswered import has_failed_requests
from autointerp.evaluation.first_look import stopped_names
from autointerp.evaluation.inputs import (
    Measurable,
    identity_of,
    in_memory,
    loaded_subject,
    opened_checkpoints,
    opened_corpus,
    placed_all,
    with_demo_curve,
)
from autointerp.evaluation.matches_table import write_matches
from autointerp.evaluation.sampling import refuse_absent_latents, sample_latents
from autointerp.evaluation.statistics import report_of
from autointerp.evaluation.steps import DENSITY, Findings, measure
from autointerp.evaluation.studies import STUDIES, run_studies
from autointerp.evaluation.studies.refusals import refuse_unusable
from autointerp.evaluation.work import Clock, Work
from autointerp.progress import SILENT, Progress
from autointerp.records import EvaluationReport
from autointerp.reporting.explanations import with_scores
from autointerp.reporting.html_page import write_html_page
from autointerp.reporting.json_file import read_report, report_json
from autointerp.run_store import MemoryStore, RunStore
from autointerp.sampling.activation_pass import read_firing_totals
from autointerp.sampling.contexts import DocumentSource
from autointerp.sampling.latents.store import tables_are_whole
from autointerp.subject.subject_model import SubjectModel

__all__ = ["default_run_directory", "evaluate", "evaluate_autoencoders"]


def default_run_directory(suite: Suite) -> Path:
    """`reports/<suite>-<date>`, under the working directory."""
    return Path("reports") / f"{suite.name.replace(' ', '-')}-{datetime.now(UTC):%Y-%m-%d}"


def evaluate(
    suite: Suite,
    *,
    out: Path | None = None,
    progress: Progress = SILENT,
    replace_other: bool = False,
    judge: Callable[[Path], object] | None = None,
) -> EvaluationReport:
    """Measure a suite's checkpoints and write the run directory; a finished run is only read back.

    Everything named in the suite is opened and checked before anything is computed. A run that was killed
    goes on at the chunk where it was, and ends with the same numbers.

    Args:
        suite: from `config.load_suite`.
        out: the run directory; default `reports/<suite>-<date>`.
        progress: is told how far each step is.
        replace_other: begin anew where the directory holds a run of something else, instead of refusing.
        judge: called with the directory once report.json and the observations are there and before the page
            is drawn, which shows the verdict that it left; not called for a finished run.

    Raises:
        BadInputError: a checkpoint, the subject, the text or the directory cannot be used.
        InterruptedRunError: the user stopped it.
    """
    directory = out or default_run_directory(suite)
    begun = time.perf_counter()
    suite = with_demo_curve(suite)
    entries = opened_checkpoints(suite, progress=progress)
    corpus = opened_corpus(suite.corpus)
    subject = loaded_subject(suite.subject)
    entries = placed_all(entries, subject, suite)
    refuse_absent_latents(suite.sampling, entries)
    refuse_unusable(suite, subject.tokenizer)
    identity = identity_of(suite, subject, entries, corpus)
    with RunStore.open(
        directory, suite_toml=suite_toml(suite), identity=identity, replace_other=replace_other
    ) as store:
        finished = _finished_report(store, suite)
        if finished:
            return finished
        clock = Clock(store)
        clock.note("loading", time.perf_counter() - begun)
        try:
            return _measured(Work(suite, subject, corpus, store, clock, progress), entries, judge)
        except BudgetReachedError as error:
            store.event("budget reached", reason=str(error))
            raise
        except KeyboardInterrupt:
            store.event("interrupted")
            raise InterruptedRunError(
                f"interrupted; what is done is kept in {directory}, the same command goes on from there"
            ) from None


def _finished_report(store: RunStore, suite: Suite) -> EvaluationReport | None:
    """The report of a run that was completed here; None, and the mark taken off, where it is to go on.

    That is where a report or a table of latents is damaged, where latents are to be explained otherwise,
    where requests to an LLM failed, which may be answered now, and where metrics failed: the cause may have
    been the machine's (out of memory, say), and only the chunks that failed are measured again. What the
    first look stopped stays so.
    """
    if not store.is_finished:
        return None
    try:
        report = read_report(store.path / "report.json")
    except BadInputError:
        report = None
    failed = {failure.checkpoint for failure in report.failures} if report else set()
    is_whole = (store.path / "report.html").is_file()
    if is_whole and suite.sampling.enabled:
        is_whole = tables_are_whole(store.path / "latents")
    is_same = report is not None and same_explanations(report.suite, suite)
    is_same = is_same and (suite.llm.offline or not has_failed_requests(store.path))
    if report is None or failed - stopped_names(store) or not is_whole or not is_same:
        store.reopen()
        return None
    return report


def _measured(
    work: Work, entries: Sequence[Measurable], judge: Callable[[Path], object] | None
) -> EvaluationReport:
    findings = measure(work, entries)
    coverage = None
    if work.suite.sampling.enabled:
        with work.clock.step("sampling latents"):
            coverage = sample_latents(work, findings.measurables, findings.cost, findings.without_firings)
            if isinstance(work.store, RunStore):
                kept = [e for e in findings.measurables if e.summary.name not in findings.without_firings]
                write_matches(work.store, kept)
    studied = run_studies(work, STUDIES, findings.measurables, findings.without_firings)
    explained = _explained(work, findings)
    found = [each.observations for each in [*studied.values(), *([explained] if explained else [])]]
    findings = replace(findings, observations=pl.concat([findings.observations, *found]))
    report = report_of(work, findings, coverage, explained, studied)
    with work.clock.step("report"):
        _write_files(work.store, report, findings, explained, judge)
    work.store.finish()
    return report


def _explained(work: Work, findings: Findings) -> Explained | None:
    suite = work.suite
    work.store.remove("predictions/*.parquet")  # of other explanations, if there were any
    if not (suite.sampling.enabled and suite.explanations.enabled):
        for name in ("explanations.jsonl", "scores.jsonl", "observations/explanation.parquet"):
            work.store.remove(name)
        return None
    going = [entry for entry in findings.measurables if entry.summary.name not in findings.without_firings]
    with work.clock.step("explanations"):
        return explain_latents(work, going)


def evaluate_autoencoders(
    subject: SubjectModel,
    autoencoders: Mapping[str, SparseAutoencoder],
    corpus: DocumentSource,
    *,
    site: str | None = None,
    metrics: Sequence[str] = ("reconstruction", "downstream"),
    text: CorpusSection | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> EvaluationReport:
    """Measure autoencoders that are in memory, from a training loop for one; no files.

    None is stopped for a large normalised MSE, since some may have only begun to be trained; where one says
    that it belongs to another subject or site, that is a note.

    Args:
        subject: the language model.
        autoencoders: by name, e.g. `{"step 1000": sae}`; nulls are added as in a suite.
        corpus: from `sampling.corpus.open_corpus`, or anything with `documents()`.
        site: where those attach that do not say it themselves.
        metrics: families, see `metrics.catalogue.FAMILIES`.
        text: context length, token counts and the like; default as in a suite.
        seed: of nulls and bootstrap.
        progress: is told how far each step is.

    Raises:
        BadInputError: an autoencoder does not fit its site, or the text is too little.
    """
    suite = suite_from_mapping(
        {
            "name": "in memory",
            "seed": seed,
            "site": site,
            "subject": {"model": subject.name},
            "corpus": text or CorpusSection(),
            "metrics": {"families": tuple(metrics)},
            "sampling": {"enabled": False},
            "checks": {"largest_normalized_mse": sys.float_info.max, "allow_mismatch": True},
        },
        folder=Path(),
        where="evaluate_autoencoders",
    )
    if not autoencoders:
        raise CheckpointError("there is no autoencoder to measure", remedy="give at least one")
    if not isinstance(corpus, DocumentSource):
        raise CorpusError("has no documents()", where=type(corpus).__name__, remedy="use open_corpus")
    entries = placed_all([in_memory(name, sae, suite) for name, sae in autoencoders.items()], subject, suite)
    store = MemoryStore()
    work = Work(suite, subject, corpus, store, Clock(store), progress)
    findings = measure(work, entries)
    studied = run_studies(work, STUDIES, findings.measurables, findings.without_firings)
    observations = pl.concat([findings.observations, *(each.observations for each in studied.values())])
    report = report_of(work, replace(findings, observations=observations), studied=studied)
    # Only what was used: the text and the subject came as objects, not as the suite's names of them.
    settings = {key: value for key, value in report.suite.items() if key != "subject"}
    settings["corpus"] = {k: v for k, v in settings["corpus"].items() if k not in _WHERE_TEXT_LIES}
    return replace(report, suite=settings)


_WHERE_TEXT_LIES = ("kind", "path", "text_field", "separator", "config", "split", "revision")


def _write_files(
    store: RunStore,
    report: EvaluationReport,
    findings: Findings,
    explained: Explained | None,
    judge: Callable[[Path], object] | None,
) -> None:
    """Final tables and reports, each whole or not there."""
    observations = findings.observations
    for family in sorted({name.partition(".")[0] for name in observations["metric"].unique()}):
        rows = observations.filter(pl.col("metric").str.starts_with(f"{family}."))
        store.write_table(f"observations/{family}.parquet", rows)
    firing = read_firing_totals(store, findings.cost.chunk_names)
    failed = observations.filter((pl.col("metric") == DENSITY) & (pl.col("status") == "failed"))
    kept = firing.filter(~pl.col("checkpoint").is_in(failed["checkpoint"].to_list()))
    store.write_table("latents/firing.parquet", kept)
    written = read_report(store.write_text("report.json", report_json(report)))
    if judge is not None:
        judge(store.path)
    shown = with_scores(explained.rows, explained.scores) if explained else []
    page = store.path / "report.html"
    with reported(page):  # as `report` does
        write_html_page(page, store.path, written, observations=observations, explained=shown)
