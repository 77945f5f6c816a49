"""A text in pieces, some of which are answers with probabilities -> scored tokens of a reply or a prompt."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from autointerp.testing.tiny_chat_server.exchange import ScoredToken

__all__ = ["Piece", "scored_pieces", "yes_or_no"]

_TOKEN = re.compile(r" ?\w{1,6}|\s|[^\w\s]")
_FILLERS = (" the", "\n", " a", ",", " and", " of", ".", " to", " I", " in", "The", " is", ":", " it")
_LIKELY = 0.9


@dataclass(frozen=True)
class Piece:
    """A part of a text: plain, or one token that is an answer."""

    text: str
    chances: Mapping[str, float] | None = None
    """What else could stand here, with probabilities that add up to 1; the text is one of these, or, of an
    echoed prompt, is not. None: the piece is plain and is cut into tokens."""


def yes_or_no(belief: float) -> Piece:
    """The answer 1 or 0 behind a colon, as one token with the blank before it."""
    return Piece(" 1" if belief > 0.5 else " 0", {" 1": belief, " 0": 1 - belief})


def scored_pieces(
    pieces: Sequence[Piece], top_count: int, *, plain_count: int | None = None
) -> list[ScoredToken]:
    """The tokens of the pieces, with as many alternatives as are asked for.

    Answers keep the ratios of their probabilities; 2 % goes to other tokens, as of a real model.

    Args:
        pieces: of the text.
        top_count: alternatives of each token.
        plain_count: of those of plain pieces at most, since the tokens of a prompt are many.
    """
    plain = top_count if plain_count is None else min(top_count, plain_count)
    tokens: list[ScoredToken] = []
    for piece in pieces:
        if piece.chances is not None:
            tokens.append(_answer(piece, top_count))
        else:
            tokens += [_plain(text, plain) for text in _TOKEN.findall(piece.text)]
    return tokens


@lru_cache(maxsize=20_000)  # a prompt has a thousand tokens, and most of them again and again
def _plain(text: str, top_count: int) -> ScoredToken:
    return ScoredToken(text, math.log(_LIKELY), _top({text: _LIKELY}, top_count))


def _answer(piece: Piece, top_count: int) -> ScoredToken:
    chances = {text: 0.98 * chance for text, chance in (piece.chances or {}).items() if chance > 0}
    own = chances.get(piece.text, 1e-4)
    return ScoredToken(piece.text, math.log(own), _top(chances, top_count))


def _top(chances: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    left = max(1 - sum(chances.values()), 1e-6)
    others = {text: left / 2 ** (place + 1) for place, text in enumerate(_FILLERS) if text not in chances}
    ranked = sorted((chances | others).items(), key=lambda pair: -pair[1])
    return [(text, math.log(chance)) for text, chance in ranked[:count]]
