"""Intruder: the answer is kept apart from the question; what comes back is a distribution."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autointerp.explanation_records import Passage, Refusal
from autointerp.simulating.asking import AskOptions
from autointerp.simulating.intruder import IntruderAnswer, IntruderJudge, intruder_trial

FIRING = [Passage(f"f{n}", (f"w{n}", " dog", " ran"), (1,)) for n in range(4)]
INTRUDER = Passage("i", ("a", " house", " here"), (2,))


def lines(request):
    text = request.messages[-1].text
    assert text.startswith("Excerpts:\n")
    return [line.split(". ", 1)[1] for line in text.split("\n")[1:]]


def reader(request):
    shown = lines(request)
    return str(1 + next(n for n, line in enumerate(shown) if "« dog»" not in line))


def test_a_judge_that_sees_what_the_marks_share_finds_every_intruder(kit):
    trials, answers = zip(*(intruder_trial(f"t{n}", FIRING, INTRUDER) for n in range(20)), strict=True)
    found = kit.run(IntruderJudge(kit.model(reader)).find(trials))
    assert [answer.trial for answer in found] == [trial.id for trial in trials]
    for trial, place, answer in zip(trials, answers, found, strict=True):
        assert trial.passages[place] is INTRUDER
        assert answer.probabilities == tuple(float(n == place) for n in range(5))
    assert len(set(answers)) >= 4


def test_the_order_hangs_on_the_id_and_not_on_the_order_of_the_firing_passages():
    for n in range(5):
        shuffled = random.Random(n).sample(FIRING, 4)
        assert intruder_trial("t", shuffled, INTRUDER) == intruder_trial("t", FIRING, INTRUDER)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.floats(1e-6, 1), min_size=5, max_size=5),
    st.sampled_from(["{}", " {}", "Excerpt {}.", "**{}**"]),
)
def test_probabilities_are_those_of_the_numbers(kit, masses, layout):
    likeliest = str(1 + max(range(5), key=masses.__getitem__))
    before, behind = layout.split("{}")
    entries = [kit.entry(piece) for piece in kit.pieces(before) if piece != " "]
    prefix = " " if before.endswith(" ") else ""
    top = {prefix + str(n): mass for n, mass in enumerate(masses, 1)} | {"The": 0.01}
    entries += [kit.entry(prefix + likeliest, top), *(kit.entry(piece) for piece in kit.pieces(behind))]
    model = kit.model(lambda request: kit.reply(layout.format(likeliest), entries), ("chat", "top_logprobs"))
    trial, _ = intruder_trial("t", FIRING, INTRUDER)
    [found] = kit.run(IntruderJudge(model).find([trial]))
    assert found.probabilities == pytest.approx([mass / sum(masses) for mass in masses])
    assert model.requests[0].top_logprobs == 10


@pytest.mark.parametrize("reply", ["", "none of them", "0", "6", "1 or 2", "12", "-"])
def test_replies_that_are_not_one_number_are_refused(kit, reply):
    trial, _ = intruder_trial("t", FIRING, INTRUDER)
    model = kit.model(lambda request: reply)
    [found] = kit.run(IntruderJudge(model, AskOptions(attempts=2)).find([trial]))
    assert isinstance(found, Refusal) and found.cause == "unparsable"
    assert len(model.requests) == 2


def test_missing_log_probabilities_are_refused(kit):
    trial, _ = intruder_trial("t", FIRING, INTRUDER)
    for logprobs in (None, (), [kit.entry("3")], [kit.entry("2", {"2": 0.5})], [kit.entry("3", {"3x": 0.5})]):
        answer = kit.reply("3", logprobs)
        model = kit.model(lambda request, answer=answer: answer, ("chat", "top_logprobs"))
        [found] = kit.run(IntruderJudge(model).find([trial]))
        if logprobs and logprobs[0].token == "3" and logprobs[0].top:
            assert found == IntruderAnswer("t", (0.0, 0.0, 1.0, 0.0, 0.0))  # the token itself
        else:
            assert isinstance(found, Refusal) and found.cause == "missing_logprobs"


def test_no_trial_without_marks_or_of_too_many_passages(kit):
    bare = Passage("i", ("a",))
    trial, _ = intruder_trial("t", FIRING, bare)
    with pytest.raises(ValueError, match="marks"):
        kit.run(IntruderJudge(kit.model(reader)).find([trial]))
    with pytest.raises(ValueError, match="2 to 9"):
        intruder_trial("t", [], INTRUDER)
    with pytest.raises(ValueError, match="2 to 9"):
        intruder_trial("t", FIRING * 3, INTRUDER)
