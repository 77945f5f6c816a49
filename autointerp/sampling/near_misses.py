"""Pre-activations -> where a silent latent came closest to firing.

By how much a latent stays below what fires: of TopK, below the least that passed on the token (or 0, where
fewer than k were positive); of JumpReLU, below its threshold; of ReLU, below 0; of a gated dictionary, the
farther below 0 of its gate and its magnitude. It is 0 where a tie was lost. Other activation functions have
no such distance: `has_margins` says so.

Only some latents are followed, since this needs their pre-activations: 2 T d_model flops each for T tokens,
and an array of T numbers each while a batch goes by. Kept is, of each latent and document, the context in
which it was silent and came closest: one per document, so that what is kept does not depend on chunks, and no
document fills a latent's examples with its own.
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
"""Of each latent that was followed, by latent and row; at most one row a document."""


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
        # Both must be above 0. The magnitude is scale * p + bias: over its scale, in units of p.
        magnitude_bias = activation.magnitude_bias[latents] / activation.magnitude_scale[latents]
        return -(pre + torch.minimum(activation.gate_bias[latents], magnitude_bias))
    if isinstance(activation, JumpReLU):
        return activation.threshold[latents].clamp_min(0) - pre
    if isinstance(activation, ReLU):
        return -pre
    floor = _least_kept(activation, fired).to(pre).unsqueeze(1)
    return torch.sub(floor, _ranks(activation, pre, latents))


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
        self,
        latents: Int64[np.ndarray, " latent"],
        document: Int64[np.ndarray, " context"],
        *,
        device: torch.device,
    ) -> None:
        """Nothing seen yet.

        Args:
            latents: which to follow, ascending.
            document: number of the document of each context of the chunk; ascends.
            device: where the dictionary computes.
        """
        self._latents = torch.from_numpy(latents).to(device)
        self._column: Int[Tensor, " dictionary"] | None = None
        self._document = document
        shape = (len(document), len(latents))
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
        margin = margins(sae.activation, sae.pre_activations_of(x, self._latents), self._latents, fired)
        # What fires is known; computed once more, a product may be off by a rounding and say otherwise.
        margin = margin.clamp_min(0)
        column = self._columns(sae.latent_count)[fired.indices]
        is_followed = column >= 0
        margin[fired.token_indices()[is_followed], column[is_followed]] = -1.0
        margin[~tokens.is_scored] = torch.inf
        width = int(tokens.position.max()) + 1
        # A context lies in one batch, so its least margin is found here once and for all.
        grid = margin.new_full((len(numbers) * width, margin.shape[1]), torch.inf)
        grid[tokens.row * width + tokens.position] = margin
        least, position = grid.unflatten(0, (len(numbers), width)).min(dim=1)
        self._margin[numbers.to(least.device)] = least.float()
        self._position[numbers.to(least.device)] = position.int()

    def _columns(self, latent_count: int) -> Int[Tensor, " dictionary"]:
        """By latent its place among those that are followed, else -1."""
        if self._column is None:
            self._column = torch.full((latent_count,), -1, device=self._latents.device)
            self._column[self._latents] = torch.arange(len(self._latents), device=self._latents.device)
        return self._column

    def frame(self) -> pl.DataFrame:
        """NEAR_MISS_SHARD; the contexts in which a latent fired are not among them."""
        if not len(self._document) or not len(self._latents):
            return pl.DataFrame(schema=NEAR_MISS_SHARD)
        # A latent that fires has a margin below 0 on that token, which is its least in the context.
        margin, position = self._margin.cpu().numpy(), self._position.cpu().numpy()
        margin = np.where(margin >= 0, margin, np.inf)
        starts = np.flatnonzero(np.diff(self._document, prepend=-1))
        least = np.minimum.reduceat(margin, starts, axis=0)
        is_least = margin == np.repeat(least, np.diff(starts, append=len(margin)), axis=0)
        rows = np.where(is_least, np.arange(len(margin))[:, None], len(margin))
        first = np.minimum.reduceat(rows, starts, axis=0)
        which, document = np.nonzero(np.isfinite(least.T))
        row = first[document, which]
        columns = (self._latents.cpu().numpy()[which], row, position[row, which], margin[row, which])
        return pl.DataFrame(dict(zip(NEAR_MISS_SHARD, columns, strict=True)), schema=NEAR_MISS_SHARD)
