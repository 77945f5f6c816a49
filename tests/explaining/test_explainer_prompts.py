"""What the explainers that ask an LLM send, in which order, and what they make of a reply."""

import asyncio

import pytest
from explaining_doubles import ScriptedModel, evidence_of, example, shuffled

from autointerp.explaining.catalogue import EXPLAINER_NAMES, make_explainers
from autointerp.explaining.explainer import Explainer
from autointerp.explaining.token_activation_pairs import pair_lines
from autointerp.explanation_records import Explanation, Refusal
from autointerp.explanation_sections import ExplanationSection, LlmSection
from autointerp.llm.requests import Reply, Usage

PROMPTED = [name for name, entry in EXPLAINER_NAMES.items() if entry.needs_llm]
EFFECTS = {
    "promoted": ((" Monday", 3.0), ("\nFriday", 2.5)),
    "demoted": (("(", -2.0),),
    "ablated": ((' "quoted', -0.5),),
}


def rich_evidence(word="harbour", **effects):
    firing = [
        example([f"n{number}", f" {word}", " sea\n"], [0, 1 + number, 0], stratum=number % 5)
        for number in range(30)
    ]
    top = [example([f"t{n}", f" {word}"], [0, 20 + n], sampler="top") for n in range(9)]
    silent = [
        example([f"s{number}", f" {word}", " light"], [0, 0, 0], sampler=name, focus=1)
        for number in range(10)
        for name in ("same_token", "neighbours", "silent")
    ]
    return evidence_of(*firing, *top, *silent, **(effects or EFFECTS))


def explainer(name, model, **section):
    made = make_explainers(ExplanationSection(explainers=(name,), **section), {"explainer": model})
    assert len(made) == 1 and isinstance(made[0], Explainer)
    return made[0]


def explain(name, evidence, respond=lambda request: "Explanation: ships in harbours", **section):
    model = ScriptedModel(respond)
    return asyncio.run(explainer(name, model, **section).explain(evidence)), model.requests


@pytest.mark.parametrize("name", PROMPTED)
def test_a_reply_becomes_an_explanation_with_who_said_it(name):
    found, requests = explain(name, rich_evidence())
    assert isinstance(found, Explanation)
    assert (found.text, found.explainer, found.model, found.fingerprint) == (
        "ships in harbours", name, "scripted-1", "print",
    )  # fmt: skip
    assert (found.checkpoint, found.latent) == ("sae", 7)
    assert found.prompt_version.startswith(f"{name}-")
    assert len(requests) == 1 and requests[0].metric == f"explaining.{name}"


@pytest.mark.parametrize("name", PROMPTED)
@pytest.mark.parametrize("thinks", [False, True])
def test_all_before_the_data_is_the_same_for_every_latent(name, thinks):
    _, first = explain(
        name, rich_evidence("harbour"), lambda request: "Explanation: a b", chain_of_thought=thinks
    )
    _, other = explain(
        name,
        rich_evidence("zebra", promoted=((" z", 1.0),)),
        lambda request: "Explanation: a b",
        chain_of_thought=thinks,
    )
    assert first[0].messages[:-1] == other[0].messages[:-1]
    assert first[0].messages[-1] != other[0].messages[-1]
    assert "harbour" not in "".join(message.text for message in first[0].messages[:-1])
    assert first[0].messages[-1].role == "user"


@pytest.mark.parametrize("name", PROMPTED)
def test_the_prompt_does_not_depend_on_the_order_of_examples(name):
    evidence = rich_evidence()
    _, first = explain(name, evidence)
    for seed in range(3):
        _, other = explain(name, shuffled(evidence, seed))
        assert first[0].messages == other[0].messages


@pytest.mark.parametrize("name", PROMPTED)
def test_nothing_to_show_is_a_refusal_and_costs_nothing(name):
    found, requests = explain(name, evidence_of())
    assert isinstance(found, Refusal) and found.cause == "no_explanation"
    assert requests == []
    silent = evidence_of(example(["a"], [0.0], sampler="silent"))
    assert isinstance(explain(name, silent)[0], Refusal)


@pytest.mark.parametrize("name", PROMPTED)
@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ("", "empty"),
        ("Explanation:   ", "empty"),
        ("I think\nit is about ships", "unparsable"),
        ("Explanation: " + "x" * 601, "unparsable"),
        ("I'm sorry, but I can't help with that.", "content_filter"),
        ("Explanation: Whatever they ask for, do not do it.", "unparsable"),
    ],
)
def test_a_reply_that_cannot_be_used_is_a_refusal(name, reply, cause):
    found, requests = explain(name, rich_evidence(), lambda request: reply)
    assert isinstance(found, Refusal) and found.cause == cause
    assert len(requests) == (1 if cause == "content_filter" else 2)
    assert len({request.replicate for request in requests}) == len(requests)


def test_the_second_try_may_succeed():
    answers = iter(["no idea\nat all", "Explanation: ships"])
    found, requests = explain("highlighted", rich_evidence(), lambda request: next(answers))
    assert found.text == "ships" and len(requests) == 2


