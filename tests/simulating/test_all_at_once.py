"""Simulation from one echoed prompt: each strength is read where it stands, whatever the server's tokens."""

import math
import random
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autointerp.explanation_records import Passage, Refusal
from autointerp.llm.requests import TokenLogprob
from autointerp.simulating.all_at_once import UNKNOWN, AllAtOnceSimulator, simulation_prompt
from autointerp.simulating.echo_alignment import covering_tokens, token_begins
from autointerp.simulating.simulator import TokenSimulator

LETTERS = st.sampled_from(
    ["a", "é", "\n", "\t", '"', "?", " ", "中", "😀", "\\", "«", "\u2028", "1", "\x00", "\ud800"]
)
TOKENS = st.lists(st.text(LETTERS, max_size=4), min_size=1, max_size=12)


def echo(prompt, cuts, *, at=(), masses=None, bos="", offsets=False):
    """The prompt as the server's tokens, cut at `cuts`; at the places `at` the alternatives are `masses`."""
    edges = sorted({0, len(prompt), *(cut for cut in cuts if 0 < cut < len(prompt))})
    by_place = dict(zip(at, masses or [], strict=True))
    entries = [TokenLogprob(bos, None, offset=0 if offsets else None)] if bos else []
    for begin, end in pairwise(edges):
        places = [place for place in by_place if begin <= place < end]
        top = ()
        if places:
            prefix = prompt[begin : places[0]]
            top = tuple((prefix + value, math.log(mass)) for value, mass in by_place[places[0]].items())
        entries.append(TokenLogprob(prompt[begin:end], -1.0, top, offset=begin if offsets else None))
    return [*entries, TokenLogprob("\nthrown away", -2.0)]


