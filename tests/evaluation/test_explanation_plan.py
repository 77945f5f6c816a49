"""What a run explains and tests by default, who is asked, and what is refused before anything is spent."""

import pytest
from explaining_a_dictionary import OracleModel, suite_of

from autointerp.errors import EndpointError, SuiteError
from autointerp.evaluation.explanations import tools
from autointerp.evaluation.explanations.plan import (
    Plan,
    has_llm,
    plan_of,
    publishable_llm,
    refuse_lacking,
    roles_of,
    same_explanations,
)
from autointerp.explaining.highlighted import Highlighted

ONE = {"model": "m"}


def test_without_a_model_counts_explain_and_counts_test():
    plan = plan_of(suite_of())
    assert plan == Plan(("token_statistics",), ("token_table",))
    assert not plan.asks_llm
    assert roles_of(plan) == ()


def test_with_a_model_it_explains_first_and_judges():
    plan = plan_of(suite_of(llm=ONE))
    assert plan.explainers == ("highlighted", "token_statistics")
    assert plan.methods == ("token_table", "detection", "fuzzing")
    assert plan.asks_llm
    assert roles_of(plan) == ("explainer", "judge")


def test_what_the_suite_names_is_taken_in_its_order_and_once():
    section = {"explainers": ["contrastive", "highlighted", "contrastive"], "methods": ["fuzzing", "fuzzing"]}
    plan = plan_of(suite_of(section, ONE))
    assert plan == Plan(("contrastive", "highlighted"), ("fuzzing",))


@pytest.mark.parametrize("role", ["explainer", "simulator", "judge"])
def test_a_model_of_one_role_is_a_model(role):
    assert has_llm(suite_of(llm={role: {"model": "m"}}).llm)
    assert not has_llm(suite_of(llm={role: {"temperature": 1.0}}).llm)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"explainers": ["token_statistics", "contrastive"]}, "'contrastive'"),
        ({"methods": ["token_table", "simulation"]}, "'simulation'"),
        ({"methods": ["intruder"]}, "'intruder'"),
    ],
)
def test_what_needs_a_model_is_refused_in_one_line_where_none_is_named(section, named):
    with pytest.raises(SuiteError) as caught:
        plan_of(suite_of(section))
    line = str(caught.value)
    assert named in line and "llm.model" in line and "\n" not in line
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("method", ["token_table", "embedding"])
def test_tests_that_ask_nobody_need_no_model(method):
    assert not plan_of(suite_of({"methods": [method]})).asks_llm


@pytest.mark.parametrize(
    ("explainers", "methods", "roles"),
    [
        (["highlighted"], ["simulation"], ("explainer", "simulator")),
        (["token_statistics"], ["detection"], ("judge",)),
        (["token_statistics"], ["simulation", "fuzzing"], ("simulator", "judge")),
        (["token_statistics"], ["generation"], ("explainer",)),  # who explains also writes the texts
        (["highlighted"], ["embedding"], ("explainer",)),
    ],
)
def test_only_roles_that_are_asked_are_opened(explainers, methods, roles):
    plan = plan_of(suite_of({"explainers": explainers, "methods": methods}, ONE))
    assert roles_of(plan) == roles


def test_tables_test_counts_and_judges_test_what_an_llm_wrote():
    both = plan_of(suite_of(llm=ONE))
    assert both.tests("highlighted") == ("detection", "fuzzing")
    assert both.tests("token_statistics") == ("token_table",)


def test_a_judge_tests_counts_where_no_explainer_asks_an_llm():
    plan = plan_of(suite_of({"explainers": ["token_statistics"]}, ONE))
    assert plan.tests("token_statistics") == ("token_table", "detection", "fuzzing")


