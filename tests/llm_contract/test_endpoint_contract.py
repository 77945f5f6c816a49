"""What an endpoint was measured to do is true when it is used; what it was not is refused and not made up."""

import asyncio
import json
import math

import jsonschema
import pytest

from autointerp.errors import EndpointError
from autointerp.explanation_records import Explanation, Judgement, Passage, Refusal, TokenPrediction
from autointerp.llm.capabilities import CAPABILITIES
from autointerp.llm.open_models import check_endpoint, open_models
from autointerp.llm.requests import Message, Reply, Request
from autointerp.simulating.all_at_once import AllAtOnceSimulator
from autointerp.simulating.detection import DetectionJudge
from autointerp.simulating.echo_alignment import covering_tokens
from autointerp.simulating.fuzzing import FuzzingJudge
from autointerp.simulating.structured import StructuredSimulator

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "green"]}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"],
    "additionalProperties": False,
}
ODD = (
    'caf\u00e9 e\u0301 🜁 \u202eback\u202c \u200d \ufeff tab\t quote" back\\slash \ud7ff </s> <|endoftext|> %s'
)


def chat(text, **more):
    return Request(messages=(Message("system", "Be brief."), Message("user", text)), **more)


def play(endpoint, script):
    """Run `script(model)` with the endpoint's model; it is measured once, and what it answered is kept."""

    async def run():
        async with open_models(endpoint.section, endpoint.replies, roles=("judge",)) as models:
            return await script(models["judge"])

    return asyncio.run(run())


def ask(endpoint, *requests):
    async def script(model):
        return await asyncio.gather(*(model.ask(request) for request in requests))

    return play(endpoint, script)


@pytest.fixture(scope="module")
def capabilities(endpoint):
    async def script(model):
        return model.capabilities

    return play(endpoint, script)


def test_every_capability_is_measured_with_evidence(endpoint, capabilities):
    rows = {row["capability"]: row for row in asyncio.run(check_endpoint(endpoint.section, roles=("judge",)))}
    assert set(CAPABILITIES) <= set(rows)
    assert all(row["evidence"] for row in rows.values())
    assert {name for name in CAPABILITIES if rows[name]["given"] == "yes"} == capabilities


def test_the_servers_of_this_machine_do_what_they_are_known_to_do(endpoint, capabilities):
    known = {
        "tiny model": {"chat", "completions", "logprobs", "top_logprobs", "echo", "seed", "n"},
        "oracle": set(CAPABILITIES),
        "bare chat": {"chat", "seed"},
    }
    assert capabilities == known.get(endpoint.name, capabilities)


def test_a_chat_is_answered_and_counted(endpoint):
    (reply,) = ask(endpoint, chat("Say a word.", max_tokens=40, may_cut=True))
    assert isinstance(reply, Reply) and reply.text.strip() and reply.model
    assert reply.usage.prompt_tokens > 0 and 0 < reply.usage.completion_tokens <= 40
    assert not reply.usage.is_estimated


def test_a_reply_that_ends_at_its_limit_is_refused_unless_its_beginning_is_enough(endpoint):
    long = "Count from one to fifty, all in words."
    cut, kept = ask(endpoint, chat(long, max_tokens=1), chat(long, max_tokens=1, may_cut=True))
    if isinstance(cut, Reply):  # all that it had to say was one token
        assert cut.finish_reason != "length"
    else:
        assert cut.cause in ("cut_off", "empty")
    assert isinstance(kept, Reply) or kept.cause == "empty"


def test_log_probabilities_of_a_reply(endpoint, capabilities):
    rows = asyncio.run(check_endpoint(endpoint.section, roles=("judge",)))
    is_greedy = {row["capability"]: row["given"] for row in rows}["likeliest"] == "yes"
    (reply,) = ask(endpoint, chat("Say a word.", max_tokens=12, top_logprobs=5, may_cut=True))
    if "logprobs" not in capabilities:
        assert isinstance(reply, Refusal) and reply.cause == "missing_logprobs"
        return
    assert isinstance(reply, Reply) and reply.logprobs
    joined = "".join(entry.token for entry in reply.logprobs)
    assert "\ufffd" in joined or joined.strip().startswith(reply.text.strip())
    for entry in reply.logprobs:
        assert entry.logprob is not None and entry.logprob <= 0
        if "top_logprobs" in capabilities:
            assert entry.top and math.fsum(math.exp(logprob) for _, logprob in entry.top) < 1.001
            best = max(logprob for _, logprob in entry.top)
            assert entry.logprob <= best + 1e-6
            if is_greedy:  # else the server avoids repetitions and cannot be told not to
                assert entry.logprob == pytest.approx(best, abs=0.05)


def test_log_probabilities_of_a_prompt(endpoint, capabilities):
    prompt = "The quick brown fox jumps over the lazy dog.\nOne, two, three, four, five, six\n"
    asked = Request(prompt=prompt, echo=True, max_tokens=1, top_logprobs=5)
    if "completions" not in capabilities:
        with pytest.raises(EndpointError, match="measured to do no completions"):
            ask(endpoint, asked)
        return
    (reply,) = ask(endpoint, asked)
    if "echo" not in capabilities:
        assert isinstance(reply, Refusal) and reply.cause == "missing_logprobs"
        return
    assert isinstance(reply, Reply) and reply.logprobs
    covering = covering_tokens(prompt, reply.logprobs, range(len(prompt)))
    assert all(found is not None for found in covering)
    known = [entry for entry, _ in covering[1:] if entry.logprob is not None]
    assert all(entry.logprob <= 0 and entry.top for entry in known)
    assert len(known) >= len(prompt) - len(reply.logprobs[0].token) - 1


