"""Rules, tests and verdicts, against closed forms, brute force and simulation."""

import math
from pathlib import Path

import numpy as np
import pytest
from gate_runs import METRIC, evidence, report, result, without_number, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autointerp.errors import PolicyError, RunStoreError
from autointerp.gating.evidence import read_evidence
from autointerp.gating.normal_tests import Uncertain, holm_rejections, units_needed
from autointerp.gating.paired_difference import observed_rows, paired_difference
from autointerp.gating.policy import Policy, Rule, load_policy, policy_from_mapping
from autointerp.gating.verdict import decide, gate


def rule(kind="at_most", **other):
    return Rule(**({"name": "r", "reason": "because", "kind": kind, "metric": METRIC} | other))


def verdict(rules, run, baseline=None, **other):
    return decide(Policy("p", tuple(rules), **other), run, baseline)


def at_most(limit):
    return rule(limit=limit)


# ---- absolute limits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "outcome"), [(0.12, "pass"), (0.105, "undecided"), (0.1, "undecided"), (0.08, "fail")]
)
def test_a_limit_is_held_against_the_end_of_the_interval(limit, outcome):
    assert verdict([at_most(limit)], evidence([result(value=0.1, half=0.01)])).outcome == outcome


def test_the_bound_and_the_p_value_are_the_normals():
    found = Uncertain.of_interval(0.1, 0.09, 0.12, level=0.95, n=50, sampled="document")
    assert found.upper(0.975) == pytest.approx(0.12)
    assert found.upper(0.95) == pytest.approx(0.1 + stats.norm.ppf(0.95) * 0.02 / stats.norm.ppf(0.975))
    assert found.p_above(0.095) == pytest.approx(stats.norm.sf(0.005 * stats.norm.ppf(0.975) / 0.01))


def test_at_least_is_the_mirror_of_at_most():
    low = verdict([rule("at_least", limit=0.2, is_upper=False)], evidence([result(value=0.1)]))
    high = verdict([rule("at_least", limit=0.05, is_upper=False)], evidence([result(value=0.1)]))
    assert (low.outcome, high.outcome) == ("fail", "pass")


@given(
    value=st.floats(-5, 5),
    half=st.floats(0, 2),
    limits=st.lists(st.floats(-6, 6), min_size=2, max_size=2).map(sorted),
)
@settings(max_examples=200, deadline=None)
def test_a_looser_limit_is_never_a_worse_verdict(value, half, limits):
    order = ["fail", "undecided", "pass"]
    run = evidence([result(value=value, half=half)])
    tight, loose = (order.index(verdict([at_most(limit)], run).outcome) for limit in limits)
    assert tight <= loose


@pytest.mark.parametrize(
    ("status", "outcome"), [("failed", "fail"), ("skipped", "fail"), ("undefined", "undecided")]
)
@pytest.mark.parametrize("kind", ["at_most", "no_worse_than"])
def test_what_has_no_number_never_passes(status, outcome, kind):
    run, other = evidence([without_number(status)]), evidence([result()])
    rules = [rule(kind, limit=1e9 if kind == "at_most" else None, margin=1e9)]
    assert verdict(rules, run, other).outcome == outcome


def test_an_absent_metric_fails():
    found = verdict([rule(metric="probe.loss_nats", limit=1e9)], evidence([result()]))
    assert found.outcome == "fail"
    assert "not measured" in found.checks[0].check.statement


def test_what_would_decide_is_said_and_is_true():
    run = evidence([result(value=0.1, half=0.01, n=100)])
    found = verdict([at_most(0.105)], run).checks[0].check
    assert "more" in found.needed
    one = Uncertain.of_interval(0.1, 0.09, 0.11, level=0.95, n=100, sampled="document")
    total = units_needed(one, 0.105, level=0.95)
    shrunk = 0.01 * math.sqrt(100 / total)
    assert verdict([at_most(0.105)], evidence([result(value=0.1, half=shrunk, n=total)])).outcome == "pass"


# ---- several rules ----------------------------------------------------------------------------------


