"""A dictionary at some tokens -> what is subtracted there: a latent's contribution, and what nulls take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from autointerp.evaluation.studies.ablation_places import PlaceGroup
from autointerp.sampling.readings import Checkpoint

__all__ = ["Subtractions", "channel_subtractions", "latent_subtractions", "random_subtractions"]


@dataclass(frozen=True, eq=False)
class Subtractions:
    """What one dictionary, or one of its nulls, takes away at each place of a group."""

    kind: Literal["latent", "random", "channel"]
    vectors: Float[Tensor, "row width"]
    """In the space of the site; zeros where there is nothing to take away."""
    index: Int64[np.ndarray, " row"]
    """Of the latent or the channel; -1 for a random direction, and where there is none."""
    weight: Float[np.ndarray, " row"]
    """How many latents were active, of which one was drawn: an inverse inclusion probability."""
    lacking: Sequence[str]
    """By place, why there is nothing to take away; empty where there is something."""


@torch.no_grad()
def latent_subtractions(
    checkpoint: Checkpoint, x: Float[Tensor, "row d_model"], group: PlaceGroup, *, seed: int
) -> Subtractions:
    """One active latent of each place, uniformly: `(z / s) n d`, its own part of the reconstruction.

    z is the activation, s the latent's scale, d its direction, n what undoes the input normalisation at that
    token. Weighted by how many were active, means are over all pairs of a token and a latent active on it.

    Args:
        checkpoint: the dictionary.
        x: what stands at the site that it reads, at the places.
        group: the places.
        seed: of the choice.
    """
    sae = checkpoint.sae
    x = x.to(sae.encoder_bias)
    fired = sae.encode_sparse(x)
    active = fired.active_count_per_token().cpu().numpy().astype(np.int64)
    chosen = fired.offsets[:-1].cpu().numpy() + group.choices(active, seed=seed, what="ablated latent")
    there = active > 0
    at = torch.from_numpy(chosen[there]).to(fired.indices.device)
    latents, values = fired.indices[at], fired.values[at].to(sae.encoder_bias)
    directions = sae.decoder_weight[latents.to(sae.decoder_weight.device)].to(sae.encoder_bias)
    if sae.latent_scale is not None:
        values = values / sae.latent_scale[latents]
    is_there = torch.from_numpy(there).to(x.device)
    scale = sae.normalization.apply(x)[1].std[is_there]
    vectors = directions.new_zeros(len(there), directions.shape[1])
    vectors[is_there] = values[:, None] * scale * directions
    index = np.full(len(there), -1)
    index[there] = latents.cpu().numpy()
    return Subtractions(
        "latent",
        vectors.float(),
        index,
        active.astype(np.float64),
        _lacking(vectors, there, "no latent is active at this token"),
    )


def random_subtractions(of: Subtractions, directions: Float[Tensor, "row width"]) -> Subtractions:
    """As long as those of a dictionary, in random directions; its weights, too."""
    lengths = of.vectors.norm(dim=1, keepdim=True)
    vectors = lengths * directions.to(of.vectors)
    return Subtractions("random", vectors, np.full(len(vectors), -1), of.weight, of.lacking)


def channel_subtractions(
    x: Float[Tensor, "row width"], mean: Float[Tensor, " width"], group: PlaceGroup, *, seed: int
) -> Subtractions:
    """One channel of the site, uniformly, set to its mean: what it is above the mean is taken away."""
    count = np.full(len(x), x.shape[1])
    index = group.choices(count, seed=seed, what="ablated channel")
    column = torch.from_numpy(index).to(x.device)[:, None]
    above = x.float() - mean.to(x.device, torch.float32)
    vectors = torch.zeros_like(above).scatter_(1, column, above.gather(1, column))
    there = np.ones(len(x), dtype=bool)
    return Subtractions("channel", vectors, index, there.astype(np.float64), _lacking(vectors, there, ""))


def _lacking(vectors: Float[Tensor, "row width"], there: np.ndarray, absent: str) -> list[str]:
    is_zero = (vectors == 0).all(dim=1).cpu().numpy()
    none = "what would be taken away is zero"
    return [
        absent if not is_there else none if zero else ""
        for is_there, zero in zip(there, is_zero, strict=True)
    ]
