"""Every rule at every judged checkpoint -> a check: what was found, and what it says of the rule.

A number is held against its limit by one-sided tests on its interval. What is missing, skipped or failed does
not meet a rule; what is undefined leaves it open; neither ever passes.
"""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from autointerp.errors import PolicyError
from autointerp.gating.evidence import RunEvidence
from autointerp.gating.findings import Check, held_to_limit, not_met, priced, shown
from autointerp.gating.normal_tests import Uncertain
from autointerp.gating.paired_difference import PAIRED_FUNCTIONALS, paired_difference
from autointerp.gating.policy import Policy, Rule
from autointerp.report_keys import slice_key

__all__ = ["Check", "all_checks"]


def all_checks(
    policy: Policy, run: RunEvidence, baseline: RunEvidence | None, *, allow_other_judge: bool = False
) -> list[Check]:
    """All checks, rule by rule.

    Raises:
        PolicyError: a rule needs a baseline and there is none, no checkpoint is judged, or scores of
            different judges would be set side by side.
    """
    if policy.needs_baseline and baseline is None:
        raise PolicyError(
            "has rules that compare with a baseline", where=policy.name, remedy="give --baseline RUN"
        )
    checks: list[Check] = []
    for rule in policy.rules:
        if rule.kind == "no_worse_than" and baseline is not None and not allow_other_judge:
            _refuse_other_judge(rule, run, baseline)
        judged = _judged(policy, rule, run)
        checks += [_check(rule, checkpoint, run, baseline, policy.level) for checkpoint in judged]
    return checks


def _judged(policy: Policy, rule: Rule, run: RunEvidence) -> list[str]:
    patterns = rule.checkpoints or policy.checkpoints
    judged = set(run.judged) | {name for name in run.checkpoints if name in patterns}
    found = {
        pattern: [name for name in judged if name == pattern or fnmatchcase(name, pattern)]
        for pattern in patterns
    }
    # One misspelt name of several would else go unjudged, and the gate could pass.
    absent = [pattern for pattern, names in found.items() if not names]
    if absent:
        raise PolicyError(
            f"no checkpoint of the run is called {' or '.join(absent)}",
            where=f"{policy.name}, rule {rule.name}",
            remedy=f"there are: {', '.join(run.judged) or 'none'}",
        )
    named = {name for names in found.values() for name in names}
    return [name for name in run.checkpoints if name in named]


def _refuse_other_judge(rule: Rule, run: RunEvidence, baseline: RunEvidence) -> None:
    if rule.metric.startswith("explanation.") and run.judges != baseline.judges:
        raise PolicyError(
            "the two runs' explanations were not judged by the same judge, prompts and settings",
            where=f"rule {rule.name}",
            remedy="explain both with the same, or say --allow-other-judge",
        )


def _check(
    rule: Rule, checkpoint: str, run: RunEvidence, baseline: RunEvidence | None, level: float
) -> Check:
    if rule.kind == "coverage":
        return _coverage(rule, checkpoint, run)
    if rule.kind == "same":
        assert baseline is not None
        return _same(rule, checkpoint, run, baseline)
    if rule.kind == "better_than_null":
        return _better_than_nulls(rule, checkpoint, run, level)
    result = run.results.get((checkpoint, rule.metric, slice_key(rule.slice)))
    settled = _without_number(rule, checkpoint, result, f"{rule.metric} was not measured in this run")
    if settled is not None or result is None:
        return settled or not_met(rule, checkpoint, "not measured")
    if rule.kind == "no_worse_than":
        assert baseline is not None
        return _no_worse(rule, checkpoint, run, baseline, level)
    assert rule.limit is not None
    found = _uncertain(result, run.metrics.get(rule.metric))
    words = f"{shown(found.value)} [{shown(result['ci_low'])}, {shown(result['ci_high'])}] {result['unit']}"
    return priced(held_to_limit(rule, checkpoint, found, rule.limit, level, words=words), run)


# ---- rules without a test ---------------------------------------------------------------------------


