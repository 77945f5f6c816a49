"""Pre-activations -> where a silent latent came closest to firing.

By how much a latent stays below what fires: of TopK, below the least that passed on the token (or 0, where
fewer than k were positive); of JumpReLU, below its threshold; of ReLU, below 0; of a gated dictionary, its
gate below 0. Other activation functions have no such distance: `has_margins` says so.

Only some latents are followed, since this needs their pre-activations: 2 T d_model flops each for T tokens,
and an array of T numbers each while a batch goes by. Kept of a chunk are, of each latent, the contexts in
which it was silent and came closest.
"""

from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from autointerp.checkpoints.activation_functions import Gated, JumpReLU, ReLU
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.sparse_latents import SparseLatents
from autointerp.checkpoints.topk_functions import AbsTopK, TopK
from autointerp.sampling.readings import TokenTable

__all__ = ["NEAR_MISS_SHARD", "NearMisses", "has_margins", "margins"]

NEAR_MISS_SHARD = {
    "latent": pl.UInt32,
    "row": pl.UInt32,  # number of the context in the chunk
    "position": pl.UInt32,
    "margin": pl.Float32,  # in units of the pre-activation
}
"""Of each latent that was followed, the silent contexts in which it came closest, closest first."""


def has_margins(activation: Any) -> bool:
    """Whether a distance from firing is known for this activation function."""
    return isinstance(activation, TopK | AbsTopK | JumpReLU | ReLU | Gated)


def margins(
    activation: Any,
    pre: Float[Tensor, "token latent"],
    latents: Int[Tensor, " latent"],
    fired: SparseLatents,
) -> Float[Tensor, "token latent"]:
    """By how much each latent stays below what fires; 0 or less where it fires.

    Args:
        activation: one that `has_margins`.
        pre: pre-activations of `latents` only.
        latents: their indices in the dictionary.
        fired: what fired on the same tokens.
    """
    if isinstance(activation, Gated):
        return -(pre + activation.gate_bias[latents])
    if isinstance(activation, JumpReLU):
        return activation.threshold[latents].clamp_min(0) - pre
    if isinstance(activation, ReLU):
        return -pre
    ranks, floor = _ranks(activation, pre, latents), _least_kept(activation, fired)
    return floor.to(ranks).unsqueeze(1) - ranks


def _ranks(activation: TopK | AbsTopK, pre: Tensor, latents: Tensor) -> Tensor:
    if isinstance(activation, AbsTopK):
        return pre.abs()
    return pre if activation.weight is None else pre * activation.weight[latents]


def _least_kept(activation: TopK | AbsTopK, fired: SparseLatents) -> Float[Tensor, " token"]:
    """What a latent must exceed to be among the k of its token."""
    values = fired.values.abs() if isinstance(activation, AbsTopK) else fired.values
    if isinstance(activation, TopK) and activation.weight is not None:
        values = values * activation.weight[fired.indices]
    count = fired.active_count_per_token()
    floor = values.new_full((fired.token_count,), torch.inf)
    floor = floor.scatter_reduce(0, fired.token_indices(), values, reduce="amin")
    return torch.where(count == activation.k, floor, 0.0)


class NearMisses:
    """Follows some latents of one dictionary through one chunk."""

    def __init__(
        self, latents: Int64[np.ndarray, " latent"], *, context_count: int, count: int, device: torch.device
    ) -> None:
        """Nothing seen yet.

        Args:
            latents: which to follow.
            context_count: of the chunk.
            count: how many contexts of each latent are kept.
            device: where the dictionary computes.
        """
        self._latents = torch.from_numpy(latents).to(device)
        self._column: Int[Tensor, " dictionary"] | None = None
        self._count = count
        shape = (context_count, len(latents))
        self._margin = torch.full(shape, torch.inf, device=device)
        self._position = torch.zeros(shape, dtype=torch.int32, device=device)

    def update(
        self,
        sae: SparseAutoencoder,
        x: Float[Tensor, "token d_model"],
        tokens: TokenTable,
        fired: SparseLatents,
        numbers: Int[Tensor, " batch"],
    ) -> None:
        """Look at a batch's scored tokens.

        Args:
            sae: the dictionary.
            x: what it reads.
            tokens: where the rows of `x` come from.
            fired: its latents there.
            numbers: number in the chunk of each context of the batch.
        """
        if not len(self._latents):
            return
        pre = sae.pre_activations_of(x, self._latents)
        margin = margins(sae.activation, pre, self._latents, fired).float()
        # What fires is known; computed once more, a product may be off by a rounding and seem to stay below.
        column = self._columns(sae.latent_count)[fired.indices]
        is_followed = column >= 0
        margin[fired.token_indices()[is_followed], column[is_followed]] = -1.0
        margin = torch.where(tokens.is_scored.unsqueeze(1), margin, torch.inf)
        row = numbers.to(tokens.row)[tokens.row]
        index = row.unsqueeze(1).expand_as(margin)
        self._margin.scatter_reduce_(0, index, margin, reduce="amin")
        is_least = (margin == self._margin[row]) & tokens.is_scored.unsqueeze(1)
        place = torch.where(is_least, tokens.position.unsqueeze(1), torch.iinfo(torch.int32).max)
        least = torch.full_like(self._position, torch.iinfo(torch.int32).max)
        least.scatter_reduce_(0, index, place.int(), reduce="amin")
        self._position = torch.where(least < torch.iinfo(torch.int32).max, least, self._position)

    def _columns(self, latent_count: int) -> Int[Tensor, " dictionary"]:
        """By latent its place among those that are followed, else -1."""
        if self._column is None:
            self._column = torch.full((latent_count,), -1, device=self._latents.device)
            self._column[self._latents] = torch.arange(len(self._latents), device=self._latents.device)
        return self._column

    def frame(self) -> pl.DataFrame:
        """NEAR_MISS_SHARD; the contexts in which a latent fired are not among them."""
        # A latent that fires has a margin of 0 or less on that token, which is its least in the context.
        silent = torch.where(self._margin > 0, self._margin, torch.inf)
        kept = min(self._count, len(silent))
        if not kept or not len(self._latents):
            return pl.DataFrame(schema=NEAR_MISS_SHARD)
        margin, row = silent.sort(dim=0, stable=True)
        margin, row = margin[:kept].T, row[:kept].T
        is_real = margin.isfinite()
        latent = self._latents.unsqueeze(1).expand_as(row)
        position = self._position.T.gather(1, row)
        columns = [part[is_real].cpu().numpy() for part in (latent, row, position, margin)]
        return pl.DataFrame(dict(zip(NEAR_MISS_SHARD, columns, strict=True)), schema=NEAR_MISS_SHARD)
