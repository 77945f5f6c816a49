"""Where training starts: the geometric median as bias, random unit directions, an encoder tied to them."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from autointerp.errors import BadInputError

__all__ = ["Parameters", "geometric_median", "initial_parameters", "random_unit_rows"]


class Parameters(NamedTuple):
    """The trained tensors of `x^ = act((x - bias) W_enc^T + b_enc) W_dec + bias`, or their gradients."""

    encoder_weight: Float[Tensor, "latent d_model"]
    encoder_bias: Float[Tensor, " latent"]
    decoder_weight: Float[Tensor, "latent d_model"]
    """Row i is the direction of latent i, of unit norm."""
    bias: Float[Tensor, " d_model"]
    """Subtracted before the encoder and added after the decoder."""


def geometric_median(
    x: Float[Tensor, "token d_model"], *, iterations: int = 200, tolerance: float = 1e-7
) -> Float[Tensor, " d_model"]:
    """The point with the least mean distance to the tokens, `argmin_m mean_t ||x_t - m||`.

    Weiszfeld's iteration `m <- sum_t w_t x_t / sum_t w_t` with `w_t = 1 / ||x_t - m||`, from the mean, until
    m moves by less than `tolerance` times its mean distance to the tokens. A token that m falls on counts
    with a very large, finite weight.

    Raises:
        BadInputError: there are no tokens.
    """
    if x.shape[0] == 0:
        raise BadInputError("there is no median of no tokens", where="initialisation")
    median = x.mean(dim=0)
    for _ in range(iterations):
        distances = torch.linalg.vector_norm(x - median, dim=1)
        scale = distances.mean()
        if scale == 0:
            break
        weights = 1 / distances.clamp_min(1e-9 * float(scale))
        moved = (weights / weights.sum()) @ x
        step = torch.linalg.vector_norm(moved - median)
        median = moved
        if step < tolerance * scale:
            break
    return median


def random_unit_rows(
    latent_count: int, d_model: int, *, generator: torch.Generator
) -> Float[Tensor, "latent d_model"]:
    """Directions drawn uniformly from the sphere (normalised Gaussian rows)."""
    return functional.normalize(torch.randn(latent_count, d_model, generator=generator), dim=1)


def initial_parameters(
    sample: Float[Tensor, "token d_model"], latent_count: int, *, dense: bool, generator: torch.Generator
) -> Parameters:
    """Unit directions, the encoder equal to them (tied at the start only), the sample's geometric median.

    `dense` (ReLU) divides the encoder by `latent_count / (2 d_model)`: about half of the latents of an
    untrained ReLU dictionary fire, and their sum would otherwise be that many times too long
    (`E[relu(Wx) W] = n x / 2d` for n random unit rows). Source: Gao et al. 2024, appendix A.1.
    """
    directions = random_unit_rows(latent_count, sample.shape[1], generator=generator)
    scale = min(1.0, 2 * sample.shape[1] / latent_count) if dense else 1.0
    return Parameters(
        encoder_weight=scale * directions,
        encoder_bias=torch.zeros(latent_count),
        decoder_weight=directions.clone(),
        bias=geometric_median(sample),
    )