def _coverage(rule: Rule, checkpoint: str, run: RunEvidence) -> Check:
    """Counts of this run's own text: exact, so met or not."""
    row = run.coverage(checkpoint)
    if row is None or row.get(rule.coverage) is None:
        reason = "no latents were sampled" if row is None else row.get("reason") or "there is none"
        return not_met(rule, checkpoint, f"{rule.coverage}: {reason}")
    if row.get("status", "measured") != "measured":
        return not_met(rule, checkpoint, f"{rule.coverage} is {row['status']}: {row.get('reason') or ''}")
    value, limit = float(row[rule.coverage]), rule.limit
    assert limit is not None
    is_met = value <= limit if rule.is_upper else value >= limit
    statement = (
        f"{rule.coverage} is {shown(value)} (an exact count), "
        f"{'at most' if rule.is_upper else 'at least'} {limit:g} asked"
    )
    return Check(
        rule, checkpoint, "met" if is_met else "not met", statement, value=value, bound=value, limit=limit
    )


def _same(rule: Rule, checkpoint: str, run: RunEvidence, baseline: RunEvidence) -> Check:
    different = [word for word in rule.same if _identity(run, word) != _identity(baseline, word)]
    unknown = [word for word in rule.same if _identity(run, word) is None]
    if different or unknown:
        words = [
            *(f"another {word}" for word in different),
            *(f"no record of the {word}" for word in unknown),
        ]
        return not_met(rule, checkpoint, f"{', '.join(words)} than the baseline's")
    return Check(rule, checkpoint, "met", f"{', '.join(rule.same)} as the baseline's")


def _identity(run: RunEvidence, word: str) -> Any:
    report = run.report
    if word == "corpus":
        keys = ("fingerprint", "contexts", "evaluated_document_count", "evaluated_text_token_count")
        found = {key: report["corpus"].get(key) for key in keys}
        return found if found["fingerprint"] else None
    if word == "subject":
        return report["subject"].get("sha256")
    if word == "judge":
        return run.judges
    return report["provenance"].get("autointerp_version")


# ---- rules with a test ------------------------------------------------------------------------------


def _no_worse(rule: Rule, checkpoint: str, run: RunEvidence, baseline: RunEvidence, level: float) -> Check:
    """Non-inferiority: the difference, turned so that more is worse, is below the margin."""
    reference = _counterpart(checkpoint, run, baseline)
    if reference is None:
        return not_met(rule, checkpoint, f"the baseline has no checkpoint {checkpoint!r}, and several others")
    theirs = baseline.results.get((reference, rule.metric, slice_key(rule.slice)))
    settled = _without_number(rule, checkpoint, theirs, f"{rule.metric} was not measured in the baseline")
    if settled is not None or theirs is None:
        return settled or not_met(rule, checkpoint, "not measured")
    mine = run.results[(checkpoint, rule.metric, slice_key(rule.slice))]
    if _meaning(run, mine) != _meaning(baseline, theirs):
        return not_met(rule, checkpoint, f"{rule.metric} is estimated otherwise in the baseline")
    difference, how = _difference(rule, (run, checkpoint, mine), (baseline, reference, theirs))
    check = _against_reference(
        rule, checkpoint, difference, mine, level, f"the baseline's {reference}, {how}"
    )
    return priced(check, run, runs=2)


