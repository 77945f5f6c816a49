"""ReportDocument -> report.html: one file that opens without a network and runs only its own two scripts.

Everything that came from outside (names, paths, reasons, documents) is escaped by the template engine;
data for the scripts is embedded once as JSON that cannot close its element. The page's Content-Security-
Policy admits exactly the two scripts by their hashes, and no request at all, so that a mistake in
escaping would still run nothing.
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
from autointerp.reporting.chart_data import alternative, chart_table
from autointerp.reporting.charts import vega_lite_specs
from autointerp.reporting.imported.result import ImportedResult
from autointerp.reporting.json_file import report_json
from autointerp.reporting.parts import ReportDocument
from autointerp.reporting.report_document import build_document

__all__ = ["document_html", "report_html"]


def report_html(
    report: EvaluationReport,
    observations: pl.DataFrame | None = None,
    explained: Sequence[Mapping[str, Any]] = (),
    imported: Sequence[ImportedResult] = (),
) -> str:
    """The page of a run; its text is a function of its arguments alone."""
    return document_html(
        build_document(report, observations, explained, imported), report_text=report_json(report)
    )


def document_html(document: ReportDocument, *, report_text: str) -> str:
    """The page of a document.

    Args:
        document: what to draw.
        report_text: the text of report.json, embedded for download.
    """
    charts = {chart.name: vega_lite_specs(chart) for chart in document.charts}
    scripts = [_file("report.js")]
    if charts:
        scripts.insert(0, _vega())
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_file("report.html.j2")).render(
        document=document,
        alternative=alternative,
        chart_table=chart_table,
        embedded={"charts": charts, "report": report_text},
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],  # code of this project and of its libraries
        style=Markup(_file("report.css")),
    )


def _file(name: str) -> str:
    return (resources.files("autointerp.reporting") / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; made once a process, as it takes seconds."""
    script = vl_convert.javascript_bundle(vl_version=vl_convert.get_vegalite_versions()[-1])
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("the chart library cannot be embedded: it contains the end of a script element")
    return script


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    rules: dict[str, Any] = {
        "default-src": "'none'",
        "script-src": hashes,
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
