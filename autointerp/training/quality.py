"""How well an autoencoder does on activations it was not trained on: three numbers for the record.

The evaluation proper, with intervals, is `metrics/`; this is the training run's own quick look.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder

__all__ = ["SampleQuality", "sample_quality"]


class SampleQuality(NamedTuple):
    """Means over the sample's tokens."""

    token_count: int
    normalized_mse: float
    """`sum ||N(x) - x^||^2 / sum ||N(x) - mean(N(x))||^2` in the dictionary's own (normalised) space;
    lower is better, 1 is the sample's mean."""
    l0: float
    """Latents that fire per token."""
    silent_fraction: float
    """Latents that fire on no token of the sample: an upper bound of the dead ones."""


@torch.no_grad()
def sample_quality(sae: SparseAutoencoder, x: Float[Tensor, "token d_model"]) -> SampleQuality:
    """Encode, decode and count."""
    latents = sae.encode_sparse(x)
    target, _ = sae.normalization.apply(x.to(sae.device, sae.dtype))
    error = float((sae.decode_sparse(latents) - target).square().sum(dtype=torch.float64))
    spread = float((target - target.mean(dim=0)).square().sum(dtype=torch.float64))
    fired = torch.bincount(latents.indices, minlength=sae.latent_count) > 0
    return SampleQuality(
        token_count=x.shape[0],
        normalized_mse=error / spread,
        l0=float(latents.active_count_per_token().double().mean()),
        silent_fraction=float((~fired).double().mean()),
    )