def test_an_explainer_that_lacks_what_it_needs_is_refused_before_it_is_asked():
    model = OracleModel("explainer")
    refuse_lacking([Highlighted(model)], model)
    refuse_lacking([Highlighted(model)], None)
    model.capabilities = frozenset({"completions"})
    with pytest.raises(EndpointError) as caught:
        refuse_lacking([Highlighted(model)], model)
    line = str(caught.value)
    assert "highlighted needs chat" in line and "oracle" in line and "\n" not in line
    assert model.requests == []


@pytest.mark.parametrize(
    ("methods", "names"),
    [(["surprisal"], "surprisal"), (["simulation"], "all_at_once"), (["detection"], "detection")],
)
def test_a_test_that_lacks_what_it_needs_is_refused_before_it_is_asked(methods, names):
    suite = suite_of({"methods": methods, "simulation": "all_at_once"}, ONE)
    model = OracleModel()
    model.capabilities = frozenset()
    roles = {"judge": model, "simulator": model, "explainer": model}
    with pytest.raises(EndpointError) as caught:
        tools.testers_of(plan_of(suite), suite.explanations, suite.llm, roles, seed=0, running=None)
    assert names in str(caught.value) and "\n" not in str(caught.value)
    assert model.requests == []


def test_prompt_versions_of_all_that_asks_an_llm_and_of_nothing_else():
    suite = suite_of(
        {"methods": ["token_table", "detection", "simulation", "generation", "steering", "embedding"]}, ONE
    )
    found = tools.prompt_versions(plan_of(suite), suite.explanations)
    assert set(found) == {"detection", "simulation", "generation", "steering"}
    assert " or " in found["simulation"], "which of the two it is shows at the endpoint"
    structured = suite_of({"methods": ["simulation"], "simulation": "structured"}, ONE)
    assert " or " not in tools.prompt_versions(plan_of(structured), structured.explanations)["simulation"]


def dumped(suite):
    """As a report has it."""
    return publishable_llm(suite.model_dump(mode="json", exclude_none=True, include={"explanations", "llm"}))


@pytest.mark.parametrize(
    "llm",
    [
        {"budget_usd": 3.0},
        {"budget_tokens": 5},
        {"offline": True},
        {"batch": True},
        {"attempts": 2},
        {"concurrency": 3},
        {"timeout_seconds": 5},
        {"api_key_env": "OTHER"},
        {"prices": {"m": {"input": 1, "output": 2}}},
        {"requests_per_minute": 5, "tokens_per_minute": 9},
    ],
)
def test_how_answers_are_come_by_does_not_make_other_explanations(llm):
    assert same_explanations(dumped(suite_of(llm=ONE)), suite_of(llm=ONE | llm))


@pytest.mark.parametrize(
    ("explanations", "llm"),
    [
        ({}, {"model": "other"}),
        ({}, {"temperature": 0.5}),
        ({}, {"seed": 7}),
        ({}, {"unreadable_attempts": 1}),
        ({}, {"base_url": "http://localhost:8000/v1"}),
        ({}, {"judge": {"model": "other"}}),
        ({"judged_examples": 3}, {}),
        ({"explainers": ["contrastive"]}, {}),
        ({"null_latents": 3}, {}),
        ({"latent_count": 3}, {}),
    ],
)
def test_what_answers_are_makes_other_explanations(explanations, llm):
    assert not same_explanations(dumped(suite_of(llm=ONE)), suite_of(explanations, ONE | llm))


def test_a_report_from_before_there_were_explanations_is_another():
    assert not same_explanations({}, suite_of())


def test_a_local_model_is_published_by_its_folders_name_and_is_the_same_from_anywhere():
    suite = suite_of(
        llm={"base_url": "local", "model": "/home/me/models/tiny", "judge": {"model": "/else/big"}}
    )
    published = dumped(suite)
    assert published["llm"]["model"] == "tiny"
    assert published["llm"]["judge"]["model"] == "big"
    assert same_explanations(published, suite)
    named = dumped(suite_of(llm={"model": "owner/name"}))
    assert named["llm"]["model"] == "owner/name"
