"""A run -> report.html, and beside it the folder of what its latents show where that is much."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from autointerp.atomic_files import write_atomically
from autointerp.records import EvaluationReport
from autointerp.reporting.html_file import report_html
from autointerp.reporting.imported.result import ImportedResult
from autointerp.reporting.latent_browser import BrowserLimits, latent_browser
from autointerp.reporting.latent_matches import read_matches
from autointerp.reporting.verdict_section import read_verdict

__all__ = ["write_html_page"]


def write_html_page(
    target: Path,
    run: Path,
    report: EvaluationReport,
    *,
    observations: pl.DataFrame | None = None,
    explained: Sequence[Mapping[str, Any]] = (),
    imported: Sequence[ImportedResult] = (),
    with_text: bool = True,
    source: Path | None = None,
) -> None:
    """Write the page, each file wholly or not at all.

    Files of an earlier page in the folder that this one does not have are deleted: with text left out, none
    of it stays behind. A pipe or a terminal is written to as it is, with everything in the one file.

    Args:
        target: `report.html`; the folder is `report_latents` then.
        run: the run directory, whose latents are shown; without tables of them there is no such section.
        report: what the run found.
        observations: see `build_document`.
        explained: explanations with their scores.
        imported: what others published.
        with_text: whether anything that quotes the corpus or explains a latent is in it.
        source: the file that the report was read from, which a verdict must be of; default the run's.

    Raises:
        OSError: something cannot be written.
    """
    is_alone = target.exists() and not target.is_file()
    folder = target.parent / f"{target.stem}_latents"
    browser = latent_browser(
        run,
        report,
        explained,
        folder=folder.name,
        with_text=with_text,
        limits=BrowserLimits(needs_one_file=is_alone),
    )
    verdict = read_verdict(run, source or run / "report.json")
    texts = explained if with_text else ()
    matches = read_matches(run, browser.listed if browser else frozenset())
    text = report_html(report, observations, texts, imported, browser, verdict, matches)
    if is_alone:
        target.write_bytes(text.encode())
        return
    files = browser.files if browser else {}
    for name, content in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(target.parent / name, content.encode())
    write_atomically(target.resolve(), text.encode())  # a link stays one
    _clear(folder, {Path(name).name for name in files})


def _clear(folder: Path, kept: set[str]) -> None:
    for file in folder.glob("[0-9]*.css"):
        if file.name not in kept:
            file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it may hold what is not ours, or not be there
        folder.rmdir()
