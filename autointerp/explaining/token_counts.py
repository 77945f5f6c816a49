"""Examples of a latent -> how often it fires and is silent on tokens, on pairs and on triples, in text.

Examples are no text as it comes: contexts in which the latent fires are over-represented by far. So a place
counts with the weight of its example, and silent places are scaled so that firings are as frequent among all
as they are in the run (`LatentEvidence.density`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat

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

    Cost: about 1 us a place.
    """
    windows = _window_examples(evidence)
    drawn = mixed(evidence.examples.get("uniform", ()))
    parts = _firing_parts(windows, drawn)
    looked_at = sum(len(part) for part in parts)
    totals = [sum(weight for *_, weight in part) for part in parts]
    fired = totals[-1] if totals else 0.0
    counting = _Counting()
    for part, total in zip(parts, totals, strict=True):
        factor = fired / total * len(part) / looked_at
        for tokens, place, activation, weight in part:
            counting.add_firing(tokens, place, abs(activation), weight * factor)
    silent_examples = [*(windows or drawn), *mixed(evidence.examples.get("silent", ()))]
    silent_weights = [repeat(each.weight, each.activations.count(0)) for each in silent_examples]
    silent_count = sum(each.activations.count(0) for each in silent_examples)
    weighed = sum(chain.from_iterable(silent_weights))
    silent = fired * (1 / evidence.density - 1) if 0 < evidence.density < 1 else weighed
    scale = silent / weighed if weighed > 0 else 0.0
    for example in silent_examples:
        counting.add_silent(example, example.weight * scale)
    for example in _hard_examples(evidence):
        counting.add_silent(example, 0.0, only_fired=True)
    return TokenCounts(
        firing_places=looked_at,
        fired=fired,
        mass=sum(counting.levels[1].mass.values()),
        silent=silent,
        silent_place=silent / silent_count if silent_count else 0.0,
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

    def add_firing(self, tokens: Sequence[str], place: int, size: float, weight: float) -> None:
        for length in range(1, min(3, place + 1) + 1):
            key = tuple(tokens[place - length + 1 : place + 1])
            self.levels[length].fired[key] += weight
            self.levels[length].mass[key] += weight * size
        if place > 0:
            key = (tokens[place - 1],)
            self.before.fired[key] += weight
            self.before.mass[key] += weight * size

    def add_silent(self, example: Example, weight: float, *, only_fired: bool = False) -> None:
        """All silent places of an example, or those on tokens that have a firing.

        A weight of 0: places that say nothing of how many there are.
        """
        tokens, single, before = example.tokens, self.levels[1], self.before.silent
        for place, activation in enumerate(example.activations):
            if activation != 0:
                continue
            key = (tokens[place],)
            has_fired = key in single.fired
            if only_fired and not has_fired:
                continue
            single.seen_silent[key] = single.seen_silent.get(key, 0) + 1
            if weight > 0:
                single.silent[key] = single.silent.get(key, 0) + weight
                if place > 0:
                    earlier = (tokens[place - 1],)
                    before[earlier] = before.get(earlier, 0) + weight
            if has_fired:
                self._add_longer(tokens, place, weight)

    def _add_longer(self, tokens: Sequence[str], place: int, weight: float) -> None:
        """The pair and the triple that end at a silent place, as long as what follows has a firing."""
        for length in range(2, min(3, place + 1) + 1):
            key = tuple(tokens[place - length + 1 : place + 1])
            counts = self.levels[length]
            counts.seen_silent[key] += 1
            if weight > 0:
                counts.silent[key] += weight
            if key not in counts.fired:
                break


def _firing_parts(windows: Sequence[Example], drawn: Sequence[Example]) -> list[list[_Place]]:
    """Firings by sampler; the weights of the last part add up to all firings of the text."""
    everywhere = [
        (example.tokens, place, activation, example.weight)
        for example in windows
        for place, activation in enumerate(example.activations)
        if activation != 0
    ]
    foci = [
        (example.tokens, example.focus, example.activations[example.focus], example.weight)
        for example in drawn
        if example.activations[example.focus] != 0
    ]
    return [part for part in (everywhere, foci) if part]


def _window_examples(evidence: LatentEvidence) -> list[Example]:
    """The examples of whose windows every place counts."""
    if evidence.examples.get("quantiles"):
        return mixed(evidence.examples["quantiles"])
    if evidence.examples.get("uniform"):
        return []
    samplers = [name for name in FIRING_SAMPLERS if evidence.examples.get(name)]
    return mixed(evidence.examples[samplers[0]]) if samplers else []


def _hard_examples(evidence: LatentEvidence) -> Iterator[Example]:
    for name in _UNWEIGHTED:
        yield from mixed(evidence.examples.get(name, ()))
