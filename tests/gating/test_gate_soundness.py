"""Reports, policies and names that are not what they seem: refused, or at least never passed."""

import json

import numpy as np
import polars as pl
import pytest
from gate_runs import METRIC, evidence, report, result, write_run
from scipy import stats
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.errors import PolicyError, RunStoreError
from autointerp.gating.evidence import read_evidence
from autointerp.gating.normal_tests import Uncertain, units_needed
from autointerp.gating.policy import Policy, Rule, policy_from_mapping
from autointerp.gating.verdict import decide
from autointerp.gating.words import markdown, verdict_lines

POLICY = (
    'name = "p"\n[[rules]]\nname = "r"\nreason = "b"\nmetric = "downstream.delta_ce_nats"\nat_most = 0.05\n'
)


def rule(kind="at_most", **other):
    return Rule(**({"name": "r", "reason": "because", "kind": kind, "metric": METRIC} | other))


def compared(reference, value, half=0.01):
    return result("sae", value=value, half=half) | {"reference": reference}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"results": [result(value=9.0), result(value=0.1)]}, "listed twice"),
        ({"comparisons": [compared("random", 0.1), compared("random", -0.1)]}, "listed twice"),
        ({"checkpoints": [{"name": "sae", "role": "null", "site": "a"}] * 2}, "listed twice"),
        ({"checkpoints": [{"name": "sae", "role": "candidate", "site": "a"}]}, "no known role"),
        ({"results": [result(value=float("nan"))]}, "value is no finite number"),
        ({"results": [result() | {"value": "0.1"}]}, "value is no finite number"),
        ({"results": [result() | {"value": 10**400}]}, "value is no finite number"),
        ({"results": [{k: v for k, v in result().items() if k != "ci_high"}]}, "ci_high is no finite"),
        ({"results": [result(half=-0.01)]}, "no interval"),
        ({"results": [result(ci_level=1.0)]}, "no interval"),
        ({"results": [result(n=None)]}, "n is no count"),
        ({"results": [result(better="up")]}, "better"),
        ({"results": [result(status="fine")]}, "status"),
        ({"results": [result(slice=[])]}, "lacks one of"),
        ({"results": ["x"]}, "no list of objects"),
        ({"coverage": [{"checkpoint": "sae", "scorable_fraction": "all"}]}, "no share"),
        ({"coverage": [{"checkpoint": "sae", "scorable_fraction": 7}]}, "no share"),
        ({"coverage": {}}, "no list of objects"),
        ({"corpus": []}, "`corpus` is no object"),
        ({"explanations": [1]}, "`explanations` is no object"),
        ({"metrics": [{"name": METRIC, "lowest": "0"}]}, "bound"),
    ],
)
def test_a_report_with_odd_rows_is_refused_in_one_line(changed, said, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(report([result()]) | changed))
    with pytest.raises(RunStoreError, match=said):
        read_evidence(tmp_path)


def test_one_misspelt_checkpoint_of_two_is_refused():
    policy = Policy("p", (rule(limit=1.0),), checkpoints=("sae", "sea"))
    with pytest.raises(PolicyError, match="no checkpoint of the run is called sea"):
        decide(policy, evidence([result()]))


@pytest.mark.parametrize(
    "given",
    [
        {"metric": METRIC, "at_most": 1, "margin": 0.1},
        {"coverage": "scorable_fraction", "at_least": 0.5, "slice": {"k": 5}},
        {"metric": METRIC, "better_than_null": True, "slice": {"k": 5}},
        {"metric": METRIC, "same": ["corpus"]},
        {"coverage": "scorable_fraction", "same": ["corpus"]},
    ],
)
def test_a_key_that_would_do_nothing_is_refused(given):
    with pytest.raises(PolicyError, match="does nothing"):
        policy_from_mapping({"name": "p", "rules": [{"name": "r", "reason": "b"} | given]})


def test_a_number_no_float_holds_and_a_slice_no_report_has_are_refused():
    good = {"name": "r", "reason": "b", "metric": METRIC}
    with pytest.raises(PolicyError, match="finite"):
        policy_from_mapping({"name": "p", "rules": [good | {"at_most": 10**400}]})
    with pytest.raises(PolicyError, match="no slice has"):
        policy_from_mapping({"name": "p", "rules": [good | {"at_most": 1, "slice": {"k": object()}}]})


def test_several_nulls_are_several_chances_of_a_false_alarm():
    nulls = [f"null {place}" for place in range(5)]
    rows = [compared(name, 0.011) for name in nulls]  # p about .016 each
    assert stats.norm.sf(0.011 / 0.01 * stats.norm.ppf(0.975)) < 0.05
    found = [
        decide(
            Policy("p", (rule("better_than_null"),)), evidence([result()], rows[:count], nulls=nulls[:count])
        )
        for count in (1, 5)
    ]
    assert [each.outcome for each in found] == ["fail", "undecided"]
    one, five = (each.checks[0].check.p_violated for each in found)
    assert five == pytest.approx(5 * one)


