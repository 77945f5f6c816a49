"""A reply of lines `number:"token":strength` -> the strength of each token, however the echo is cut."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from math import nan

import numpy as np
from jaxtyping import Float64

from autointerp.explaining.highlighting import quoted

__all__ = ["StrengthLine", "aligned_strengths", "read_strength_lines"]

_LINE = re.compile(r"^\s*(\d{1,5})\s*[:.\t|]\s*(.*)\s*[:\t|=]\s*(\S+)\s*$", re.DOTALL)
_STRENGTH = re.compile(r"^(?:10|[0-9])$")
_LONGEST = 400
"""Characters of a line; a longer one is not read."""


@dataclass(frozen=True)
class StrengthLine:
    """One line of a reply."""

    number: int
    token: str
    """As the model wrote it, without quotation marks."""
    strength: float
    """0 to 10; NaN where something else is said."""


def read_strength_lines(text: str) -> list[StrengthLine]:
    """The lines that have a number, a token and something behind it, in their order."""
    found = []
    for line in text.split("\n"):
        entry = _LINE.match(line) if len(line) <= _LONGEST else None
        if entry is not None:
            said = entry[3].strip(",")
            strength = float(said) if _STRENGTH.match(said) else nan
            found.append(StrengthLine(int(entry[1]), _unquoted(entry[2].strip()), strength))
    return found


def aligned_strengths(
    lines: Sequence[StrengthLine], tokens: Sequence[str]
) -> tuple[Float64[np.ndarray, " token"], int]:
    """The strength of each of our tokens, and how many of them were found in the reply.

    An echo that, joined, is our text is laid over it character by character, whatever its cuts: a token has
    the largest strength of the lines that cover any of it. Of another echo, lines count whose number and
    token are ours; where fewer than half are, or for tokens still missing, the characters that are not blanks
    are aligned (longest common runs). Lines with a number that is used twice count for nothing.

    Returns:
        NaN where the reply says nothing of a token, or nothing that is a whole number from 0 to 10.
    """
    often = Counter(line.number for line in lines)
    once = [line for line in lines if often[line.number] == 1]
    ours = [_echoed(token) for token in tokens]
    is_ordered = all(a.number < b.number for a, b in pairwise(once))
    if is_ordered and len(once) == len(lines):
        for bare in (False, True):
            covers = _same_text(once, ours, bare=bare)
            if covers is not None:
                _add_blank_tokens(covers, once, ours)
                return _strengths(covers, once)
    covers = _by_number(once, ours)
    if sum(map(len, covers)) < len(once) / 2:
        covers = [[] for _ in ours]
    used = {line for cover in covers for line in cover}
    for token, cover in enumerate(_by_text(once, ours)):
        if not covers[token]:
            covers[token] = [line for line in cover if line not in used]
    return _strengths(covers, once)


def _strengths(
    covers: Sequence[Sequence[int]], lines: Sequence[StrengthLine]
) -> tuple[Float64[np.ndarray, " token"], int]:
    values = np.full(len(covers), nan)
    for token, cover in enumerate(covers):
        if cover:
            values[token] = np.max([lines[line].strength for line in cover])  # NaN if any is
    return values, sum(1 for cover in covers if cover)


def _same_text(lines: Sequence[StrengthLine], tokens: Sequence[str], *, bare: bool) -> list[list[int]] | None:
    """The lines that cover each token, if both sides are the same text (bare: but for blanks)."""
    said, by_line = _characters([line.token for line in lines], bare=bare)
    wanted, by_token = _characters(tokens, bare=bare)
    if said != wanted:
        return None
    covers: list[list[int]] = [[] for _ in tokens]
    for line, token in zip(by_line, by_token, strict=True):
        if line not in covers[token]:
            covers[token].append(line)
    return covers


def _add_blank_tokens(covers: list[list[int]], lines: Sequence[StrengthLine], tokens: Sequence[str]) -> None:
    """Tokens of blanks alone, which an echo's cuts need not show: by number."""
    for token, cover in enumerate(_by_number(lines, tokens)):
        if not covers[token] and not tokens[token].strip():
            covers[token].extend(cover)


def _by_number(lines: Sequence[StrengthLine], tokens: Sequence[str]) -> list[list[int]]:
    """The line whose number and token are ours, for each token."""
    covers: list[list[int]] = [[] for _ in tokens]
    for place, line in enumerate(lines):
        token = line.number - 1
        if 0 <= token < len(tokens) and _bare(line.token) == _bare(tokens[token]):
            covers[token].append(place)
    return covers


def _by_text(lines: Sequence[StrengthLine], tokens: Sequence[str]) -> list[list[int]]:
    """The lines that cover each token, where the two texts agree on all of the token and of its lines."""
    said, by_line = _characters([line.token for line in lines], bare=True)
    wanted, by_token = _characters(tokens, bare=True)
    covers: list[list[int]] = [[] for _ in tokens]
    covered, used = Counter[int](), Counter[int]()
    for block in SequenceMatcher(None, said, wanted, autojunk=False).get_matching_blocks():
        for step in range(block.size):
            line, token = by_line[block.a + step], by_token[block.b + step]
            covered[token] += 1
            used[line] += 1
            if line not in covers[token]:
                covers[token].append(line)
    lengths, written = Counter(by_token), Counter(by_line)
    return [
        cover
        if covered[token] == lengths[token] and all(used[line] == written[line] for line in cover)
        else []
        for token, cover in enumerate(covers)
    ]


def _characters(pieces: Sequence[str], *, bare: bool) -> tuple[str, list[int]]:
    """All characters of the pieces (bare: that are no blanks), and of which piece each is."""
    texts = [_bare(piece) if bare else piece for piece in pieces]
    return "".join(texts), [place for place, text in enumerate(texts) for _ in text]


def _bare(text: str) -> str:
    return "".join(text.split())


def _echoed(token: str) -> str:
    """The token as a faithful echo gives it back: as it was shown, without quotation marks."""
    return _unquoted(quoted(token))


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text[1:-1]
    return text
