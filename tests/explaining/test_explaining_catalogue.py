"""The list of explainers, the suite's choice among them, and whether solved examples follow the rules."""

import re
from typing import get_args

import pytest
from explaining_doubles import ScriptedModel

from autointerp.errors import SuiteError
from autointerp.explaining.answers import read_explanation
from autointerp.explaining.catalogue import EXPLAINER_NAMES, explainer_names, make_explainers
from autointerp.explanation_records import Refusal
from autointerp.explanation_sections import ExplainerName, ExplanationSection

MODEL = ScriptedModel(lambda request: "Explanation: ships")
PROMPTED = tuple(name for name, entry in EXPLAINER_NAMES.items() if entry.needs_llm)


def test_the_suite_knows_the_same_names():
    assert set(EXPLAINER_NAMES) == set(get_args(ExplainerName))
    made = make_explainers(ExplanationSection(explainers=tuple(EXPLAINER_NAMES)), {"explainer": MODEL})
    assert [explainer.name for explainer in made] == list(EXPLAINER_NAMES)
    for explainer in made:
        needs_llm = EXPLAINER_NAMES[explainer.name].needs_llm
        assert (explainer.needs == {"chat"}) == needs_llm
        assert bool(explainer.prompt_version) == needs_llm


def test_the_default_depends_on_whether_there_is_a_model():
    section = ExplanationSection()
    assert explainer_names(section, has_llm=False) == ("token_statistics",)
    assert explainer_names(section, has_llm=True) == ("highlighted", "token_statistics")
    assert [made.name for made in make_explainers(section, {})] == ["token_statistics"]


def test_what_needs_a_model_says_so():
    section = ExplanationSection(explainers=("token_statistics", "contrastive"))
    with pytest.raises(SuiteError, match=r"contrastive asks a language model.*llm\.model"):
        make_explainers(section, {"judge": MODEL})


@pytest.mark.parametrize("name", PROMPTED)
@pytest.mark.parametrize("thinks", [False, True])
def test_solved_examples_are_answers_that_would_be_accepted(name, thinks):
    section = ExplanationSection(explainers=(name,), chain_of_thought=thinks)
    (explainer,) = make_explainers(section, {"explainer": MODEL})
    messages = explainer.prefix()
    roles = [message.role for message in messages]
    assert roles[0] == "system" and roles[1:] == ["user", "assistant"] * ((len(roles) - 1) // 2)
    for message in messages[2::2]:
        found = read_explanation(message.text, prompt=messages[0].text, needs_label=thinks)
        assert not isinstance(found, Refusal)
        assert len(found[0].split()) <= 30
    copied = read_explanation(messages[2].text, prompt="\n".join(each.text for each in messages[2::2]))
    assert isinstance(copied, Refusal), "a model that repeats the solved example has said nothing"


@pytest.mark.parametrize("name", ["highlighted", "contrastive", "input_output"])
def test_solved_excerpts_have_a_strength_for_each_highlight(name):
    (explainer,) = make_explainers(ExplanationSection(explainers=(name,)), {"explainer": MODEL})
    lines = [line for line in explainer.prefix()[1].text.split("\n") if "«" in line]
    assert lines
    for line in lines:
        text, _, behind = line.rpartition(" | ")
        assert len(re.findall("«[^»]+»", text)) == len(behind.split())
        assert re.fullmatch(r"(\d|10)([ +](\d|10))*", behind)
