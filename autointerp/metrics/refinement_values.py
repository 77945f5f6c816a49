"""A dictionary's active latents on some tokens -> the values that would have fitted best.

The support is frozen: what does not fire stays at zero. With d_j = W_dec[j] / s_j the direction that latent j
adds a multiple of, and t the target, values z' make |sum_j z'_j d_j + b_dec - t|^2 least on every token,
with z' >= 0 where the dictionary's latents are never negative, of any sign where they can be. The target is
the activation in the dictionary's own space, as the undoing of its normalisation has it:
t = (y - W_skip x - mean) / std. Since the undoing is the same scale and shift for all components of a token,
values that fit best there fit best in raw space and in the paper's space, too.

Cost per token with m active latents: m^2 d_out flops once and m^2 a step. Memory: blocks of tokens with
supports of about the same size (within a quarter), `_BLOCK_BYTES` of directions and their products.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.checkpoints.input_normalization import Statistics
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.sparse_latents import SparseLatents
from autointerp.metrics.refinement_solver import Problems, solve

__all__ = ["Refined", "RefinedReconstruction", "can_be_negative", "refine", "refined_reconstruction"]

_BLOCK_BYTES = 64 * 2**20
_ACCELERATOR_BLOCK_BYTES = 2**30
_SPREAD = 1.25
"""Largest support of a block over its smallest: what padding wastes at most."""


@dataclass(frozen=True, eq=False)
class Refined:
    """Values on the supports that were given."""

    latents: SparseLatents
    """The same latents with refined values, of which some may be exactly zero."""
    lengths: Float[Tensor, " active"]
    """`|d_j|` of each active latent: what one unit of its value adds to the reconstruction."""
    is_solved: Bool[Tensor, " token"]
    """Whether the tolerance was reached."""


class RefinedReconstruction(NamedTuple):
    """Reconstructions in the space of the site, and the latents behind them."""

    before: Float[Tensor, "token d_out"]
    after: Float[Tensor, "token d_out"]
    latents: SparseLatents
    """What fires, with its own values."""
    refined: Refined


class _Block(NamedTuple):
    """Tokens with about as many active latents, and where in the list of these each of them stands."""

    tokens: Int[Tensor, " token"]
    places: Int[Tensor, "token slot"]
    is_filled: Bool[Tensor, "token slot"]


def can_be_negative(activation: Any, *, latent_count: int, like: Tensor) -> bool:
    """Whether an activation function gives latents below zero; asked with pre-activations that all are.

    A function that only takes what directions can span (matching pursuit) is known not to.
    """
    if activation.needs_all_latents:
        return False
    below = torch.full((1, latent_count), -1.0, dtype=like.dtype, device=like.device)
    return bool((activation(below) < 0).any())


def refine(
    sae: SparseAutoencoder,
    latents: SparseLatents,
    target: Float[Tensor, "token d_out"],
    *,
    tolerance: float = 1e-6,
    rounds: int = 50,
) -> Refined:
    """The values of the active latents that fit a target best, in the dictionary's own space.

    Args:
        sae: whose directions are used.
        latents: what fires.
        target: t of the module's docstring.
        tolerance: share of `|t - b_dec|` below which a gradient along a unit direction counts as none.
        rounds: see `refinement_solver`.
    """
    values = latents.values.to(torch.float64, copy=True)
    wanted = target.double() - sae.decoder_bias.double()
    lengths = torch.ones_like(values)
    is_solved = torch.ones(latents.token_count, dtype=torch.bool, device=values.device)
    is_signed = can_be_negative(sae.activation, latent_count=sae.latent_count, like=sae.encoder_bias)
    for block in _blocks(latents, sae.d_out):
        rows = _directions(sae, latents.indices[block.places])
        rows = torch.where(block.is_filled.unsqueeze(2), rows, 0.0)
        size = torch.linalg.vector_norm(rows, dim=2)
        counts = size > 0  # a direction of no length fits nothing, whatever its value
        unit = rows / torch.where(counts, size, 1.0).unsqueeze(2)
        goal = wanted[block.tokens]
        problems = Problems.of(unit, goal, is_signed=is_signed)
        begun = torch.where(counts, values[block.places] * size, 0.0)
        least = tolerance * torch.linalg.vector_norm(goal, dim=1)
        found = solve(problems, begun, least, rounds=rounds)
        moved = counts & found.has_moved.unsqueeze(1)
        values[block.places[moved]] = (found.values / torch.where(counts, size, 1.0))[moved]
        lengths[block.places[block.is_filled]] = size[block.is_filled]
        is_solved[block.tokens] = found.is_solved
    refined = replace(latents, values=values.to(latents.values))
    return Refined(refined, lengths.to(latents.values), is_solved)


def _blocks(latents: SparseLatents, width: int) -> Iterator[_Block]:
    """Tokens on which something fires, by the size of their supports."""
    sizes, order = torch.sort(latents.active_count_per_token(), stable=True)
    on_cpu = latents.values.device.type == "cpu"
    room = _BLOCK_BYTES if on_cpu else _ACCELERATOR_BLOCK_BYTES
    counts, first = sizes.tolist(), int((sizes == 0).sum())
    while first < len(counts):
        last, smallest = first + 1, counts[first]
        while last < len(counts) and counts[last] <= _SPREAD * smallest:
            size = counts[last]
            if (last + 1 - first) * 8 * size * (2 * width + min(size, width)) > room:
                break
            last += 1
        tokens = order[first:last]
        slots = torch.arange(counts[last - 1], device=order.device)
        is_filled = slots < sizes[first:last].unsqueeze(1)
        places = torch.where(is_filled, latents.offsets[tokens].unsqueeze(1) + slots, 0)
        yield _Block(tokens, places, is_filled)
        first = last


def _directions(
    sae: SparseAutoencoder, indices: Int[Tensor, "token slot"]
) -> Float[Tensor, "token slot d_out"]:
    """`W_dec[j] / s_j` in float64, wherever and in whatever precision the matrix lies."""
    needed, places = torch.unique(indices, return_inverse=True)
    rows = sae.decoder_weight[needed.to(sae.decoder_weight.device)].to(sae.device, torch.float64)
    if sae.latent_scale is not None:
        rows = rows / sae.latent_scale[needed].double().unsqueeze(1)
    return rows[places]


def refined_reconstruction(
    sae: SparseAutoencoder,
    x: Float[Tensor, "token d_model"],
    y: Float[Tensor, "token d_out"],
    *,
    tolerance: float = 1e-6,
    rounds: int = 50,
) -> RefinedReconstruction:
    """What a dictionary answers in the space of the site, before and after refinement.

    Args:
        sae: the dictionary.
        x: what it reads.
        y: what it answers to: x itself, or a transcoder's output site.
        tolerance: as of `refine`.
        rounds: as of `refine`.
    """
    latents = sae.encode_sparse(x)
    _, statistics = sae.normalization.apply(x.to(sae.encoder_bias))
    skipped = None if sae.skip_weight is None else sae.skipped(x)
    target, has_target = _in_own_space(y, statistics, skipped)
    refined = refine(sae, latents, target, tolerance=tolerance, rounds=rounds)
    kept = has_target[latents.token_indices()]
    values = torch.where(kept, refined.latents.values, latents.values)
    refined = replace(refined, latents=replace(refined.latents, values=values))
    before, after = (sae.decode_sparse(each, statistics) for each in (latents, refined.latents))
    if skipped is not None:
        before, after = before + skipped, after + skipped
    return RefinedReconstruction(before, after, latents, refined)


def _in_own_space(
    y: Float[Tensor, "token d_out"],
    statistics: Statistics,
    skipped: Float[Tensor, "token d_out"] | None,
) -> tuple[Float[Tensor, "token d_out"], Bool[Tensor, " token"]]:
    """What undoing the normalisation would make y of, and where there is such a thing.

    A token that was scaled to nothing (all its components equal) is answered with its mean whatever the
    values are: these stay as they were.
    """
    y = y.double() if skipped is None else y.double() - skipped.double()
    std = statistics.std.double()
    has_target = (std > 0).squeeze(1)
    shifted = (y - statistics.mean.double()) / torch.where(std > 0, std, 1.0)
    return torch.where(has_target.unsqueeze(1), shifted, 0.0), has_target
