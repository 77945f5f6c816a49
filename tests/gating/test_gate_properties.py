"""Laws of the verdict, over policies and reports made at random; and input that means harm."""

import contextlib
import json

import numpy as np
import polars as pl
import pytest
from gate_runs import METRIC, evidence, report, result, without_number, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.errors import PolicyError, RunStoreError
from autointerp.gating.evidence import read_evidence
from autointerp.gating.policy import COVERAGES, Policy, Rule, policy_from_mapping
from autointerp.gating.verdict import decide, verdict_json

ORDER = ("fail", "undecided", "pass")
ONE, TWO = METRIC, "reconstruction.normalized_mse"
MORE = settings(max_examples=150, deadline=None)

numbers = st.floats(-3, 3)
halves = st.floats(0, 1)
outcomes = st.one_of(
    st.tuples(numbers, halves), st.sampled_from(["failed", "skipped", "undefined"]), st.none()
)


def row(metric, outcome, **other):
    if isinstance(outcome, str):
        return without_number(outcome, metric=metric) | other
    return result(metric=metric, value=outcome[0], half=outcome[1]) | other


shares = st.one_of(st.none(), st.floats(0, 1))
runs = st.tuples(st.tuples(outcomes, outcomes), st.tuples(outcomes, outcomes), shares)
"""Two metrics, each with a null to compare with, and coverage: measured, without a number, or absent."""
kinds = st.sampled_from(["at_most", "at_least", "no_worse_than", "better_than_null", "coverage"])
policies = st.lists(
    st.tuples(kinds, st.sampled_from([ONE, TWO]), numbers, st.floats(0, 2)), min_size=1, max_size=5
)


def made_run(drawn):
    own, against, share = drawn
    rows = [row(metric, each) for metric, each in zip((ONE, TWO), own, strict=True) if each is not None]
    compared = [
        row(metric, each, reference="random")
        for metric, each in zip((ONE, TWO), against, strict=True)
        if each is not None
    ]
    covered = [] if share is None else [{"checkpoint": "sae", COVERAGES[0]: share}]
    return evidence(rows, compared, coverage=covered)


def made_rule(name, drawn):
    kind, metric, limit, margin = drawn
    if kind == "coverage":
        return Rule(name, "b", kind, coverage=COVERAGES[metric == TWO], limit=limit, is_upper=False)
    return Rule(name, "b", kind, metric, limit=limit, is_upper=kind == "at_most", margin=margin)


def made(wanted, *drawn):
    """Rules, then runs; outside of the strategies, whose randomness is not the library's."""
    return [made_rule(f"r{n}", each) for n, each in enumerate(wanted)], *map(made_run, drawn)


def outcome(wanted, run, baseline=None):
    return decide(Policy("p", tuple(wanted)), run, baseline).outcome


def loosened(rule, by):
    """The same rule, asking for less."""
    if rule.kind == "no_worse_than":
        return Rule(**{**vars(rule), "margin": rule.margin + by})
    if rule.kind == "better_than_null":
        return Rule(**{**vars(rule), "margin": max(0.0, rule.margin - by)})
    return Rule(**{**vars(rule), "limit": rule.limit + by if rule.is_upper else rule.limit - by})


@given(wanted=policies, run=runs, baseline=runs, place=st.integers(0, 4), by=st.floats(0, 3))
@MORE
def test_asking_for_less_is_never_a_worse_outcome_of_that_rule(wanted, run, baseline, place, by):
    wanted, run, baseline = made(wanted, run, baseline)
    place %= len(wanted)
    less = [loosened(rule, by) if n == place else rule for n, rule in enumerate(wanted)]
    before, after = (decide(Policy("p", tuple(each)), run, baseline) for each in (wanted, less))
    mine = [ORDER.index(each.checks[place].outcome) for each in (before, after)]
    assert mine[0] <= mine[1]
    assert not (before.outcome == "pass" and after.outcome != "pass")


@given(wanted=policies, run=runs, baseline=runs)
@MORE
def test_one_rule_more_never_makes_a_pass(wanted, run, baseline):
    wanted, run, baseline = made(wanted, run, baseline)
    for count in range(1, len(wanted)):
        if outcome(wanted[:count], run, baseline) != "pass":
            assert outcome(wanted, run, baseline) != "pass"


