"""Activation functions that keep a fixed number of latents per token: top-k, by magnitude, one a group."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.checkpoints.activation_functions import Firing, WithoutTensors
from autointerp.errors import CheckpointError

__all__ = ["AbsTopK", "GroupMax", "TopK", "largest_indices"]

_GROUP_SIZE = 8
"""Latents per group in `_candidates`; with 16 and more, more is gathered than the shorter scan saves."""


class _Kept(NamedTuple):
    """The latents still in the running: per token up to k, in ascending order."""

    latents: Int[Tensor, "token kept"]
    values: Float[Tensor, "token kept"]
    """Their pre-activations."""
    ranks: Float[Tensor, "token kept"]
    """What the choice goes by."""

    def columns(self, chosen: Int[Tensor, "token k"]) -> "_Kept":
        return _Kept(*(part.gather(1, chosen) for part in self))


class _Choosing:
    """What functions that choose among a token's latents have in common."""

    needs_all_latents: ClassVar[bool] = False

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense."""
        kept = self.take(None, pre, 0)
        return torch.zeros_like(pre).scatter_(1, kept.latents, self._values(kept))

    def firing(self, pre: Float[Tensor, "token latent"]) -> Firing:
        """The kept latents that are not exactly zero."""
        return self.fire(self.take(None, pre, 0))

    def take(self: Any, seen: _Kept | None, pre: Float[Tensor, "token shard"], first: int) -> _Kept:
        """The k best of what was kept before and of this shard; on ties the lowest latents stay."""
        ranks = self._ranks(pre, first)
        best = largest_indices(ranks, min(self.k, pre.shape[1]))
        new = _Kept(best + first, pre.gather(1, best), ranks.gather(1, best))
        if seen is None:
            return new
        both = _Kept(*(torch.cat(parts, dim=1) for parts in zip(seen, new, strict=True)))
        return both.columns(largest_indices(both.ranks, min(self.k, both.ranks.shape[1])))

    def fire(self, seen: _Kept) -> Firing:
        """The kept latents that are not exactly zero."""
        values = self._values(seen)
        tokens, slots = torch.nonzero(values, as_tuple=True)
        return Firing(tokens, seen.latents[tokens, slots], values[tokens, slots])

    def _ranks(self, pre: Float[Tensor, "token shard"], _first: int) -> Float[Tensor, "token shard"]:
        return pre

    def _values(self, kept: _Kept) -> Float[Tensor, "token kept"]:
        return torch.relu(kept.values)


@dataclass(frozen=True)
class TopK(_Choosing):
    """The k largest pre-activations of a token pass, all others become zero; then `postact`.

    `z_i = postact(p_i)` if p_i is among the k largest of its token, else 0. Ties at the edge keep the lowest
    latent indices. With `relu` a token whose k-th largest pre-activation is negative fires fewer than k
    latents. Applying ReLU before or after the choice gives the same latents. With `weight` the choice goes by
    `p_i * weight_i` (libraries that choose by what a latent adds to the reconstruction: weight = ||W_dec||),
    the values stay p.

    Source: Gao et al. 2024 (arXiv 2406.04093), section 2.3.
    """

    k: int
    postact: Literal["relu", "identity"] = "relu"
    weight: Float[Tensor, " latent"] | None = None

    def __post_init__(self) -> None:
        """Refuse a k that keeps nothing, and a postact that is none of the two."""
        _check_k(self.k)
        if self.postact not in {"relu", "identity"}:
            raise CheckpointError(f"top-k knows the postact 'relu' and 'identity', got {self.postact!r}")

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "TopK":
        """The same function, its weight elsewhere or in another precision."""
        if self.weight is None:
            return self
        return replace(self, weight=self.weight.to(device=device, dtype=dtype))

    def tensors(self) -> dict[str, Tensor]:
        """The weight, if there is one."""
        return {} if self.weight is None else {"weight": self.weight}

    def describe(self) -> str:
        """`topk(k=32)`; what is not as usual is named."""
        extra = "" if self.postact == "relu" else f", postact={self.postact}"
        return f"topk(k={self.k}{extra})" if self.weight is None else f"topk(k={self.k}{extra}, weighted)"

    def _ranks(self, pre: Float[Tensor, "token shard"], first: int) -> Float[Tensor, "token shard"]:
        return pre if self.weight is None else pre * self.weight[first : first + pre.shape[1]]

    def _values(self, kept: _Kept) -> Float[Tensor, "token kept"]:
        return torch.relu(kept.values) if self.postact == "relu" else kept.values


@dataclass(frozen=True)
class AbsTopK(_Choosing, WithoutTensors):
    """The k pre-activations of largest magnitude pass with their signs, all others become zero.

    Ties at the edge keep the lowest latent indices. Latents may be negative.
    """

    k: int

    def __post_init__(self) -> None:
        """Refuse a k that keeps nothing."""
        _check_k(self.k)

    def describe(self) -> str:
        """`abstopk(k=32)`."""
        return f"abstopk(k={self.k})"

    def _ranks(self, pre: Float[Tensor, "token shard"], _first: int) -> Float[Tensor, "token shard"]:
        return pre.abs()

    def _values(self, kept: _Kept) -> Float[Tensor, "token kept"]:
        return kept.values


@dataclass(frozen=True)
class GroupMax(_Choosing, WithoutTensors):
    """The latents lie in k equal groups, one after the other; of each group the largest passes a ReLU.

    Ties keep the lowest latent index. Source: EleutherAI's sparsify, activation `groupmax`.
    """

    k: int
    latent_count: int

    def __post_init__(self) -> None:
        """Refuse groups that are not equal."""
        _check_k(self.k)
        if self.latent_count % self.k:
            raise CheckpointError(f"groupmax cannot deal {self.latent_count} latents into {self.k} groups")

    def take(self, seen: _Kept | None, pre: Float[Tensor, "token shard"], first: int) -> _Kept:
        """Per group the largest latent so far; a group may begin in one shard and end in another."""
        size = self.latent_count // self.k
        columns = [] if seen is None else [seen]
        start = 0
        while start < pre.shape[1]:
            stop = min(pre.shape[1], start + size - (first + start) % size)
            best = largest_indices(pre[:, start:stop], 1)
            values = pre[:, start:stop].gather(1, best)
            new = _Kept(best + first + start, values, values)
            if columns and (first + start) % size:  # goes on with a group that began before
                columns[-1] = _better(columns[-1], new)
            else:
                columns.append(new)
            start = stop
        return _Kept(*(torch.cat(parts, dim=1) for parts in zip(*columns, strict=True)))

    def describe(self) -> str:
        """`groupmax(k=32)`."""
        return f"groupmax(k={self.k})"


def _better(before: _Kept, new: _Kept) -> _Kept:
    """The last column of `before` replaced where `new`, one column, is larger."""
    better = new.values > before.values[:, -1:]
    last = (torch.where(better, mine, theirs[:, -1:]) for mine, theirs in zip(new, before, strict=True))
    return _Kept(*(torch.cat([part[:, :-1], end], dim=1) for part, end in zip(before, last, strict=True)))


def _check_k(k: object) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise CheckpointError(f"top-k needs a whole k of at least 1, got {k!r}")


def largest_indices(pre: Float[Tensor, "token latent"], k: int) -> Int[Tensor, "token k"]:
    """Per token the indices of the k largest entries, ascending; ties at the edge keep the lowest indices.

    torch promises nothing about ties, so the k+1 largest are taken: when the last two are equal, somebody
    with the same value was left out, and that token is decided again by counting.
    """
    token_count, latent_count = pre.shape
    if k == latent_count:
        return torch.arange(k, device=pre.device).expand(token_count, k)
    candidates = _candidates(pre, k + 1) if _pays_off(pre, k) else None
    values, slots = torch.topk(pre if candidates is None else pre.gather(1, candidates), k + 1, dim=1)
    indices = slots if candidates is None else candidates.gather(1, slots)
    indices = indices[:, :k].sort(dim=1).values
    tied = torch.nonzero(values[:, k] == values[:, k - 1]).squeeze(1)
    if tied.numel():
        indices[tied] = _lowest_of_ties(pre[tied], values[tied, k - 1 : k], k)
    return indices


def _pays_off(pre: Float[Tensor, "token latent"], k: int) -> bool:
    """In half precision a GPU gains nothing by it (measured on an H100)."""
    is_fast = pre.device.type == "cpu" or pre.dtype == torch.float32
    return is_fast and pre.shape[1] >= 8 * _GROUP_SIZE * (k + 1)


def _candidates(pre: Float[Tensor, "token latent"], k: int) -> Int[Tensor, "token candidate"]:
    """Few indices among which the k largest values of each token lie: 8k of them instead of all n.

    Latents are dealt into groups, and only the k groups with the largest maxima are kept. Each of them holds
    a value at least as large as anything outside them, so the k largest values of the candidates are the k
    largest of all. The members of a group lie far apart: their maximum is then one of whole stretches of
    memory. Latents that fill no group are always candidates.
    """
    group_count = pre.shape[1] // _GROUP_SIZE
    grouped = group_count * _GROUP_SIZE
    maxima = pre[:, :grouped].unflatten(1, (_GROUP_SIZE, group_count)).amax(dim=1)
    groups = torch.topk(maxima, k, dim=1, sorted=False).indices
    steps = torch.arange(0, grouped, group_count, device=pre.device)
    members = (groups.unsqueeze(2) + steps).flatten(1)
    rest = torch.arange(grouped, pre.shape[1], device=pre.device).expand(pre.shape[0], -1)
    return torch.cat([members, rest], dim=1)


def _lowest_of_ties(
    pre: Float[Tensor, "token latent"], edge: Float[Tensor, "token 1"], k: int
) -> Int[Tensor, "token k"]:
    """The k largest where `edge`, the k-th largest value, occurs too often: all above it, then the first."""
    above, equal = pre > edge, pre == edge
    places_left = k - above.sum(dim=1, keepdim=True)
    keep = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= places_left))
    return torch.nonzero(keep, as_tuple=True)[1].view(-1, k)
