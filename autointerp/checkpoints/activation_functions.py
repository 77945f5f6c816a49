"""Activation functions: pre-activations in, latents out, dense or as a list of what fires.

Every function is a small frozen value with the members of `ActivationFunction`, so a new one is one more
class. Those whose latents do not depend on one another are here; `topk_functions` has those that choose, and
`matching_pursuit` the one that looks again after every choice.

What fires can be found from the latents' shards, one after the other, so that a dictionary larger than
memory never needs all pre-activations of a token at once: `take` every shard in the order of its latents,
then `fire`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ActivationFunction", "Firing", "Gated", "Identity", "JumpReLU", "ReLU", "WithoutTensors"]


class Firing(NamedTuple):
    """The latents that fire, ordered by token and, within a token, by latent."""

    tokens: Int[Tensor, " active"]
    latents: Int[Tensor, " active"]
    values: Float[Tensor, " active"]


@runtime_checkable
class ActivationFunction(Protocol):
    """What the dictionary needs of its activation function."""

    needs_all_latents: ClassVar[bool]
    """Whether `take` must be given all latents at once."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense."""
        ...

    def firing(self, pre: Float[Tensor, "token latent"]) -> Firing:
        """The same latents, as a list of those that are not zero."""
        ...

    def take(self, seen: Any, pre: Float[Tensor, "token shard"], first: int) -> Any:
        """What may still fire once the latents `first`, `first + 1`, ... are known too.

        `seen` is what the call for the latents before returned; None for the first shard.
        """
        ...

    def fire(self, seen: Any) -> Firing:
        """What fires, once all latents were taken."""
        ...

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
        """The same function with its tensors elsewhere or in another precision."""
        ...

    def tensors(self) -> dict[str, Float[Tensor, " latent"]]:
        """Its parameters with one number a latent, by name."""
        ...

    def describe(self) -> str:
        """Name and setting, for a report: `topk(k=32)`."""
        ...


class WithoutTensors:
    """What a function without parameters has in common with others like it."""

    def to(self, **_device_and_dtype: Any) -> Any:
        """Itself: there is nothing to move."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}


class _Elementwise:
    """Latents that do not depend on one another: shards are joined, token by token."""

    needs_all_latents: ClassVar[bool] = False

    def firing(self: Any, pre: Float[Tensor, "token latent"]) -> Firing:
        """The latents that are not exactly zero."""
        return _nonzero(self(pre))

    def take(
        self: Any, seen: Sequence[Firing] | None, pre: Float[Tensor, "token shard"], first: int
    ) -> Sequence[Firing]:
        """What fired before, and what fires in this shard."""
        tokens, latents, values = self._part(first, pre.shape[1]).firing(pre)
        return [*(seen or ()), Firing(tokens, latents + first, values)]

    def fire(self, seen: Sequence[Firing]) -> Firing:
        """Everything that fired, by token; within a token the shards' order is the latents'."""
        if len(seen) == 1:
            return seen[0]
        joined = Firing(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
        order = torch.argsort(joined.tokens, stable=True)
        return Firing(*(part[order] for part in joined))

    def _part(self, _first: int, _count: int) -> Any:
        """The function of some latents only."""
        return self


@dataclass(frozen=True)
class ReLU(_Elementwise, WithoutTensors):
    """`z = max(p, 0)`."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense."""
        return torch.relu(pre)

    def describe(self) -> str:
        """`relu`."""
        return "relu"


@dataclass(frozen=True)
class Identity(_Elementwise, WithoutTensors):
    """`z = p`: every latent fires unless it is exactly zero."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense."""
        return pre

    def describe(self) -> str:
        """`identity`."""
        return "identity"


class _PerLatent(_Elementwise):
    """A function whose fields are tensors with one number a latent."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to(self: Any, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
        """The same numbers elsewhere or in another precision."""
        return replace(
            self, **{name: tensor.to(device=device, dtype=dtype) for name, tensor in self.tensors().items()}
        )

    def tensors(self) -> dict[str, Tensor]:
        """Its fields."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def _part(self: Any, first: int, count: int) -> Any:
        return replace(
            self, **{name: tensor[first : first + count] for name, tensor in self.tensors().items()}
        )


@dataclass(frozen=True, eq=False)
class JumpReLU(_PerLatent):
    """`z = max(p, 0) * (p > threshold)`, one threshold per latent, the comparison strict.

    Source: Rajamanoharan et al. 2024 (arXiv 2407.14435).
    """

    threshold: Float[Tensor, " latent"]

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense. A product, not a choice, so that a NaN stays visible."""
        return torch.relu(pre) * (pre > self.threshold)

    def describe(self) -> str:
        """`jumprelu`."""
        return "jumprelu"


@dataclass(frozen=True, eq=False)
class Gated(_PerLatent):
    """`z = (p + gate_bias > 0) * max(magnitude_scale * p + magnitude_bias, 0)`.

    One path decides whether a latent fires, the other how strongly; both read the same `p = W_enc h`, so the
    dictionary's encoder bias is zero. `magnitude_scale` is exp(r_mag) of the files.
    Source: Rajamanoharan et al. 2024 (arXiv 2404.16014), section 3.2.
    """

    gate_bias: Float[Tensor, " latent"]
    magnitude_scale: Float[Tensor, " latent"]
    magnitude_bias: Float[Tensor, " latent"]

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense. A product, not a choice, so that a NaN stays visible."""
        return torch.relu(pre * self.magnitude_scale + self.magnitude_bias) * (pre + self.gate_bias > 0)

    def describe(self) -> str:
        """`gated`."""
        return "gated"


def _nonzero(z: Float[Tensor, "token latent"]) -> Firing:
    tokens, latents = torch.nonzero(z, as_tuple=True)
    return Firing(tokens, latents, z[tokens, latents])
