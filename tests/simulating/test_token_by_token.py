"""One question a token: the expectation at the reply's only token, and never a number where there is none."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autointerp.explanation_records import Passage, Refusal
from autointerp.llm.requests import TokenLogprob
from autointerp.simulating.asking import AskOptions
from autointerp.simulating.simulator import TokenSimulator
from autointerp.simulating.token_by_token import TokenByTokenSimulator


def shown(request):
    explanation, lines = request.messages[-1].text.split("\n\nText:\n")
    return explanation.removeprefix("Explanation: "), [json.loads(line) for line in lines.split("\n")]


def simulator(kit, respond, **options):
    model = kit.model(respond, ("chat", "logprobs", "top_logprobs"))
    return TokenByTokenSimulator(model, AskOptions(**options)), model


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["dog", " a", "\n", '"', "?", "中"]), min_size=1, max_size=8))
def test_each_token_is_the_expectation_of_its_own_reply(kit, tokens):
    def respond(request):
        explanation, seen = shown(request)
        weight = 0.8 if explanation in seen[-1] else 0.1 / len(seen)
        return kit.reply(
            "0", [kit.entry("0", {"0": 1 - weight, " 9": weight / 2, "9": weight / 2, "x": 1e-4})]
        )

    method, model = simulator(kit, respond)
    [found] = kit.run(method.simulate(kit.explanation("dog"), [Passage("p", tuple(tokens))]))
    expected = [9 * (0.8 if token == "dog" else 0.1 / n) for n, token in enumerate(tokens, 1)]
    np.testing.assert_allclose(found.values, expected)
    assert [shown(request)[1] for request in model.requests] == [
        tokens[:n] for n in range(1, len(tokens) + 1)
    ]
    assert all(r.max_tokens == 1 and r.top_logprobs == 20 and r.is_cut_usable for r in model.requests)
    assert isinstance(method, TokenSimulator)


def test_passages_do_not_mix(kit):
    def respond(request):
        count = str(len(shown(request)[1]))
        return kit.reply(count, [kit.entry(count, {count: 1.0})])

    method, _ = simulator(kit, respond)
    passages = kit.passages("a b c", "d", "e f")
    found = kit.run(method.simulate(kit.explanation(""), passages))
    assert [(p.passage, list(p.values)) for p in found] == [("id0", [1, 2, 3]), ("id1", [1]), ("id2", [1, 2])]


@pytest.mark.parametrize(
    "logprobs", [None, (), (TokenLogprob("7", -0.1),)], ids=["none", "no tokens", "no alternatives"]
)
def test_missing_log_probabilities_are_refused_and_never_the_reply_itself(kit, logprobs):
    method, model = simulator(kit, lambda request: kit.reply("7", logprobs), attempts=2)
    [found] = kit.run(method.simulate(kit.explanation("x"), kit.passages("a b")))
    assert isinstance(found, Refusal) and found.cause == "missing_logprobs"
    assert len(model.requests) == 4


def test_tokens_without_a_number_or_without_a_reply_are_missing(kit):
    def respond(request):
        place = len(shown(request)[1])
        if place == 2:
            return Refusal("content_filter", "declined")
        top = {"the": 0.9} if place == 3 else {"5": 0.2}
        return (
            kit.reply("5", [kit.entry("5", top)]) if place != 3 else kit.reply("the", [kit.entry("the", top)])
        )

    method, _ = simulator(kit, respond)
    [found] = kit.run(method.simulate(kit.explanation("x"), kit.passages("a b c d")))
    np.testing.assert_array_equal(found.values, [5, np.nan, np.nan, 5])


def test_a_passage_of_which_nothing_is_known_is_refused(kit):
    method, _ = simulator(kit, lambda request: kit.reply("the", [kit.entry("the", {"the": 0.9})]))
    [found] = kit.run(method.simulate(kit.explanation("x"), kit.passages("a b")))
    assert isinstance(found, Refusal) and found.cause == "unparsable"
