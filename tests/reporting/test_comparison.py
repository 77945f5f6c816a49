import dataclasses

import pytest

from autointerp.records import Comparison, Estimate, Failed, Measured
from autointerp.reporting.comparison import against_nulls, find_comparison, lead_of, leads, statement

MSE = "reconstruction.normalized_mse"


@pytest.fixture
def definition(realistic):
    return next(d for d in realistic.definitions if d.name == MSE)


def _site(report):
    return report.checkpoints[0].site


def _with_p(report, p, *, one="topk-8k-k64", other="jumprelu-8k"):
    """The report with another adjusted p-value for one pair."""
    pair = {one, other}
    return dataclasses.replace(
        report,
        comparisons=[
            dataclasses.replace(c, adjusted_p_value=p)
            if {c.checkpoint, c.reference} == pair and c.metric == MSE
            else c
            for c in report.comparisons
        ],
    )


def test_a_significant_leader_is_best(realistic, definition):
    lead = lead_of(realistic, definition, _site(realistic))
    assert (lead.leader, lead.runner_up, lead.is_certain, lead.tied) == (
        "topk-8k-k64",
        "jumprelu-8k",
        True,
        (),
    )
    assert lead.standing_of("topk-8k-k64") == "best"
    assert lead.standing_of("jumprelu-8k") == ""


@pytest.mark.parametrize("p", [0.05, 0.4])
def test_a_leader_within_chance_of_the_runner_up_cannot_be_told_from_it(realistic, definition, p):
    report = _with_p(realistic, p)
    lead = lead_of(report, definition, _site(report))
    assert not lead.is_certain
    assert lead.standing_of("topk-8k-k64") == lead.standing_of("jumprelu-8k") == "cannot tell"
    assert lead.standing_of("relu-8k") == ""
    assert "cannot tell topk-8k-k64 from jumprelu-8k" in statement(lead, definition)


def test_a_leader_within_chance_of_a_third_one_is_not_best_either(realistic, definition):
    report = _with_p(realistic, 0.2, other="topk-2k-k16")
    lead = lead_of(report, definition, _site(report))
    assert (lead.is_certain, lead.tied) == (False, ("topk-2k-k16",))


@pytest.mark.parametrize("outcome", [None, Failed("broken")])
def test_without_a_measured_comparison_nothing_is_marked(realistic, definition, outcome):
    kept = [] if outcome is None else [dataclasses.replace(c, outcome=outcome) for c in realistic.comparisons]
    lead = lead_of(dataclasses.replace(realistic, comparisons=kept), definition, _site(realistic))
    assert not lead.is_certain
    assert {lead.standing_of(c.name) for c in realistic.checkpoints} == {""}
    assert "was not measured" in statement(lead, definition)


def test_a_null_never_leads(realistic, definition):
    flattered = [
        dataclasses.replace(r, outcome=_measured(0.001)) if r.checkpoint.startswith("random") else r
        for r in realistic.results
    ]
    report = dataclasses.replace(realistic, results=flattered)
    assert lead_of(report, definition, _site(report)).leader == "topk-8k-k64"


def _measured(value):
    return Measured(Estimate(value, value, value, 0.95, "m", 1, "document"))


def test_direction_decides_who_leads(realistic, definition):
    upwards = dataclasses.replace(definition, better="higher")
    assert lead_of(realistic, upwards, _site(realistic)).leader == "topk-2k-k16"
    neither = dataclasses.replace(definition, better="neither")
    assert lead_of(realistic, neither, _site(realistic)) is None


def test_checkpoints_at_different_sites_are_not_ranked_together(realistic, definition):
    moved = [
        dataclasses.replace(c, site="elsewhere") if c.name == "topk-8k-k64" else c
        for c in realistic.checkpoints
    ]
    report = dataclasses.replace(realistic, checkpoints=moved)
    assert lead_of(report, definition, _site(report)).leader == "jumprelu-8k"
    assert lead_of(report, definition, "elsewhere") is None


def test_the_difference_is_said_from_the_leaders_side(realistic, definition):
    swapped = [
        Comparison(
            c.reference, c.checkpoint, c.metric, c.slice, _negated(c.outcome), c.p_value, c.adjusted_p_value
        )
        for c in realistic.comparisons
    ]
    one = lead_of(realistic, definition, _site(realistic))
    other = lead_of(dataclasses.replace(realistic, comparisons=swapped), definition, _site(realistic))
    assert statement(one, definition) == statement(other, definition)
    assert "difference −0.0410 [" in statement(one, definition)


def _negated(outcome):
    if not isinstance(outcome, Measured):
        return outcome
    e = outcome.estimate
    return Measured(dataclasses.replace(e, value=-e.value, low=-e.high, high=-e.low))


def test_a_comparison_of_another_slice_is_not_taken_for_the_headline_one(realistic):
    moved = [dataclasses.replace(c, slice={"position": "0"}) for c in realistic.comparisons]
    report = dataclasses.replace(realistic, comparisons=moved)
    assert find_comparison(report, MSE, "topk-8k-k64", "jumprelu-8k") is None
    assert find_comparison(report, MSE, "topk-8k-k64", "jumprelu-8k", {"position": "0"}) is not None


def test_leads_follow_the_order_of_the_metrics(realistic):
    order = [d.name for d in realistic.definitions]
    found = [lead.metric for lead in leads(realistic)]
    assert found == sorted(found, key=order.index)
    assert "reconstruction.l0" not in found


def test_metrics_in_which_all_beat_the_null_are_named_together(realistic):
    sentences = against_nulls(realistic, realistic.definitions)
    assert sentences == ("Every checkpoint is better than every null in Normalised MSE, ΔCE.",)


def test_a_checkpoint_not_told_from_the_null_is_named(realistic):
    report = _with_p(realistic, 0.2, one="relu-8k", other="random-8k-k32")
    assert against_nulls(report, realistic.definitions) == (
        "Every checkpoint is better than every null in ΔCE.",
        "Normalised MSE: not shown to be better than a null: relu-8k (against random-8k-k32).",
    )


def test_a_checkpoint_significantly_worse_than_the_null_is_not_called_better(realistic, definition):
    upwards = dataclasses.replace(definition, better="higher")
    assert against_nulls(realistic, [upwards]) == (
        "Normalised MSE: no checkpoint is shown to be better than a null.",
    )


def test_nulls_are_said_nothing_of_without_comparisons_nulls_or_a_direction(realistic, definition):
    neither = dataclasses.replace(definition, better="neither")
    assert against_nulls(realistic, [neither]) == ()
    assert against_nulls(dataclasses.replace(realistic, comparisons=()), [definition]) == ()
    moved = [
        dataclasses.replace(c, site="elsewhere") if c.role == "null" else c for c in realistic.checkpoints
    ]
    assert against_nulls(dataclasses.replace(realistic, checkpoints=moved), [definition]) == ()
