"""A finished run's directory -> its report in another format; nothing is recomputed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl

from autointerp.atomic_files import write_atomically
from autointerp.errors import RunStoreError
from autointerp.records import EvaluationReport
from autointerp.reporting.chart_pictures import write_pictures
from autointerp.reporting.csv_file import report_csv
from autointerp.reporting.explanation_rows import explained_rows
from autointerp.reporting.html_page import write_html_page
from autointerp.reporting.imported import read_results
from autointerp.reporting.json_file import read_report, report_json
from autointerp.reporting.markdown_file import report_markdown
from autointerp.reporting.model_card import model_card
from autointerp.reporting.neuronpedia_file import neuronpedia_lines
from autointerp.reporting.parquet_files import write_parquet_tables
from autointerp.reporting.report_document import build_document

__all__ = ["ReportForm", "rewrite_report"]

ReportForm = Literal["html", "json", "md", "csv", "parquet", "model-card", "neuronpedia", "svg", "png"]
_WITH_EXPLANATIONS = ("html", "parquet", "neuronpedia")
_WITH_OBSERVATIONS = ("html", "svg", "png")
_NAMES = {
    "parquet": "tables",
    "model-card": "model-card.md",
    "neuronpedia": "explanations.neuronpedia.jsonl",
    "svg": "charts",
    "png": "charts",
}


def rewrite_report(
    run: Path,
    *,
    form: ReportForm,
    out: Path | None = None,
    results: Sequence[Path] = (),
    without_text: bool = False,
) -> Path:
    """Write the report of a run directory (or of a bare report.json) and say where.

    Args:
        run: the directory, or its report.json; without the directory's observations, html lacks the
            charts that are drawn from them.
        form: what to write.
        out: where to; default `report.<form>` beside the run's report.json (`tables/`, `model-card.md`,
            `explanations.neuronpedia.jsonl`; of svg and png the folder `charts/`, a file each chart).
        results: files and folders that others published, shown beside in html.
        without_text: leaves out all that quotes the corpus or explains a latent, for corpora that may not
            leave the house.

    Raises:
        BadInputError: there is no readable report, or the target cannot be written.
    """
    source = run / "report.json" if run.is_dir() else run
    report = read_report(source)
    target = out or source.with_name(_NAMES.get(form, f"report.{form}"))
    explained = explained_rows(source.parent) if form in _WITH_EXPLANATIONS else []
    texts = [] if without_text else explained
    imported = read_results(results)
    if imported and form != "html":
        raise RunStoreError("results of others are shown in html only", where=f"--format {form}")
    observations = _observations(source.parent / "observations") if form in _WITH_OBSERVATIONS else None
    try:
        if form == "html":
            write_html_page(
                target,
                source.parent,
                report,
                observations=observations,
                explained=explained,
                imported=imported,
                with_text=not without_text,
                source=source,
            )
        elif form in ("svg", "png"):
            write_pictures(build_document(report, observations).charts, form, target, clears=out is None)
        elif form == "parquet":
            write_parquet_tables(report, texts, target)
        else:
            _write(target, _text(report, form, texts).encode())
    except OSError as error:
        raise RunStoreError(
            f"cannot be written ({error.strerror})", where=target, remedy="choose another --out"
        ) from None
    return target


def _write(target: Path, content: bytes) -> None:
    """Wholly or not at all; only a pipe or a terminal cannot be replaced and is written to as it is."""
    if target.exists() and not target.is_file():
        target.write_bytes(content)
    else:
        write_atomically(target.resolve(), content)  # a link stays one


def _text(report: EvaluationReport, form: str, explained: Sequence[Mapping[str, Any]]) -> str:
    if form == "neuronpedia":
        return neuronpedia_lines(report, explained)
    plain = {"json": report_json, "md": report_markdown, "csv": report_csv, "model-card": model_card}
    return plain[form](report)


def _observations(folder: Path) -> pl.DataFrame | None:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return None
    try:
        return pl.concat([pl.read_parquet(file) for file in files])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunStoreError(
            "observations cannot be read", where=folder, remedy=f"run the suite again ({error})"
        ) from None
