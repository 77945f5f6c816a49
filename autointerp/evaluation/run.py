"""A suite -> an EvaluationReport and its run directory."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.config import CorpusSection, SubjectSection, Suite, suite_toml
from autointerp.errors import InterruptedRunError
from autointerp.evaluation.inputs import (
    identity_of,
    in_memory,
    loaded_subject,
    opened_checkpoints,
    opened_corpus,
    with_demo_curve,
)
from autointerp.evaluation.statistics import report_of
from autointerp.evaluation.steps import Clock, Work, measure
from autointerp.progress import SILENT, Progress
from autointerp.records import EvaluationReport
from autointerp.reporting.html_file import report_html
from autointerp.reporting.json_file import read_report, report_json
from autointerp.run_store import MemoryStore, RunStore
from autointerp.sampling.activation_pass import read_firing
from autointerp.sampling.contexts import DocumentSource
from autointerp.sampling.latent_firing import total_firing
from autointerp.subject.subject_model import SubjectModel

__all__ = ["default_run_directory", "evaluate", "evaluate_autoencoders"]


def default_run_directory(suite: Suite) -> Path:
    """`reports/<suite>-<date>`, under the working directory."""
    return Path("reports") / f"{suite.name.replace(' ', '-')}-{datetime.now(UTC):%Y-%m-%d}"


def evaluate(suite: Suite, *, out: Path | None = None, progress: Progress = SILENT) -> EvaluationReport:
    """Measure a suite's checkpoints and write the run directory; a finished run is only read back.

    Everything named in the suite is opened and checked before anything is computed. A run that was killed
    goes on at the chunk where it was, and ends with the same numbers.

    Args:
        suite: from `config.load_suite`.
        out: the run directory; default `reports/<suite>-<date>`.
        progress: is told how far each step is.

    Raises:
        BadInputError: a checkpoint, the subject, the text or the directory cannot be used.
        InterruptedRunError: the user stopped it.
    """
    directory = out or default_run_directory(suite)
    suite = with_demo_curve(suite)
    entries = opened_checkpoints(suite)
    corpus = opened_corpus(suite.corpus)
    subject = loaded_subject(suite.subject)
    identity = identity_of(suite, subject, entries, corpus)
    with RunStore.open(directory, suite_toml=suite_toml(suite), identity=identity) as store:
        if store.is_finished:
            return read_report(directory / "report.json")
        work = Work(suite, subject, corpus, store, Clock(store), progress)
        try:
            findings = measure(work, entries)
            report = report_of(work, findings)
            _write_files(store, report, findings.observations)
        except KeyboardInterrupt:
            store.event("interrupted")
            raise InterruptedRunError(
                f"interrupted; what is done is kept in {directory}, the same command goes on from there"
            ) from None
    return report


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
    suite = Suite.model_validate(
        {
            "name": "in memory",
            "seed": seed,
            "site": site,
            "subject": SubjectSection(model=subject.name),
            "corpus": text or CorpusSection(),
            "metrics": {"families": metrics},
        }
    )
    entries = [in_memory(name, sae, suite) for name, sae in autoencoders.items()]
    store = MemoryStore()
    work = Work(suite, subject, corpus, store, Clock(store), progress)
    return report_of(work, measure(work, entries))


def _write_files(store: RunStore, report: EvaluationReport, observations: pl.DataFrame) -> None:
    """Final tables and reports; the finished mark comes last of all."""
    for family in sorted({name.partition(".")[0] for name in observations["metric"].unique()}):
        rows = observations.filter(pl.col("metric").str.starts_with(f"{family}."))
        store.write_table(f"observations/{family}.parquet", rows)
    store.write_table("latents/firing.parquet", total_firing(read_firing(store)))
    store.write_text("report.json", report_json(report))
    store.write_text("report.html", report_html(report, observations))
    store.finish()
