"""Alternatives at one token: what counts as which answer, and the expectation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm.requests import TokenLogprob
from autointerp.simulating.answer_masses import STRENGTHS, answer_masses, expected_strength, normalised

WRITTEN = [
    f"{before}{value}{behind}" for value in range(11) for before in ("", " ") for behind in ("", "\n", " ")
]
JUNK = ["unknown", "?", "11", "-1", "07", "7.", "7.5", "1 0", "", " ", "seven", "\t\t", "１", "½", "9\n0"]


@given(
    st.dictionaries(
        st.sampled_from(WRITTEN + JUNK), st.floats(-30, 0, allow_nan=False), min_size=1, max_size=20
    )
)
def test_expectation_equals_brute_force(top):
    entry = TokenLogprob("?", None, tuple(top.items()))
    masses = np.zeros(11)
    for text, logprob in top.items():
        if text in WRITTEN:
            masses[int(text)] += math.exp(logprob)
    found = expected_strength(entry)
    if masses.sum() == 0:
        assert found is None
    else:
        assert found == pytest.approx(float(np.arange(11) @ masses / masses.sum()), rel=1e-12, abs=1e-12)


def test_all_ways_of_writing_an_answer_are_added_up():
    entry = TokenLogprob(
        "?", None, (("7", math.log(0.2)), (" 7", math.log(0.1)), ("7\n", math.log(0.3)), ("0", math.log(0.4)))
    )
    assert answer_masses(entry, STRENGTHS) == pytest.approx({"0": 0.4, "7": 0.6})


def test_a_ten_of_two_tokens_is_read_as_its_first_digit():
    entry = TokenLogprob("1", math.log(0.5), (("1", math.log(0.5)), ("0", math.log(0.5))))
    assert expected_strength(entry) == pytest.approx(0.5)
    whole = TokenLogprob("10", math.log(0.5), (("10", math.log(0.5)), ("0", math.log(0.5))))
    assert expected_strength(whole) == pytest.approx(5.0)


def test_the_token_itself_counts_once_and_also_where_it_is_not_listed():
    assert answer_masses(
        TokenLogprob("1", math.log(0.6), (("1", math.log(0.6)), ("0", math.log(0.3)))), "01"
    ) == (pytest.approx({"0": 0.3, "1": 0.6}))
    assert answer_masses(TokenLogprob("1", math.log(0.1), (("0", math.log(0.3)),)), "01") == pytest.approx(
        {"0": 0.3, "1": 0.1}
    )


@pytest.mark.parametrize(
    "top",
    [(), (("unknown", -0.1),), (("7", -math.inf),), (("7", math.nan),), (("7", 3.0),), (("7", -9999.0),)],
)
def test_without_an_answer_among_the_alternatives_nothing_is_known(top):
    assert expected_strength(TokenLogprob("?", None, top)) is None


def test_text_that_the_token_covers_before_the_answer():
    entry = TokenLogprob(
        "\t?", -1.0, (("\t7", math.log(0.5)), ("7", math.log(0.25)), ("\t0", math.log(0.25)))
    )
    assert answer_masses(entry, STRENGTHS, prefix="\t") == pytest.approx({"0": 0.25, "7": 0.75})
    entry = TokenLogprob(":1", -1.0, ((":1", math.log(0.5)), ("0", math.log(0.25)), (":0", math.log(0.125))))
    assert answer_masses(entry, "01", prefix=":") == pytest.approx({"0": 0.125, "1": 0.5})


@given(st.dictionaries(st.sampled_from("0123"), st.floats(1e-9, 1), min_size=1))
def test_normalised_masses_are_a_distribution(masses):
    found = normalised(masses)
    assert sum(found.values()) == pytest.approx(1)
    assert list(found) == list(masses)


def test_nothing_is_normalised_to_nothing():
    assert normalised({}) == {}