def test_holm_is_the_brute_force_closed_test():
    generator = np.random.default_rng(0)
    for _ in range(200):
        p = list(generator.uniform(0, 0.1, size=5))
        found = holm_rejections(p, alpha=0.05)
        # A hypothesis is rejected when every set of hypotheses that holds it is, by Bonferroni.
        for place in range(5):
            sets = [s for s in range(1, 32) if s >> place & 1]
            closed = all(min(p[i] for i in range(5) if s >> i & 1) <= 0.05 / s.bit_count() for s in sets)
            assert found[place] == closed


def test_one_violation_of_many_needs_more_evidence_than_one_alone():
    run = evidence([result(value=0.1, half=0.01)])
    slightly = at_most(0.0905)  # p about .03
    others = [rule(name=f"r{place}", limit=1.0) for place in range(20)]
    assert verdict([slightly], run).outcome == "fail"
    assert verdict([slightly, *others], run).outcome == "undecided"


# ---- nulls, coverage, provenance --------------------------------------------------------------------


def comparison(reference, value, half=0.01):
    row = result("sae", value=value, half=half)
    return {key: each for key, each in row.items() if key not in ("better", "unit", "functional")} | {
        "reference": reference
    }


def test_every_null_must_be_beaten():
    results = [result("sae"), result("one"), result("two")]
    rules = [rule("better_than_null")]
    for values, outcome in (((-0.1, -0.1), "pass"), ((-0.1, 0.1), "fail"), ((-0.1, 0.0), "undecided")):
        compared = [comparison(name, value) for name, value in zip(("one", "two"), values, strict=True)]
        assert verdict(rules, evidence(results, compared, nulls=("one", "two"))).outcome == outcome
    assert verdict(rules, evidence(results, nulls=("one", "two"))).outcome == "fail", "nothing was compared"
    assert verdict(rules, evidence(results, nulls=())).outcome == "fail", "there is no null"


def test_a_null_that_is_judged_has_itself_not_as_its_null():
    policy = Policy("p", (rule("better_than_null"),), checkpoints=("random",))
    assert decide(policy, evidence([result("random")])).outcome == "fail"


def test_equal_to_the_null_is_not_better():
    run = evidence([result("sae"), result("random")], [comparison("random", 0.0, half=0.0)])
    assert verdict([rule("better_than_null")], run).outcome == "undecided"


def test_coverage_is_held_to_its_limit():
    covered = [{"checkpoint": "sae", "status": "measured", "scorable_fraction": 0.4}]
    rules = [rule("coverage", metric="", coverage="scorable_fraction", limit=0.5, is_upper=False)]
    assert verdict(rules, evidence([], coverage=covered)).outcome == "fail"
    rules = [rule("coverage", metric="", coverage="scorable_fraction", limit=0.4, is_upper=False)]
    assert verdict(rules, evidence([], coverage=covered)).outcome == "pass"
    assert verdict(rules, evidence([])).outcome == "fail", "no latents were sampled"


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("corpus", {"corpus": {"fingerprint": "other"}}),
        ("subject", {"subject": {"sha256": "other"}}),
        ("judge", {"explanations": {"methods": ["detection"], "models": [{"model": "m"}]}}),
        ("code_version", {"provenance": {"autointerp_version": "2"}}),
    ],
)
def test_what_should_be_the_same_is_compared(word, changed):
    rules = [rule("same", metric="", same=(word,))]
    run = evidence([result()])
    assert verdict(rules, run, evidence([result()])).outcome == "pass"
    assert verdict(rules, run, evidence([result()], **changed)).outcome == "fail"


def test_scores_of_different_judges_are_refused_unless_told():
    metric = "explanation.detection_auroc"
    judged = {"explanations": {"models": [{"model": "m"}]}}
    run, other = evidence([result(metric=metric)]), evidence([result(metric=metric)], **judged)
    policy = Policy("p", (rule("no_worse_than", metric=metric, margin=1.0),))
    with pytest.raises(PolicyError, match="same judge"):
        decide(policy, run, other)
    assert decide(policy, run, other, allow_other_judge=True).outcome == "pass"


# ---- against a baseline -----------------------------------------------------------------------------