@given(wanted=policies, run=runs, baseline=runs)
@MORE
def test_what_is_missing_never_passes(wanted, run, baseline):
    wanted, run, baseline = made(wanted, run, baseline)
    found = decide(Policy("p", tuple(wanted)), run, baseline)
    for each in found.checks:
        rule = each.check.rule
        if rule.kind == "coverage":
            rows = [r for r in run.report["coverage"] if rule.coverage in r]
        elif rule.kind == "better_than_null":
            rows = [r for r in run.report["comparisons"] if r["metric"] == rule.metric]
        else:
            rows = [r for r in run.report["results"] if r["metric"] == rule.metric]
        statuses = {r.get("status", "measured") for r in rows} or {"absent"}
        if statuses != {"measured"}:
            assert each.outcome != "pass"
            assert each.outcome == "fail" or "undefined" in statuses
    assert json.dumps(verdict_json(found), allow_nan=False)


@given(wanted=policies, run=runs, baseline=runs)
@MORE
def test_the_order_of_rules_does_not_matter(wanted, run, baseline):
    wanted, run, baseline = made(wanted, run, baseline)
    assert outcome(wanted, run, baseline) == outcome(wanted[::-1], run, baseline)


# ---- policies ---------------------------------------------------------------------------------------

GOOD = {"name": "r", "reason": "because", "metric": METRIC}
INFINITE = [float("nan"), float("inf"), float("-inf"), 10**400, True, "1", [1], None]


@pytest.mark.parametrize("margin", [*INFINITE, -0.1, -1e-300])
@pytest.mark.parametrize("kind", [{"no_worse_than": "baseline"}, {"better_than_null": True}])
def test_a_margin_that_is_no_amount_is_refused(kind, margin):
    with pytest.raises(PolicyError, match="`margin` must be a number from 0 on"):
        policy_from_mapping({"name": "p", "rules": [GOOD | kind | {"margin": margin}]})


@pytest.mark.parametrize("limit", INFINITE)
@pytest.mark.parametrize("key", ["at_most", "at_least"])
def test_a_limit_that_is_no_number_is_refused(key, limit):
    with pytest.raises(PolicyError, match="no finite number"):
        policy_from_mapping({"name": "p", "rules": [GOOD | {key: limit}]})


@pytest.mark.parametrize("level", [*INFINITE, 0.5, 1, 0, -1, 1.5])
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(PolicyError, match="`level`"):
        policy_from_mapping({"name": "p", "level": level, "rules": [GOOD | {"at_most": 1}]})


@pytest.mark.parametrize("value", [False, 1, "baseline"])
def test_better_than_null_cannot_be_switched_off_in_place(value):
    with pytest.raises(PolicyError, match="can only be true"):
        policy_from_mapping({"name": "p", "rules": [GOOD | {"better_than_null": value}]})


@pytest.mark.parametrize("sliced", [{"k": 5}, {"k": 7.0}, {"k": "5"}, {"k": 5, "n": 1}])
@pytest.mark.parametrize("kind", ["at_most", "no_worse_than"])
def test_a_slice_that_matches_nothing_fails(kind, sliced):
    run = evidence([result(), result(slice={"k": 7})])
    rule = Rule("r", "b", kind, METRIC, sliced, limit=1e9, margin=1e9)
    found = decide(Policy("p", (rule,)), run, run)
    assert found.outcome == "fail"
    assert "not measured" in found.checks[0].check.statement


# ---- runs -------------------------------------------------------------------------------------------


def test_a_run_of_nulls_only_is_refused_and_not_passed():
    run = evidence([result("random", value=0.0)], names=(), nulls=("random",))
    with pytest.raises(PolicyError, match="no checkpoint"):
        decide(Policy("p", (Rule("r", "b", "at_most", METRIC, limit=1.0),)), run)


def test_a_baseline_of_nulls_only_is_no_baseline():
    rule = Rule("r", "b", "no_worse_than", METRIC, margin=1e9)
    baseline = evidence([result("random")], names=(), nulls=("random",))
    assert outcome([rule], evidence([result()]), baseline) == "fail"


