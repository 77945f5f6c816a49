"""Dictionaries whose quality is known beforehand, for tests: perfect, constant, noisy, planted."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.activation_functions import Identity, ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK

__all__ = ["constant_autoencoder", "perfect_autoencoder", "planted_autoencoder"]


def perfect_autoencoder(
    d_model: int, *, activation: Literal["identity", "relu"] = "identity"
) -> SparseAutoencoder:
    """A dictionary that returns its input, to the bit.

    `identity` has a latent per component; `relu` has two, one for each sign of it.
    """
    eye = torch.eye(d_model)
    directions = eye if activation == "identity" else torch.cat([eye, -eye])
    return SparseAutoencoder(
        encoder_weight=directions,
        encoder_bias=torch.zeros(len(directions)),
        decoder_weight=directions.clone(),
        decoder_bias=torch.zeros(d_model),
        pre_bias=None,
        activation=Identity() if activation == "identity" else ReLU(),
    )


def constant_autoencoder(
    answer: Float[Tensor, " d_model"],
    *,
    latent_count: int = 8,
    normalization: Literal["none", "layer_norm"] = "none",
) -> SparseAutoencoder:
    """A dictionary that answers with one vector, in the space of its normalisation, and never fires."""
    nothing = torch.zeros(latent_count, len(answer), dtype=answer.dtype)
    return SparseAutoencoder(
        encoder_weight=nothing,
        encoder_bias=torch.zeros(latent_count, dtype=answer.dtype),
        decoder_weight=nothing.clone(),
        decoder_bias=answer,
        pre_bias=None,
        activation=ReLU(),
        normalization=InputNormalization(normalization),
    )


def planted_autoencoder(
    d_model: int,
    latent_count: int,
    *,
    k: int,
    generator: torch.Generator,
    normalization: Literal["none", "layer_norm"] = "layer_norm",
    noise: float = 0.0,
) -> SparseAutoencoder:
    """A TopK dictionary with random unit directions, encoder = decoder, and biases of zero.

    Args:
        d_model: width of the site.
        latent_count: how many directions.
        k: how many fire.
        generator: of the directions, then of the noise.
        normalization: of the input.
        noise: standard deviation of what is added to each decoder weight: the more, the worse.
    """
    directions = torch.randn(latent_count, d_model, generator=generator)
    directions = torch.nn.functional.normalize(directions, dim=1)
    disturbance = noise * torch.randn(latent_count, d_model, generator=generator)
    return SparseAutoencoder(
        encoder_weight=directions,
        encoder_bias=torch.zeros(latent_count),
        decoder_weight=directions + disturbance,
        decoder_bias=torch.zeros(d_model),
        pre_bias=None,
        activation=TopK(k),
        normalization=InputNormalization(normalization),
    )
