"""Choosing among candidates, and correcting by counter-examples, with a planted latent."""

import asyncio

import pytest
from explaining_doubles import ScriptedModel, evidence_of, example

from autointerp.errors import SuiteError
from autointerp.explaining.best_of import BestOf
from autointerp.explaining.catalogue import make_explainers
from autointerp.explaining.highlighted import Highlighted
from autointerp.explaining.revise import Revise
from autointerp.explanation_records import Explanation, Refusal
from autointerp.explanation_sections import ExplanationSection, LlmSection

EVIDENCE = evidence_of(
    example(["a", " red", " ship"], [0, 5, 0]), example(["the", " red", " sea"], [0, 3, 0])
)


def scored_by(scores):
    asked = []

    async def score(explanation):
        asked.append(explanation.text)
        return scores[explanation.text]

    return score, asked


def best_of(replies, scores, count=None):
    answers = iter(replies)
    model = ScriptedModel(lambda request: next(answers))
    score, asked = scored_by(scores)
    explainer = BestOf(Highlighted(model), score, count=count or len(replies))
    return asyncio.run(explainer.explain(EVIDENCE)), model.requests, asked


def test_the_best_candidate_is_kept_and_all_are_told():
    said = [f"Explanation: {text}" for text in ("ships", "the colour red", "seas")]
    found, requests, _ = best_of(said, {"ships": 0.2, "the colour red": 0.9, "seas": None})
    assert found.text == "the colour red"
    assert found.details["candidates"] == [
        {"text": "ships", "score": 0.2}, {"text": "the colour red", "score": 0.9}, {"text": "seas"},
    ]  # fmt: skip
    assert found.prompt_version.endswith("+best_of-3")
    assert {request.temperature for request in requests} == {1.0}
    assert len({request.replicate for request in requests}) == 3


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.5, 0.5, 0.5], 0),
        ([0.1, 0.5, 0.5], 1),
        ([None, -0.5, -0.9], 1),
        ([None, None, None], 0),
        ([float("nan"), 0.0, float("nan")], 1),
    ],
)
def test_ties_go_to_the_first_and_no_score_is_worse_than_any(scores, best):
    texts = ["alpha", "beta", "gamma"]
    found, _, _ = best_of([f"Explanation: {text}" for text in texts], dict(zip(texts, scores, strict=True)))
    assert found.text == texts[best]


def test_equal_candidates_are_scored_once():
    _, _, asked = best_of(["Explanation: ships"] * 4, {"ships": 1.0})
    assert asked == ["ships"]


def test_refused_candidates_are_told_and_only_all_together_refuse():
    found, _, _ = best_of([Refusal("content_filter"), "Explanation: ships"], {"ships": 0.0}, count=2)
    assert found.text == "ships"
    assert found.details["candidates"][0] == {"refusal": "content_filter", "detail": ""}
    found, _, _ = best_of([Refusal("content_filter", "first"), Refusal("failed_request")], {}, count=2)
    assert found == Refusal("content_filter", "first")


def test_without_examples_nothing_is_asked():
    model = ScriptedModel(lambda request: "Explanation: x y")
    score, _ = scored_by({})
    found = asyncio.run(BestOf(Highlighted(model), score, count=3).explain(evidence_of()))
    assert found.cause == "no_explanation" and model.requests == []


class RedUnit:
    """Fires on ` red` and nothing else; measures texts of words."""

    def __init__(self):
        self.texts = []

    async def __call__(self, evidence, texts):
        assert evidence is EVIDENCE
        self.texts += texts
        found = []
        for text in texts:
            tokens = [f" {word}" for word in text.split()]
            activations = [4.0 * (token == " red") for token in tokens]
            found.append(example(tokens, activations, sampler="uniform", focus=0))
        return found


def reviser(proposal, corrected="Explanation: the colour red", **options):
    """First says `ships`; a proposal for it; a correction that must rest on the counter-examples."""

    def respond(request):
        system, user = request.messages[0].text, request.messages[-1].text
        if system.startswith("Somebody says"):
            said = user.removeprefix("It is said to fire on: ")
            return proposal(said)
        if system.startswith("You correct"):
            return corrected if isinstance(corrected, str) else corrected(user)
        return "Explanation: ships"

    model, unit = ScriptedModel(respond), RedUnit()
    explainer = Revise(Highlighted(model), unit, **options)
    return asyncio.run(explainer.explain(EVIDENCE)), model.requests, unit


