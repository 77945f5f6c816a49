"""The activation function that looks again after every choice: matching pursuit."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.activation_functions import Firing
from autointerp.errors import CheckpointError

__all__ = ["MatchingPursuit"]

_BLOCK_BYTES = 64 * 2**20
_SMALLEST_PIVOT = 1e-5
"""Of the Cholesky factor, against its largest: below it, the directions are taken not to span the input."""


@dataclass(frozen=True, eq=False)
class MatchingPursuit:
    """One latent at a time: the direction that fits what is left of the input best, as much of it as fits.

    With h the input and W the directions, r = h and z = 0 at first, then at most `max_iterations` times

        j = argmax_i W_i . r,   v = max(W_j . r, 0),   z_j += v,   r -= v W_j

    A token is done when v is 0, when ||r|| < `residual_threshold` (if that is positive), and, with
    `stop_on_duplicate_support`, after a step that chose a latent for the second time. Directions need not
    have unit norm, but only then does every step shorten r.

    It is given p = W h and needs ||r||, so h is found back from p by least squares, which is exact because
    the directions span the input; others are refused. Cost: the d_model^2 products among all directions once,
    and per step one matrix product of the tokens that are not done with all directions. Memory: the dense
    latents and scores of the tokens at hand. The directions are the decoder's own tensor where that has the
    precision and the place of the computation, else a copy.

    Source: SAELens 6.54.12, architecture `matching_pursuit`; Mallat and Zhang 1993.
    """

    directions: Float[Tensor, "latent d_model"]
    """Encoder and decoder at once."""
    residual_threshold: float = 1e-2
    max_iterations: int | None = None
    """None: d_model."""
    stop_on_duplicate_support: bool = True

    needs_all_latents: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what cannot span the input, and a pursuit without a step."""
        if self.max_iterations is not None and self.max_iterations < 1:
            raise CheckpointError(f"matching pursuit needs at least 1 iteration, got {self.max_iterations}")
        _ = self._factor  # refused now, not when the first text goes by

    @property
    def latent_count(self) -> int:
        """Number of directions."""
        return self.directions.shape[0]

    @property
    def steps(self) -> int:
        """How often it chooses at most."""
        return self.max_iterations or self.directions.shape[1]

    def __call__(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """The latents, dense."""
        directions = self.directions.to(pre)
        z, scores, residual = torch.zeros_like(pre), pre, self._inputs(pre)
        running = torch.arange(pre.shape[0], device=pre.device)
        for step in range(self.steps):
            scores = residual @ directions.T if step else pre
            values, chosen = scores.max(dim=1)
            before = z[running, chosen]
            # Not `values > 0`: a NaN goes on, so that it stays visible.
            fits = ~(values <= 0)
            values = torch.where(fits, values, 0.0)
            z[running, chosen] = before + values
            residual = residual - values.unsqueeze(1) * directions[chosen]
            unfinished = fits & ~self._is_done(before, residual)
            running, residual = running[unfinished], residual[unfinished]
            if not running.numel():
                break
        return z

    def firing(self, pre: Float[Tensor, "token latent"]) -> Firing:
        """The latents that were chosen."""
        z = self(pre)
        tokens, latents = torch.nonzero(z, as_tuple=True)
        return Firing(tokens, latents, z[tokens, latents])

    def take(self, _seen: None, pre: Float[Tensor, "token latent"], _first: int) -> Firing:
        """What fires: it is given all latents at once."""
        return self.firing(pre)

    def fire(self, seen: Firing) -> Firing:
        """What fires."""
        return seen

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "MatchingPursuit":
        """The same pursuit, its directions elsewhere or in another precision."""
        return replace(self, directions=self.directions.to(device=device, dtype=dtype))

    def tensors(self) -> dict[str, Tensor]:
        """None: it has no numbers of which there is one a latent."""
        return {}

    def describe(self) -> str:
        """`matching_pursuit(max_iterations=768, residual_threshold=0.01)`."""
        repeats = "" if self.stop_on_duplicate_support else ", repeats"
        return (
            f"matching_pursuit(max_iterations={self.steps}, "
            f"residual_threshold={self.residual_threshold:g}{repeats})"
        )

    def _is_done(self, before: Float[Tensor, " token"], residual: Float[Tensor, "token d_model"]) -> Tensor:
        """Whether to stop after a step on a latent whose value was `before`."""
        done = before != 0 if self.stop_on_duplicate_support else torch.zeros_like(before, dtype=torch.bool)
        return done | (residual.norm(dim=1) < self.residual_threshold)

    def _inputs(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token d_model"]:
        """The h of `pre = h W^T`, by the normal equations in float64."""
        projected = pre.new_zeros(pre.shape[0], self.directions.shape[1], dtype=torch.float64)
        first = 0
        for block in self._blocks():
            projected += pre[:, first : first + block.shape[0]].to(projected) @ block.to(projected)
            first += block.shape[0]
        return torch.cholesky_solve(projected.T, self._factor.to(pre.device)).T.to(pre)

    @cached_property
    def _factor(self) -> Float[Tensor, "d_model d_model"]:
        """Lower Cholesky factor of `W^T W`."""
        d_model = self.directions.shape[1]
        if self.latent_count < d_model:
            raise _not_spanning(self.directions)
        products = self.directions.new_zeros(d_model, d_model, dtype=torch.float64)
        for block in self._blocks():
            products += block.T.to(products) @ block.to(products)
        factor, failed = torch.linalg.cholesky_ex(products)
        pivots = factor.diagonal()
        if bool(failed) or float(pivots.min()) < _SMALLEST_PIVOT * float(pivots.max()):
            raise _not_spanning(self.directions)
        return factor

    def _blocks(self) -> tuple[Tensor, ...]:
        """Some directions at a time, so that float64 copies stay small."""
        return self.directions.split(max(1, _BLOCK_BYTES // (8 * self.directions.shape[1])))


def _not_spanning(directions: Tensor) -> CheckpointError:
    latent_count, d_model = directions.shape
    return CheckpointError(
        f"matching pursuit with {latent_count} directions that do not span their {d_model} dimensions: "
        "what is left of an input cannot be known",
        remedy="this dictionary cannot be read",
    )
