"""How text is shown to an LLM: one line an excerpt, firing tokens between « and », strengths 0-10 behind.

Nothing that stands in the text can be taken for anything else. A line break is shown as ⏎, so an excerpt is
one line whatever it says; « and » of the text itself become ‹ and ›; control and direction characters become
U+FFFD; and strengths stand behind the last | of a line, where there is nothing but digits, + and blanks.
"""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from autointerp.explanation_records import Example

__all__ = [
    "CONVENTION",
    "Excerpt",
    "excerpt",
    "highlighted_line",
    "plain_line",
    "quoted",
    "shown",
    "strength",
]

CONVENTION = (
    "One excerpt a line. Tokens on which the unit fires stand between « and ». Behind the last | of a line "
    "is how strongly, 0 to 10, for each of them in order; + joins adjacent tokens. ⏎ is a line break."
)
"""What the lines mean, for prompts."""

_LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_REPLACED = {"«": "‹", "»": "›", "\t": "\t"} | dict.fromkeys(_LINE_BREAKS, "⏎")
_UNSEEN = ("Cc", "Cf", "Cs")  # control, format (bidirectional overrides, zero width), lone surrogates


@dataclass(frozen=True)
class Excerpt:
    """What is shown of an example: some tokens around its focus."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    focus: int
    """Index in `tokens`."""


def excerpt(example: Example, length: int) -> Excerpt:
    """At most `length` tokens with the focus in their middle, as far as the example's ends allow."""
    begin = max(0, min(example.focus - length // 2, len(example.tokens) - length))
    end = begin + length
    return Excerpt(example.tokens[begin:end], example.activations[begin:end], example.focus - begin)


def strength(activation: float, maximum: float) -> int:
    """floor(10 |activation| / maximum), from 0 to 10 (Bills et al. 2023); 0 where the maximum is 0.

    The quotient is rounded to nine digits first, so that .3 of 1 is 3 and not 2.
    """
    return min(10, int(round(10 * abs(activation) / maximum, 9))) if maximum > 0 else 0


def shown(text: str) -> str:
    """The text on one line and without the markers (module docstring)."""
    return "".join(_REPLACED.get(letter) or _seen(letter) for letter in text.replace("\r\n", "\n"))


def quoted(token: str) -> str:
    """A token between quotation marks, as JSON writes it: blanks, quotes and line breaks are recognisable."""
    inner = json.dumps(token, ensure_ascii=False)[1:-1]
    return f'"{"".join(_seen(letter) for letter in inner)}"'


def plain_line(tokens: Sequence[str]) -> str:
    """An excerpt without highlights."""
    return shown("".join(tokens))


def highlighted_line(piece: Excerpt, maximum: float) -> str:
    """An excerpt with its firing tokens between markers, and their strengths behind the last |.

    Highlighted are tokens of strength 1 and more and the one that was drawn, if it fires: an excerpt from the
    weakest firings shows that one, and where the latent fires almost everywhere the weakest are left out.
    """
    parts: list[str] = []
    strengths: list[list[str]] = []
    was_active = False
    for place, (token, activation) in enumerate(zip(piece.tokens, piece.activations, strict=True)):
        value = strength(activation, maximum)
        is_active = activation != 0 and (value >= 1 or place == piece.focus)
        if is_active and not was_active:
            parts.append("«")
            strengths.append([])
        elif was_active and not is_active:
            parts.append("»")
        if is_active:
            strengths[-1].append(str(value))
        parts.append(shown(token))
        was_active = is_active
    if was_active:
        parts.append("»")
    return f"{''.join(parts)} | {' '.join('+'.join(run) for run in strengths)}".rstrip()


def _seen(letter: str) -> str:
    return "\ufffd" if unicodedata.category(letter) in _UNSEEN else letter