def test_a_baseline_with_other_checkpoints_fails_each_that_it_lacks():
    rule = Rule("r", "b", "no_worse_than", METRIC, margin=1.0)
    run = evidence([result("a"), result("b")], names=("a", "b"))
    found = decide(Policy("p", (rule,)), run, evidence([result("a"), result("c")], names=("a", "c")))
    assert [each.outcome for each in found.checks] == ["pass", "fail"]
    assert "has no checkpoint 'b'" in found.checks[1].check.statement


def test_a_comparison_with_a_null_does_not_stand_for_a_metric_that_failed():
    run = evidence([without_number("failed")], [result(value=-1.0) | {"reference": "random"}])
    assert outcome([Rule("r", "b", "better_than_null", METRIC)], run) == "fail"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ci_level": 1 - 1e-16}, "no interval"),
        ({"ci_level": 1e-300}, "no interval"),
        ({"value": 1e300, "ci_high": 1e300}, "beyond"),
        ({"ci_low": -1e300}, "beyond"),
        ({"n": 10**400}, "n is no count"),
        ({"n": 0}, "n is no count"),
        ({"n": True}, "n is no count"),
        ({"value": 7.0, "ci_low": 6.0, "ci_high": 8.0}, "outside of the range"),
        ({"value": -0.1, "ci_low": -0.2, "ci_high": 0.0}, "outside of the range"),
    ],
)
def test_numbers_that_would_break_the_arithmetic_are_refused(changed, said, tmp_path):
    known = [{"name": METRIC, "lowest": 0.0, "highest": 1.0}]
    (tmp_path / "report.json").write_text(json.dumps(report([result() | changed], metrics=known)))
    with pytest.raises(RunStoreError, match=said):
        read_evidence(tmp_path)


def test_a_slice_nested_without_end_is_no_crash(tmp_path):
    text = json.dumps(report([result(slice={"k": "DEEP"})])).replace('"DEEP"', "[" * 900 + "]" * 900)
    (tmp_path / "report.json").write_text(text)
    with contextlib.suppress(RunStoreError):  # or it is read: no other end
        read_evidence(tmp_path)


def test_a_report_without_its_suite_is_judged_all_the_same():
    run = evidence([result()], suite=None)
    assert outcome([Rule("r", "b", "at_most", METRIC, limit=1.0)], run) == "pass"


def test_a_unit_that_is_listed_twice_is_not_paired(tmp_path):
    folders = [write_run(tmp_path / name, {"sae": np.linspace(0, 0.1, 20)}) for name in ("a", "b")]
    file = folders[0] / "observations" / "downstream.parquet"
    frame = pl.read_parquet(file)
    pl.concat([frame, frame.head(1)]).write_parquet(file)
    policy = Policy("p", (Rule("r", "b", "no_worse_than", METRIC, margin=1.0),))
    found = decide(policy, *(read_evidence(folder) for folder in folders))
    assert "(a unit has more than one row)" in found.checks[0].check.statement


# ---- numbers without a width ------------------------------------------------------------------------


def test_a_number_without_a_width_is_called_exact():
    check = decide(
        Policy("p", (Rule("r", "b", "at_most", METRIC, limit=1.0),)), evidence([result(half=0.0)])
    ).checks[0]
    assert check.outcome == "pass"
    assert "(exact: 100 x document, all alike)" in check.check.statement
    wide = decide(Policy("p", (Rule("r", "b", "at_most", METRIC, limit=1.0),)), evidence([result()]))
    assert "exact" not in wide.checks[0].check.statement


def test_shares_that_differ_alike_in_every_document_are_not_certain_to_differ(tmp_path):
    sides = {"mine": np.zeros(12), "theirs": np.full(12, 0.2)}
    folders = [write_run(tmp_path / name, {"sae": values}) for name, values in sides.items()]
    policy = Policy("p", (Rule("r", "b", "no_worse_than", METRIC, margin=0.0),))
    for bounds, said in (({}, "pass"), ({"lowest": 0.0, "highest": 1.0}, "undecided")):
        for folder in folders:
            content = json.loads((folder / "report.json").read_text())
            content["metrics"] = [{"name": METRIC, "pairing": "units", **bounds}]
            (folder / "report.json").write_text(json.dumps(content))
        assert decide(policy, *(read_evidence(folder) for folder in folders)).outcome == said
