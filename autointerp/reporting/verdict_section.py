"""A run's gate/verdict.json -> the verdict on the first screen, and every rule's outcome further down.

A verdict is shown only beside the very report.json that it is of.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autointerp.reporting.parts import Badge, Callout, Cell, Column, Row, Section, Table, Tone

__all__ = ["VERDICT_FILE", "ShownVerdict", "read_verdict", "verdict_box", "verdict_sections"]

VERDICT_FILE = Path("gate") / "verdict.json"
"""Within a run's directory."""
_ORDER = ("fail", "undecided", "pass")
_TONES: dict[str, Tone] = {"pass": "good", "fail": "bad", "undecided": "neutral"}
_MOST_LINES = 5


@dataclass(frozen=True)
class ShownVerdict:
    """What a gate said of this report, or why that cannot be shown."""

    content: Mapping[str, Any]
    """As in verdict.json; empty where there is a problem."""
    problem: str = ""

    @property
    def checks(self) -> Sequence[Mapping[str, Any]]:
        """Those that did not pass first."""
        found = self.content.get("checks", ())
        return sorted(found, key=lambda check: _ORDER.index(check["outcome"]))


def read_verdict(run: Path, report: Path) -> ShownVerdict | None:
    """The verdict that lies in a run's directory; None where the run was never gated.

    Args:
        run: the directory.
        report: its report.json, whose content the verdict must name.
    """
    file = run / VERDICT_FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_bytes().decode("utf-8"))
        of_report = hashlib.sha256(report.read_bytes()).hexdigest()
    except (OSError, ValueError, RecursionError):
        return ShownVerdict({}, "It cannot be read; gate the run again.")
    if not _is_verdict(content):
        return ShownVerdict({}, "It is no verdict of autointerp; gate the run again.")
    if content.get("report_sha256") != of_report:
        return ShownVerdict({}, "It is of another report.json than this page; gate the run again.")
    return ShownVerdict(content)


def _is_verdict(content: Any) -> bool:
    if not isinstance(content, dict) or content.get("verdict") not in _ORDER:
        return False
    checks = content.get("checks")
    words = ("rule", "checkpoint", "statement", "outcome", "reason")
    return (
        isinstance(checks, list)
        and all(
            isinstance(check, dict) and all(isinstance(check.get(w), str) for w in words) for check in checks
        )
        and all(check["outcome"] in _ORDER for check in checks)
    )


def verdict_box(shown: ShownVerdict | None) -> tuple[Section, ...]:
    """The verdict above the table, with what did not pass; nothing for a run that was not gated."""
    if shown is None:
        return ()
    if shown.problem:
        return (
            Section(
                "verdict", "", "", (Callout("The gate's verdict is not shown", (shown.problem,), "neutral"),)
            ),
        )
    outcome, policy = shown.content["verdict"], shown.content.get("policy", "")
    failing = [check for check in shown.checks if check["outcome"] != "pass"]
    lines = [
        f"{_counts(shown)}.",
        *(_line(check) for check in failing[:_MOST_LINES]),
    ]
    if len(failing) > _MOST_LINES:
        lines.append(f"And {len(failing) - _MOST_LINES} more that did not pass.")
    title = f"Gate: {outcome}, by the policy {policy}" + _against(shown)
    return (Section("verdict", "", "", (Callout(title, tuple(lines), _TONES[outcome], "gate"),)),)


def _against(shown: ShownVerdict) -> str:
    baseline = shown.content.get("baseline")
    return f" against {baseline}" if baseline else ""


def _counts(shown: ShownVerdict) -> str:
    outcomes = [check["outcome"] for check in shown.checks]
    if set(outcomes) == {"pass"}:
        return f"All {len(outcomes)} checks pass"
    said = ", ".join(f"{outcomes.count(each)} {each}" for each in _ORDER if each in outcomes)
    return f"Of {len(outcomes)} checks: {said}"


def _line(check: Mapping[str, Any]) -> str:
    needed = check.get("needed")
    return f"{check['outcome']}: {check['checkpoint']}, {check['rule']}: {check['statement']}" + (
        f" ({needed})" if needed else ""
    )


def verdict_sections(shown: ShownVerdict | None) -> tuple[Section, ...]:
    """Every check in a table; nothing for a run that was not gated, or whose verdict cannot be shown."""
    if shown is None or shown.problem:
        return ()
    columns = (
        Column("Outcome"),
        Column("Checkpoint"),
        Column("Rule"),
        Column("Found", hint="held against the end of the interval, at the policy's level"),
        Column("Why the rule is there"),
        Column("What would decide it"),
    )
    rows = tuple(
        Row(
            (
                Cell(
                    "",
                    sort=_ORDER.index(check["outcome"]),
                    badges=(Badge(check["outcome"], _TONES[check["outcome"]]),),
                ),
                Cell(check["checkpoint"], sort=check["checkpoint"]),
                Cell(check["rule"], sort=check["rule"]),
                Cell(check["statement"]),
                Cell(check["reason"]),
                Cell(str(check.get("needed") or "")),
            )
        )
        for check in shown.checks
    )
    level = shown.content.get("level")
    at = f" at the {level:.0%} level" if isinstance(level, float) else ""
    return (
        Section(
            "gate",
            "Gate",
            f"Each rule is decided on the end of an interval{at}. Pass: every rule passes. Fail: something "
            "was not measured, or a rule is violated after Holm's correction. Undecided: neither.",
            (Table("gate", "Rules and what they came to", columns, rows, is_filterable=len(rows) > 12),),
        ),
    )
