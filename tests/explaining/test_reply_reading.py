"""Replies of all kinds -> one line, or why not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.explaining.answers import LONGEST_EXPLANATION, one_line, read_explanation
from autointerp.explanation_records import Refusal


def read(text, prompt="Say what it is. Explanation: words for ships and boats", **options):
    return read_explanation(text, prompt=prompt, **options)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Explanation: ships", "ships"),
        ("explanation - no\nEXPLANATION: ships", "ships"),
        ("**Explanation:** ships", "ships"),
        ("### Explanation\nExplanation: *ships*", "ships"),
        ('Explanation: "ships at sea"', "ships at sea"),
        ('Explanation: "a" or "b"', '"a" or "b"'),
        ("Explanation: `for`", "for"),
        ("Explanation:\nships at sea", "ships at sea"),
        ("Explanation: first\nExplanation: second", "second"),
        ("ships at sea.", "ships at sea."),
        ("<think>Explanation: wrong\n\nhm</think>\nExplanation: ships", "ships"),
        ("Explanation: sh\u202eips\x00 \u2066at\tsea\u200b", "ships at sea"),
        ("Explanation： 船", "船"),
        ("Explanation: " + "x" * LONGEST_EXPLANATION, "x" * LONGEST_EXPLANATION),
    ],
)
def test_what_was_said_is_found(reply, said):
    found = read(reply)
    assert not isinstance(found, Refusal), found
    assert found[0] == said


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ("", "empty"),
        (" \n\u200b\n", "empty"),
        ("<think>ships</think>", "empty"),
        ("Explanation:", "empty"),
        ("Explanation: «»...", "empty"),
        ("one\ntwo", "unparsable"),
        ("Explanation: " + "x" * (LONGEST_EXPLANATION + 1), "unparsable"),
        ("Explanation: Words for ships, and boats.", "unparsable"),
        ("As an AI, I cannot say", "content_filter"),
        ("Explanation: I’m sorry", None),
    ],
)
def test_what_cannot_be_used_has_its_cause(reply, cause):
    found = read(reply)
    if cause is None:
        assert not isinstance(found, Refusal)
    else:
        assert isinstance(found, Refusal) and found.cause == cause
        assert len(found.detail) < 200


def test_where_thoughts_were_asked_for_a_bare_line_will_not_do():
    assert read("ships", needs_label=True) == Refusal("unparsable", "no line begins with `Explanation:`")
    assert read("they sail\nExplanation: ships", needs_label=True) == ("ships", "they sail")


@given(st.text(max_size=300))
def test_no_reply_breaks_the_reader_and_all_it_gives_is_one_clean_line(reply):
    for text in (reply, f"Explanation: {reply}"):
        found = read(text)
        if not isinstance(found, Refusal):
            said, thoughts = found
            assert 0 < len(said) <= LONGEST_EXPLANATION
            assert said == one_line(said) and len(said.splitlines()) == 1
            assert thoughts == one_line(thoughts)
