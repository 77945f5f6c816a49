"""A token table and passages -> what the table expects of every token of them."""

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64

from autointerp.explaining.token_table_data import (
    LEAST_PROBABILITY,
    Cell,
    TokenTable,
    token_class,
    trusted_ratio,
)

__all__ = ["expected_activations", "firing_probabilities"]


def expected_activations(
    table: TokenTable, passages: Sequence[Sequence[str]]
) -> list[Float64[np.ndarray, " _"]]:
    """Expected |activation| on each token of each passage, raw; from 0 to about `TokenTable.scale`.

    Cost: about 0.3 us a token.
    """
    probability, magnitude = _looked_up(table, passages)
    return _cut(probability * magnitude, passages)


def firing_probabilities(
    table: TokenTable, passages: Sequence[Sequence[str]]
) -> list[Float64[np.ndarray, " _"]]:
    """Probability that the latent fires on each token of each passage; from 0 to 1."""
    return _cut(_looked_up(table, passages)[0], passages)


def _looked_up(
    table: TokenTable, passages: Sequence[Sequence[str]]
) -> tuple[Float64[np.ndarray, " token"], Float64[np.ndarray, " token"]]:
    """Probability and magnitude on every token, passages one behind the other."""
    tokens = list(chain.from_iterable(passages))
    codes = {token: code for code, token in enumerate(dict.fromkeys(tokens))}
    code = np.fromiter(map(codes.__getitem__, tokens), np.int64, len(tokens))
    starts = np.repeat(_ends(passages)[:-1], np.diff(_ends(passages)))
    first, second = (_shifted(code, by, starts) for by in (1, 2))
    probability, magnitude = _of_tokens(table, codes, code, first)
    for cells, places in ((table.pairs, (first, code)), (table.triples, (second, first, code))):
        rows = {
            _packed([codes[token] for token in key], len(codes)): cell
            for key, cell in cells.items()
            if all(token in codes for token in key)
        }
        if not rows:
            continue
        keys = np.array(sorted(rows), dtype=np.int64)
        wanted = _packed(places, len(codes))
        row = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        has_row = keys[row] == wanted
        known = _columns([rows[key] for key in keys.tolist()])
        probability[has_row], magnitude[has_row] = (column[row[has_row]] for column in known)
    return probability, magnitude


def _of_tokens(
    table: TokenTable, codes: dict[str, int], code: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """By the token and the token before, as `joined`."""
    own = [table.classes.get(name, table.prior) for name in map(token_class, codes)]
    for token in codes.keys() & table.tokens.keys():
        own[codes[token]] = table.tokens[token]
    probability, magnitude = (column[code] for column in _columns(own))
    ratios = np.full(len(codes) + 1, np.nan)  # the last one where no token is before
    for token in codes.keys() & table.before.keys():
        ratios[codes[token]] = trusted_ratio(table.before[token], table.prior)
    ratio = ratios[first]
    bounded = np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds = bounded / (1 - bounded) * ratio
    return np.where(np.isnan(ratio), probability, odds / (1 + odds)), magnitude


def _columns(cells: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
    probability, magnitude = ([cell[place] for cell in cells] for place in (0, 1))
    return np.array(probability, dtype=np.float64), np.array(magnitude, dtype=np.float64)


def _ends(passages: Sequence[Sequence[str]]) -> np.ndarray:
    """Where passages end, one behind the other, and 0 before."""
    return np.cumsum([0, *map(len, passages)])


def _cut(values: np.ndarray, passages: Sequence[Sequence[str]]) -> list[np.ndarray]:
    return [values[start:end] for start, end in pairwise(_ends(passages).tolist())]


def _shifted(code: np.ndarray, by: int, starts: np.ndarray) -> np.ndarray:
    """The code of the token so many places before, -1 where the passage has none."""
    place = np.arange(len(code)) - by
    return np.where(place >= starts, code[np.maximum(place, 0)], -1)


def _packed(codes: Sequence[Any], base: int) -> Any:
    """Codes as the digits of one number; negative where the first is."""
    total = codes[0]
    for code in codes[1:]:
        total = total * base + code
    return total
