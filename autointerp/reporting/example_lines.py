"""Example -> a few lines of text around its focus, each token shaded by its activation.

Where there is no colour, brackets say the same: «the drawn firing», ‹others›. A space before a word stays
outside of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.text import Text

from autointerp.reporting.example_groups import Example
from autointerp.reporting.token_text import cut, visible

__all__ = ["SHADES", "example_lines", "shade_of"]

SHADES = ("#7d7566", "#94794a", "#b07c33", "#d2821e", "#ff8c1a")
"""Backgrounds for the fifths of the maximum, with black text. Stronger is brighter and more vivid, so that
the order is seen on dark and on light terminals."""
_FOCUS_STYLE = "bold underline"
_BEFORE = 2
"""Tokens taken before the focus for each taken behind it: a latent has seen only what is before it."""
_CUT_MARK = "…"
_BREAKS = frozenset("⏎␍⇥")


@dataclass(frozen=True)
class _Piece:
    space: str
    word: str
    style: str
    width: int

    def begins_word_behind(self, before: "_Piece") -> bool:
        return bool(self.space) or before.word.strip(" «»‹›")[-1:] in _BREAKS


def shade_of(activation: float, maximum: float) -> int | None:
    """Which fifth of the maximum the magnitude lies in, 0 to 4; None where it is 0."""
    if activation == 0 or maximum <= 0:
        return None
    return min(int(abs(activation) / maximum * len(SHADES)), len(SHADES) - 1)


def example_lines(
    example: Example,
    *,
    width: int,
    maximum: float,
    is_marked: bool,
    shows_focus: bool = True,
    lines: int = 2,
) -> list[Text]:
    """At most `lines` lines, each at most `width` columns wide; where text was left out stands `…`.

    Args:
        example: whose window is shown; the focus always is.
        width: at least 8.
        maximum: of the latent's |activation|; shades are relative to it.
        is_marked: brackets instead of colours.
        shows_focus: whether the focus is underlined, or in brackets.
        lines: how many.
    """
    largest = max(maximum, max(map(abs, example.activations), default=0.0))
    pieces = [
        _piece(
            visible(text),
            shade=shade_of(activation, largest),
            is_focus=shows_focus and index == example.focus,
            is_marked=is_marked,
            width=width - 2 * cell_len(_CUT_MARK),
        )
        for index, (text, activation) in enumerate(zip(example.tokens, example.activations, strict=True))
    ]
    first, last = _shown_range(pieces, example.focus, width=width, lines=lines)
    return [_line(line) for line in _wrapped(_with_cut_marks(pieces, first, last), width)]


def _piece(text: str, *, shade: int | None, is_focus: bool, is_marked: bool, width: int) -> _Piece:
    word = text.lstrip(" ") or text
    space = text[: len(text) - len(word)]
    space = space if len(space) <= width // 2 else _CUT_MARK
    style = "" if shade is None or is_marked else f"black on {SHADES[shade]}"
    brackets = ("«", "»") if is_focus else ("‹", "›")
    if is_marked and (is_focus or shade is not None):
        word = f"{brackets[0]}{cut(word, width - len(space) - 2)}{brackets[1]}"
    elif is_focus:
        style = f"{_FOCUS_STYLE} {style}".strip()
    word = cut(word, width - len(space))
    return _Piece(space, word, style, len(space) + cell_len(word))


def _shown_range(pieces: Sequence[_Piece], focus: int, *, width: int, lines: int) -> tuple[int, int]:
    """The tokens around the focus that fit, two before it for one behind it while both sides last."""
    first, last = focus, focus + 1
    surely_fits = (lines + 1) // 2 * width - 2  # since any two lines that follow one another exceed one
    can_left, can_right, turn, total = True, True, 0, pieces[focus].width
    while (can_left := can_left and first > 0) or (can_right and last < len(pieces)):
        can_right = can_right and last < len(pieces)
        takes_left = can_left and (turn < _BEFORE or not can_right)
        turn = (turn + 1) % (_BEFORE + 1)
        wider = (first - 1, last) if takes_left else (first, last + 1)
        total += pieces[first - 1 if takes_left else last].width
        if total <= surely_fits or len(_wrapped(_with_cut_marks(pieces, *wider), width)) <= lines:
            first, last = wider
            continue
        total -= pieces[first - 1 if takes_left else last].width
        can_left, can_right = can_left and not takes_left, can_right and takes_left
    return first, last


def _with_cut_marks(pieces: Sequence[_Piece], first: int, last: int) -> list[_Piece]:
    mark = _Piece("", _CUT_MARK, "dim", cell_len(_CUT_MARK))
    before, after = [mark] * (first > 0), [mark] * (last < len(pieces))
    return [*before, *pieces[first:last], *after]


def _wrapped(pieces: Sequence[_Piece], width: int) -> list[list[_Piece]]:
    """Lines broken between tokens, where words begin if that leaves a line more than half full.

    As in any text, the space at which a line is broken is not shown.
    """
    lines: list[list[_Piece]] = [[]]
    used = 0
    for piece in pieces:
        if lines[-1] and used + piece.width > width:
            lines[-1], moved = _broken(lines[-1], piece, width)
            lines.append(_without_first_space([*moved, piece]))
            used = _width(lines[-1])
        else:
            lines[-1].append(piece)
            used += piece.width
    return lines


def _without_first_space(pieces: list[_Piece]) -> list[_Piece]:
    start = pieces[0]
    shorter = replace(start, space=start.space[1:], width=start.width - len(start.space[:1]))
    return [shorter, *pieces[1:]]


def _broken(line: list[_Piece], following: _Piece, width: int) -> tuple[list[_Piece], list[_Piece]]:
    """What stays in a line, and what goes into the next with the token that did not fit."""
    if following.begins_word_behind(line[-1]):
        return line, []
    for index in range(len(line) - 1, 0, -1):
        is_full = 2 * _width(line[:index]) > width
        has_room = _width(line[index:]) + following.width <= width
        if line[index].begins_word_behind(line[index - 1]) and is_full and has_room:
            return line[:index], line[index:]
    return line, []


def _width(pieces: Sequence[_Piece]) -> int:
    return sum(piece.width for piece in pieces)


def _line(pieces: Sequence[_Piece]) -> Text:
    line = Text(no_wrap=True, end="")
    for piece in pieces:
        line.append(piece.space)
        line.append(piece.word, piece.style)
    return line