def test_the_paired_difference_is_scipys(tmp_path):
    generator = np.random.default_rng(1)
    common = generator.normal(1.0, 0.5, size=80)
    tokens = generator.integers(20, 60, size=80).astype(float)
    sides = [(common + generator.normal(shift, 0.1, 80)) * tokens for shift in (0.02, 0.0)]
    folders = [write_run(tmp_path / str(i), {"sae": side}, tokens=tokens) for i, side in enumerate(sides)]
    files = [folder / "observations" / "downstream.parquet" for folder in folders]
    rows = [observed_rows(file, METRIC, "{}")["sae"] for file in files]
    found = paired_difference(*rows, functional="ratio")

    def statistic(a, b, n, axis=-1):
        return a.sum(axis) / n.sum(axis) - b.sum(axis) / n.sum(axis)

    oracle = stats.bootstrap(
        (*sides, tokens),
        statistic,
        paired=True,
        n_resamples=4000,
        vectorized=True,
        rng=2,
        method="percentile",
    )
    assert found.value == pytest.approx(statistic(*sides, tokens))
    assert found.error_high == pytest.approx(oracle.standard_error, rel=0.08)
    assert found.n == 80


def test_groups_are_weighted_and_need_not_be_in_every_resample(tmp_path):
    import polars as pl

    from autointerp.records import observation_frame

    files = []
    for place, shift in enumerate((0.0, 0.5)):
        frame = observation_frame(
            checkpoint="sae",
            metric="m.m",
            unit=[f"u{i}" for i in range(12)],
            group=["a"] * 4 + ["b"] * 8,
            group_weight=[1.0] * 4 + [3.0] * 8,
            cluster=[f"u{i}" for i in range(12)],
            numerator=np.arange(12.0) + shift,
        )
        frame.write_parquet(tmp_path / f"{place}.parquet")
        files.append(tmp_path / f"{place}.parquet")
    rows = [observed_rows(file, "m.m", "{}")["sae"] for file in files]
    found = paired_difference(*rows, functional="mean_of_group_ratios")
    assert found.value == pytest.approx(-0.5)
    assert found.error_high == pytest.approx(0.0, abs=1e-12), "a constant shift has no uncertainty"
    assert pl.read_parquet(files[0]).height == 12


def test_fewer_than_five_documents_are_not_paired(tmp_path):
    folder = write_run(tmp_path / "run", {"sae": np.ones(4)})
    rows = observed_rows(folder / "observations" / "downstream.parquet", METRIC, "{}")["sae"]
    assert "only 4" in paired_difference(rows, rows, functional="ratio")


def test_pairing_decides_what_independent_samples_could_not(tmp_path):
    generator = np.random.default_rng(3)
    hard = generator.normal(1.0, 1.0, size=60)
    mine = write_run(tmp_path / "mine", {"sae": hard + generator.normal(0, 0.01, 60)})
    theirs = write_run(tmp_path / "theirs", {"sae": hard})
    policy = Policy("p", (rule("no_worse_than", margin=0.02),))
    assert decide(policy, read_evidence(mine), read_evidence(theirs)).outcome == "pass"
    for folder in (mine, theirs):
        (folder / "observations" / "downstream.parquet").unlink()
    alone = decide(policy, read_evidence(mine), read_evidence(theirs))
    assert alone.outcome == "undecided"
    assert "independent" in alone.checks[0].check.statement


def test_a_checkpoint_of_another_name_is_its_counterpart_only_where_there_is_one_each():
    policy = Policy("p", (rule("no_worse_than", margin=1.0),))
    one = evidence([result("new")], names=("new",))
    assert decide(policy, one, evidence([result("old")], names=("old",))).outcome == "pass"
    two = evidence([result("a"), result("b")], names=("a", "b"))
    assert decide(policy, one, two).outcome == "fail"


def test_false_alarms_of_a_a_comparisons_keep_the_stated_rate(tmp_path):
    """1,000 pairs of samples of the same checkpoint, two rules each: failures within 5 % + 2 binomial SE."""
    generator = np.random.default_rng(4)
    failures, runs = 0, 1000
    policy = Policy(
        "p", (rule(name="a", kind="no_worse_than"), rule(name="b", kind="no_worse_than", metric="m"))
    )
    for _ in range(runs):
        sides = []
        for _ in range(2):
            drawn = [generator.exponential(1.0, size=40) for _ in range(2)]
            rows = [
                result(metric=metric, value=float(x.mean()), half=stats.t.ppf(0.975, 39) * stats.sem(x), n=40)
                for metric, x in zip((METRIC, "m"), drawn, strict=True)
            ]
            sides.append(evidence(rows))
        failures += decide(policy, *sides).outcome == "fail"
    assert failures / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    assert failures > 0, "a gate that never fails would pass this too"


