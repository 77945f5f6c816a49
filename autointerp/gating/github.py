"""A verdict -> what GitHub Actions shows: annotations, and the step's summary."""

from autointerp.gating.verdict import Verdict
from autointerp.gating.words import clean

__all__ = ["annotations"]

_COMMANDS = {"fail": "error", "undecided": "warning"}


def annotations(verdict: Verdict) -> list[str]:
    """A workflow command for every check that did not pass.

    Names and reasons come from files of others: no line break, `::` or percent sign of theirs can end one
    command and begin another.
    """
    lines = []
    for each in verdict.checks:
        if each.outcome != "pass":
            title = _property(f"{each.outcome}: {each.check.rule.name} ({each.check.checkpoint})")
            text = " ".join(part for part in (each.check.statement, each.check.needed) if part)
            lines.append(f"::{_COMMANDS[each.outcome]} title={title}::{_data(text)}")
    return lines


def _data(text: str) -> str:
    return clean(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
