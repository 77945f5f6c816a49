"""Examples of a latent -> how often it fires and is silent on tokens, on pairs and on triples, in text.

Examples are no text as it comes: contexts in which the latent fires are over-represented by far. So a place
counts with the weight of its example, and silent places are scaled so that firings are as frequent among all
as they are in the run (`LatentEvidence.density`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from autointerp.explaining.choosing import FIRING_SAMPLERS, mixed
from autointerp.explanation_records import Example, LatentEvidence

__all__ = ["Key", "KeyCounts", "TokenCounts", "counted"]

Key = tuple[str, ...]
"""Texts of one to three adjacent tokens, in reading order."""

_UNWEIGHTED = ("same_token", "near_misses", "neighbours", "similar")


@dataclass(frozen=True, eq=False)
class KeyCounts:
    """Counters, 0 for other keys; in places of the text that the examples stand for, or as is said."""

    fired: dict[Key, float] = field(default_factory=Counter)
    """Firings."""
    mass: dict[Key, float] = field(default_factory=Counter)
    """Sum of |activation| over them."""
    silent: dict[Key, float] = field(default_factory=Counter)
    """Places without firing."""
    seen_silent: dict[Key, float] = field(default_factory=Counter)
    """Silent places among all examples, hard negatives included, unweighted: not how many there are in text,
    but how those of a token divide among what stands before it. Of pairs and triples only those whose last
    token, or last two, has a firing."""


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """What the examples say of text as it comes."""

    firing_places: int
    """Firings that were looked at, unweighted."""
    fired: float
    """Firings in the text that the examples stand for."""
    mass: float
    """Sum of |activation| over them."""
    silent: float
    """Places without firing in that text."""
    silent_place: float
    """How many of these a silent place of the examples stands for, in the mean; 0 where there is none."""
    tokens: KeyCounts = field(default_factory=KeyCounts)
    """By (token,)."""
    before: KeyCounts = field(default_factory=KeyCounts)
    """By (token before,), whatever the token."""
    pairs: KeyCounts = field(default_factory=KeyCounts)
    """By (token before, token)."""
    triples: KeyCounts = field(default_factory=KeyCounts)
    """By (second token before, token before, token)."""

    @property
    def density(self) -> float:
        """Share of the places on which the latent fires."""
        return self.fired / (self.fired + self.silent) if self.fired > 0 else 0.0


_Place = tuple[Sequence[str], int, float, float]
"""Tokens of the example, index of the place, activation there, weight of the example."""


def counted(evidence: LatentEvidence) -> TokenCounts:
    """The counts.

    Firings come from `quantiles` (all in the window, by the weight of the context) and from `uniform` (the
    drawn one alone), each an estimate of all firings' distribution; they are averaged by how many firings
    they rest on. Silent places come from the same windows and from `silent`. Without either sampler of
    firings the next of `FIRING_SAMPLERS` stands in, which for `top` describes the strongest firings only.

    Cost: about 5 us a place.
    """
    parts = _firing_parts(evidence)
    looked_at = sum(len(part) for part in parts)
    totals = [sum(weight for *_, weight in part) for part in parts]
    fired = totals[-1] if totals else 0.0
    counting = _Counting()
    for part, total in zip(parts, totals, strict=True):
        factor = fired / total * len(part) / looked_at
        for tokens, place, activation, weight in part:
            counting.add_firing(tokens, place, abs(activation), weight * factor)
    silent_places = list(_silent_places(evidence))
    weighed = sum(weight for *_, weight in silent_places)
    silent = fired * (1 / evidence.density - 1) if 0 < evidence.density < 1 else weighed
    scale = silent / weighed if weighed > 0 else 0.0
    for tokens, place, _, weight in silent_places:
        counting.add_silent(tokens, place, weight * scale)
    for tokens, place, _, _ in _hard_places(evidence):
        if counting.has_fired(tokens[place]):
            counting.add_silent(tokens, place, 0.0)
    return TokenCounts(
        firing_places=looked_at,
        fired=fired,
        mass=sum(counting.levels[1].mass.values()),
        silent=silent,
        silent_place=silent / len(silent_places) if silent_places else 0.0,
        tokens=counting.levels[1],
        before=counting.before,
        pairs=counting.levels[2],
        triples=counting.levels[3],
    )


class _Counting:
    """Counters that are being filled: first the firings, then the silent places."""

    def __init__(self) -> None:
        self.levels = {length: KeyCounts() for length in (1, 2, 3)}
        self.before = KeyCounts()

    def has_fired(self, token: str) -> bool:
        return (token,) in self.levels[1].fired

    def add_firing(self, tokens: Sequence[str], place: int, size: float, weight: float) -> None:
        for length in range(1, min(3, place + 1) + 1):
            key = tuple(tokens[place - length + 1 : place + 1])
            self.levels[length].fired[key] += weight
            self.levels[length].mass[key] += weight * size
        if place > 0:
            key = (tokens[place - 1],)
            self.before.fired[key] += weight
            self.before.mass[key] += weight * size

    def add_silent(self, tokens: Sequence[str], place: int, weight: float) -> None:
        """A weight of 0: a place that says nothing of how many there are."""
        key: Key = (tokens[place],)
        for length in range(1, min(3, place + 1) + 1):
            key = tuple(tokens[place - length + 1 : place + 1])
            counts = self.levels[length]
            counts.seen_silent[key] += 1
            if weight > 0:
                counts.silent[key] += weight
            if key not in counts.fired:
                break
        if place > 0 and weight > 0:
            self.before.silent[(tokens[place - 1],)] += weight


def _firing_parts(evidence: LatentEvidence) -> list[list[_Place]]:
    """Firings by sampler; the weights of the last part add up to all firings of the text."""
    windows = [place for place in _places(_window_examples(evidence)) if place[2] != 0]
    drawn = mixed(evidence.examples.get("uniform", ()))
    foci = [
        (example.tokens, example.focus, example.activations[example.focus], example.weight)
        for example in drawn
        if example.activations[example.focus] != 0
    ]
    return [part for part in (windows, foci) if part]


def _window_examples(evidence: LatentEvidence) -> list[Example]:
    """The examples of whose windows every place counts."""
    if evidence.examples.get("quantiles"):
        return mixed(evidence.examples["quantiles"])
    if evidence.examples.get("uniform"):
        return []
    samplers = [name for name in FIRING_SAMPLERS if evidence.examples.get(name)]
    return mixed(evidence.examples[samplers[0]]) if samplers else []


def _silent_places(evidence: LatentEvidence) -> Iterator[_Place]:
    windows = _window_examples(evidence) or mixed(evidence.examples.get("uniform", ()))
    for place in _places([*windows, *mixed(evidence.examples.get("silent", ()))]):
        if place[2] == 0:
            yield place


def _hard_places(evidence: LatentEvidence) -> Iterator[_Place]:
    for name in _UNWEIGHTED:
        yield from _places(mixed(evidence.examples.get(name, ())))


def _places(examples: Iterable[Example]) -> Iterator[_Place]:
    for example in examples:
        tokens, weight = example.tokens, example.weight
        for place, activation in enumerate(example.activations):
            yield tokens, place, activation, weight