def test_false_alarms_when_pairing(tmp_path):
    import polars as pl

    generator = np.random.default_rng(5)
    failures, runs = 0, 300
    policy = Policy("p", (rule("no_worse_than"),))
    folders = [write_run(tmp_path / name, {"sae": np.ones(25)}) for name in ("mine", "theirs")]
    files = [folder / "observations" / "downstream.parquet" for folder in folders]
    frames = [pl.read_parquet(file) for file in files]
    for _ in range(runs):
        common = generator.exponential(1.0, size=25)
        for file, frame in zip(files, frames, strict=True):
            noisy = common + generator.normal(0, 0.2, 25)
            frame.with_columns(numerator=pl.Series(noisy)).write_parquet(file)
        failures += decide(policy, *(read_evidence(folder) for folder in folders)).outcome == "fail"
    assert failures / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


# ---- bad input --------------------------------------------------------------------------------------

GOOD = {"name": "r", "reason": "because", "metric": METRIC, "at_most": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"name": "p"}, "no \\[\\[rules\\]\\]"),
        ({"name": "p", "rules": []}, "no \\[\\[rules\\]\\]"),
        ({"rules": [GOOD]}, "lacks `name`"),
        ({"name": "p", "rule": [GOOD]}, "unknown key `rule`, nearest: rules"),
        ({"name": "p", "level": 95, "rules": [GOOD]}, "level"),
        ({"name": "p", "rules": [GOOD | {"at_mots": 1}]}, "at_mots"),
        ({"name": "p", "rules": [GOOD | {"at_least": 1}]}, "at_most and at_least"),
        ({"name": "p", "rules": [GOOD | {"at_most": float("nan")}]}, "finite"),
        ({"name": "p", "rules": [GOOD | {"at_most": True}]}, "finite"),
        ({"name": "p", "rules": [{k: v for k, v in GOOD.items() if k != "reason"}]}, "reason"),
        ({"name": "p", "rules": [GOOD, GOOD]}, "two rules"),
        ({"name": "p", "rules": [GOOD | {"coverage": "scorable_fraction"}]}, "make two rules"),
        ({"name": "p", "rules": [{"name": "r", "reason": "b", "same": ["colour"]}]}, "corpus"),
        ({"name": "p", "rules": ["x"]}, "no table"),
    ],
)
def test_a_policy_that_cannot_be_meant_so_is_refused(content, said):
    with pytest.raises(PolicyError, match=said):
        policy_from_mapping(content)


def test_a_rule_about_a_baseline_needs_one():
    with pytest.raises(PolicyError, match="--baseline"):
        verdict([rule("no_worse_than")], evidence([result()]))


def test_a_pattern_that_names_nothing_is_refused():
    with pytest.raises(PolicyError, match="no checkpoint"):
        verdict([at_most(1)], evidence([result()]), checkpoints=("other*",))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema_version": 1}', "\ud800".encode("utf-8", "surrogatepass")]
)
def test_a_damaged_report_is_refused(text, tmp_path):
    file = tmp_path / "report.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunStoreError):
        read_evidence(tmp_path)


def test_another_schema_version_is_refused(tmp_path):
    import json

    (tmp_path / "report.json").write_text(json.dumps(report([]) | {"schema_version": 2}))
    with pytest.raises(RunStoreError, match="schema version 2"):
        read_evidence(tmp_path)


def test_the_shipped_policy_is_sound_and_read_from_disk(tmp_path):
    shipped = Path(__file__).parents[2] / "benchmarks" / "policies" / "release.toml"
    policy = load_policy(shipped)
    assert len(policy.rules) >= 4
    assert not policy.needs_baseline
    run = write_run(tmp_path / "run", {"sae": np.linspace(0, 0.1, 50)})
    assert gate(run, shipped).outcome == "fail", "it has no reconstruction and no null"
