"""The evaluated text -> the tokens at which latents are ablated, the same for every checkpoint."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int, Int64, UInt64
from torch import Tensor

from autointerp.sampling.context_table import ContextTable
from autointerp.sampling.contexts import CorpusChunk
from autointerp.sampling.samplers.hashing import hashed, uniform

__all__ = ["DrawnPlaces", "Place", "PlaceGroup", "draw_places", "groups"]

_GROUP_TOKENS = 2048
"""Of contexts that are kept at once, padding included. A constant, not the suite's batch size: what a killed
run has done is found again by its group."""


@dataclass(frozen=True, eq=False)
class Place:
    """One token of the text."""

    context: int
    """Id of its context, the same in every run."""
    position: int
    tokens: Int[np.ndarray, " position"]
    """Of its context, up to the last one that an ablation here is followed to."""
    document: str

    @property
    def unit(self) -> str:
        """Its name in observations."""
        return f"{self.context:016x}/{self.position}"


@dataclass(frozen=True, eq=False)
class DrawnPlaces:
    """What was drawn, and from how many."""

    places: tuple[Place, ...]
    """In the order of their hashes, so that the first n are those of a smaller sample."""
    eligible_count: int
    scored_count: int
    """Scored tokens at positions >= 1; those that are not eligible stand too near the end of a context."""


def draw_places(chunks: Iterable[CorpusChunk], *, samples: int, horizon: int, seed: int) -> DrawnPlaces:
    """Tokens drawn uniformly, without replacement, from all eligible ones.

    Eligible are scored tokens at positions >= 1 with at least `horizon - 1` tokens after them in their
    context, which may be another document's where documents are packed. Those of the smallest hashes of
    (seed, context, position) are taken, so the sample depends on nothing but the text and the seed; where the
    same text is there twice, once.

    Memory: the tokens of the contexts drawn so far, and one chunk's.
    """
    kept: list[tuple[int, Place]] = []
    eligible_count = scored_count = 0
    for chunk in chunks:
        frame = ContextTable.of(chunk).frame
        scored = _scored_tokens(frame)
        lengths = frame["tokens"].list.len().to_numpy().astype(np.int64)
        eligible = _Tokens(*(each[scored.position + horizon <= lengths[scored.row]] for each in scored))
        scored_count += len(scored.row)
        eligible_count += len(eligible.row)
        found = _smallest(frame, eligible, samples=samples, horizon=horizon, seed=seed)
        kept = _distinct(sorted([*kept, *found], key=lambda item: (item[0], item[1].unit)))[:samples]
    return DrawnPlaces(tuple(place for _, place in kept), eligible_count, scored_count)


class _Tokens(NamedTuple):
    """Tokens of a chunk: the number of their context in its table, and their position in it."""

    row: Int64[np.ndarray, " token"]
    position: Int64[np.ndarray, " token"]


def _scored_tokens(frame: pl.DataFrame) -> _Tokens:
    positions = []
    for first, unscored, tokens in frame.select("first_scored", "unscored", "tokens").iter_rows():
        every = np.arange(max(first, 1), len(tokens))
        positions.append(every[~np.isin(every, np.array(unscored, dtype=np.int64))])
    rows = np.repeat(np.arange(len(positions)), [len(each) for each in positions])
    return _Tokens(rows, np.concatenate(positions))


def _smallest(
    frame: pl.DataFrame, eligible: _Tokens, *, samples: int, horizon: int, seed: int
) -> list[tuple[int, Place]]:
    """The eligible tokens of the smallest hashes; some more, where the same text is there twice."""
    contexts = frame["context"].to_numpy()
    hashes = hashed(seed, "ablation", contexts[eligible.row], eligible.position)
    smallest = np.unique(hashes)[:samples]
    chosen = np.flatnonzero(hashes <= smallest[-1]) if len(smallest) else []
    found = []
    for index in chosen:
        row, position = int(eligible.row[index]), int(eligible.position[index])
        tokens = frame["tokens"][row].to_numpy()[: position + horizon].astype(np.int64)
        place = Place(int(contexts[row]), position, tokens, str(frame["document"][row]))
        found.append((int(hashes[index]), place))
    return found


def _distinct(items: Sequence[tuple[int, Place]]) -> list[tuple[int, Place]]:
    return list({place.unit: (number, place) for number, place in reversed(items)}.values())[::-1]


@dataclass(frozen=True, eq=False)
class PlaceGroup:
    """Places whose contexts are run at once."""

    places: tuple[Place, ...]
    """By context, then position."""

    @cached_property
    def contexts(self) -> tuple[Int[np.ndarray, " position"], ...]:
        """The tokens of each context once, as far as any of its places needs them."""
        longest: dict[int, Int[np.ndarray, " position"]] = {}
        for place in self.places:
            if len(place.tokens) > len(longest.get(place.context, ())):
                longest[place.context] = place.tokens
        return tuple(longest.values())

    @cached_property
    def context(self) -> Int[Tensor, " row"]:
        """By place, which of `contexts` is its own."""
        numbers: dict[int, int] = {}
        return torch.tensor([numbers.setdefault(place.context, len(numbers)) for place in self.places])

    @cached_property
    def position(self) -> Int[Tensor, " row"]:
        """Of each place."""
        return torch.tensor([place.position for place in self.places])

    @cached_property
    def tokens(self) -> Int[Tensor, "batch position"]:
        """The contexts, padded on the right with an id that is masked."""
        grid = torch.zeros(self.mask.shape, dtype=torch.long)
        grid[self.mask] = torch.from_numpy(np.concatenate(self.contexts))
        return grid

    @cached_property
    def mask(self) -> Bool[Tensor, "batch position"]:
        """True where there is a token."""
        lengths = torch.tensor([len(tokens) for tokens in self.contexts])
        return torch.arange(int(lengths.max()))[None] < lengths[:, None]

    def choices(self, count: Int64[np.ndarray, " row"], *, seed: int, what: str) -> Int64[np.ndarray, " row"]:
        """By place a number below `count`, uniformly, by hash of the place: the same for every checkpoint."""
        return (self._uniform(seed, what) * count).astype(np.int64)

    def directions(self, width: int, *, seed: int) -> Float[Tensor, "row width"]:
        """By place a direction uniform on the unit sphere, by hash of the place."""
        seeds = self._hashes(seed, "ablated direction")
        drawn = np.stack([np.random.default_rng(int(each)).standard_normal(width) for each in seeds])
        return torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).float()

    def _uniform(self, seed: int, what: str) -> Float[np.ndarray, " row"]:
        return uniform(self._hashes(seed, what))

    def _hashes(self, seed: int, what: str) -> UInt64[np.ndarray, " row"]:
        contexts = np.array([place.context for place in self.places], dtype=np.uint64)
        return hashed(seed, what, contexts, self.position.numpy())


def groups(places: Sequence[Place]) -> list[PlaceGroup]:
    """The places by context, contexts of like length together, in groups of about 2048 tokens."""
    length: dict[int, int] = {}
    for place in places:
        length[place.context] = max(length.get(place.context, 0), len(place.tokens))
    ordered = sorted(places, key=lambda place: (length[place.context], place.context, place.position))
    found: list[list[Place]] = []
    held: set[int] = set()
    for place in ordered:
        held.add(place.context)
        if not found or len(held) * length[place.context] > _GROUP_TOKENS:
            found.append([])
            held = {place.context}
        found[-1].append(place)
    return [PlaceGroup(tuple(group)) for group in found]