def test_a_comparison_without_its_result_is_not_met():
    run = evidence([], [compared("random", -0.1)])
    assert decide(Policy("p", (rule("better_than_null"),)), run).outcome == "fail"


def test_coverage_that_was_skipped_never_passes():
    covered = [{"checkpoint": "sae", "status": "skipped", "reason": "why", "scorable_fraction": 1.0}]
    rules = (rule("coverage", metric="", coverage="scorable_fraction", limit=0.5, is_upper=False),)
    assert decide(Policy("p", rules), evidence([], coverage=covered)).outcome == "fail"


@pytest.mark.parametrize("other", [{"functional": "one_minus_ratio"}, {"unit": "bits"}, {"better": "higher"}])
def test_a_baseline_that_measured_otherwise_is_not_compared(other):
    policy = Policy("p", (rule("no_worse_than", margin=1.0),))
    assert decide(policy, evidence([result()]), evidence([result()])).outcome == "pass"
    assert decide(policy, evidence([result()]), evidence([result(**other)])).outcome == "fail"


def test_why_a_ranking_is_not_paired_is_said(tmp_path):
    rows = [result(functional="mean_of_group_aurocs")]
    folder = write_run(tmp_path / "run", {"sae": np.linspace(0, 0.1, 20)}, results=rows)
    found = decide(Policy("p", (rule("no_worse_than", margin=1.0),)), *[read_evidence(folder)] * 2)
    assert "(a mean_of_group_aurocs is not paired)" in found.checks[0].check.statement


def test_an_interval_cut_off_at_the_metrics_end_is_no_narrower_for_it():
    row = result(value=0.999, better="higher") | {"ci_low": 0.98, "ci_high": 1.0}
    wanted = (rule("at_least", limit=1.0, is_upper=False),)
    known = [{"name": METRIC, "pairing": "units", "lowest": 0.0, "highest": 1.0}]
    assert decide(Policy("p", wanted), evidence([row], metrics=known)).outcome == "undecided"
    p = decide(Policy("p", wanted), evidence([row], metrics=known)).checks[0].check.p_violated
    assert p == pytest.approx(stats.norm.sf(0.001 / (0.019 / stats.norm.ppf(0.975))))


def test_an_interval_that_leaves_the_value_out_does_not_make_it_certain():
    found = Uncertain.of_interval(0.1, 0.06, 0.09, level=0.95, n=50, sampled="document")
    assert found.upper(0.975) == pytest.approx(0.115)
    assert found.negated().upper(0.975) == pytest.approx(-0.06)


def test_next_to_the_limit_no_number_of_units_is_named():
    found = Uncertain(1e-226, 0.5, 0.5, 100, "document")
    assert units_needed(found, 0.0, level=0.95) is None


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_damaged_observations_are_refused_in_one_line(tmp_path, content):
    folders = [write_run(tmp_path / name, {"sae": np.linspace(0, 0.1, 20)}) for name in ("a", "b")]
    (folders[1] / "observations" / "downstream.parquet").write_bytes(content)
    with pytest.raises(RunStoreError, match="cannot be read"):
        decide(Policy("p", (rule("no_worse_than"),)), *(read_evidence(folder) for folder in folders))


@pytest.mark.parametrize("odd", [float("nan"), None, "x"])
def test_observations_without_finite_numbers_are_refused_in_one_line(tmp_path, odd):
    folders = [write_run(tmp_path / name, {"sae": np.linspace(0, 0.1, 20)}) for name in ("a", "b")]
    file = folders[0] / "observations" / "downstream.parquet"
    pl.read_parquet(file).with_columns(numerator=pl.lit(odd)).write_parquet(file)
    with pytest.raises(RunStoreError, match=r"without a finite number|cannot be read"):
        decide(Policy("p", (rule("no_worse_than"),)), *(read_evidence(folder) for folder in folders))


def test_names_and_reasons_are_no_commands_and_no_links():
    name = "##[add-mask]a www.evil.example https://evil.example"
    rules = (rule(name=name, reason="::stop-commands::x", limit=0.01),)
    found = decide(Policy("p", rules), evidence([result(name)], names=(name,)))
    lines = verdict_lines(found)
    assert not any(line.lstrip().startswith("::") or "##[" in line for line in lines)
    assert "https://" not in markdown(found)
    assert "www." not in markdown(found)


def test_json_stays_json_within_github_actions(tmp_path):
    run = write_run(tmp_path / "run", {"##[group]sae": np.linspace(0.0, 0.2, 50)})
    (tmp_path / "p.toml").write_text(POLICY)
    given = ["gate", str(run), "--policy", str(tmp_path / "p.toml"), "--json"]
    done = CliRunner().invoke(app, given, env={"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": ""})
    assert json.loads(done.stdout)["checks"][0]["checkpoint"] == "##[group]sae"
    assert "##[" not in done.stdout
    assert done.stderr.startswith("::error title=")
