"""ReportDocument -> report.html: one file that opens without a network and runs only its own scripts.

Everything that came from outside (names, paths, reasons, documents) is escaped by the template engine;
data for the scripts is embedded once, as JSON or base64 that cannot close its element. The page's Content-
Security-Policy admits exactly its scripts by their hashes, and no request but for style sheets that it asks
for itself (`latent_browser` says why), so that a mistake in escaping would still run nothing.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import polars as pl
import vl_convert
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from autointerp.records import EvaluationReport
from autointerp.reporting.chart_pictures import picture_name, picture_title
from autointerp.reporting.chart_tables import alternative, chart_table, gap_words
from autointerp.reporting.charts import LIGHT_COLORS, vega_lite_specs
from autointerp.reporting.imported.result import ImportedResult
from autointerp.reporting.json_file import report_json
from autointerp.reporting.latent_browser import LatentBrowser
from autointerp.reporting.latent_browser_packing import deflated
from autointerp.reporting.latent_matches import LatentMatches
from autointerp.reporting.parts import ReportDocument
from autointerp.reporting.report_document import build_document
from autointerp.reporting.token_text import harmless
from autointerp.reporting.verdict_section import ShownVerdict

__all__ = ["document_html", "report_html"]


def report_html(
    report: EvaluationReport,
    observations: pl.DataFrame | None = None,
    explained: Sequence[Mapping[str, Any]] = (),
    imported: Sequence[ImportedResult] = (),
    browser: LatentBrowser | None = None,
    verdict: ShownVerdict | None = None,
    matches: LatentMatches | None = None,
) -> str:
    """The page of a run; its text is a function of its arguments alone."""
    document = build_document(report, observations, explained, imported, verdict, matches)
    return document_html(document, report_text=report_json(report), browser=browser)


def document_html(document: ReportDocument, *, report_text: str, browser: LatentBrowser | None = None) -> str:
    """The page of a document.

    Args:
        document: what to draw.
        report_text: the text of report.json, embedded for download.
        browser: the latents to look at; its `files` are left to the caller to write.
    """
    charts = {chart.name: vega_lite_specs(chart) for chart in document.charts}
    library = _vega() if charts else ""
    scripts, style = [_file("report.js")], _file("report.css")
    latents = ""
    if browser is not None:
        latents = _environment().from_string(_file("latents.html.j2")).render(browser=browser)
        scripts.append(f"{_file('latents_parts.js')}{_file('latents.js')}")
        style += _file("latents.css")
    nonce = _nonce(report_text, latents, *scripts)
    known = [library, *scripts] if library else scripts
    return (
        _environment()
        .from_string(_file("report.html.j2"))
        .render(
            document=document,
            alternative=alternative,
            chart_table=chart_table,
            gap_words=gap_words,
            embedded={"charts": charts, "colors": LIGHT_COLORS, "report": deflated(report_text)},
            latents=Markup(latents),  # escaped where it was made
            library=deflated(library) if library else "",
            latents_after=_place_of_latents(document) if browser else "",
            nonce=nonce,
            picture_name=picture_name,
            picture_title=picture_title,
            policy=_policy(known, nonce),
            scripts=[Markup(script) for script in scripts],  # code of this project and of its libraries
            style=Markup(style),
        )
    )


def _environment() -> Environment:
    return Environment(
        autoescape=True,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalized(value: Any) -> Any:
    """Whatever a template shows; only what this package marked as its own stays as it is."""
    return harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _place_of_latents(document: ReportDocument) -> str:
    """The section that they stand behind: the last there is of those that lead to them."""
    names = [section.name for section in document.sections]
    return next((name for name in ("explanations", "coverage", "summary") if name in names), names[-1])


def _file(name: str) -> str:
    return (resources.files("autointerp.reporting") / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; made once a process, as it takes seconds."""
    return vl_convert.javascript_bundle(vl_version=vl_convert.get_vegalite_versions()[-1])


def _nonce(*texts: str) -> str:
    """What style sheets of the page's own are known by: a hash of all that is in it.

    A text in the page cannot hold the hash of a page that it is in, so that no style that got in by it has
    the nonce; and the page stays a function of its data.
    """
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8"))
    return digest.hexdigest()[:32]


def _policy(scripts: list[str], nonce: str) -> str:
    """Scripts by hash, style sheets (the page's and the latents' data) by nonce, no request but for these."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    rules: dict[str, Any] = {
        "default-src": "'none'",
        "script-src": hashes,
        "style-src": "'unsafe-inline'",  # of browsers that do not know the next two
        "style-src-elem": f"'nonce-{nonce}'",
        "style-src-attr": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
