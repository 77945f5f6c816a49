"""EvaluationReport -> which tasks the best single latent of each checkpoint answers, as a heat map."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autointerp.records import CheckpointSummary, EvaluationReport, Measured, Outcome, Undefined
from autointerp.reporting.parts import Axis, HeatCell, HeatLabel, HeatmapChart
from autointerp.reporting.token_text import visible

__all__ = ["probe_heatmap"]

_LOSS = "probe.loss_nats"
_LIMITS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of chance; from the last on a latent knows nothing."""


def probe_heatmap(report: EvaluationReport) -> HeatmapChart | None:
    """Probe loss of each task as a share of what a probe that sees nothing loses on it; 0 is perfect.

    Tasks differ in how often the answer is yes, so that their losses cannot be set side by side as they are.
    Tasks by the best checkpoint's share, rising, lexical ones below; nulls in the last columns. None where
    fewer than two tasks were probed, or the report does not hold their chance.
    """
    facts = report.studies.get("probe") or {}
    chances = _chances(facts)
    tasks = [t for t in facts.get("tasks", ()) if t["status"] == "probed" and chances.get(t["name"], 0) > 0]
    if len(tasks) < 2:
        return None
    found = _outcomes(report)
    shown = [c for c in report.checkpoints if any((c.name, t["name"]) in found for t in tasks)]
    shown.sort(key=lambda checkpoint: checkpoint.role == "null")
    if not shown:
        return None
    shares = {
        (c.name, t["name"]): _share(found.get((c.name, t["name"])), chances[t["name"]])
        for c in shown
        for t in tasks
    }
    family = _family([task["name"] for task in tasks])
    names = {task["name"]: visible(task["name"].removeprefix(family)) for task in tasks}
    is_whole = all(isinstance(share, Measured) for share in shares.values())
    crosses = "" if is_whole else " Crosses have no number: the table says why."
    ordered = sorted(tasks, key=lambda task: (bool(task["is_lexical"]), _best(task["name"], shown, shares)))
    return HeatmapChart(
        name="probe-heatmap",
        title="Which tasks a latent answers",
        caption="Loss of the best single latent's probe as a share of chance, the loss of a probe that sees "
        "nothing: 0 is perfect, from 1 on it knows nothing. Stronger colours are better. Tasks that the best "
        "checkpoint answers best stand first; below them those that one token answers (lexical). Intervals "
        f"are over test documents; chance is taken as it is.{crosses}",
        x=Axis("Checkpoint"),
        y=Axis(f"Task of {visible(family)}" if family else "Task"),
        color=Axis("Probe loss / chance", better="lower"),
        limits=_LIMITS,
        rows=tuple(HeatLabel(names[t["name"]], "lexical" if t["is_lexical"] else "") for t in ordered),
        columns=tuple(HeatLabel(c.name, "null" if c.role == "null" else "") for c in shown),
        cells=tuple(
            HeatCell(names[task["name"]], c.name, shares[c.name, task["name"]])
            for task in ordered
            for c in shown
        ),
    )


def _chances(facts: Mapping[str, Any]) -> dict[str, float]:
    """Of each task; it does not depend on the checkpoint."""
    chances: dict[str, float] = {}
    for checkpoint in facts.get("checkpoints", {}).values():
        chances |= (checkpoint.get("kinds", {}).get("chance") or {}).get("loss_nats_by_task", {})
    return chances


def _family(names: Sequence[str]) -> str:
    """`stdlib/`, where that is what all names begin with; else nothing."""
    families = {name.partition("/")[0] for name in names if "/" in name}
    return f"{families.pop()}/" if len(families) == 1 and all("/" in name for name in names) else ""


def _outcomes(report: EvaluationReport) -> dict[tuple[str, str], Outcome]:
    return {
        (result.checkpoint, str(result.slice["task"])): result.outcome
        for result in report.results
        if result.metric == _LOSS and set(result.slice) == {"task"}
    }


def _share(outcome: Outcome | None, chance: float) -> Outcome:
    if outcome is None:
        return Undefined("not part of this run for this checkpoint")
    if not isinstance(outcome, Measured):
        return outcome
    estimate = outcome.estimate
    value, low, high = (loss / chance for loss in (estimate.value, estimate.low, estimate.high))
    return Measured(replace(estimate, value=value, low=low, high=high))


def _best(
    task: str, checkpoints: Sequence[CheckpointSummary], shares: Mapping[tuple[str, str], Outcome]
) -> float:
    """Nulls do not count; a task without any number comes last."""
    found = [shares[c.name, task] for c in checkpoints if c.role == "checkpoint"]
    return min((o.estimate.value for o in found if isinstance(o, Measured)), default=float("inf"))