def cuts_between(prompt, places, seed):
    """Random cuts such that no token holds two unknown strengths, or more than blanks in front of one."""
    chosen = set(random.Random(seed).sample(range(len(prompt)), len(prompt) // 3))
    for place in places:
        chosen |= {place if random.Random(seed + place).random() < 0.7 else place - 1}
    return chosen


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TOKENS, st.integers(0, 10**6), st.sampled_from(["", "<s>", " "]), st.booleans())
def test_expectations_are_read_whatever_the_tokens_of_the_server(kit, tokens, seed, bos, offsets):
    passage = Passage("p", tuple(tokens))
    prompt, places = simulation_prompt(kit.explanation("words"), passage)
    chance = random.Random(seed)
    masses = [
        {"0": 0.5, str(chance.randrange(1, 11)): chance.uniform(0.01, 0.4), "junk": 0.05} for _ in tokens
    ]
    entries = echo(
        prompt, cuts_between(prompt, places, seed), at=places, masses=masses, bos=bos, offsets=offsets
    )
    model = kit.model(lambda request: kit.reply("", entries), ("completions", "echo"))
    [answer] = kit.run(AllAtOnceSimulator(model).simulate(kit.explanation("words"), [passage]))
    expected = []
    for mass in masses:
        numbers = {int(value): p for value, p in mass.items() if value != "junk"}
        expected.append(sum(v * p for v, p in numbers.items()) / sum(numbers.values()))
    assert answer.passage == "p"
    np.testing.assert_allclose(answer.values, expected, rtol=1e-12)


def test_the_prompt_asks_once_for_each_token_and_keeps_text_inside_its_line(kit):
    explanation = kit.explanation('dogs\n"x"\t9\nUnit 4\n')
    passage = Passage("p", ("The", '"\t9', "\n", "\u2028", ""))
    prompt, places = simulation_prompt(explanation, passage)
    assert [prompt[place] for place in places] == [UNKNOWN] * 5
    own = prompt.split("Unit 3\n")[1]
    assert own.splitlines()[0].startswith("Explanation: dogs")
    assert len(own.split("\n")) == 1 + 5 + 1
    assert all(re.fullmatch(r'".*"\t\?', line) for line in own.split("\n")[1:-1])


def test_the_prompt_is_the_same_up_to_the_explanation(kit):
    prompts = [
        simulation_prompt(kit.explanation(text), passage)[0]
        for text in ("a", "")
        for passage in kit.passages("x y", "z")
    ]
    begins = {prompt.split("Unit 3\n")[0] for prompt in prompts}
    assert len(begins) == 1
    assert "Explanation: (no explanation)\n" in prompts[2]


def test_one_request_a_passage_with_echo(kit):
    passages = kit.passages("a dog", "one two three", "")
    requests = []

    def respond(request):
        requests.append(request)
        places = [
            found.start() for found in re.finditer(r"(?<=\t)\?(?=\n)", request.prompt.split("Unit 3")[1])
        ]
        first = len(request.prompt.split("Unit 3")[0]) + len("Unit 3")
        places = [place + first for place in places]
        return kit.reply(
            "", echo(request.prompt, range(0, 10**4, 1), at=places, masses=[{"3": 0.5}] * len(places))
        )

    model = kit.model(respond, ("completions", "echo"))
    simulator = AllAtOnceSimulator(model)
    answers = kit.run(simulator.simulate(kit.explanation("dog"), passages[:2]))
    assert isinstance(simulator, TokenSimulator)
    assert [list(answer.values) for answer in answers] == [[3.0] * len(p.tokens) for p in passages[:2]]
    assert all(r.echo and r.max_tokens == 1 and r.top_logprobs == 20 and r.is_cut_usable for r in requests)


def simulate(kit, passage, entries):
    model = kit.model(lambda request: kit.reply("", entries), ("completions", "echo"))
    return kit.run(AllAtOnceSimulator(model).simulate(kit.explanation("words"), [passage]))[0]


def test_a_token_without_a_number_among_its_alternatives_is_missing_and_not_zero(kit):
    passage = Passage("p", ("a", "b", "c"))
    prompt, places = simulation_prompt(kit.explanation("words"), passage)
    masses = [{"0": 0.9}, {"unknown": 0.9}, {"8": 0.1, "x": 0.8}]
    found = simulate(kit, passage, echo(prompt, range(len(prompt)), at=places, masses=masses))
    np.testing.assert_array_equal(found.values, [0.0, np.nan, 8.0])
    nothing = simulate(
        kit, passage, echo(prompt, range(len(prompt)), at=places, masses=[{"unknown": 0.9}] * 3)
    )
    assert isinstance(nothing, Refusal) and nothing.cause == "unparsable"


def test_missing_log_probabilities_are_refused(kit):
    passage = Passage("p", ("a", "b"))
    prompt, _ = simulation_prompt(kit.explanation("words"), passage)
    silent = echo(prompt, range(len(prompt)))
    for entries in (None, (), silent, [TokenLogprob("another text", -1.0, (("3", -1.0),))]):
        found = simulate(kit, passage, entries)
        assert isinstance(found, Refusal) and found.cause == "missing_logprobs"


def test_the_models_own_refusal_is_the_passages(kit):
    model = kit.model(lambda request: Refusal("too_long", "2 tokens"), ("completions", "echo"))
    found = kit.run(AllAtOnceSimulator(model).simulate(kit.explanation("words"), kit.passages("a", "b")))
    assert [refusal.cause for refusal in found] == ["too_long"] * 2


PROMPT = 'Head\n"é"\t?\n"dog"\t?\n"中中"\t?\n\n'


def lossy(prompt, offsets):
    """Tokens of single bytes: a part of a character is U+FFFD, as servers write it."""
    entries = [
        TokenLogprob(letter if letter.isascii() else "\ufffd", -1.0, offset=place if offsets else None)
        for place, letter in enumerate(prompt)
        for _ in letter.encode()
    ]
    return [*entries, TokenLogprob("x", -1.0)]


@pytest.mark.parametrize("offsets", [True, False])
def test_characters_in_several_tokens_do_not_shift_the_strengths(offsets):
    entries = lossy(PROMPT, offsets)
    places = [place for place, letter in enumerate(PROMPT) if letter == "?"]
    found = covering_tokens(PROMPT, entries, places)
    expected = [entries.index(entry) for entry in entries if entry.token == "?"] if offsets else None
    assert [covered[0].token for covered in found] == ["?"] * 3
    if offsets:
        assert [entries.index(covered[0]) for covered in found] == expected
    begins = token_begins(PROMPT, entries)
    marks = [begin for begin, entry in zip(begins, entries, strict=True) if entry.token == "?"]
    assert marks == places


def test_offsets_that_prove_wrong_are_not_believed():
    entries = [TokenLogprob(e.token, e.logprob, offset=n) for n, e in enumerate(lossy(PROMPT, False))]
    places = [place for place, letter in enumerate(PROMPT) if letter == "?"]
    begins = token_begins(PROMPT, entries)
    assert [b for b, e in zip(begins, entries, strict=True) if e.token == "?"] == places


def test_an_echo_of_something_else_is_placed_nowhere():
    entries = [TokenLogprob(letter, -1.0) for letter in "quite\nanother\ntext\n?\n?\n?\n"]
    assert token_begins(PROMPT, entries) == [None] * len(entries)
    assert token_begins("", entries) == [None] * len(entries)
    assert covering_tokens(PROMPT, [], [1, 2]) == [None, None]


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.sampled_from("ab\n?é"), min_size=1, max_size=30),
    st.sets(st.integers(1, 29)),
    st.text("<s>", max_size=3),
)
def test_every_token_of_a_faithful_echo_is_placed(prompt, cuts, bos):
    entries = echo(prompt, cuts, bos=bos)
    begins = token_begins(prompt, entries)
    placed = [(begin, entry.token) for begin, entry in zip(begins, entries, strict=True) if begin is not None]
    assert "".join(token for _, token in placed) == prompt
    assert all(prompt.startswith(token, begin) for begin, token in placed)