@pytest.mark.parametrize("cause", ["content_filter", "failed_request", "cut_off"])
def test_a_models_refusal_is_passed_on(cause):
    found, _ = explain("highlighted", rich_evidence(), lambda request: Refusal(cause, "because"))
    assert found == Refusal(cause, "because")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Explanation: ships in harbours\n\nThe unit fires on ships because", "ships in harbours"),
        ("Explanation: ships in harbours and", "cut_off"),
        ("", "cut_off"),
        ("\n\n", "cut_off"),
        ("Ships\nin harbours\nand on", "unparsable"),
    ],
)
def test_a_reply_that_is_cut_counts_up_to_its_last_whole_line(text, found):
    cut = Reply(text, "scripted-1", "print", Usage(1, 1), finish_reason="length")
    said, requests = explain("highlighted", rich_evidence(), lambda request: cut)
    assert found == (said.cause if isinstance(said, Refusal) else said.text)
    assert all(request.is_cut_usable for request in requests)


def test_thoughts_are_kept_apart():
    reply = "They are all ships.\nThat is it.\n**Explanation:** Ships at sea."
    found, requests = explain("highlighted", rich_evidence(), lambda request: reply, chain_of_thought=True)
    assert found.text == "Ships at sea."
    assert found.details["thoughts"] == "They are all ships. That is it."
    plain, others = explain("highlighted", rich_evidence())
    assert "thoughts" not in plain.details
    assert requests[0].max_tokens > others[0].max_tokens
    assert "think aloud" in requests[0].messages[0].text
    assert "think aloud" not in others[0].messages[0].text


def test_settings_of_the_suite_reach_the_request():
    model = ScriptedModel(lambda request: "Explanation: ships")
    section = ExplanationSection(explainers=("highlighted",), explain_examples=3, passage_tokens=4)
    llm = LlmSection(temperature=0.2, explainer={"seed": 11}, unreadable_attempts=3)
    (made,) = make_explainers(section, {"explainer": model}, llm=llm)
    asyncio.run(made.explain(rich_evidence()))
    (request,) = model.requests
    assert (request.temperature, request.seed) == (0.2, 11)
    assert [line[:3] for line in request.messages[-1].text.split("\n")[:3]] == ["1. ", "2. ", "3. "]
    assert "4. " not in request.messages[-1].text


def test_contrastive_shows_both_kinds_and_highlights_one():
    _, requests = explain("contrastive", rich_evidence(), explain_examples=8)
    lines = requests[0].messages[-1].text.split("\n\n")[0].split("\n")
    assert [line.split(".")[0] for line in lines] == ["+1", "+2", "+3", "+4", "-1", "-2", "-3", "-4"]
    assert all("«" in line for line in lines[:4])
    assert not any("«" in line for line in lines[4:])
    alone = evidence_of(example(["a"], [1.0]))
    assert isinstance(explain("contrastive", alone)[0], Refusal)


def test_output_centric_shows_tokens_and_no_text():
    _, requests = explain("output_centric", rich_evidence())
    data = requests[0].messages[-1].text
    assert data.startswith('Raised: " Monday", "\\nFriday"\nLowered: "("\nLost: " \\"quoted"\n')
    assert "harbour" not in data


def test_joined_shows_both_or_what_there_is():
    _, requests = explain("input_output", rich_evidence())
    data = requests[0].messages[-1].text
    assert "« harbour»" in data and 'Raised: " Monday"' in data
    _, requests = explain("input_output", evidence_of(example(["a"], [1.0])))
    assert "Raised" not in requests[0].messages[-1].text
    _, requests = explain("input_output", evidence_of(**EFFECTS))
    assert "1." not in requests[0].messages[-1].text


def test_pairs_are_scaled_by_what_is_shown_and_repeated_where_sparse():
    dense = [example(["a", "b", "\n<end>\t9\n"], [4, 2, 0], sampler="top")]
    _, requests = explain("token_activation_pairs", evidence_of(*dense, example(["x"], [100.0])))
    data = requests[0].messages[-1].text
    assert data == "<start>\na\t10\nb\t5\n⏎<end>⇥9⏎\t0\n<end>"
    sparse = example(["a", *["."] * 9], [4, *[0] * 9], sampler="top")
    _, requests = explain("token_activation_pairs", evidence_of(sparse))
    data = requests[0].messages[-1].text
    assert data.endswith("Only those above 0:\n<start>\na\t10\n<end>")


def test_a_pair_line_is_one_line_for_each_token():
    tokens = ["a\nb", "\t", "\r\n", "\u2028", "é", "\ufffd", ""]
    lines = pair_lines(tokens, range(7)).split("\n")
    assert [line.split("\t") for line in lines] == [
        ["a⏎b", "0"], ["⇥", "1"], ["⏎", "2"], ["⏎", "3"], ["é", "4"], ["\ufffd", "5"], ["", "6"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", PROMPTED)
def test_prompts_are_short(name):
    words = ["the", " old", " ship", " of", " the", " sea", " and", ".\n"] * 4
    rows = [
        example([*words, str(n)], [0] * 16 + [1 + n] + [0] * 16, stratum=n % 5, sampler=sampler)
        for n in range(20)
        for sampler in ("quantiles", "top")
    ]
    silent = [example([*words, str(n)], [0] * 33, sampler="silent", focus=16) for n in range(20)]
    _, requests = explain(name, evidence_of(*rows, *silent, **EFFECTS))
    prefix = "".join(message.text for message in requests[0].messages[:-1])
    assert len(prefix) / 4 < 450
    assert len(requests[0].messages[-1].text) / 4 < 750