def test_a_prompt_is_scored_as_the_same_text_was_when_it_was_a_reply(endpoint, capabilities):
    if "echo" not in capabilities:
        return
    prompts = [
        "Days of the week: Monday, Tuesday, Wednesday, Thursday, Friday,",
        "user: hello\nassistant: ",
        "1 + 1 =",
    ]
    replies = ask(endpoint, *(Request(prompt=prompt, max_tokens=1, top_logprobs=5) for prompt in prompts))
    first = {prompt: told.logprobs[0] for prompt, told in zip(prompts, replies, strict=True) if told.logprobs}
    # A part of a character does not come back as the same token.
    whole = [prompt for prompt, token in first.items() if "\ufffd" not in token.token]
    echoes = [Request(prompt=p + first[p].token, echo=True, max_tokens=1, top_logprobs=5) for p in whole]
    compared = 0
    for prompt, again in zip(whole, ask(endpoint, *echoes), strict=True):
        ((found, before),) = covering_tokens(prompt + first[prompt].token, again.logprobs, [len(prompt)])
        if found.token == first[prompt].token and not before:  # else the text is cut into other tokens
            assert found.logprob == pytest.approx(first[prompt].logprob, abs=0.05)
            compared += 1
    assert compared or endpoint.name not in ("tiny model", "oracle")


def test_a_schema_is_obeyed(endpoint, capabilities):
    asked = chat("Reply as JSON: a colour and whether you are sure.", json_schema=SCHEMA, max_tokens=200)
    (reply,) = ask(endpoint, asked)
    if "json_schema" in capabilities:
        assert isinstance(reply, Reply)
        jsonschema.validate(json.loads(reply.text), SCHEMA)
    elif "json_object" in capabilities:
        assert isinstance(reply, Refusal) or isinstance(json.loads(reply.text), dict)


def test_a_seed_repeats_what_chance_brought(endpoint, capabilities):
    asked = [
        chat(
            "Write five random words.", temperature=1.0, seed=5, max_tokens=30, may_cut=True, replicate=number
        )
        for number in range(2)
    ]
    first, second = ask(endpoint, *asked)
    if "seed" in capabilities:
        assert isinstance(first, Reply) and isinstance(second, Reply) and first.text == second.text


def test_a_stop_is_not_in_the_reply(endpoint):
    (whole,) = ask(endpoint, chat("Say three words.", max_tokens=30, may_cut=True))
    assert isinstance(whole, Reply)
    letter = whole.text.strip()[-1]
    (cut,) = ask(endpoint, chat("Say three words.", max_tokens=30, may_cut=True, stop=(letter,)))
    if isinstance(cut, Reply):
        assert letter not in cut.text


def test_odd_characters_arrive_and_come_back(endpoint):
    replies = ask(
        endpoint, *(chat(f"Repeat: {part}", max_tokens=60, may_cut=True) for part in [ODD, *ODD.split()])
    )
    assert all(isinstance(reply, Reply) or reply.cause in ("empty", "content_filter") for reply in replies)


def test_what_was_answered_is_answered_offline(endpoint):
    asked = [chat(f"Say the number {number}.", max_tokens=20, may_cut=True) for number in range(3)]
    answers = ask(endpoint, *asked)

    async def replay():
        section = endpoint.section.model_copy(update={"offline": True})
        async with open_models(section, endpoint.replies, roles=("judge",)) as models:
            return [await models["judge"].ask(request) for request in asked]

    assert asyncio.run(replay()) == list(answers)


PASSAGES = [
    Passage("a", ("the", " red", " fox", " ran"), marked=(1,)),
    Passage("b", ("a", " quiet", " house", "\n", "stood"), marked=(2,)),
    Passage("c", (" in", " red", " and", " blue", " 🜁"), marked=(0, 3)),
]


@pytest.mark.parametrize("method", [DetectionJudge, FuzzingJudge, StructuredSimulator, AllAtOnceSimulator])
def test_every_method_whose_needs_are_met_gets_an_answer_or_a_stated_refusal(endpoint, capabilities, method):
    if not method.needs <= capabilities:
        return
    said = Explanation("any", 0, "highlighted", 'The word "red"')

    async def script(model):
        asked = method(model)
        answer = asked.judge if hasattr(asked, "judge") else asked.simulate
        return await answer(said, PASSAGES)

    answers = play(endpoint, script)
    assert len(answers) == len(PASSAGES)
    for passage, answer in zip(PASSAGES, answers, strict=True):
        assert isinstance(answer, Judgement | TokenPrediction | Refusal)
        if isinstance(answer, Refusal):
            assert answer.cause in ("unparsable", "empty", "cut_off", "missing_logprobs") and answer.detail
            assert endpoint.name != "oracle"
        elif isinstance(answer, TokenPrediction):
            assert answer.values.shape == (len(passage.tokens),)
