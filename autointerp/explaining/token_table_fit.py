"""Counts of tokens, pairs and triples -> the smoothed table that predicts a latent's activation."""

from collections.abc import Mapping

from autointerp.explaining.token_counts import Key, KeyCounts, TokenCounts
from autointerp.explaining.token_table_data import Cell, TokenTable, joined, token_class

__all__ = ["fitted_table"]

_UNSEEN = 0.25  # silent places of the sample that a token may have beyond those that were drawn
_SHRINKAGE = 2  # firings that speak for what would be predicted without a row
_MOST_ROWS = 200  # of each part of a table; those are kept that change the prediction most
_LEAST_CHANGE = 0.02  # of the mean activation: a row that changes the prediction by less is left out


def fitted_table(counts: TokenCounts, *, scale: float) -> TokenTable:
    """The table.

    Each cell is shrunk towards what would be predicted without it, by the weight w of two firings:
    P = (F + w P') / (F + S + w), with F firings, S silent places and P' the probability from the token's
    class, for a token; from token and token before (`joined`), for a pair; from the pair, for a triple.
    Magnitudes likewise. S of a token is its silent places and a quarter of a place of the sample more, as a
    sample without a silent one does not show that there is none. S of a pair is the token's, divided as all
    silent places that were seen of it are, and one more that divides as its firings do; so hard negatives
    say in which company a token stays silent, and not how often. A triple divides its pair likewise.

    Args:
        counts: of the examples.
        scale: largest |activation| among them.
    """
    return _Fit(counts, scale).table()


class _Fit:
    """One table in the making."""

    def __init__(self, counts: TokenCounts, scale: float) -> None:
        self._counts = counts
        self._scale = scale
        self._weight = _SHRINKAGE * counts.fired / counts.firing_places
        self._extra = _UNSEEN * counts.silent_place
        self.prior = Cell(counts.density, counts.mass / counts.fired, counts.fired + counts.silent)
        self._least = _LEAST_CHANGE * self.prior.magnitude

    def table(self) -> TokenTable:
        counts = self._counts
        classes = self._classes()
        by_token = {
            key: fallback
            for key in _keys(counts.tokens)
            if self._matters(counts.tokens, key, fallback := classes.get(token_class(key[0]), self.prior))
        }
        tokens = {
            key: self._cell(counts.tokens, key, by_token[key], self._silent(counts.tokens, key))
            for key in by_token
        }
        before = {
            key: self._cell(counts.before, key, self.prior, self._silent(counts.before, key))
            for key in _keys(counts.before)
            if self._matters(counts.before, key, self.prior)
        }
        pairs, pair_fallback = self._pairs(tokens, before)
        triples, triple_fallback = self._triples(pairs)
        return TokenTable(
            scale=self._scale,
            prior=self.prior,
            classes=classes,
            tokens={key[0]: cell for key, cell in self._kept(tokens, by_token).items()},
            before={
                key[0]: cell for key, cell in self._kept(before, dict.fromkeys(before, self.prior)).items()
            },
            pairs={(key[0], key[1]): cell for key, cell in self._kept(pairs, pair_fallback).items()},
            triples={
                (key[0], key[1], key[2]): cell for key, cell in self._kept(triples, triple_fallback).items()
            },
        )

    def _classes(self) -> dict[str, Cell]:
        grouped = KeyCounts()
        for name in ("fired", "mass", "silent"):
            own: dict[Key, float] = getattr(self._counts.tokens, name)
            total: dict[Key, float] = getattr(grouped, name)
            for key, value in own.items():
                total[(token_class(key[0]),)] += value
        return {
            key[0]: self._cell(grouped, key, self.prior, grouped.silent[key] + self._extra)
            for key in _keys(grouped)
        }

    def _silent(self, counts: KeyCounts, key: Key) -> float:
        return counts.silent[key] + self._extra

    def _pairs(
        self, tokens: Mapping[Key, Cell], before: Mapping[Key, Cell]
    ) -> tuple[dict[Key, Cell], dict[Key, Cell]]:
        cells, fallback = {}, {}
        for key in _keys(self._counts.pairs):
            own = tokens[key[1:]]
            earlier = before.get(key[:1], self.prior)
            without = joined(own, earlier, self.prior)
            if not self._matters(self._counts.pairs, key, without):
                continue
            fallback[key] = without
            silent = self._divided(
                self._counts.tokens, self._counts.pairs, key, self._silent(self._counts.tokens, key[1:])
            )
            cells[key] = self._cell(self._counts.pairs, key, fallback[key], silent)
        return cells, fallback

    def _triples(self, pairs: Mapping[Key, Cell]) -> tuple[dict[Key, Cell], dict[Key, Cell]]:
        cells, fallback = {}, {}
        counts = self._counts
        for key in _keys(counts.triples):
            pair = key[1:]
            if pair not in pairs or not self._matters(counts.triples, key, pairs[pair]):
                continue
            fallback[key] = pairs[pair]
            whole = self._divided(counts.tokens, counts.pairs, pair, self._silent(counts.tokens, pair[1:]))
            silent = self._divided(counts.pairs, counts.triples, key, whole)
            cells[key] = self._cell(counts.triples, key, fallback[key], silent)
        return cells, fallback

    def _matters(self, counts: KeyCounts, key: Key, fallback: Cell) -> bool:
        """Whether a row could change the prediction; one without a firing only takes from the fallback."""
        return key in counts.fired or fallback.expected >= self._least

    def _divided(self, shorter: KeyCounts, longer: KeyCounts, key: Key, silent: float) -> float:
        """The part of the silent places of key[1:] that stand behind key[0]."""
        fired = shorter.fired[key[1:]]
        neutral = longer.fired[key] / fired if fired > 0 else 0.0
        return silent * (longer.seen_silent[key] + neutral) / (shorter.seen_silent[key[1:]] + 1)

    def _cell(self, counts: KeyCounts, key: Key, fallback: Cell, silent: float) -> Cell:
        weight = self._weight
        fired, mass = counts.fired[key], counts.mass[key]
        return Cell(
            probability=min(1.0, (fired + weight * fallback.probability) / (fired + silent + weight)),
            magnitude=(mass + weight * fallback.magnitude) / (fired + weight),
            count=fired + silent,
        )

    def _kept(self, cells: Mapping[Key, Cell], fallback: Mapping[Key, Cell]) -> dict[Key, Cell]:
        """The rows that change what is predicted, largest changes first, in a fixed order."""
        changes = {key: abs(cell.expected - fallback[key].expected) for key, cell in cells.items()}
        largest = sorted(
            (key for key in cells if changes[key] >= self._least), key=lambda key: (-changes[key], key)
        )
        return {key: cells[key] for key in sorted(largest[:_MOST_ROWS])}


def _keys(counts: KeyCounts) -> list[Key]:
    return sorted({*counts.fired, *counts.seen_silent, *counts.silent})
