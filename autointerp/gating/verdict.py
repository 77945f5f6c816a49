"""Checks -> one verdict: pass, fail or undecided.

Pass: every rule passes at its own level. That is an intersection-union test, whose error rate is the level's
without any correction (Berger 1982, Technometrics 24(4)). Fail: something was not measured or not covered, or
some rule is violated after Holm's correction over all tested rules, so that the chance of any false alarm is
at most 1 - level. Undecided: neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autointerp.gating.checks import Check, all_checks
from autointerp.gating.evidence import RunEvidence, read_evidence
from autointerp.gating.normal_tests import holm_rejections
from autointerp.gating.policy import Policy, judging, load_policy

__all__ = ["EXIT_CODES", "Decided", "Verdict", "decide", "gate", "verdict_json"]

Outcome = Literal["pass", "fail", "undecided"]
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "undecided": 3}


@dataclass(frozen=True)
class Decided:
    """A check, and what it came to."""

    check: Check
    outcome: Outcome


@dataclass(frozen=True)
class Verdict:
    """What the gate says."""

    outcome: Outcome
    policy: Policy
    checks: Sequence[Decided]
    run: str
    """The suite's name."""
    baseline: str = ""
    report_sha256: str = ""
    """Of the run's report.json."""

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 undecided."""
        return EXIT_CODES[self.outcome]


def gate(
    run: Path,
    policy: Path,
    *,
    baseline: Path | None = None,
    checkpoints: tuple[str, ...] = (),
    allow_other_judge: bool = False,
) -> Verdict:
    """The verdict on a finished run.

    Args:
        run: its directory, or its report.json.
        policy: a TOML file.
        baseline: another finished run, for rules that compare with one.
        checkpoints: names or patterns of those to be judged; none: as the policy says. A null is judged where
            its very name is given.
        allow_other_judge: whether explanation scores of different judges may be compared.

    Raises:
        BadInputError: one of them cannot be read, or they do not belong together.
    """
    evidence = read_evidence(run)
    other = None if baseline is None else read_evidence(baseline)
    wanted = load_policy(policy)
    if checkpoints:
        wanted = judging(wanted, checkpoints)
    return decide(wanted, evidence, other, allow_other_judge=allow_other_judge)


def decide(
    policy: Policy,
    run: RunEvidence,
    baseline: RunEvidence | None = None,
    *,
    allow_other_judge: bool = False,
) -> Verdict:
    """The verdict on evidence that is in memory."""
    checks = all_checks(policy, run, baseline, allow_other_judge=allow_other_judge)
    tested = [check for check in checks if check.p_violated is not None]
    p_values = [check.p_violated for check in tested if check.p_violated is not None]
    violated = {
        id(check)
        for check, is_rejected in zip(tested, holm_rejections(p_values, alpha=1 - policy.level), strict=True)
        if is_rejected and check.finding != "met"
    }
    decided = [Decided(check, _outcome(check, id(check) in violated)) for check in checks]
    outcomes = {each.outcome for each in decided}
    overall: Outcome = "fail" if "fail" in outcomes else "undecided" if "undecided" in outcomes else "pass"
    name = _suite_name(run)
    other = "" if baseline is None else _suite_name(baseline)
    return Verdict(overall, policy, decided, name, other, run.sha256)


def _suite_name(run: RunEvidence) -> str:
    return str((run.report.get("suite") or {}).get("name", ""))


def _outcome(check: Check, is_violated: bool) -> Outcome:
    if check.finding == "met":
        return "pass"
    return "fail" if check.finding == "not met" or is_violated else "undecided"


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values; keys without a value are left out."""
    return {
        "schema_version": 1,
        "verdict": verdict.outcome,
        "policy": verdict.policy.name,
        "level": verdict.policy.level,
        "suite": verdict.run,
        **({"report_sha256": verdict.report_sha256} if verdict.report_sha256 else {}),
        **({"baseline": verdict.baseline} if verdict.baseline else {}),
        "checks": [_check_json(each) for each in verdict.checks],
    }


def _check_json(decided: Decided) -> dict[str, Any]:
    check = decided.check
    optional = {
        "metric": check.rule.metric or check.rule.coverage or None,
        "slice": dict(check.rule.slice) or None,
        "value": check.value,
        "bound": check.bound,
        "limit": check.limit,
        "p_violated": check.p_violated,
        "needed": check.needed or None,
        "needed_usd": check.needed_usd,
        "needed_tokens": check.needed_tokens,
    }
    return {
        "rule": check.rule.name,
        "kind": check.rule.kind,
        "reason": check.rule.reason,
        "checkpoint": check.checkpoint,
        "outcome": decided.outcome,
        "statement": check.statement,
        **{key: value for key, value in optional.items() if value is not None},
    }
