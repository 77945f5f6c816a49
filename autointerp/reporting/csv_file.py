"""EvaluationReport -> CSV: one line each result, in full precision, for spreadsheets and notebooks."""

import csv
import io

from autointerp.records import EvaluationReport, slice_key
from autointerp.reporting.outcome_fields import outcome_fields

__all__ = ["COLUMNS", "report_csv"]

COLUMNS = (
    "checkpoint",
    "role",
    "metric",
    "slice",
    "status",
    "value",
    "ci_low",
    "ci_high",
    "ci_level",
    "ci_method",
    "n",
    "sampled",
    "unit",
    "better",
    "reason",
)


def report_csv(report: EvaluationReport) -> str:
    """All results at all slices; a result without a number has empty number columns and a reason.

    Text that a spreadsheet would run as a formula is led by an apostrophe.
    """
    roles = {checkpoint.name: checkpoint.role for checkpoint in report.checkpoints}
    definitions = {definition.name: definition for definition in report.definitions}
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for result in report.results:
        definition = definitions[result.metric]
        row: dict[str, object] = {
            "checkpoint": result.checkpoint,
            "role": roles.get(result.checkpoint, ""),
            "metric": result.metric,
            "slice": slice_key(result.slice),
            "unit": definition.unit,
            "better": definition.better,
            **outcome_fields(result.outcome),
        }
        writer.writerow({name: _harmless(value) for name, value in row.items()})
    return target.getvalue()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value
