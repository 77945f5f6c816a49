"""What would decide an undecided rule, in dollars or tokens, against closed forms."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from gate_runs import evidence, result
from scipy import stats

from autointerp.gating.junit import junit_xml
from autointerp.gating.policy import Policy, Rule
from autointerp.gating.verdict import decide, verdict_json
from autointerp.gating.words import markdown, verdict_lines

METRIC = "explanation.detection_auroc"
MEANING = {"metric": METRIC, "sampled": "latent", "functional": "ratio", "unit": "AUROC", "better": "higher"}


def spent(*, latents=50, tokens=200_000, usd=5.0, metric=METRIC):
    """A run that explained and judged 50 latents for 200,000 tokens and 5 dollars."""
    needed = {"calls": 100, "prompt_tokens": tokens * 9 // 10, "completion_tokens": tokens // 10}
    many = {key: value * 1_000_000 // latents for key, value in needed.items()} | {"latents": 1_000_000}
    if usd is not None:
        needed["usd"], many["usd"] = usd, usd / latents * 1_000_000
    row = {"model": "m", "role": "judge", "metric": metric, "calls": 100, "from_cache_calls": 0}
    return {"llm": {"rows": [row], "needed": needed, "per_million_latents": many}}


def scored(**other):
    return result(value=0.8, half=0.02, n=100) | MEANING | other


def found(run, rule=None, baseline=None):
    rule = rule or Rule("r", "because", "at_least", METRIC, limit=0.79, is_upper=False)
    return decide(Policy("p", (rule,)), run, baseline)


MORE = int(np.ceil(100 * (stats.norm.ppf(0.95) * 0.02 / stats.norm.ppf(0.975) / 0.01) ** 2)) - 100
"""The one-sided reach of 100 latents, over the distance to the limit, squared."""


def test_dollars_are_further_latents_times_the_price_of_one():
    verdict = found(evidence([scored()], cost=spent()))
    check = verdict.checks[0].check
    assert verdict.outcome == "undecided"
    assert MORE == 182
    assert f"about {MORE} more" in check.needed
    assert check.needed_usd == pytest.approx(MORE * 0.1)  # 5 dollars over 50 latents
    assert "about $18.20 more at this run's price per latent ($0.1, over 50 explained)" in check.needed
    said = json.loads(json.dumps(verdict_json(verdict)))["checks"][0]
    assert said["needed_usd"] == pytest.approx(18.2)
    assert "needed_tokens" not in said


def test_it_is_told_wherever_the_verdict_is():
    verdict = found(evidence([scored()], cost=spent()))
    assert any("$18.20" in line for line in verdict_lines(verdict))
    assert "18.20" in markdown(verdict)
    assert "$18.20" in ElementTree.fromstring(junit_xml(verdict)).find(".//error").text


@pytest.mark.parametrize("usd", [None, 0.0])
def test_tokens_are_told_where_there_is_no_price(usd):
    verdict = found(evidence([scored()], cost=spent(usd=usd)))
    said = verdict_json(verdict)["checks"][0]
    assert said["needed_tokens"] == MORE * 4000
    assert "needed_usd" not in said
    assert "about 728,000 tokens more at this run's use of 4,000 a latent" in said["needed"]


@pytest.mark.parametrize(
    "cost",
    [
        {},
        {"llm": {}},
        {"llm": []},
        spent(tokens=0, usd=0.0),
        spent(metric="explanation.fuzzing_auroc"),
        {"llm": {**spent()["llm"], "rows": [7]}},
        {"llm": {**spent()["llm"], "needed": {"prompt_tokens": float("nan"), "completion_tokens": -1}}},
        {"llm": {**spent()["llm"], "per_million_latents": {"prompt_tokens": "9", "latents": 10**400}}},
    ],
)
def test_nothing_is_said_where_no_llm_was_asked_for_the_number(cost):
    verdict = found(evidence([scored()], cost=cost))
    said = verdict_json(verdict)["checks"][0]
    assert f"about {MORE} more" in said["needed"]
    assert not {"needed_usd", "needed_tokens"} & set(said)
    assert "$" not in said["needed"]
    assert "token" not in said["needed"]


def test_a_number_that_an_llm_only_explained_is_priced_too():
    run = evidence(
        [scored()],
        cost=spent(metric="explaining.highlighted"),
        explanations={"explainers": ["highlighted", "token_statistics"]},
    )
    assert found(run).checks[0].check.needed_usd == pytest.approx(18.2)
    other = Rule("r", "b", "at_least", METRIC, {"explainer": "token_statistics"}, limit=0.79, is_upper=False)
    row = scored(slice={"explainer": "token_statistics"})
    free = evidence(
        [row], cost=spent(metric="explaining.highlighted"), explanations=run.report["explanations"]
    )
    assert found(free, other).checks[0].check.needed_usd is None


def test_metrics_of_documents_have_no_price():
    rule = Rule("r", "b", "at_most", "downstream.delta_ce_nats", limit=0.105)
    verdict = found(evidence([result()], cost=spent()), rule)
    assert verdict.outcome == "undecided"
    assert verdict.checks[0].check.needed_usd is None


def test_against_a_baseline_both_runs_need_more():
    rule = Rule("r", "b", "no_worse_than", METRIC, margin=0.01)
    run = evidence([scored()], cost=spent())
    check = found(run, rule, evidence([scored()], cost=spent())).checks[0].check
    error = np.hypot(0.02, 0.02) / stats.norm.ppf(0.975)
    more = int(np.ceil(100 * (stats.norm.ppf(0.95) * error / 0.01) ** 2)) - 100
    assert check.needed_usd == pytest.approx(2 * more * 0.1)
    assert "in each of the two runs" in check.needed


def test_what_is_met_costs_nothing():
    rule = Rule("r", "because", "at_least", METRIC, limit=0.5, is_upper=False)
    said = verdict_json(found(evidence([scored()], cost=spent()), rule))["checks"][0]
    assert not {"needed", "needed_usd", "needed_tokens"} & set(said)


def test_of_latents_that_are_all_counted_only_text_can_be_more():
    row = result(value=0.08, half=0.05, n=500) | {"sampled": "latent", "functional": "unseen_fraction"}
    check = found(evidence([row]), Rule("r", "b", "at_most", row["metric"], limit=0.1)).checks[0].check
    assert check.needed == "more text: all its latents are counted already"
