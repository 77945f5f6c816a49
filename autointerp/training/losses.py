"""The losses of one batch and their gradients, in closed form.

Notation: x [token d_model] is a batch in the space where the error is taken, T its tokens, b the shared bias,
W_enc and W_dec [latent d_model], V the mean squared distance of the data from their mean:

    h = x - b,   p = h W_enc^T + b_enc,   z = act(p),   x^ = z W_dec + b,   r = x^ - x
    normalised MSE = sum_t ||r_t||^2 / (T V)      1 is the error of always predicting the mean

The gradients are written out, not recorded: with k of n latents active, only k rows per token take part,
in the decoder and in the encoder. With g = dL/dx^ (one row per token) and d = dL/dp (zero where act is):

    dW_dec = z^T g    d = (g W_dec^T) * act'(p)    dW_enc = d^T h    db_enc = sum_t d_t
    db = sum_t g_t - W_enc^T sum_t d_t

Tests compare all of it with autograd on the dense formulas.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.training.initialisation import Parameters
from autointerp.training.options import Level
from autointerp.training.sparse_products import row_products, transposed_row_sums, weighted_row_sums

__all__ = [
    "StepResult",
    "auxk_step",
    "largest_pre_activations",
    "normalized_mse",
    "pre_activations",
    "relu_step",
    "topk_step",
    "total_variance",
]


_BLOCK_BYTES = 8 * 2**20


class StepResult(NamedTuple):
    """What one batch says."""

    losses: dict[str, float]
    """The terms of the loss by name; `nmse` is the plain normalised MSE of the main reconstruction."""
    gradients: Parameters
    fired: Bool[Tensor, " latent"]
    """Latents above zero on any token, in the main reconstruction."""
    residual: Float[Tensor, "token d_model"]
    """`x^ - x` of the main reconstruction."""


def total_variance(x: Float[Tensor, "token d_model"]) -> float:
    """`V = mean_t ||x_t - mean(x)||^2`, the error of always predicting the mean."""
    return float((x - x.mean(dim=0)).square().sum(dim=1).mean())


def normalized_mse(
    x_hat: Float[Tensor, "token d_model"], x: Float[Tensor, "token d_model"], variance: float
) -> float:
    """`sum_t ||x^_t - x_t||^2 / (T V)`: 0 is perfect, 1 is the mean. V comes from `total_variance`."""
    return float((x_hat - x).square().sum(dim=1).mean()) / variance


def pre_activations(
    h: Float[Tensor, "token d_model"], parameters: Parameters, dtype: torch.dtype
) -> Float[Tensor, "token latent"]:
    """`h W_enc^T + b_enc`, the product in `dtype`."""
    return torch.addmm(parameters.encoder_bias.to(dtype), h.to(dtype), parameters.encoder_weight.to(dtype).T)


def largest_pre_activations(
    h: Float[Tensor, "token d_model"], parameters: Parameters, k: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "token k"], Int[Tensor, "token k"]]:
    """Per token the k largest pre-activations, from the largest down, and their latents.

    Tokens go by in blocks of at most 8 MiB of pre-activations: what fits into the cache is chosen from 15 %
    faster, and no dense (token, latent) array of the batch exists.
    """
    weight, bias, inputs = (
        parameters.encoder_weight.to(dtype).T,
        parameters.encoder_bias.to(dtype),
        h.to(dtype),
    )
    rows = max(1, _BLOCK_BYTES // (weight.shape[1] * dtype.itemsize))
    kept = [torch.topk(torch.addmm(bias, block, weight), k, dim=1) for block in inputs.split(rows)]
    return torch.cat([each.values for each in kept]).to(h.dtype), torch.cat([each.indices for each in kept])


def topk_step(
    x: Float[Tensor, "token d_model"],
    parameters: Parameters,
    *,
    levels: Sequence[Level],
    variance: float,
    dtype: torch.dtype = torch.float32,
) -> StepResult:
    """TopK and Multi-TopK: `L = sum_j w_j L(k_j)`, L(k) the normalised MSE with the k largest latents.

    One encoding serves all levels: the k largest are the first k of the largest-k list. The first level is
    the main reconstruction. Source: Gao et al. 2024, sections 2.3 and 5.3.
    """
    h = x - parameters.bias
    largest = max(level.k for level in levels)
    values, indices = largest_pre_activations(h, parameters, largest, dtype)
    values = torch.relu(values)
    latent_count = parameters.encoder_bias.shape[0]
    gradient_z, gradient_bias = torch.zeros_like(values), torch.zeros_like(parameters.bias)
    gradient_decoder = torch.zeros_like(parameters.decoder_weight)
    residuals = []
    for level in levels:
        some, weights = indices[:, : level.k].contiguous(), values[:, : level.k].contiguous()
        residual = weighted_row_sums(parameters.decoder_weight, some, weights) - h
        g = residual * (2 * level.weight / (variance * x.shape[0]))
        gradient_decoder += transposed_row_sums(g, some, weights, latent_count)
        gradient_z[:, : level.k] += row_products(parameters.decoder_weight, some, g)
        gradient_bias += g.sum(dim=0)
        residuals.append(residual)
    encoder = _encoder_gradient(h, indices, gradient_z * (values > 0), latent_count)
    errors = [float(residual.square().sum(dim=1).mean()) / variance for residual in residuals]
    return StepResult(
        losses={"nmse": errors[0]}
        | {f"nmse_k{level.k}": e for level, e in zip(levels[1:], errors[1:], strict=True)},
        gradients=Parameters(
            *encoder, gradient_decoder, gradient_bias - encoder[1] @ parameters.encoder_weight
        ),
        fired=_fired(indices[:, : levels[0].k], values[:, : levels[0].k], latent_count),
        residual=residuals[0],
    )


def auxk_step(
    x: Float[Tensor, "token d_model"],
    residual: Float[Tensor, "token d_model"],
    parameters: Parameters,
    *,
    dead: Int[Tensor, " dead"],
    count: int,
    coefficient: float,
    dtype: torch.dtype = torch.float32,
) -> tuple[float, Parameters]:
    """AuxK: dead latents learn to reconstruct the error `e = x - x^` that the living ones leave.

    `L = coefficient * sum_t ||e_t - e^_t||^2 / sum_t ||e_t - mean(e)||^2`, where `e^ = z_aux W_dec` from the
    `count` largest pre-activations among the dead latents (all of them, when fewer are dead), after ReLU.

    There is no bias in e^: adding b to the prediction and not to the target would teach the dead latents to
    undo b. e is a constant here, and the gradient goes to the dead latents alone, not to b either.
    Returns the loss and the gradients of the *dead rows*, in the order of `dead` (`bias` is zero).
    Source: Gao et al. 2024, appendix A.2. Zero when the error has no variance.
    """
    h = x - parameters.bias
    rows = Parameters(
        parameters.encoder_weight[dead],
        parameters.encoder_bias[dead],
        parameters.decoder_weight[dead],
        parameters.bias,
    )
    error_scale = float((residual - residual.mean(dim=0)).square().sum())
    if not error_scale > 0:
        return 0.0, Parameters(*(torch.zeros_like(tensor) for tensor in rows))
    values, indices = largest_pre_activations(h, rows, min(count, dead.shape[0]), dtype)
    values = torch.relu(values)
    miss = weighted_row_sums(rows.decoder_weight, indices, values) + residual
    g = miss * (2 * coefficient / error_scale)
    d = row_products(rows.decoder_weight, indices, g) * (values > 0)
    decoder = transposed_row_sums(g, indices, values, dead.shape[0])
    encoder = _encoder_gradient(h, indices, d, dead.shape[0])
    loss = coefficient * float(miss.square().sum()) / error_scale
    return loss, Parameters(*encoder, decoder, torch.zeros_like(parameters.bias))


def relu_step(
    x: Float[Tensor, "token d_model"],
    parameters: Parameters,
    *,
    l1_coefficient: float,
    variance: float,
    dtype: torch.dtype = torch.float32,
) -> StepResult:
    """ReLU with an L1 penalty: `L = normalised MSE + l1_coefficient * mean_t sum_i z_ti / sqrt(V)`.

    The division by sqrt(V), the data's spread, makes the coefficient free of the activations' unit. Decoder
    rows have unit norm (the trainer sees to it), else the penalty could be escaped by long rows. Most latents
    are zero late in training, many are not early on, so the products here are dense.
    Source: Gao et al. 2024, section 2.2, the baseline.
    """
    h = x - parameters.bias
    z = torch.relu(pre_activations(h, parameters, dtype))
    decoder = parameters.decoder_weight.to(dtype)
    residual = (z @ decoder).to(h.dtype) - h
    g = residual * (2 / (variance * x.shape[0]))
    penalty = l1_coefficient / variance**0.5
    active = z > 0
    d = ((g.to(dtype) @ decoder.T) + penalty / x.shape[0]).mul_(active)
    bias_gradient = d.sum(dim=0, dtype=h.dtype)
    l1 = float(z.sum(dtype=h.dtype)) / x.shape[0] * penalty
    return StepResult(
        losses={
            "nmse": float(residual.square().sum(dim=1).mean()) / variance,
            "l1": l1,
            "l0": float(active.sum()) / x.shape[0],
        },
        gradients=Parameters(
            (d.T @ h.to(dtype)).to(h.dtype),
            bias_gradient,
            (z.T @ g.to(dtype)).to(h.dtype),
            g.sum(dim=0) - bias_gradient @ parameters.encoder_weight,
        ),
        fired=active.any(dim=0),
        residual=residual,
    )


def _encoder_gradient(
    h: Float[Tensor, "token d_model"],
    indices: Int[Tensor, "token k"],
    d: Float[Tensor, "token k"],
    latent_count: int,
) -> tuple[Float[Tensor, "latent d_model"], Float[Tensor, " latent"]]:
    """`d^T h` and `sum_t d_t`, d given at its non-zero entries."""
    bias = torch.zeros(latent_count, dtype=d.dtype, device=d.device)
    bias.scatter_add_(0, indices.flatten(), d.flatten())
    return transposed_row_sums(h, indices, d, latent_count), bias


def _fired(
    indices: Int[Tensor, "token k"], values: Float[Tensor, "token k"], latent_count: int
) -> Bool[Tensor, " latent"]:
    fired = torch.zeros(latent_count, dtype=torch.bool, device=indices.device)
    fired[indices[values > 0]] = True
    return fired
