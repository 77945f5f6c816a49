"""Where each token that a server echoes stands in the prompt that was sent; its tokens are its own affair."""

from collections.abc import Sequence
from itertools import accumulate

from autointerp.llm.requests import TokenLogprob

__all__ = ["covering_tokens", "token_begins"]

_AGREEMENT = 0.9
"""Share of the plain tokens that must stand where the server says, or its offsets are not believed."""


def token_begins(prompt: str, entries: Sequence[TokenLogprob]) -> list[int | None]:
    """Where each token begins in the prompt, in characters.

    The tokens' texts are joined and compared with the prompt. If the prompt is found in them, all is known (a
    BOS token in front or a reply behind do no harm). Else, as where tokens are parts of characters, the
    server's own offsets are taken if they prove right; else the two are compared line by line, from both ends
    of a line.

    Returns:
        One per entry; None for a token that lies outside the prompt, has no text, or cannot be placed.
    """
    joined = "".join(entry.token for entry in entries)
    begins = list(accumulate((len(entry.token) for entry in entries), initial=0))[:-1]
    first = joined.find(prompt) if prompt else -1
    if first >= 0:
        places: list[int | None] = [begin - first for begin in begins]
    elif _offsets_hold(prompt, entries):
        places = [entry.offset for entry in entries]
    else:
        lines = _Lines(prompt, joined)
        places = [lines.place(begin) for begin in begins]
    return [
        place if place is not None and entry.token and 0 <= place < len(prompt) else None
        for place, entry in zip(places, entries, strict=True)
    ]


def covering_tokens(
    prompt: str, entries: Sequence[TokenLogprob], places: Sequence[int]
) -> list[tuple[TokenLogprob, str] | None]:
    """The token that covers each place of the prompt, and what it covers before that place (mostly nothing).

    Args:
        prompt: as it was sent.
        entries: the tokens that came back.
        places: positions in the prompt, in characters, ascending.
    """
    spans = [
        (begin, entry)
        for begin, entry in zip(token_begins(prompt, entries), entries, strict=True)
        if begin is not None
    ]
    spans.sort(key=lambda span: span[0])
    found: list[tuple[TokenLogprob, str] | None] = []
    at = 0
    for place in places:
        while at < len(spans) and spans[at][0] + len(spans[at][1].token) <= place:
            at += 1
        is_covered = at < len(spans) and spans[at][0] <= place
        found.append((spans[at][1], prompt[spans[at][0] : place]) if is_covered else None)
    return found


def _offsets_hold(prompt: str, entries: Sequence[TokenLogprob]) -> bool:
    """Whether the server's offsets are characters of this prompt."""
    told = [(entry.token, entry.offset) for entry in entries if entry.token.isascii() and entry.token]
    inside = [(token, offset) for token, offset in told if offset is not None and 0 <= offset < len(prompt)]
    if not inside or len(inside) < len(told) / 2:
        return False
    right = sum(prompt.startswith(token, offset) for token, offset in inside)
    return right >= _AGREEMENT * len(inside)


class _Lines:
    """Places tokens by line: in a line that differs, by what both have in common at its beginning and end."""

    def __init__(self, prompt: str, joined: str) -> None:
        self._wanted = prompt.split("\n")
        self._given = joined.split("\n")[: len(self._wanted)]
        self._wanted_begins = _line_begins(self._wanted)
        self._given_begins = _line_begins(self._given)
        equal = sum(a == b for a, b in zip(self._wanted, self._given, strict=False))
        self._is_readable = len(self._given) == len(self._wanted) and equal >= len(self._wanted) / 2
        self._line = 0

    def place(self, begin: int) -> int | None:
        """Where a place of the joined tokens is in the prompt; asked for in ascending order."""
        if not self._is_readable:
            return None
        while self._line + 1 < len(self._given) and self._given_begins[self._line + 1] <= begin:
            self._line += 1
        given, wanted = self._given[self._line], self._wanted[self._line]
        column = begin - self._given_begins[self._line]
        first = self._wanted_begins[self._line]
        front = _common(given, wanted)
        if column < front or given == wanted:
            return first + column if column <= len(wanted) else None
        if self._line == len(self._given) - 1:  # what was generated stands behind it
            return None
        back = min(_common(given[::-1], wanted[::-1]), len(given) - front, len(wanted) - front)
        from_end = len(given) - column
        return first + len(wanted) - from_end if from_end <= back else None


def _line_begins(lines: Sequence[str]) -> list[int]:
    return list(accumulate((len(line) + 1 for line in lines), initial=0))[:-1]


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    longest = min(len(one), len(other))
    return next((place for place in range(longest) if one[place] != other[place]), longest)