def proposals(said):
    if said == "ships":
        return "Here you are:\n+ the ship sails\n+ 1. a red ship\n- a red rose\n- the blue sea\nDone."
    return "+ a red rose\n- a blue rose"


def test_a_wrong_sentence_is_corrected_by_what_the_latent_did():
    def corrected(user):
        assert "The sentence: ships" in user
        lines = user.split("The sentence: ships\n\n")[1].split("\n")
        assert lines[:4] == [
            "+1.  the ship sails", "+2.  a« red» ship | 8", "-1.  a« red» rose | 8", "-2.  the blue sea",
        ]  # fmt: skip
        return "Explanation: the colour red"

    found, _, unit = reviser(proposals, corrected, rounds=3)
    assert found.text == "the colour red"
    first, second = found.details["revisions"]
    assert first["is_kept"] and first["text"] == "ships" and first["revised"] == "the colour red"
    assert [(row["should_fire"], row["fires"]) for row in first["texts"]] == [
        (True, False), (True, True), (False, True), (False, False),
    ]  # fmt: skip
    assert "revised" not in second, "nothing was left to correct"
    assert unit.texts[4:] == ["a red rose", "a blue rose"]
    assert found.prompt_version == "highlighted-1+revise-1"


@pytest.mark.parametrize(
    ("scores", "kept"),
    [({"ships": 0.4, "the colour red": 0.9}, True), ({"ships": 0.9, "the colour red": 0.4}, False)],
)
def test_with_a_score_the_better_sentence_stands(scores, kept):
    score, _ = scored_by(scores)
    found, _, _ = reviser(proposals, score=score)
    assert (found.text == "the colour red") == kept
    (row,) = found.details["revisions"]
    assert row["is_kept"] == kept
    assert (row["score"], row["revised_score"]) == (scores["ships"], scores["the colour red"])


def test_a_sentence_without_counter_example_is_left_alone():
    found, requests, _ = reviser(lambda said: "+ red and red\n- blue", rounds=5)
    assert found.text == "ships"
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("proposal", "corrected", "cause"),
    [
        (lambda said: "no texts today\nnone", "", "unparsable"),
        (lambda said: Refusal("content_filter"), "", "content_filter"),
        (proposals, "two\nlines", "unparsable"),
    ],
)
def test_a_step_that_refuses_leaves_the_sentence_before_it(proposal, corrected, cause):
    found, _, _ = reviser(proposal, corrected)
    assert isinstance(found, Explanation) and found.text == "ships"
    assert found.details["revisions"][-1]["refusal"] == cause


def test_a_flood_of_proposals_is_bounded():
    _, _, unit = reviser(lambda said: "\n".join(f"+ {'word ' * 500}{n}\n- text {n}" for n in range(500)))
    assert len(unit.texts) <= 10
    assert max(len(text) for text in unit.texts) <= 300


def test_the_suite_joins_them_and_says_what_is_missing():
    model = ScriptedModel(lambda request: "Explanation: ships")
    score, _ = scored_by({"ships": 0.1})
    section = ExplanationSection(explainers=("highlighted",), best_of=2, revisions=1)
    with pytest.raises(SuiteError, match="best_of"):
        make_explainers(section, {"explainer": model})
    with pytest.raises(SuiteError, match="revisions"):
        make_explainers(section, {"explainer": model}, score=score)
    (made,) = make_explainers(
        section, {"explainer": model}, llm=LlmSection(temperature=0.7), score=score, measure=RedUnit()
    )
    found = asyncio.run(made.explain(EVIDENCE))
    assert found.prompt_version == "highlighted-1+best_of-2+revise-1"
    assert len(found.details["candidates"]) == 2 and len(found.details["revisions"]) == 1
    assert {request.temperature for request in model.requests[:2]} == {0.7}
    with pytest.raises(SuiteError, match=r"llm\.model"):
        make_explainers(section, {})
