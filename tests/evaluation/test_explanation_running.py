"""Tests that run the subject: the latents of planted words, on texts that a fake LLM wrote."""

import asyncio
from dataclasses import replace

import pytest
from explaining_a_dictionary import planted_case, right

from autointerp.evaluation.explanations import judging
from autointerp.evaluation.explanations.running import (
    RunningLatents,
    generated,
    needs_effects,
    steered,
    with_effects,
)
from autointerp.explaining.highlighting import shown
from autointerp.explanation_records import Refusal
from autointerp.llm.language_model import ModelIdentity
from autointerp.llm.requests import Reply, Usage
from autointerp.sampling.latent_meter import LatentMeter
from autointerp.sampling.latents.evidence import TestExamples
from autointerp.sampling.readings import Checkpoint
from autointerp.simulating.asking import AskOptions
from autointerp.simulating.generation import TextGenerator
from autointerp.simulating.steering import SteeringJudge
from autointerp.testing.planted_words import SITE, planted_words

SEVEN = 3


@pytest.fixture(scope="module")
def planted():
    return planted_words()


@pytest.fixture(scope="module")
def running(planted):
    checkpoint = Checkpoint("sae", planted.sae, SITE)
    return RunningLatents(LatentMeter(planted.subject, checkpoint))


@pytest.fixture(scope="module")
def case(planted):
    """As a run has it: the tokens' real ids, for effects run them."""

    def with_ids(example):
        ids = [
            planted.subject.tokenizer.encode(token, add_special_tokens=False)[0] for token in example.tokens
        ]
        return replace(example, token_ids=tuple(ids))

    found = planted_case(SEVEN, 4, 0, "sae")
    sides = {name: tuple(map(with_ids, rows)) for name, rows in found.evidence.examples.items()}
    return replace(found, evidence=replace(found.evidence, examples=sides))


class Writer:
    """Answers everything with one text, or with one refusal."""

    def __init__(self, answer, role="explainer"):
        self.answer, self.requests = answer, []
        self.identity, self.capabilities = ModelIdentity(role, "fake", "local"), frozenset({"chat"})

    async def ask(self, request):
        self.requests.append(request)
        answer = self.answer(request) if callable(self.answer) else self.answer
        return answer if isinstance(answer, Refusal) else Reply(answer, "fake", "", Usage(1, 1))


def about(case, explanation=None):
    return judging.Tested(case, "highlighted", "own", explanation or right(SEVEN))


def rows_of(case, running, answer, *, texts=2, explanation=None):
    writer = Writer(answer)
    generator = TextGenerator(writer, running.strengths, AskOptions(), texts=texts)
    return asyncio.run(generated(about(case, explanation), generator)), writer


def test_texts_with_the_word_fire_and_texts_without_do_not(case, running):
    rows, _ = rows_of(
        case, running, "+ the seven stones\n+ she took seven\n- the old stones\n- it was Monday"
    )
    assert [(row.fires, row.value == pytest.approx(1.0, abs=1e-5)) for row in rows] == [
        (True, True), (True, True), (False, False), (False, False),
    ]  # fmt: skip
    assert [row.value for row in rows[2:]] == [0.0, 0.0]
    assert {(row.method, row.sampler, row.status, row.latent) for row in rows} == {
        ("generation", "generated", "measured", SEVEN)
    }


def test_what_the_latent_does_decides_not_what_was_asked_for(case, running):
    rows, _ = rows_of(
        case, running, "+ the old stones\n+ it was Monday\n- the seven stones\n- she took seven"
    )
    assert [(row.fires, row.value > 0.5) for row in rows] == [
        (True, False), (True, False), (False, True), (False, True),
    ]  # fmt: skip


def test_the_writer_sees_the_explanation_alone(case, running):
    _, writer = rows_of(case, running, "+ seven\n- eight\n+ seven more\n- nine")
    (request,) = writer.requests
    assert request.messages[-1].text == 'Explanation: The word "seven"'


def test_texts_that_were_not_written_are_refused_and_every_row_has_its_own_passage(case, running):
    rows, _ = rows_of(case, running, "+ the seven stones\n- the old stones", texts=3)
    assert [(row.fires, row.status) for row in rows] == [
        (True, "measured"), (True, "refused"), (True, "refused"),
        (False, "measured"), (False, "refused"), (False, "refused"),
    ]  # fmt: skip
    assert {row.cause for row in rows} == {"", "unparsable"}
    assert len({row.passage for row in rows}) == len(rows)


def test_a_writer_that_declines_refuses_all(case, running):
    rows, _ = rows_of(case, running, Refusal("content_filter", "declined"))
    assert {(row.status, row.cause, row.value) for row in rows} == {("refused", "content_filter", None)}
    assert [row.fires for row in rows] == [True, True, False, False]


