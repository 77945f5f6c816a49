"""A verdict in words: for a terminal, and in Markdown. Whatever came from outside is shown as plain text."""

import re
import unicodedata

from autointerp.gating.verdict import Decided, Verdict

__all__ = ["clean", "markdown", "verdict_lines"]

_ORDER = {"fail": 0, "undecided": 1, "pass": 2}
_MARKS = {"pass": "✅ pass", "fail": "❌ fail", "undecided": "❔ undecided"}


def clean(text: str) -> str:
    """One line that no terminal, XML parser or reading direction can be misled by."""
    kept = "".join(
        char if char == " " or not unicodedata.category(char).startswith(("C", "Z")) else " " for char in text
    )
    return " ".join(kept.split())


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict, then every check, those that did not pass first.

    No line begins with what came from outside, nor holds `##[`: either could be a command to a CI runner.
    """
    counts = {outcome: sum(each.outcome == outcome for each in verdict.checks) for outcome in _ORDER}
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    lines = [clean(f"{verdict.outcome.upper()}: {verdict.policy.name} ({said})")]
    for each in _ordered(verdict):
        check = each.check
        lines.append(clean(f"{each.outcome}: {check.checkpoint}, {check.rule.name}: {check.statement}"))
        if each.outcome != "pass":
            reasons = {"because": check.rule.reason, "needed": check.needed}
            lines += [f"    {name}: {clean(part)}" for name, part in reasons.items() if part]
    return [line.replace("##[", "## [") for line in lines]


def markdown(verdict: Verdict) -> str:
    """A table for a step summary or a pull request comment."""
    head = [
        f"## autointerp gate: {_MARKS[verdict.outcome]}",
        "",
        f"Policy *{_escaped(verdict.policy.name)}*, run *{_escaped(verdict.run)}*"
        + (f", baseline *{_escaped(verdict.baseline)}*" if verdict.baseline else "")
        + f"; each rule at the {verdict.policy.level:.0%} level, failures after Holm's correction.",
        "",
        "| | checkpoint | rule | found | |",
        "|---|---|---|---|---|",
    ]
    rows = [_row(each) for each in _ordered(verdict)]
    return "\n".join([*head, *rows, ""])


def _row(each: Decided) -> str:
    check = each.check
    cells = (_MARKS[each.outcome], check.checkpoint, check.rule.name, check.statement, check.needed)
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _ordered(verdict: Verdict) -> list[Decided]:
    return sorted(verdict.checks, key=lambda each: _ORDER[each.outcome])


def _escaped(text: str) -> str:
    """Markdown and HTML that does nothing: a name may hold links, images or pipes."""
    safe = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    # A bare address would become a link.
    safe = re.sub(r"(?i)(?:https?|ftp)(?=://)|www(?=\.)", r"\g<0><!-- -->", safe)
    return re.sub(r"([\\`*_{}\[\]()#|~$]|(?<!<)!)", r"\\\1", safe)
