"""The catalogue names every simulator and judge, makes it, and says what an endpoint lacks."""

import pytest

from autointerp.errors import EndpointError
from autointerp.explanation_records import Passage
from autointerp.simulating.catalogue import (
    JUDGE_NAMES,
    SIMULATOR_NAMES,
    make_intruder_judge,
    make_judge,
    make_simulator,
    simulator_for,
)
from autointerp.simulating.embedding import EmbeddingJudge
from autointerp.simulating.intruder import IntruderJudge, intruder_trial
from autointerp.simulating.simulator import PassageJudge, TokenSimulator

FIRING = Passage("p", (" a", " b"), (1,))
ALL = ("chat", "completions", "logprobs", "top_logprobs", "echo")


class Encoder:
    def encode(self, texts):
        raise NotImplementedError


@pytest.mark.parametrize("name", SIMULATOR_NAMES)
def test_every_simulator_is_made_and_is_what_its_entry_says(kit, name):
    entry = SIMULATOR_NAMES[name]
    made = make_simulator(name, kit.model(str, ALL))
    assert isinstance(made, TokenSimulator)
    assert (made.name, made.needs, made.prompt_version) == (name, entry.needs, entry.prompt_version)
    assert bool(made.prompt_version) == bool(made.needs)


@pytest.mark.parametrize("name", JUDGE_NAMES)
def test_every_judge_is_made_and_is_what_its_entry_says(kit, name):
    entry, model = JUDGE_NAMES[name], kit.model(str, ALL)
    made = make_intruder_judge(model) if name == "intruder" else make_judge(name, model, encoder=Encoder())
    assert isinstance(made, PassageJudge | IntruderJudge)
    assert (made.name, made.needs, made.prompt_version) == (name, entry.needs, entry.prompt_version)
    assert made.is_probability == entry.is_probability


def test_a_table_answers_the_judges_questions(kit):
    for asks in ("detection", "fuzzing"):
        made = make_judge(f"token_table/{asks}")
        assert isinstance(made, PassageJudge) and made.name == "token_table" and made.is_probability
    assert isinstance(make_judge("embedding", encoder=Encoder()), EmbeddingJudge)


@pytest.mark.parametrize(
    "name", [name for name, entry in (SIMULATOR_NAMES | JUDGE_NAMES).items() if entry.needs]
)
def test_what_an_endpoint_lacks_is_said_before_anything_is_asked(kit, name):
    make = make_simulator if name in SIMULATOR_NAMES else make_judge
    make = (lambda _, model: make_intruder_judge(model)) if name == "intruder" else make
    model = kit.model(str, ())
    with pytest.raises(EndpointError, match=f"{name} needs .*; choose another"):
        make(name, model)
    assert not model.requests


def test_without_a_model_the_setting_is_named():
    with pytest.raises(EndpointError, match=r"set llm\.model"):
        make_judge("detection")


def test_auto_is_the_best_that_the_endpoint_can():
    assert simulator_for("auto", frozenset({"chat", "completions", "echo"})) == "all_at_once"
    assert simulator_for("auto", frozenset({"chat", "top_logprobs"})) == "structured"
    assert simulator_for("token_by_token", frozenset()) == "token_by_token"


def test_instructions_are_whole_sentences_and_examples_are_whole_turns(kit):
    model, explanation = kit.model(str, ALL), kit.explanation("x")
    trial, _ = intruder_trial("t", [FIRING], FIRING)
    requests = [
        make_judge("detection", model).request(explanation, [FIRING]),
        make_judge("fuzzing", model).request(explanation, [FIRING]),
        make_simulator("structured", model).request(explanation, FIRING),
        make_simulator("token_by_token", model).request(explanation, FIRING, 1),
        make_intruder_judge(model).request(trial),
    ]
    for request in requests:
        system, *turns = request.messages
        assert all(line.endswith(".") for line in system.text.split("\n"))
        assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]