def test_without_an_explanation_nobody_writes(case, running):
    (row,), writer = rows_of(case, running, "+ a", explanation=Refusal("cut_off"))
    assert (row.status, row.cause, row.passage) == ("refused", "no_explanation", "")
    assert writer.requests == []


def test_half_surrogates_in_texts_are_run(case, running):
    rows, _ = rows_of(case, running, "+ seven \ud800\n- stones \udc00\n+ a\u2028seven\n- x\x00y")
    assert {row.status for row in rows} == {"measured"}
    assert rows[0].value > 0.5


def steering_rows(case, running, answer, *, prompts=3, examples=None, explanation=None):
    judge = Writer(answer, "judge")
    examples = case.score if examples is None else examples
    rows = asyncio.run(
        steered(
            about(case, explanation), SteeringJudge(judge), running, examples, prompts=prompts, strength=8.0
        )
    )
    return rows, judge


def continuations(request):
    return dict(
        line.split(": ", 1) for line in request.messages[-1].text.splitlines() if line[:3] in ("A: ", "B: ")
    )


def test_a_steered_text_is_judged_beside_the_truth(case, running):
    rows, judge = steering_rows(case, running, "A")
    assert [row.document for row in rows] == [example.document for example in case.score.of("silent")[:3]]
    assert len(judge.requests) == len({row.passage for row in rows}) == 3
    for row in rows:
        assert (row.method, row.sampler, row.status, row.value) == ("steering", "steered", "measured", 1.0)
        assert row.fires in (True, False)
    assert all(continuations(request)["A"] != continuations(request)["B"] for request in judge.requests)


def test_the_truth_is_which_text_was_made_with_the_latent_raised(case, running):
    rows, judge = steering_rows(case, running, "A")
    texts = ["".join(example.tokens) for example in case.score.of("silent")[:3]]
    plain = running._meter.steered(SEVEN, texts, strength=0.0, maximum=1.0)
    for row, request, text in zip(rows, judge.requests, plain, strict=True):
        assert (continuations(request)["A"] == shown(text.plain)) == (not row.fires)


def test_steering_refusals_keep_the_truth(case, running):
    told, _ = steering_rows(case, running, "A")
    rows, _ = steering_rows(case, running, Refusal("cut_off", "at its limit"))
    assert {(row.status, row.cause, row.value) for row in rows} == {("refused", "cut_off", None)}
    assert [row.fires for row in rows] == [row.fires for row in told]


def test_without_silent_text_there_is_nothing_to_continue(case, running):
    (row,), judge = steering_rows(case, running, "A", examples=TestExamples({}))
    assert (row.status, row.cause) == ("undefined", "no text to continue")
    assert judge.requests == []


def test_steering_without_an_explanation_asks_nobody(case, running):
    (row,), judge = steering_rows(case, running, "A", explanation=Refusal("empty"))
    assert (row.status, row.cause) == ("refused", "no_explanation")
    assert judge.requests == []


def test_effects_are_measured_on_the_explain_split_where_the_latent_fires(case, running):
    assert case.evidence.ablated == ()
    (found,) = with_effects({SEVEN: case}, running).values()
    assert found.evidence.ablated
    assert all(change < 0 for _, change in found.evidence.ablated)
    changes = [change for _, change in found.evidence.ablated]
    assert changes == sorted(changes)
    assert (found.score, found.sampling_weight) == (case.score, case.sampling_weight)


def test_where_it_never_fires_there_are_no_effects(case, running):
    silent = replace(
        case, evidence=replace(case.evidence, examples={"quantiles": case.evidence.examples["silent"]})
    )
    assert with_effects({SEVEN: silent}, running)[SEVEN].evidence.ablated == ()
    bare = replace(case, evidence=replace(case.evidence, examples={}))
    assert with_effects({SEVEN: bare}, running)[SEVEN].evidence.ablated == ()


def test_explainers_of_effects_say_so():
    assert needs_effects(["highlighted", "input_output"])
    assert needs_effects(["output_centric"])
    assert not needs_effects(["highlighted", "contrastive", "token_statistics"])


def test_examples_for_revisions_have_the_activations(case, running):
    (found,) = asyncio.run(running.examples(case.evidence, ["the seven stones"]))
    fired = [token.strip() for token, value in zip(found.tokens, found.activations, strict=True) if value]
    assert fired == ["seven"]


def test_one_call_runs_at_a_time(case, running):
    inside, most = 0, 0
    real = running._meter.activations

    def watched(*arguments):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            return real(*arguments)
        finally:
            inside -= 1

    async def many():
        return await asyncio.gather(*(running.strengths(right(SEVEN), ["seven"]) for _ in range(8)))

    running._meter.activations = watched
    try:
        found = asyncio.run(many())
    finally:
        del running._meter.activations
    assert most == 1
    assert len(found) == 8 and all(value[0] > 0.5 for value in found)
