"""Two dictionaries of one site -> which latents of one are in the other, by direction, and which are not.

The latents of two dictionaries carry no common names. Here a latent of one is *matched* with a latent of the
other where each is the other's nearest by decoder cosine, and the cosine is at least `least`: so matching is
one-to-one by construction, and the same whichever dictionary is called first. Of the rest:

    lost    a latent of the reference that no latent of the other lies within `least` of
    gained  the same of the other dictionary
    split   a latent of the reference that is the nearest of two or more of the other's latents, all within
            `least` (merged: the same the other way round)

Random directions of width d have cosines of about sqrt(2 ln n / d) with the nearest of n others (.30 for 4096
in 192 dimensions); the limit of .7 is far above it. Sign counts: antipodal directions do not match.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

__all__ = ["Directions", "LatentMatching", "Nearest", "followers_of", "match_latents", "nearest_in"]

_BLOCK_BYTES = 64 * 2**20


@runtime_checkable
class Directions(Protocol):
    """Directions that are fetched as they are needed: of a dictionary that is larger than memory."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, latents: Int64[Tensor, " chosen"]) -> Float[Tensor, "chosen width"]:
        """Those of some latents."""
        ...

    def split(self, size: int) -> Iterable[Float[Tensor, "block width"]]:
        """All of them in order, so many at a time."""
        ...


@dataclass(frozen=True, eq=False)
class Nearest:
    """Of every latent of one dictionary the nearest of another."""

    index: Int64[np.ndarray, " latent"]
    cosine: Float64[np.ndarray, " latent"]


@dataclass(frozen=True, eq=False)
class LatentMatching:
    """Indices are into the directions that were given; every pair of `pairs` is one reference, one other."""

    pairs: Int64[np.ndarray, "pair 2"]
    cosine: Float64[np.ndarray, " pair"]
    lost: Int64[np.ndarray, " lost"]
    gained: Int64[np.ndarray, " gained"]
    split: dict[int, list[int]]
    """A reference latent -> the other's latents of which it is the nearest."""
    merged: dict[int, list[int]]
    reference_count: int
    other_count: int

    @property
    def matched_fraction(self) -> float | None:
        """Share of the reference's latents that are matched, in [0, 1]; None where it has none."""
        return len(self.pairs) / self.reference_count if self.reference_count else None


@torch.no_grad()
def nearest_in(
    one: Float[Tensor, "latent width"], other: Float[Tensor, "candidate width"] | Directions
) -> Nearest:
    """The direction of `other` with the largest cosine to each of `one`, of equals the first to rounding.

    Directions of zero length are nobody's nearest while there are others, and their own cosine is 0.
    Cost: one matrix product, in blocks of 64 MiB; memory does not grow with the number of latents of `other`.

    Raises:
        ValueError: there is nothing to be near to.
    """
    if not len(other):
        raise ValueError("there are no directions to be near to")
    wanted = torch.nn.functional.normalize(one.float(), dim=1)
    cosine = torch.full((len(one),), -torch.inf, device=one.device)
    index = torch.zeros(len(one), dtype=torch.int64, device=one.device)
    size = max(1, _BLOCK_BYTES // (4 * max(one.shape[1], 1)))
    first = 0
    for block in other.split(size):
        unit = torch.nn.functional.normalize(block.to(one.device, torch.float32), dim=1)
        # A product of 0 with them would else be the largest where all others are below 0.
        handicap = torch.where(unit.any(dim=1), 0.0, -torch.inf)
        rows = max(1, _BLOCK_BYTES // (4 * len(block)))
        for start in range(0, len(one), rows):
            part = slice(start, start + rows)
            best = (wanted[part] @ unit.T + handicap).max(dim=1)
            is_nearer = best.values > cosine[part]
            cosine[part] = torch.where(is_nearer, best.values, cosine[part])
            index[part] = torch.where(is_nearer, best.indices + first, index[part])
        first += len(block)
    cosine = torch.where(cosine == -torch.inf, 0.0, cosine)  # all of them have zero length
    return Nearest(index.cpu().numpy(), cosine.cpu().numpy().astype(np.float64))


def match_latents(
    reference: Float[Tensor, "latent width"],
    other: Float[Tensor, "candidate width"],
    *,
    least: float = 0.7,
) -> LatentMatching:
    """Matched pairs, and what is lost, gained, split and merged from `reference` to `other`.

    Args:
        reference: decoder directions, of any length.
        other: of the other dictionary, in the same space.
        least: cosine in (0, 1].

    Raises:
        ValueError: one of them is empty.
    """
    there, back = nearest_in(reference, other), nearest_in(other, reference)
    is_mutual = back.index[there.index] == np.arange(len(there.index))
    kept = np.flatnonzero(is_mutual & (there.cosine >= least))
    return LatentMatching(
        pairs=np.stack([kept, there.index[kept]], axis=1),
        cosine=there.cosine[kept],
        lost=np.flatnonzero(there.cosine < least),
        gained=np.flatnonzero(back.cosine < least),
        split=_several(back, least),
        merged=_several(there, least),
        reference_count=len(there.index),
        other_count=len(back.index),
    )


@torch.no_grad()
def followers_of(
    latents: Int64[np.ndarray, " chosen"],
    own: Float[Tensor, "latent width"] | Directions,
    other: Float[Tensor, "candidate width"] | Directions,
    *,
    least: float = 0.7,
) -> list[list[int]]:
    """Of some latents of a dictionary those of the other whose nearest it is, with at least this cosine.

    The nearest latent of the other dictionary is matched one-to-one where it is among them; two or more are
    a split. Cost: the products of the chosen ones with the other dictionary, and of those of it that come
    into question with all of this one: far fewer than all with all, where few are chosen.
    """
    unit = torch.nn.functional.normalize(own[torch.from_numpy(latents)].float(), dim=1)
    rows = max(1, _BLOCK_BYTES // (4 * max(*unit.shape, 1)))
    near = [
        ((torch.nn.functional.normalize(part.to(unit), dim=1) @ unit.T) >= least).any(dim=1).cpu()
        for part in other.split(rows)
    ]
    candidates = np.flatnonzero(torch.cat([torch.zeros(0, dtype=torch.bool), *near]).numpy())
    back = nearest_in(other[torch.from_numpy(candidates)], own)
    found: dict[int, list[int]] = {int(latent): [] for latent in latents}
    for candidate, nearest, cosine in zip(candidates, back.index, back.cosine, strict=True):
        if cosine >= least and int(nearest) in found:
            found[int(nearest)].append(int(candidate))
    return [found[int(latent)] for latent in latents]


def _several(nearest: Nearest, least: float) -> dict[int, list[int]]:
    """Those that are the nearest of two or more, with these."""
    followers: dict[int, list[int]] = {}
    for latent in np.flatnonzero(nearest.cosine >= least):
        followers.setdefault(int(nearest.index[latent]), []).append(int(latent))
    return {target: latents for target, latents in sorted(followers.items()) if len(latents) > 1}