def _meaning(run: RunEvidence, result: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be alike for two values of a metric to be subtracted."""
    parameters = run.metrics.get(result["metric"], {}).get("parameters", {})
    return result["functional"], result["unit"], result["better"], parameters


def _counterpart(checkpoint: str, run: RunEvidence, baseline: RunEvidence) -> str | None:
    if checkpoint in baseline.judged:
        return checkpoint
    return baseline.judged[0] if len(baseline.judged) == 1 == len(run.judged) else None


def _difference(
    rule: Rule,
    mine: tuple[RunEvidence, str, Mapping[str, Any]],
    theirs: tuple[RunEvidence, str, Mapping[str, Any]],
) -> tuple[Uncertain, str]:
    """Paired where that can be; else as of two independent samples, which is wider, never narrower."""
    functional = mine[2]["functional"]
    pairing = mine[0].metrics.get(rule.metric, {}).get("pairing", "units")
    why = "whose latents are others"
    if pairing == "units":
        why = f"a {functional} is not paired"
        if functional in PAIRED_FUNCTIONALS:
            found = _paired(rule, mine, theirs)
            if isinstance(found, Uncertain):
                definition = mine[0].metrics.get(rule.metric, {})
                return _with_width(found, definition), f"paired over {found.n} clusters"
            why = found
    numbers = [_uncertain(result, run.metrics.get(rule.metric)) for run, _, result in (mine, theirs)]
    return numbers[0].minus(numbers[1]), f"as independent samples ({why})"


def _paired(
    rule: Rule,
    mine: tuple[RunEvidence, str, Mapping[str, Any]],
    theirs: tuple[RunEvidence, str, Mapping[str, Any]],
) -> Uncertain | str:
    """The difference on the units that both runs have, or why it cannot be had."""
    rows = []
    for run, checkpoint, _ in (mine, theirs):
        found = run.observations(rule.metric, slice_key(rule.slice))
        if found is None:
            return "without the observations of both"
        if checkpoint not in found:
            return "no unit in common"
        rows.append(found[checkpoint])
    return paired_difference(*rows, functional=mine[2]["functional"])


def _better_than_nulls(rule: Rule, checkpoint: str, run: RunEvidence, level: float) -> Check:
    """Against every null of the site; the check is the one that is hardest to meet."""
    checks = []
    for null in (name for name in run.nulls(checkpoint) if name != checkpoint):
        found = run.comparisons.get((checkpoint, null, rule.metric, slice_key(rule.slice)))
        settled = _without_number(rule, checkpoint, found, f"{rule.metric} was not compared with {null}")
        result = run.results.get((checkpoint, rule.metric, slice_key(rule.slice)))
        settled = settled or _without_number(rule, checkpoint, result, f"{rule.metric} was not measured")
        if settled is not None or found is None or result is None:
            checks.append(settled or not_met(rule, checkpoint, "not measured"))
            continue
        checks.append(_against_reference(rule, checkpoint, _uncertain(found), result, level, null))
    if not checks:
        return not_met(rule, checkpoint, "the run has no other null at its site")
    order = {"not met": 0, "open": 1, "met": 2}
    hardest = min(
        checks,
        key=lambda check: (order[check.finding], 1.0 if check.p_violated is None else check.p_violated),
    )
    if hardest.p_violated is None:
        return hardest
    # The least of several p-values (Bonferroni): every further null is another chance of a false alarm.
    return priced(replace(hardest, p_violated=min(1.0, hardest.p_violated * len(checks))), run)


def _against_reference(
    rule: Rule,
    checkpoint: str,
    difference: Uncertain,
    result: Mapping[str, Any],
    level: float,
    reference: str,
) -> Check:
    """A difference `checkpoint - reference`, in a metric that has a better direction."""
    better = result["better"]
    if better == "neither":
        return not_met(rule, checkpoint, f"{rule.metric} has no better direction")
    worse_by = difference if better == "lower" else difference.negated()
    limit = rule.margin if rule.kind == "no_worse_than" else -rule.margin
    words = f"{shown(difference.value, sign=True)} {result['unit']} against {reference}"
    return held_to_limit(
        rule, checkpoint, worse_by, limit, level, words=words, is_upper=True, is_strict=limit <= 0
    )


# ---- words ------------------------------------------------------------------------------------------


def _without_number(
    rule: Rule, checkpoint: str, result: Mapping[str, Any] | None, absent: str
) -> Check | None:
    """What a result without a number says of the rule; None where there is a number."""
    if result is None:
        return not_met(rule, checkpoint, absent)
    if result["status"] == "measured":
        return None
    statement = f"{rule.metric} is {result['status']}: {result.get('reason', '')}"
    if result["status"] == "undefined":
        return Check(rule, checkpoint, "open", statement)
    return not_met(rule, checkpoint, statement)


def _uncertain(result: Mapping[str, Any], definition: Mapping[str, Any] | None = None) -> Uncertain:
    """A result's number; an end at the bound of the metric's range says nothing of the width on its side."""
    bounds = definition or {}
    lowest, highest = (bounds.get(key) for key in ("lowest", "highest"))
    return Uncertain.of_interval(
        result["value"],
        result["ci_low"],
        result["ci_high"],
        level=result["ci_level"],
        n=result["n"],
        sampled=str(result.get("sampled", "unit")),
        is_cut_low=lowest is not None and result["ci_low"] <= lowest,
        is_cut_high=highest is not None and result["ci_high"] >= highest,
    )


def _with_width(found: Uncertain, definition: Mapping[str, Any]) -> Uncertain:
    """A difference that is the same in all clusters proves little of others, where the metric has a range."""
    lowest, highest = definition.get("lowest"), definition.get("highest")
    if found.has_width or found.value == 0 or lowest is None or highest is None:
        return found
    return found.all_alike(lowest - highest, highest - lowest)
