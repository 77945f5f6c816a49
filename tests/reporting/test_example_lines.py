import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.reporting.example_groups import Example
from autointerp.reporting.example_lines import SHADES, example_lines, shade_of


def example(tokens, *, focus=0, fired=()):
    values = dict(fired)
    return Example(
        split="score",
        rank=0,
        context=1,
        document="d",
        position=0,
        focus=focus,
        value=values.get(focus),
        weight=None,
        tokens=tuple(tokens),
        activations=tuple(values.get(index, 0.0) for index in range(len(tokens))),
    )


def plain(found, *, width=40, is_marked=True, maximum=4.0, **options):
    return [
        t.plain for t in example_lines(found, width=width, maximum=maximum, is_marked=is_marked, **options)
    ]


def test_brackets_stand_in_for_colours_and_leave_the_space_outside():
    found = example(["the", " red", " fox", "\n", " ran"], focus=2, fired={1: 1.0, 2: -4.0, 3: 0.5})
    assert plain(found) == ["the ‹red› «fox»‹⏎› ran"]
    assert plain(found, is_marked=False) == ["the red fox⏎ ran"]


def test_shades_are_fifths_of_the_maximum():
    found = example(list("abcdef"), focus=5, fired={0: 0.1, 1: 0.9, 2: 2.0, 3: 3.0, 4: -3.9, 5: 4.0})
    [line] = example_lines(found, width=40, maximum=4.0, is_marked=False)
    styles = [str(span.style) for span in line.spans]
    shades = [SHADES.index(re.search("#......", style)[0]) for style in styles]
    assert shades == [0, 1, 2, 3, 4, 4]
    assert [("underline" in style) for style in styles] == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("value", "shade"), [(0.0, None), (1e-9, 0), (0.2, 1), (-1.0, 4), (1.0, 4), (2.0, 4)]
)
def test_shade_of(value, shade):
    assert shade_of(value, 1.0) == shade
    assert shade_of(value, 0.0) is None


def test_a_place_drawn_blindly_is_not_marked():
    found = example(["a", " b"], focus=1)
    assert plain(found) == ["a «b»"]
    assert plain(found, shows_focus=False) == ["a b"]


def test_a_long_window_is_cut_around_the_focus_with_more_before_than_behind():
    tokens = [f" w{index:02d}" for index in range(60)]
    lines = plain(example(tokens, focus=30, fired={30: 1.0}), width=40)
    text = "".join(lines)
    assert len(lines) == 2 and max(map(len, lines)) <= 40
    assert text.startswith("…") and text.endswith("…")
    before, behind = text.split("«w30»")
    assert behind.count("w") < before.count("w") <= 2 * behind.count("w") + 2
    assert re.findall(r"\d+", text) == [
        f"{i:02d}" for i in range(30 - before.count("w"), 31 + behind.count("w"))
    ]


def test_lines_are_broken_where_words_begin_and_lose_that_space():
    lines = plain(example(["inter", "esting", " read", "able", " unbreak", "able"], focus=0), width=20)
    assert lines == ["«inter»esting", "readable unbreakable"]


def test_a_window_that_fits_is_shown_whole():
    tokens = [" ab"] * 20
    assert "".join(plain(example(tokens, focus=19), width=40)).count("ab") == 20


@given(
    st.lists(
        st.text(max_size=12) | st.sampled_from(["\n" + " " * 30, " 日本語", "\u0301", " " * 50 + "x"]),
        min_size=1,
    ),
    st.integers(8, 60),
    st.integers(1, 3),
    st.booleans(),
    st.data(),
)
def test_never_wider_or_longer_than_asked_and_the_focus_is_there(tokens, width, lines, is_marked, data):
    focus = data.draw(st.integers(0, len(tokens) - 1))
    found = example(tokens, focus=focus, fired={focus: 1.0, 0: 0.5})
    drawn = example_lines(found, width=width, maximum=1.0, is_marked=is_marked, lines=lines)
    assert 1 <= len(drawn) <= lines
    assert all(line.cell_len <= width for line in drawn)
    if is_marked:
        assert sum(line.plain.count("«") for line in drawn) >= 1
