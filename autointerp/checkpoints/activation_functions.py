"""Activation functions: pre-activations in, latents out, dense or as a list of what fires.

Every function is a small frozen value with the same four members, so a new one is one more class here:
`__call__` (dense), `firing` (sparse), `to` (device and dtype of its tensors) and `describe` (how a report
names it).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.errors import CheckpointError

__all__ = ["ActivationFunction", "Firing", "Identity", "JumpReLU", "ReLU", "TopK"]

_GROUP_SIZE = 8
"""Latents per group in `_candidates`; with 16 and more, more is gathered than the shorter scan saves."""


class Firing(NamedTuple):
    """The latents that fire, ordered by token and, within a token, by latent."""

    tokens: Int[Tensor, " active"]
    latents: Int[Tensor, " active"]
    values: Float[Tensor, " active"]


@runtime_checkable
class ActivationFunction(Protocol):
    """What the dictionary needs of its activation function."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense."""
        ...

    def firing(self, pre: Float[Tensor, "token latent"]) -> Firing:
        """The same latents, as a list of those that are not zero."""
        ...

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "ActivationFunction":
        """The same function with its tensors elsewhere or in another precision."""
        ...

    def describe(self) -> str:
        """Name and setting, for a report: `topk(k=32)`."""
        ...


class _WithoutTensors:
    """What a function without parameters has in common with others like it."""

    def to(self, **_device_and_dtype: Any) -> "ActivationFunction":
        """Itself: there is nothing to move."""
        return self


@dataclass(frozen=True)
class ReLU(_WithoutTensors):
    """`z = max(p, 0)`."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense."""
        return torch.relu(pre)

    def firing(self, pre: Float[Tensor, "token latent"]) -> Firing:
        """The latents above zero."""
        return _nonzero(self(pre))

    def describe(self) -> str:
        """`relu`."""
        return "relu"


@dataclass(frozen=True)
class Identity(_WithoutTensors):
    """`z = p`: every latent fires unless it is exactly zero."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense."""
        return pre

    def firing(self, pre: Float[Tensor, "token latent"]) -> Firing:
        """The latents that are not exactly zero."""
        return _nonzero(pre)

    def describe(self) -> str:
        """`identity`."""
        return "identity"


@dataclass(frozen=True, eq=False)
class JumpReLU:
    """`z = max(p, 0) * (p > threshold)`, one threshold per latent, the comparison strict.

    Source: Rajamanoharan et al. 2024 (arXiv 2407.14435).
    """

    threshold: Float[Tensor, " latent"]

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense. A product, not a choice, so that a NaN stays visible."""
        return torch.relu(pre) * (pre > self.threshold)

    def firing(self, pre: Float[Tensor, "token latent"]) -> Firing:
        """The latents above zero and above their threshold."""
        return _nonzero(self(pre))

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "JumpReLU":
        """The same thresholds elsewhere or in another precision."""
        return replace(self, threshold=self.threshold.to(device=device, dtype=dtype))

    def describe(self) -> str:
        """`jumprelu`."""
        return "jumprelu"


@dataclass(frozen=True)
class TopK(_WithoutTensors):
    """The k largest pre-activations of a token pass, all others become zero; then `postact`.

    `z_i = postact(p_i)` if p_i is among the k largest of its token, else 0. Ties at the edge keep the lowest
    latent indices. With `relu` a token whose k-th largest pre-activation is negative fires fewer than k
    latents. Applying ReLU before or after the choice gives the same latents.

    Source: Gao et al. 2024 (arXiv 2406.04093), section 2.3.
    """

    k: int
    postact: Literal["relu", "identity"] = "relu"

    def __post_init__(self) -> None:
        """Refuse a k that keeps nothing, and a postact that is none of the two."""
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise CheckpointError(f"top-k needs a whole k of at least 1, got {self.k!r}")
        if self.postact not in {"relu", "identity"}:
            raise CheckpointError(f"top-k knows the postact 'relu' and 'identity', got {self.postact!r}")

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense."""
        latents, values = self._kept(pre)
        return torch.zeros_like(pre).scatter_(1, latents, values)

    def firing(self, pre: Float[Tensor, "token latent"]) -> Firing:
        """The kept latents that are not exactly zero."""
        latents, values = self._kept(pre)
        tokens, slots = torch.nonzero(values, as_tuple=True)
        return Firing(tokens, latents[tokens, slots], values[tokens, slots])

    def describe(self) -> str:
        """`topk(k=32)`; the postact is named only when it is not the usual ReLU."""
        return f"topk(k={self.k})" if self.postact == "relu" else f"topk(k={self.k}, postact={self.postact})"

    def _kept(
        self, pre: Float[Tensor, "token latent"]
    ) -> tuple[Int[Tensor, "token k"], Float[Tensor, "token k"]]:
        latents = largest_indices(pre, self.k)
        values = pre.gather(1, latents)
        return latents, torch.relu(values) if self.postact == "relu" else values


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
    return pre.device.type == "cpu" and pre.shape[1] >= 8 * _GROUP_SIZE * (k + 1)


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
    members = (groups.unsqueeze(2) + torch.arange(0, grouped, group_count)).flatten(1)
    rest = torch.arange(grouped, pre.shape[1]).expand(pre.shape[0], -1)
    return torch.cat([members, rest], dim=1)


def _lowest_of_ties(
    pre: Float[Tensor, "token latent"], edge: Float[Tensor, "token 1"], k: int
) -> Int[Tensor, "token k"]:
    """The k largest where `edge`, the k-th largest value, occurs too often: all above it, then the first."""
    above, equal = pre > edge, pre == edge
    places_left = k - above.sum(dim=1, keepdim=True)
    keep = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= places_left))
    return torch.nonzero(keep, as_tuple=True)[1].view(-1, k)


def _nonzero(z: Float[Tensor, "token latent"]) -> Firing:
    tokens, latents = torch.nonzero(z, as_tuple=True)
    return Firing(tokens, latents, z[tokens, latents])
