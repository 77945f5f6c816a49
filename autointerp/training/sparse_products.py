"""Products of a dense matrix with "k entries per token" that never hold a dense (token, latent) array.

The sparse operand is a pair of arrays [token k]: which latents, with which weights. All three products run
through `embedding_bag`, whose CPU kernel is parallel, reads each row once and sums in a fixed order, so the
results are the same in every run. `index_add` over the expanded rows took 2 to 5 times as long.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

__all__ = ["row_products", "transposed_row_sums", "weighted_row_sums"]


def weighted_row_sums(
    rows: Float[Tensor, "latent d_model"], indices: Int[Tensor, "token k"], weights: Float[Tensor, "token k"]
) -> Float[Tensor, "token d_model"]:
    """`out[t] = sum_j weights[t, j] rows[indices[t, j]]`: the decoder."""
    return functional.embedding_bag(indices, rows, per_sample_weights=weights, mode="sum")


def row_products(
    rows: Float[Tensor, "latent d_model"],
    indices: Int[Tensor, "token k"],
    vectors: Float[Tensor, "token d_model"],
) -> Float[Tensor, "token k"]:
    """`out[t, j] = <rows[indices[t, j]], vectors[t]>`: the gradient that reaches the latents.

    It is the derivative of `<weighted_row_sums(rows, indices, weights), vectors>` by the weights, so
    autograd's kernel for that computes it without gathering the rows.
    """
    with torch.enable_grad():
        weights = torch.zeros(indices.shape, dtype=rows.dtype, device=rows.device, requires_grad=True)
        summed = weighted_row_sums(rows.detach(), indices, weights)
    return torch.autograd.grad(summed, weights, vectors)[0]


def transposed_row_sums(
    vectors: Float[Tensor, "token d_model"],
    indices: Int[Tensor, "token k"],
    weights: Float[Tensor, "token k"],
    latent_count: int,
) -> Float[Tensor, "latent d_model"]:
    """`out[i] = sum over (t, j) with indices[t, j] = i of weights[t, j] vectors[t]`: a weight's gradient.

    The entries are sorted by latent, then each latent is one bag of tokens. 32-bit keys sort faster.
    """
    latents, order = indices.flatten().to(torch.int32).sort(stable=True)
    starts = torch.searchsorted(latents, torch.arange(latent_count, dtype=torch.int32, device=latents.device))
    return functional.embedding_bag(
        order // indices.shape[1],
        vectors,
        starts.to(order.dtype),
        per_sample_weights=weights.flatten()[order],
        mode="sum",
    )
