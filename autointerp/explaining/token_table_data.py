"""The table of token statistics: how likely a latent fires on a token, given the ones before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from autointerp.errors import BadInputError

__all__ = [
    "LEAST_PROBABILITY",
    "TOKEN_TABLE_VERSION",
    "Cell",
    "TokenTable",
    "joined",
    "token_class",
    "trusted_ratio",
]

TOKEN_TABLE_VERSION = 1
"""Of the JSON form; another number is another form."""

LEAST_PROBABILITY = 1e-9
"""Probabilities are kept off 0 and 1 by this where odds are multiplied."""
_TRUST = 0.7


class Cell(NamedTuple):
    """What was seen of one condition, such as `the token is "return"`."""

    probability: float
    """That the latent fires there; in [0, 1]."""
    magnitude: float
    """Mean |activation| where it does; raw, not negative."""
    count: float
    """How many places in text the two were estimated from, by weight."""

    @property
    def expected(self) -> float:
        """Expected |activation|: probability times magnitude."""
        return self.probability * self.magnitude


@dataclass(frozen=True, eq=False)
class TokenTable:
    """P(fires) and magnitude by token, by the token before, by both, and by the two before and the token.

    The most specific condition that the table holds decides: two tokens before and token, one before and
    token; else the token (or its class, where the token was not seen) and the token before are
    `joined`; else the prior. The cells are smoothed already, so that whoever looks up need not know how often
    each was seen.
    """

    scale: float
    """Largest |activation| that was seen: what a simulator divides by."""
    prior: Cell
    """Of any token of text."""
    classes: Mapping[str, Cell] = field(default_factory=dict)
    """By `token_class`."""
    tokens: Mapping[str, Cell] = field(default_factory=dict)
    """By the text of the token."""
    before: Mapping[str, Cell] = field(default_factory=dict)
    """By the text of the token before."""
    pairs: Mapping[tuple[str, str], Cell] = field(default_factory=dict)
    """By (token before, token)."""
    triples: Mapping[tuple[str, str, str], Cell] = field(default_factory=dict)
    """By (second token before, token before, token)."""

    def to_json(self) -> dict[str, Any]:
        """The table as JSON-able data, rows in a fixed order."""
        return {
            "kind": "token_table",
            "version": TOKEN_TABLE_VERSION,
            "scale": self.scale,
            "prior": _row(self.prior),
            "classes": [[name, *_row(cell)] for name, cell in sorted(self.classes.items())],
            "tokens": [[name, *_row(cell)] for name, cell in sorted(self.tokens.items())],
            "before": [[name, *_row(cell)] for name, cell in sorted(self.before.items())],
            "pairs": [[*names, *_row(cell)] for names, cell in sorted(self.pairs.items())],
            "triples": [[*names, *_row(cell)] for names, cell in sorted(self.triples.items())],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "TokenTable":
        """The table that `to_json` wrote.

        Raises:
            BadInputError: it is no such table, of another version, or damaged.
        """
        if data.get("kind") != "token_table" or data.get("version") != TOKEN_TABLE_VERSION:
            raise BadInputError(
                f"no token table of version {TOKEN_TABLE_VERSION}", remedy="explain the latents again"
            )
        try:
            scale = float(data["scale"])
            if not (isfinite(scale) and scale >= 0):
                raise ValueError("scale")
            return TokenTable(
                scale=scale,
                prior=_cell(data["prior"]),
                classes={key[0]: cell for key, cell in _rows(data["classes"], 1)},
                tokens={key[0]: cell for key, cell in _rows(data["tokens"], 1)},
                before={key[0]: cell for key, cell in _rows(data["before"], 1)},
                pairs={(key[0], key[1]): cell for key, cell in _rows(data["pairs"], 2)},
                triples={(key[0], key[1], key[2]): cell for key, cell in _rows(data["triples"], 3)},
            )
        except (KeyError, TypeError, ValueError, OverflowError) as fault:
            raise BadInputError(
                f"a damaged token table ({type(fault).__name__})", remedy="explain the latents again"
            ) from fault


def joined(own: Cell, earlier: Cell, prior: Cell) -> Cell:
    """The cell of a token behind another that it was not seen behind.

    odds = odds(own) * (odds(earlier) / odds(prior)) ** .7; the magnitude is the token's own. An exponent of 1
    would take the two for independent signs of firing, which they rarely are.
    """
    odds = _odds(own.probability) * trusted_ratio(earlier, prior)
    return Cell(odds / (1 + odds), own.magnitude, 0.0)


def trusted_ratio(earlier: Cell, prior: Cell) -> float:
    """By how much the token before multiplies the odds, see `joined`."""
    return (_odds(earlier.probability) / _odds(prior.probability)) ** _TRUST


@lru_cache(maxsize=100_000)
def token_class(token: str) -> str:
    """What kind of token it is, by its text alone; one of a handful of names that read in a sentence."""
    bare = token.strip()
    if not bare:
        return "a line break" if "\n" in token or "\r" in token else "spaces"
    if bare.isdecimal():
        return "a number"
    if not any(letter.isalnum() for letter in bare):
        return "a bracket" if all(letter in "()[]{}" for letter in bare) else "punctuation"
    if not bare.isalpha():
        return "a mixed token"
    begins = "a word's beginning" if token[0].isspace() else "a word's part"
    if bare.isupper() and len(bare) > 1:
        return f"{begins} in capitals"
    return f"{begins} with a capital" if bare[0].isupper() else begins


def _odds(probability: float) -> float:
    bounded = min(max(probability, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)
    return bounded / (1 - bounded)


def _row(cell: Cell) -> list[float]:
    return [float(f"{value:.6g}") for value in cell]


def _cell(row: Sequence[Any]) -> Cell:
    (cell,) = _cells([row])
    return cell


def _cells(rows: Sequence[Sequence[Any]]) -> list[Cell]:
    """Cells from their three numbers."""
    if not rows:
        return []
    values = np.array(rows, dtype=np.float64)
    if values.shape != (len(rows), 3):
        raise ValueError("not three numbers")
    if not (np.isfinite(values).all() and (values >= 0).all() and (values[:, 0] <= 1).all()):
        raise ValueError("out of range")
    return list(map(Cell._make, values.tolist()))


def _rows(rows: Sequence[Sequence[Any]], names: int) -> list[tuple[tuple[str, ...], Cell]]:
    keys = [tuple(row[:names]) for row in rows]
    if not {*map(type, chain.from_iterable(keys))} <= {str}:
        raise TypeError("a token is no text")
    return list(zip(keys, _cells([row[names:] for row in rows]), strict=True))
