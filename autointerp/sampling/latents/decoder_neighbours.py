"""A dictionary -> for chosen latents the others whose decoder directions point most nearly the same way."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.sampling.latents.ranking import Largest, largest_of

__all__ = ["DECODER_NEIGHBOURS_SCHEMA", "decoder_directions", "nearest_latents"]

DECODER_NEIGHBOURS_SCHEMA = {
    "latent": pl.UInt32,
    "rank": pl.UInt32,  # from 0
    "other": pl.UInt32,
    "value": pl.Float64,  # cosine, in [-1, 1]
}

_BLOCK_BYTES = 64 * 2**20


def decoder_directions(sae: SparseAutoencoder, latents: Sequence[int]) -> Float[Tensor, "chosen d_out"]:
    """What a unit of activation of each latent adds to the reconstruction: its decoder's row over its scale.

    In float32 where the dictionary computes, and in its own (normalised) space. For a transcoder that is the
    space of the site it predicts. Memory: the result.

    Raises:
        ValueError: there is no such latent.
    """
    chosen = _checked(sae, latents)
    rows = sae.decoder_weight[chosen.to(sae.decoder_weight.device)].detach().to(sae.device, torch.float32)
    return rows if sae.latent_scale is None else rows / sae.latent_scale[chosen.to(sae.device), None].float()


@torch.no_grad()
def nearest_latents(
    sae: SparseAutoencoder, latents: Sequence[int], *, count: int = 10, block_bytes: int = _BLOCK_BYTES
) -> pl.DataFrame:
    """The latents with the largest cosine between their decoder's direction and each chosen one's.

        cos(i, j) = <W_dec[i], W_dec[j]> / (|W_dec[i]| |W_dec[j]|),  in [-1, 1]

    All pairs are looked at, none is approximated; the latent itself is left out. Scales of latents make no
    difference. A direction that is zero, or not finite, has no neighbours and is nobody's neighbour. For a
    transcoder these are the directions that it writes, at the site it predicts, not those that it reads.

    Sums are in float64 and rounded to float32, so that equal directions tie wherever they lie in a block
    (sums in float32 come out differently at a block's edge); ties go to the lowest index.

    Cost: 2 chosen x latents x d_out flops in float64; a decoder in a file is read once from end to end, and
    the chosen rows once more. Memory: chosen x d_out in float64, and about four arrays of `block_bytes`.

    Args:
        sae: the dictionary.
        latents: the chosen ones.
        count: how many neighbours of each; there are fewer where the dictionary has no more.
        block_bytes: of a block of the decoder in float64, and of a block of cosines.

    Returns:
        By chosen latent, in the order given, and rank: DECODER_NEIGHBOURS_SCHEMA.

    Raises:
        ValueError: there is no such latent, or `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}, it must be at least 1")
    chosen = _checked(sae, latents)
    directions = _unit_rows(sae, chosen)
    rows = min(sae.latent_count, max(1, block_bytes // (8 * sae.d_out)))
    latents_at_a_time = max(1, block_bytes // (8 * rows))
    best: list[Largest | None] = [None] * -(-len(chosen) // latents_at_a_time)
    for first in range(0, sae.latent_count, rows):
        others = torch.arange(first, min(first + rows, sae.latent_count))
        block = _unit_rows(sae, slice(first, first + rows)).T
        for index in range(len(best)):
            part = slice(index * latents_at_a_time, (index + 1) * latents_at_a_time)
            new = _cosines(directions[part] @ block, chosen[part], others)
            best[index] = _merged(best[index], largest_of(new, count), first, count)
    return _frame(chosen, [part for part in best if part is not None])


def _checked(sae: SparseAutoencoder, latents: Sequence[int]) -> Int[Tensor, " chosen"]:
    chosen = torch.tensor(list(latents), dtype=torch.long)
    outside = chosen[(chosen < 0) | (chosen >= sae.latent_count)]
    if outside.numel():
        raise ValueError(f"there is no latent {int(outside[0])} among {sae.latent_count}")
    return chosen


def _unit_rows(sae: SparseAutoencoder, rows: Int[Tensor, " row"] | slice) -> Float[Tensor, "row d_out"]:
    """The decoder's rows over their lengths, in float64; NaN where there is no direction."""
    # Apple's GPUs have no float64.
    device = torch.device("cpu") if sae.device.type == "mps" else sae.device
    at = rows if isinstance(rows, slice) else rows.to(sae.decoder_weight.device)
    found = sae.decoder_weight[at].detach().to(device, torch.float64)
    return found / found.norm(dim=1, keepdim=True)


def _cosines(
    products: Float[Tensor, "chosen other"], chosen: Int[Tensor, " chosen"], others: Int[Tensor, " other"]
) -> Float[Tensor, "chosen other"]:
    """In float32; -inf where there is no cosine, and of a latent with itself."""
    cosines = products.to(torch.float32)
    is_itself = (chosen[:, None] == others).to(cosines.device)
    return cosines.masked_fill_(is_itself | cosines.isnan(), -torch.inf)


def _merged(before: Largest | None, new: Largest, first: int, count: int) -> Largest:
    """The best of both; `new` has columns of a block that begins at `first`, and comes after `before`."""
    new = Largest(new.values, new.columns + first)
    if before is None:
        return new
    values, columns = (torch.cat(parts, dim=1) for parts in zip(before, new, strict=True))
    # Among equals the earlier places hold the lower indices, in either part and so in both.
    kept = largest_of(values, count)
    return Largest(kept.values, columns.gather(1, kept.columns))


def _frame(chosen: Int[Tensor, " chosen"], parts: Sequence[Largest]) -> pl.DataFrame:
    if not parts:
        return pl.DataFrame(schema=DECODER_NEIGHBOURS_SCHEMA)
    values, others = (torch.cat(arrays).cpu().numpy() for arrays in zip(*parts, strict=True))
    is_there = np.isfinite(values).ravel()
    columns = {
        "latent": np.broadcast_to(chosen.numpy()[:, None], values.shape),
        "rank": np.broadcast_to(np.arange(values.shape[1]), values.shape),
        "other": others,
        "value": values,
    }
    frame = pl.DataFrame({name: column.ravel()[is_there] for name, column in columns.items()})
    return frame.cast(DECODER_NEIGHBOURS_SCHEMA)  # type: ignore[arg-type]
