from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from autointerp.reporting.token_text import cut, quoted, visible


def test_what_has_no_look_gets_one():
    assert visible("a\n\tb\r") == "a⏎⇥b␍"
    assert visible("\x1b[31m\u202e\x9b\x07") == "\ufffd[31m\ufffd\ufffd\ufffd"
    assert visible("\u00a0x\u2003") == "␣x␣"
    assert visible(" the 日本") == " the 日本"


def test_spaces_of_a_token_that_stands_alone_are_seen():
    assert quoted(" a b") == "␣a␣b"
    assert quoted("\n" + 8 * " ") == "⏎␣×8"
    assert quoted("") == "(empty)"


@given(st.text())
def test_everything_shown_is_printable(text):
    assert visible(text).isprintable()
    assert quoted(text).isprintable()


@given(st.text(), st.integers(1, 30))
def test_a_cut_text_fits(text, width):
    short = cut(visible(text), width)
    assert cell_len(short) <= width
    assert short == visible(text) or short.endswith("…")
