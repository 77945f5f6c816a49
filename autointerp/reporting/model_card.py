"""EvaluationReport -> the head of a Hugging Face model card (`model-index`), with the intervals in words."""

from typing import Any

import yaml

from autointerp.records import EvaluationReport, Measured, MetricResult
from autointerp.reporting import numbers
from autointerp.reporting.markdown_file import escaped

__all__ = ["model_card"]

_TASK = {"type": "other", "name": "sparse autoencoder evaluation"}


def model_card(report: EvaluationReport) -> str:
    """YAML between `---` lines, an entry of `model-index` for each checkpoint, then a table for people.

    Holds the measured headline metrics; what has no number is named below the table, for a card that leaves
    out what failed would be read as if nothing had. Nulls are no models and are in the table only.
    """
    index = [
        {
            "name": checkpoint.name,
            "results": [_entry(report, result) for result in _measured(report, checkpoint.name)],
        }
        for checkpoint in report.checkpoints
        if checkpoint.role == "checkpoint"
    ]
    head = {"tags": ["sparse-autoencoder", "interpretability"], "model-index": index}
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=False, width=1000)
    return f"---\n{text}---\n\n{_body(report)}"


def _headlines(report: EvaluationReport, checkpoint: str) -> list[MetricResult]:
    shown = {definition.name for definition in report.definitions if definition.in_summary}
    return [
        result
        for result in report.results
        if result.checkpoint == checkpoint and result.metric in shown and not result.slice
    ]


def _measured(report: EvaluationReport, checkpoint: str) -> list[MetricResult]:
    return [r for r in _headlines(report, checkpoint) if isinstance(r.outcome, Measured)]


def _entry(report: EvaluationReport, result: MetricResult) -> dict[str, Any]:
    assert isinstance(result.outcome, Measured)
    estimate = result.outcome.estimate
    title = next(d.title for d in report.definitions if d.name == result.metric)
    interval = {"ci_low": estimate.low, "ci_high": estimate.high, "ci_level": estimate.level, "n": estimate.n}
    corpus = str(report.corpus.get("name") or report.corpus.get("kind") or "text")
    return {
        "task": dict(_TASK),  # a copy: the same object again would become a YAML alias
        "dataset": {"name": corpus, "type": str(report.corpus.get("kind") or "other")},
        "metrics": [{"type": result.metric, "name": title, "value": estimate.value, "args": interval}],
    }


def _body(report: EvaluationReport) -> str:
    subject = escaped(str(report.subject.get("name", "")))
    lines = [f"Evaluated by autointerp on {subject}. Values with intervals; grey in the report: nulls.", ""]
    lines += ["| checkpoint | metric | value | interval | n |", "|---|---|---|---|---|"]
    missing = []
    for checkpoint in report.checkpoints:
        name = escaped(checkpoint.name) + (" (null)" if checkpoint.role == "null" else "")
        for result in _headlines(report, checkpoint.name):
            if not isinstance(result.outcome, Measured):
                missing.append(
                    f"- {name}: {result.metric} is {result.outcome.status}: {escaped(result.outcome.reason)}"
                )
                continue
            estimate = result.outcome.estimate
            decimals = numbers.decimals_for(estimate.low, estimate.high)
            interval = numbers.interval(estimate.low, estimate.high, decimals=decimals)
            value = f"{estimate.value:.{max(decimals, 0)}f}"
            basis = f"{estimate.n} {estimate.sampled}"
            lines.append(f"| {name} | {result.metric} | {value} | {escaped(interval)} | {basis} |")
    if missing:
        lines += ["", "Without a number:", "", *missing]
    return "\n".join(lines) + "\n"
