"""Counts of tokens and pairs -> the few conditions that account best for where a latent fires."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import log

from autointerp.explaining.token_counts import TokenCounts
from autointerp.explaining.token_table_data import token_class

__all__ = ["Pattern", "after", "best_patterns", "reading"]

_COSTS = {"class": 3.0, "token": 6.0, "before": 7.0, "pair": 11.0}  # nats to say which of them it is
_UNSEEN = 0.25  # as in the table
_LEAST_LIFT = 2.0  # how much likelier a firing must be under a condition that is named


@dataclass(frozen=True)
class Pattern:
    """A condition on a token or on the one before it, or on both."""

    kind: str
    """token, before, pair or class."""
    before: str | None
    """`reading` of the token before."""
    token: str | None
    """`reading` of the token, or its class."""
    share: float
    """Of the latent's firings that are in it and in no pattern before it; in [0, 1]."""
    probability: float
    """That the latent fires in such a place of text; estimated low, by one firing."""


_Condition = tuple[str, str | None, str | None]
"""Kind, reading of the token before, reading of the token or its class."""


@dataclass(frozen=True)
class _Counts:
    """Firings and silent places by condition, tokens that read alike taken together; counters."""

    fired: dict[_Condition, float]
    silent: dict[_Condition, float]


@lru_cache(maxsize=100_000)
def reading(token: str) -> str:
    """What a token reads as in a condition: without the blanks around it and in small letters.

    Of blanks alone: a line break, two for more of them, one and a blank for one with indentation, a blank.
    """
    bare = token.strip()
    if bare:
        return bare.lower()
    breaks = token.count("\n") + token.count("\r") - token.count("\r\n")
    if breaks == 0:
        return " "
    return "\n" * min(breaks, 2) if token[-1] in "\r\n" else "\n "


def best_patterns(counts: TokenCounts, *, most: int = 5) -> list[Pattern]:
    """At most `most` conditions, one after another that which gains most on what is left.

    The gain of a condition is n log(P / density) - cost, with n the firings looked at that no earlier one
    covers, P the probability of firing under it (one firing taken off), and the cost 3 (a class), 6 (a
    token), 7 (a token before) or 11 nats (a pair): the length of a description that names it (minimum
    description length). Conditions are only named if they at least double the density.
    """
    if counts.firing_places == 0:
        return []
    table = _counts(counts)
    atoms = _atoms(counts)
    firing = counts.fired / counts.firing_places
    chosen: list[Pattern] = []
    while len(chosen) < most:
        left = _left(atoms)
        gains = {}
        several = _classes_of_several(atoms)
        for condition, weight in left.items():
            if condition[0] == "class" and condition[2] not in several:
                continue
            probability = _probability(table, condition, firing)
            if probability >= _LEAST_LIFT * counts.density:
                gain = weight / firing * log(probability / counts.density) - _COSTS[condition[0]]
                gains[condition] = gain
        found = max(gains, key=lambda key: (gains[key], _order(key)), default=None)
        if found is None or gains[found] <= 0:
            break
        kind, before, token = found
        share = left[found] / counts.fired
        chosen.append(Pattern(kind, before, token, share, _probability(table, found, firing)))
        atoms = {atom: weight for atom, weight in atoms.items() if found not in _conditions(*atom)}
    return chosen


def _classes_of_several(atoms: Mapping[tuple[str | None, str, str], float]) -> frozenset[str]:
    """Classes of which more than one token is left: of one, its own name says more."""
    readings: dict[str, set[str]] = {}
    for _, token, kind in atoms:
        readings.setdefault(kind, set()).add(token)
    return frozenset(kind for kind, tokens in readings.items() if len(tokens) > 1)


def _order(condition: _Condition) -> tuple[str, str, str]:
    kind, before, token = condition
    return kind, before or "", token or ""


def after(token: str) -> str:
    """As `reading`, all line breaks alike: what matters behind one is that the line has begun."""
    return "\n" if reading(token).startswith("\n") else reading(token)


def _conditions(before: str | None, token: str, kind: str) -> list[_Condition]:
    """All conditions that a firing meets."""
    found: list[_Condition] = [("token", None, token), ("class", None, kind)]
    if before is not None:
        found += [("before", before, None), ("pair", before, token)]
    return found


def _atoms(counts: TokenCounts) -> dict[tuple[str | None, str, str], float]:
    """Firings by token before, token and class of the token, as they read."""
    atoms: Counter[tuple[str | None, str, str]] = Counter()
    rest: Counter[str] = Counter({key[0]: weight for key, weight in counts.tokens.fired.items()})
    for (before, token), weight in counts.pairs.fired.items():
        atoms[after(before), reading(token), token_class(token)] += weight
        rest[token] -= weight
    for token, weight in rest.items():
        if weight > 1e-9 * counts.fired:
            atoms[None, reading(token), token_class(token)] += weight
    return dict(atoms)


def _left(atoms: Mapping[tuple[str | None, str, str], float]) -> dict[_Condition, float]:
    left: Counter[_Condition] = Counter()
    for atom, weight in sorted(atoms.items(), key=lambda item: (item[0][0] or "", *item[0][1:])):
        for condition in _conditions(*atom):
            left[condition] += weight
    return left


def _counts(counts: TokenCounts) -> _Counts:
    fired: Counter[_Condition] = Counter()
    silent: Counter[_Condition] = Counter()
    seen: Counter[_Condition] = Counter()
    for (token,), weight in counts.tokens.fired.items():
        fired["token", None, reading(token)] += weight
        fired["class", None, token_class(token)] += weight
    for (token,), weight in counts.tokens.silent.items():
        silent["token", None, reading(token)] += weight
        silent["class", None, token_class(token)] += weight
    for (token,), number in counts.tokens.seen_silent.items():
        seen["token", None, reading(token)] += number
    for (before,), weight in counts.before.fired.items():
        fired["before", after(before), None] += weight
    for (before,), weight in counts.before.silent.items():
        silent["before", after(before), None] += weight
    for condition in fired:
        silent[condition] += _UNSEEN * counts.silent_place
    for (before, token), weight in counts.pairs.fired.items():
        fired["pair", after(before), reading(token)] += weight
    for (before, token), number in counts.pairs.seen_silent.items():
        seen["pair", after(before), reading(token)] += number
    for condition in [condition for condition in fired if condition[0] == "pair"]:
        single: _Condition = ("token", None, condition[2])
        neutral = fired[condition] / fired[single]
        silent[condition] = silent[single] * (seen[condition] + neutral) / (seen[single] + 1)
    return _Counts(fired, silent)


def _probability(table: _Counts, condition: _Condition, firing: float) -> float:
    """F less one firing, so that a condition that was met once says nothing; over all its places."""
    fired = table.fired[condition]
    return max(0.0, fired - firing) / (fired + table.silent[condition])
