"""What the LLM will be asked is counted right: as many calls as a run makes, as many bytes as it sends."""

import asyncio

import pytest
from explaining_a_dictionary import models, planted_cases, suite_of

from autointerp.evaluation.explanations.dictionary import ExplainedDictionary
from autointerp.evaluation.explanations.estimating import CountingModel, cost_words, planned_calls
from autointerp.evaluation.explanations.plan import plan_of
from autointerp.explanation_records import Refusal
from autointerp.llm.cost_plan import CostRange
from autointerp.llm.language_model import LanguageModel
from autointerp.llm.requests import Message, Reply, Request, request_key

LATENTS = range(3)
METHODS = ["detection", "fuzzing", "simulation", "intruder"]
DETECTION = ("judge", "explanation.detection_auroc")


@pytest.fixture(scope="module")
def cases():
    return planted_cases(LATENTS)


def asked(cases, players, explanations=None, *, nulls=LATENTS):
    """Explain and test all the cases with these models."""
    given = {"methods": METHODS, "judged_examples": 4, "passages_per_prompt": 5} | (explanations or {})
    suite = suite_of(given, {"model": "m"})
    dictionary = ExplainedDictionary(
        suite, plan_of(suite), cases, players, running=None, null_latents=frozenset(nulls),
        advance=lambda _: None,
    )  # fmt: skip
    return asyncio.run(dictionary.ask())


def counted(cases, explanations=None, **options):
    """Calls by (role, metric) as estimated."""
    counting = {role: CountingModel(model) for role, model in models().items()}
    asked(cases, counting, explanations, **options)
    return {(row.role, row.metric): row.calls for row in planned_calls(counting, factor=1.0)}


def made(cases, explanations=None, **options):
    """Calls by (role, metric) that the oracle gets; the same question counts once, as answers are kept."""
    players = models()
    asked(cases, players, explanations, **options)
    found = {}
    for model in players.values():
        unique = {request_key("local", "oracle", request): request for request in model.requests}
        for request in unique.values():
            account = (model.identity.role, request.metric)
            found[account] = found.get(account, 0) + 1
    return found


@pytest.mark.parametrize(
    "explanations",
    [{}, {"calibration": "linear"}, {"nulls": []}, {"explainers": ["token_statistics"]}],
    ids=str,
)
def test_as_many_calls_are_planned_as_are_made(cases, explanations):
    assert counted(cases, explanations) == made(cases, explanations)


def test_every_candidate_is_planned_to_be_tested(cases):
    one, two, three = (made(cases, {"best_of": count})[DETECTION] for count in (1, 2, 3))
    assert one < two == three, "the oracle always says the same, and equal candidates are tested once"
    assert counted(cases, {"best_of": 3})[DETECTION] == one + 3 * (two - one)


def test_nulls_are_counted_for_null_latents_only(cases):
    all_of_them, one, none = (counted(cases, nulls=nulls)[DETECTION] for nulls in (LATENTS, [1], []))
    assert none < one < all_of_them
    assert counted(cases, nulls=[1]) == made(cases, nulls=[1])


def test_the_bytes_are_those_that_are_sent(cases):
    counting = {role: CountingModel(model) for role, model in models().items()}
    asked(cases, counting)
    players = models()
    asked(cases, players)
    for row in planned_calls(counting, factor=1.0):
        sent = [request for request in players[row.role].requests if request.metric == row.metric]
        unique = {request_key("local", "oracle", request): request for request in sent}.values()
        real = sum(len("".join(m.text for m in request.messages).encode()) for request in unique)
        assert row.calls * row.prompt_bytes == pytest.approx(real, rel=0.15), row.metric
        low, high = row.completion_tokens
        assert 0 < low <= high
        assert 0 < row.shared_bytes < row.prompt_bytes


def test_nothing_is_sent(cases):
    players = models()
    asked(cases, {role: CountingModel(model) for role, model in players.items()})
    assert all(model.requests == [] for model in players.values())


def test_it_stands_for_a_model_with_its_abilities_and_refuses_all_but_explanations():
    judge, explainer = (CountingModel(models()[role]) for role in ("judge", "explainer"))
    assert isinstance(judge, LanguageModel)
    assert judge.capabilities == frozenset({"chat"})
    request = Request((Message("user", "?"),), metric="explaining.highlighted")
    said = [asyncio.run(explainer.ask(request)) for _ in range(2)]
    assert all(isinstance(each, Reply) for each in said) and said[0].text != said[1].text
    assert isinstance(asyncio.run(judge.ask(request)), Refusal)
    writing = Request((Message("user", "?"),), metric="explanation.generation_auroc")
    assert isinstance(asyncio.run(explainer.ask(writing)), Refusal)


def test_a_question_that_several_ask_is_planned_once_and_scaled():
    counting = CountingModel(models()["judge"])
    for text in ("a", "b\ud800", "a"):
        asyncio.run(counting.ask(Request((Message("system", "s"), Message("user", text)), metric="x")))
    (row,) = planned_calls({"judge": counting}, factor=10.0)
    assert (row.model, row.role, row.metric, row.calls) == ("oracle", "judge", "x", 20)
    assert row.prompt_bytes == (2 + 5) / 2
    assert row.shared_bytes == 1
    assert row.completion_tokens == (8, 256)


def test_a_reply_is_never_planned_shorter_than_it_may_be():
    counting = CountingModel(models()["judge"])
    asyncio.run(counting.ask(Request(prompt="p", max_tokens=1, echo=True)))
    (row,) = planned_calls({"judge": counting}, factor=1.0)
    assert row.completion_tokens == (1, 1)
    assert (row.prompt_bytes, row.shared_bytes) == (1, 0)


def test_nothing_asked_is_nothing_planned():
    assert planned_calls({"judge": CountingModel(models()["judge"])}, factor=3.0) == []


def test_the_words_say_tokens_and_dollars_where_there_is_a_price():
    assert cost_words(None) == ""
    assert cost_words(CostRange(5, (1_200_000, 3_400_000), None)) == " (about 1.2 to 3.4 million tokens)"
    assert cost_words(CostRange(5, (1_200_000, 3_400_000), (0.311, 0.949))).endswith(", 0.31 to 0.95 USD)")
    assert cost_words(CostRange(0, (0, 0), (0.0, 0.0))) == " (about 0 to 0 million tokens, 0.00 to 0.00 USD)"
