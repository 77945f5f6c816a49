"""Products with a dictionary's matrices in pieces, so that neither they nor all pre-activations need memory.

A matrix may lie in another precision or elsewhere than the computation, mapped from its file: then a piece at
a time is brought over. Where it lies as it is needed, nothing is copied.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from autointerp.checkpoints.sparse_latents import SparseLatents

__all__ = ["firing_latents", "weighted_rows"]

_BLOCK_BYTES = 16 * 2**20
_ACCELERATOR_BLOCK_BYTES = 2**30
"""Of a GPU's pre-activations: on an H100, 8192 tokens at once take half the time of blocks of 512."""
_LARGEST_BLOCK_BYTES = 256 * 2**20
_EFFICIENT_BLOCK = 512
"""Tokens: every block reads the whole encoder again, which shorter blocks would mostly do."""
_SHARD_BYTES = 128 * 2**20
"""Of one shard's pre-activations, and of its weights where these have to be brought over."""
_TOKENS_PER_SHARD_PASS = 4096
"""Every pass over the shards reads the whole encoder; more tokens make narrower shards."""


class _Plan(NamedTuple):
    """Tokens and latents at a time."""

    tokens: int
    latents: int


def _fits(matrix: Tensor, like: Tensor) -> bool:
    """Whether a matrix has the precision and the place of `like`, so that it can be used as it is."""
    return matrix.dtype == like.dtype and matrix.device == like.device


def firing_latents(
    h: Float[Tensor, "token d_model"],
    weight: Float[Tensor, "latent d_model"],
    bias: Float[Tensor, " latent"],
    scale: Float[Tensor, " latent"] | None,
    activation: Any,
    *,
    in_shards: bool = False,
) -> SparseLatents:
    """The latents `act((h weight^T + bias) * scale)` that fire, without a (token, latent) array.

    Small dictionaries go by in blocks of 512 tokens, of more where 16 MiB of pre-activations (on a GPU 1 GiB)
    hold more. Where 512 tokens would need over 256 MiB (from 131,073 latents in float32 on), or with
    `in_shards`, up to 4096 tokens meet one shard of latents after the other, with at most 128 MiB of
    pre-activations and 128 MiB of weights at a time; what the activation function keeps in between is its own
    (TopK: k a token).
    """
    plan = _plan(h, weight, whole=activation.needs_all_latents, in_shards=in_shards)
    buffer = h.new_empty(min(plan.tokens, max(1, h.shape[0])) * plan.latents)
    firings, counts = [], [torch.zeros(1, dtype=torch.int64, device=h.device)]
    for block in h.split(plan.tokens):
        seen = None
        for first in range(0, weight.shape[0], plan.latents):
            shard = slice(first, first + plan.latents)
            rows = weight[shard].to(h)
            # One buffer for all: fresh memory for each costs more than choosing the top k.
            out = buffer[: block.shape[0] * rows.shape[0]].view(block.shape[0], rows.shape[0])
            pre = torch.addmm(bias[shard], block, rows.T, out=out)
            seen = activation.take(seen, pre if scale is None else pre.mul_(scale[shard]), first)
        firing = activation.fire(seen)
        firings.append(firing)
        counts.append(torch.bincount(firing.tokens, minlength=block.shape[0]))
    return SparseLatents(
        indices=torch.cat([firing.latents for firing in firings]),
        values=torch.cat([firing.values for firing in firings]),
        offsets=torch.cat(counts).cumsum(0),
        latent_count=weight.shape[0],
    )


def _plan(h: Tensor, weight: Tensor, *, whole: bool, in_shards: bool) -> _Plan:
    latent_count, item = weight.shape[0], h.dtype.itemsize
    token_bytes = latent_count * item
    room = _BLOCK_BYTES if h.device.type == "cpu" else _ACCELERATOR_BLOCK_BYTES
    in_shards = in_shards or not _fits(weight, h)
    if whole or (not in_shards and _EFFICIENT_BLOCK * token_bytes <= _LARGEST_BLOCK_BYTES):
        efficient = min(_EFFICIENT_BLOCK, _LARGEST_BLOCK_BYTES // token_bytes)
        return _Plan(_even(h.shape[0], max(1, efficient, room // token_bytes)), latent_count)
    tokens = _even(h.shape[0], _TOKENS_PER_SHARD_PASS)
    row_bytes = max(tokens, weight.shape[1] if in_shards else 0) * item
    return _Plan(tokens, _even(latent_count, max(1, _SHARD_BYTES // row_bytes)))


def _even(total: int, largest: int) -> int:
    """A piece's size, evenly dealt: a short last piece would be as slow as a full one."""
    return max(1, math.ceil(total / max(1, math.ceil(total / largest))))


def weighted_rows(
    latents: SparseLatents, weight: Float[Tensor, "latent d_out"]
) -> Float[Tensor, "token d_out"]:
    """`sum_j z_j weight[j]` over the latents that fire; the values' precision decides.

    Cost: one row read per firing latent, memory: the result. (embedding_bag: on 2 cores three times as fast
    as a sparse CSR product at 512 to 4096 tokens.) Rows that lie elsewhere are brought over once per block of
    tokens, at most 128 MiB of them.
    """
    if _fits(weight, latents.values) and weight.is_contiguous():
        return _bag(latents.indices, latents.values, latents.offsets, weight)
    most = max(1, int(latents.active_count_per_token().max())) if latents.token_count else 1
    tokens = max(1, _SHARD_BYTES // (most * weight.shape[1] * latents.values.dtype.itemsize))
    blocks = [
        _fetched(latents, weight, first, min(first + tokens, latents.token_count))
        for first in range(0, latents.token_count, tokens)
    ]
    return torch.cat([latents.values.new_zeros(0, weight.shape[1]), *blocks])


def _fetched(
    latents: SparseLatents, weight: Float[Tensor, "latent d_out"], first: int, last: int
) -> Float[Tensor, "token d_out"]:
    begin, end = int(latents.offsets[first]), int(latents.offsets[last])
    needed, places = torch.unique(latents.indices[begin:end], return_inverse=True)
    rows = weight[needed.to(weight.device)].to(latents.values).contiguous()
    offsets = latents.offsets[first : last + 1] - begin
    if not needed.numel():  # a bag of nothing still wants a row to look at
        return latents.values.new_zeros(last - first, weight.shape[1])
    return _bag(places, latents.values[begin:end], offsets, rows)


def _bag(indices: Tensor, values: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    return functional.embedding_bag(
        indices, weight, offsets, mode="sum", per_sample_weights=values, include_last_offset=True
    )
