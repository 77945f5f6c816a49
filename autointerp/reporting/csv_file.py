"""EvaluationReport -> CSV: one line each result, in full precision, for spreadsheets and notebooks."""

import csv
import io

from autointerp.records import EvaluationReport, Measured, MetricResult, slice_key

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
        row = {"role": roles.get(result.checkpoint, ""), "unit": definition.unit, "better": definition.better}
        writer.writerow({name: _harmless(value) for name, value in (row | _result_row(result)).items()})
    return target.getvalue()


def _result_row(result: MetricResult) -> dict[str, object]:
    row: dict[str, object] = {
        "checkpoint": result.checkpoint,
        "metric": result.metric,
        "slice": slice_key(result.slice),
        "status": result.outcome.status,
    }
    if not isinstance(result.outcome, Measured):
        return row | {"reason": result.outcome.reason}
    estimate = result.outcome.estimate
    return row | {
        "value": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "ci_level": estimate.level,
        "ci_method": estimate.method,
        "n": estimate.n,
        "sampled": estimate.sampled,
    }


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value
