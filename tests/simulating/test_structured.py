"""Whole numbers for numbered tokens: laid on ours however the model cut its echo, never filled with zeros."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from autointerp.explaining.highlighting import quoted
from autointerp.explanation_records import Passage, Refusal
from autointerp.simulating.asking import AskOptions
from autointerp.simulating.simulator import TokenSimulator
from autointerp.simulating.strength_lines import aligned_strengths, read_strength_lines
from autointerp.simulating.structured import StructuredSimulator

LETTERS = st.sampled_from(["a", "b", " ", "\n", ":", '"', "\\", "\t", "7", "中", "=", "|"])
TOKENS = st.lists(st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=12)


def written(pieces, strengths, *, first=1):
    return "\n".join(
        f"{n}:{quoted(p)}:{s}" for n, (p, s) in enumerate(zip(pieces, strengths, strict=True), first)
    )


def aligned(text, tokens):
    return aligned_strengths(read_strength_lines(text), tokens)


@given(TOKENS, st.data())
def test_a_faithful_echo_gives_every_token_its_strength(tokens, data):
    strengths = data.draw(st.lists(st.integers(0, 10), min_size=len(tokens), max_size=len(tokens)))
    values, found = aligned(written(tokens, strengths), tokens)
    assert found == len(tokens)
    np.testing.assert_array_equal(values, strengths)


@settings(max_examples=200)
@given(TOKENS, st.data())
def test_any_other_cut_of_the_same_text_is_aligned_exactly(tokens, data):
    text = "".join(tokens)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)))) - {len(text)})
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    strengths = data.draw(st.lists(st.integers(0, 10), min_size=len(pieces), max_size=len(pieces)))
    by_letter = [strength for piece, strength in zip(pieces, strengths, strict=True) for _ in piece]
    values, found = aligned(written(pieces, strengths), tokens)
    begin, expected = 0, []
    for token in tokens:
        expected.append(max(by_letter[begin : begin + len(token)]))
        begin += len(token)
    assert found == len(tokens)
    np.testing.assert_array_equal(values, expected)


@settings(max_examples=100)
@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=10), st.data())
def test_dropped_and_duplicated_lines_are_missing_and_never_zero(tokens, data):
    strengths = [place % 10 + 1 for place in range(len(tokens))]
    lines = written(tokens, strengths).split("\n")
    fate = data.draw(st.lists(st.sampled_from("kkkdt"), min_size=len(lines), max_size=len(lines)))
    assume(fate.count("k") > len(lines) / 2)
    reply = "\n".join(
        line for line, f in zip(lines, fate, strict=True) for _ in range({"k": 1, "d": 0, "t": 2}[f])
    )
    values, found = aligned(reply, tokens)
    assert found == fate.count("k")
    for value, strength, f in zip(values, strengths, fate, strict=True):
        assert value == strength if f == "k" else np.isnan(value)


def test_lines_in_another_order_count_by_their_number():
    tokens = ["a", " b", "\n", " b"]
    lines = written(tokens, [1, 2, 3, 4]).split("\n")
    values, _ = aligned("\n".join(reversed(lines)), tokens)
    np.testing.assert_array_equal(values, [1, 2, 3, 4])


def test_an_echo_with_a_token_left_out_and_numbered_anew_is_aligned_by_its_text():
    tokens = ["The", " quick", " brown", " fox", " jumped"]
    kept = [0, 2, 3, 4]
    values, found = aligned(written([tokens[k] for k in kept], [1, 3, 4, 5]), tokens)
    np.testing.assert_array_equal(values, [1, np.nan, 3, 4, 5])
    assert found == 4


def test_an_echo_with_a_changed_token_leaves_only_that_one_missing():
    tokens = ["if", " x", " ==", " 3", ":"]
    values, _ = aligned(written(["if", " y", " ==", " 3", ":"], [1, 2, 3, 4, 5]), tokens)
    np.testing.assert_array_equal(values, [1, np.nan, 3, 4, 5])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('1:"dog":7', 7),
        ("1: dog: 7", 7),
        ("1:dog:7", 7),
        ("1\tdog\t7", 7),
        ('1. "dog" = 7', 7),
        ('1:"dog":10', 10),
        ('1:"dog":0', 0),
        ('1:"dog":7,', 7),
        ('1:"dog":11', None),
        ('1:"dog":-3', None),
        ('1:"dog":unknown', None),
        ('1:"dog":7.5', None),
        ('1:"dog":07', None),
        ('1:"dog":NaN', None),
        ('1:"dog":', None),
        ('1:"cat":7', None),
        ('2:"dog":7', 7),
        ("dog 7", None),
        ("", None),
    ],
)
def test_how_a_line_may_be_written(line, expected):
    values, _ = aligned(line, ["dog"])
    np.testing.assert_array_equal(values, [np.nan if expected is None else expected])


def test_blanks_that_an_echo_loses_do_no_harm():
    tokens = ["def", " f", "(", ")", ":", "\n", "    ", "return", " 1"]
    stripped = "\n".join(f"{n}:{token.strip() or json.dumps(token)}:{n}" for n, token in enumerate(tokens, 1))
    values, found = aligned(stripped, tokens)
    np.testing.assert_array_equal(values, np.arange(1, 10))
    assert found == 9


def test_tokens_that_cannot_be_shown_are_still_theirs():
    tokens = ["a", "\ufffd", "\x00", "\u202e", "\ud800"]
    values, _ = aligned(written(tokens, [1, 2, 3, 4, 5]), tokens)
    np.testing.assert_array_equal(values, [1, 2, 3, 4, 5])


def words(request):
    user = request.messages[-1].text
    explanation = user.split("\n")[0].removeprefix("Explanation: ")
    lines = user.split("\n\nText:\n")[1].split("\n")
    return explanation, [(line.split(":", 1)[0], json.loads(line.split(":", 1)[1])) for line in lines]


def respond(request):
    explanation, lines = words(request)
    return "\n".join(f"{n}:{json.dumps(token)}:{9 * (explanation in token)}" for n, token in lines)


def test_predictions_come_in_the_order_of_the_passages(kit):
    model = kit.model(respond)
    simulator = StructuredSimulator(model)
    passages = kit.passages("my dog ran", "no animal", "dog dog")
    answers = kit.run(simulator.simulate(kit.explanation("dog"), passages))
    assert [(a.passage, list(a.values)) for a in answers] == [
        ("id0", [0, 9, 0]),
        ("id1", [0, 0]),
        ("id2", [9, 9]),
    ]
    assert isinstance(simulator, TokenSimulator)
    assert len({request.messages[:-1] for request in model.requests}) == 1


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TOKENS)
def test_a_model_that_reads_the_prompt_finds_our_tokens(kit, tokens):
    passage = Passage("p", tuple(tokens))
    explanation, lines = words(
        StructuredSimulator(kit.model(respond)).request(kit.explanation("x\ny"), passage)
    )
    assert [token for _, token in lines] == list(tokens)
    assert [int(n) for n, _ in lines] == list(range(1, len(tokens) + 1))
    assert explanation == "x⏎y"


@pytest.mark.parametrize(
    "reply", ["", "I cannot do that.", '1:"cat":3\n2:"house":4', '1:"a":unknown\n2:" b":none', "3, 4, 5"]
)
def test_a_reply_with_nothing_on_our_tokens_is_refused_after_asking_again(kit, reply):
    model = kit.model(lambda request: reply)
    [found] = kit.run(
        StructuredSimulator(model, AskOptions(attempts=3)).simulate(
            kit.explanation("x"), [Passage("p", ("a", " b"))]
        )
    )
    assert isinstance(found, Refusal) and found.cause == "unparsable"
    assert [request.replicate for request in model.requests] == [0, 1, 2]


def test_the_empty_explanation_is_asked_as_such(kit):
    model = kit.model(respond)
    kit.run(StructuredSimulator(model).simulate(kit.explanation(" "), kit.passages("a b")))
    assert words(model.requests[0])[0] == "(no explanation)"


def test_a_reply_that_is_cut_counts_up_to_its_last_whole_line(kit):
    reply = dataclasses.replace(kit.reply('1:"a":3\n2:" b":1'), finish_reason="length")  # 1 of 10
    model = kit.model(lambda request: reply)
    [found] = kit.run(StructuredSimulator(model).simulate(kit.explanation("x"), [Passage("p", ("a", " b"))]))
    np.testing.assert_array_equal(found.values, [3, np.nan])
    assert model.requests[0].is_cut_usable
