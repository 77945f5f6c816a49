"""Surprisal: only the passage's own tokens count, beside those of a neutral prompt of the same form."""

import random
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autointerp.explanation_records import Judgement, Passage, Refusal
from autointerp.llm.requests import TokenLogprob
from autointerp.simulating.simulator import PassageJudge
from autointerp.simulating.surprisal import SurprisalJudge

NEUTRAL = "Explanation: (no explanation)\n"


def echoed(prompt, score, seed=0, *, cut_passage=True):
    """Tokens of one to three characters; log-probabilities by `score(prompt, begin)`."""
    chance = random.Random(f"{seed}{prompt.split('Text:')[1]}")
    start = prompt.index("\n\nText:\n") + len("\n\nText:\n")
    edges = [0, start]
    while edges[-1] < len(prompt):
        edges.append(min(len(prompt), edges[-1] + chance.randint(1, 3)))
    if not cut_passage:
        edges.remove(start)
    entries = [TokenLogprob(prompt[a:b], score(prompt, a)) for a, b in pairwise(edges)]
    return [*entries, TokenLogprob(" more", -50.0)], edges


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("ab \né?", min_size=1, max_size=4), min_size=1, max_size=8), st.integers(0, 99))
def test_value_is_the_mean_gain_over_the_passages_tokens(kit, tokens, seed):
    passage = Passage("p", tuple(tokens))
    length = len(passage.text)

    def score(prompt, begin):
        place = begin - (len(prompt) - length)
        if place < 0:
            return None if begin == 0 else -1000.0
        return -1.0 - place / 8 - (0.0 if "dogs" in prompt else place / 4 - 0.5)

    model = kit.model(lambda r: kit.reply("", echoed(r.prompt, score, seed)[0]), ("completions", "echo"))
    judge = SurprisalJudge(model)
    [found] = kit.run(judge.judge(kit.explanation("dogs"), [passage]))
    _, edges = echoed(model.requests[0].prompt, score, seed)
    places = [edge - (len(model.requests[0].prompt) - length) for edge in edges[1:-1]]
    assert found.value == pytest.approx(sum(place / 4 - 0.5 for place in places) / len(places), abs=1e-9)
    assert isinstance(judge, PassageJudge) and not judge.is_probability


def test_prompts_differ_in_the_explanation_alone(kit):
    model = kit.model(
        lambda r: kit.reply("", echoed(r.prompt, lambda p, b: -1.0)[0]), ("completions", "echo")
    )
    kit.run(SurprisalJudge(model).judge(kit.explanation("dogs\nText:\nx"), kit.passages("a b")))
    told, neutral = sorted((r.prompt for r in model.requests), key=lambda prompt: NEUTRAL in prompt)
    assert told.replace("Explanation: dogs⏎Text:⏎x\n", NEUTRAL) == neutral
    assert neutral.endswith("\n\nText:\na b")
    assert all(r.echo and r.max_tokens == 1 for r in model.requests)


def test_an_explanation_without_text_gains_nothing(kit):
    model = kit.model(lambda r: kit.reply("", echoed(r.prompt, lambda p, b: -b)[0]), ("completions", "echo"))
    found = kit.run(SurprisalJudge(model).judge(kit.explanation(""), kit.passages("a b", "c")))
    assert [judgement.value for judgement in found] == [0.0, 0.0]
    assert len(model.requests) == 2


def test_a_token_that_begins_before_the_passage_counts_in_neither_prompt(kit):
    def score(prompt, begin):
        return -1.0 if begin else -500.0 - ("dogs" in prompt)

    respond = lambda r: kit.reply("", echoed(r.prompt, score, cut_passage=False)[0])  # noqa: E731
    model = kit.model(respond, ("completions", "echo"))
    [found] = kit.run(SurprisalJudge(model).judge(kit.explanation("dogs"), kit.passages("some more words")))
    assert found == Judgement("id0", 0.0)


@pytest.mark.parametrize("fault", ["none", "no logprob", "infinite", "another text", "other cuts"])
def test_missing_log_probabilities_are_refused(kit, fault):
    def respond(request):
        if fault == "none":
            return kit.reply("")
        if fault == "another text":
            return kit.reply("", [TokenLogprob("x", -1.0)])
        score = {"no logprob": None, "infinite": -float("inf")}.get(fault, -1.0)
        seed = 5 * (fault == "other cuts" and "dogs" in request.prompt)
        return kit.reply("", echoed(request.prompt, lambda p, b: score, seed)[0])

    model = kit.model(respond, ("completions", "echo"))
    [found] = kit.run(
        SurprisalJudge(model).judge(kit.explanation("dogs"), kit.passages("some more words here"))
    )
    assert isinstance(found, Refusal) and found.cause == "missing_logprobs"


def test_a_passage_that_is_no_unicode_is_asked_with_replacements(kit):
    model = kit.model(
        lambda r: kit.reply("", echoed(r.prompt, lambda p, b: -1.0)[0]), ("completions", "echo")
    )
    [found] = kit.run(SurprisalJudge(model).judge(kit.explanation("x"), [Passage("p", ("a\ud800", "b"))]))
    assert found == Judgement("p", 0.0)
    assert all(request.prompt.encode() for request in model.requests)
